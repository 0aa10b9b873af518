//! How much may be hidden: the same model and fills where 10 to 80 % of the measured values are (`spackle.md` §4; the paper's
//! Figure 4). Rule `uniform`, protocol `paper`; the ridge is fitted anew at every fraction, the model is the one it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::completion::{self, Protocol, Scores, Setting};

/// Fractions of the measured values.
pub const FRACTIONS: [f64; 8] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8];
/// Assays of a fraction.
pub const ASSAYS: std::ops::RangeInclusive<u32> = 1..=3;

/// One method at one fraction, means over assays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Fraction hidden of the measured values.
    pub hidden: f64,
    /// Model or fill.
    pub method: String,
    /// Mean squared error over hidden entries.
    pub mse: f64,
    /// Pearson's r per gene, mean.
    pub pcc_gene: f64,
}

/// Runs every fraction; `mask_at` gives the draw of a fraction: (assay, record id, out).
pub fn run<'m>(
    setting: &Setting<'_>,
    model_name: &str,
    mask_at: impl Fn(f64) -> Box<dyn Fn(u32, u64, &mut [bool]) + Sync + 'm>,
) -> Vec<Point> {
    let mut points = Vec::new();
    for hidden in FRACTIONS {
        let mask = mask_at(hidden);
        let outcome = completion::run(&Setting { mask: &mask, assays: ASSAYS, ..*setting }, Protocol::Paper);
        let mut point = |method: &str, scores: &Scores| {
            let mean: BTreeMap<_, _> = scores.mean();
            let value = |metric: &str| mean[metric].value;
            points.push(Point { hidden, method: method.to_owned(), mse: value("mse"), pcc_gene: value("pcc_gene") });
        };
        point(model_name, &outcome.model);
        outcome.baselines.iter().for_each(|(name, scores)| point(name, scores));
    }
    points
}
