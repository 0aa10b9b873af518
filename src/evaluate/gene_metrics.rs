//! How well whole genes were imputed, gene by gene over spots (`evaluation.md` §2), as SpatialBenchmarking and stDiff define it:
//! PCC, SPCC, SSIM, RMSE, JS, COSSIM.
//!
//! On all spots (unseen genes) or on a gene's hidden entries alone (random entries). What is undefined has a value of ours
//! and a flag, or the releases' number in parity; it is never a silent NaN.

mod definitions;

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use syncytia_shards::processed::Matrix;

use self::definitions::{cosine, ssim};
pub use self::definitions::{js, pearson, spearman, z_scored_rmse};

/// Fewer scored entries than this tell nothing of a gene.
pub const FEWEST: usize = 3;

/// A metric of a gene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Pearson's r.
    Pcc,
    /// Spearman's, average ranks.
    Spcc,
    /// Structural similarity of two columns divided by their maxima: one window, population moments.
    Ssim,
    /// Root mean square difference of two z-scored columns.
    Rmse,
    /// Jensen–Shannon divergence of two columns divided by their sums; nats.
    Js,
    /// Cosine of two columns as they are.
    Cossim,
}

impl Metric {
    /// In the order of the report.
    pub const ALL: [Metric; 6] = [Metric::Pcc, Metric::Spcc, Metric::Ssim, Metric::Rmse, Metric::Js, Metric::Cossim];

    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Pcc => "pcc",
            Metric::Spcc => "spcc",
            Metric::Ssim => "ssim",
            Metric::Rmse => "rmse",
            Metric::Js => "js",
            Metric::Cossim => "cossim",
        }
    }

    /// Whether high values are good.
    pub fn higher_is_better(self) -> bool {
        !matches!(self, Metric::Rmse | Metric::Js)
    }
}

/// Why a value is not what the definition gives, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The true column is constant, or nowhere above zero where a metric divides by it.
    FlatTruth,
    /// The imputed column is.
    FlatImputed,
    /// The method gives no value for the gene: stDiff's numbers for a missing gene.
    Missing,
    /// Fewer than three entries are scored: the gene is left out.
    TooFew,
}

/// Which entries are scored.
#[derive(Debug, Clone, Copy)]
pub enum Entries<'a> {
    /// Every spot: the gene was hidden everywhere.
    All,
    /// Where this holds, `[n, G]`.
    Hidden(&'a Matrix<bool>),
}

impl Entries<'_> {
    fn scored(&self, at: usize) -> bool {
        match self {
            Entries::All => true,
            Entries::Hidden(hidden) => hidden.values[at],
        }
    }
}

/// What an undefined metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undefined {
    /// The worst that is no exaggeration: 0, for RMSE 1 and for JS ln 2. Negative values count as 0 in SSIM and JS.
    Ours,
    /// What the releases compute: NaN, 1e-20 in place of 0/0, no clipping.
    Parity,
}

/// One gene's metrics, in the order of [`Metric::ALL`].
#[derive(Debug, Clone, PartialEq)]
pub struct GeneScore {
    /// Values; NaN in parity alone.
    pub values: [f64; 6],
    /// Why a value is a substitute.
    pub reasons: [Option<Reason>; 6],
    /// Scored entries.
    pub n_entries: u64,
}

/// A metric over genes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverGenes {
    /// Mean; 0 of no gene.
    pub mean: f64,
    /// Median, the mean of the two middle values where even.
    pub median: f64,
    /// Standard deviation over genes (sample).
    pub sd: f64,
    /// Genes averaged.
    pub n_used: u64,
    /// Genes left out.
    pub n_skipped: u64,
    /// Genes by what was odd about them: left out, or averaged with a substitute.
    pub reasons: BTreeMap<Reason, u64>,
}

/// Scores `imputed` against `truth`, `[n, G]` both in one space; none where a gene has fewer than three scored entries.
/// An entry whose truth is not finite was not measured and is not scored; a gene of which the method says nothing there (a
/// value that is not finite) is [`Reason::Missing`].
///
/// # Panics
/// If the shapes differ.
pub fn per_gene(
    truth: &Matrix<f32>,
    imputed: &Matrix<f32>,
    entries: Entries<'_>,
    undefined: Undefined,
) -> Vec<Option<GeneScore>> {
    let genes = truth.n_cols;
    assert_eq!((imputed.values.len(), imputed.n_cols), (truth.values.len(), genes), "one shape");
    let one = |gene: usize| {
        let (a, b) = column(truth, imputed, entries, gene);
        (a.len() >= FEWEST).then(|| score(&a, &b, undefined))
    };
    (0..genes).into_par_iter().map(one).collect()
}

/// The scored entries of a gene, true and imputed; what was not measured (is not finite) is not among them.
pub fn column(truth: &Matrix<f32>, imputed: &Matrix<f32>, entries: Entries<'_>, gene: usize) -> (Vec<f64>, Vec<f64>) {
    let scored = |&at: &usize| entries.scored(at) && truth.values[at].is_finite();
    let pair = |at: usize| (f64::from(truth.values[at]), f64::from(imputed.values[at]));
    (gene..truth.values.len()).step_by(truth.n_cols).filter(scored).map(pair).unzip()
}

/// All metrics of one column.
fn score(a: &[f64], b: &[f64], undefined: Undefined) -> GeneScore {
    if b.iter().any(|v| !v.is_finite()) {
        let values = [0.0, 0.0, 0.0, 1.5, 1.0, 0.0];
        return GeneScore { values, reasons: [Some(Reason::Missing); 6], n_entries: a.len() as u64 };
    }
    let found =
        [pearson(a, b), spearman(a, b), ssim(a, b, undefined), z_scored_rmse(a, b), js(a, b, undefined), cosine(a, b)];
    let mut score = GeneScore { values: [0.0; 6], reasons: [None; 6], n_entries: a.len() as u64 };
    for (at, (found, metric)) in found.into_iter().zip(Metric::ALL).enumerate() {
        (score.values[at], score.reasons[at]) = match found {
            Ok(value) => (value, None),
            Err(odd) => {
                (if undefined == Undefined::Parity { odd.parity } else { substitute(metric) }, Some(odd.reason))
            }
        };
    }
    score
}

/// Ours of what is undefined.
fn substitute(metric: Metric) -> f64 {
    match metric {
        Metric::Pcc | Metric::Spcc | Metric::Ssim | Metric::Cossim => 0.0,
        Metric::Rmse => 1.0,
        Metric::Js => std::f64::consts::LN_2,
    }
}

/// A metric over genes; a value that is no number (parity) is left out and counted by its reason.
pub fn over_genes(scores: &[Option<GeneScore>], metric: Metric) -> OverGenes {
    let at = Metric::ALL.iter().position(|m| *m == metric).expect("all metrics are listed");
    let mut reasons: BTreeMap<Reason, u64> = BTreeMap::new();
    let mut values = Vec::with_capacity(scores.len());
    for score in scores {
        let (value, reason) =
            score.as_ref().map_or((f64::NAN, Some(Reason::TooFew)), |s| (s.values[at], s.reasons[at]));
        reason.into_iter().for_each(|reason| *reasons.entry(reason).or_default() += 1);
        values.extend((!value.is_nan()).then_some(value));
    }
    let (mean, sd) = super::embedding::spread(values.iter().copied());
    OverGenes {
        mean,
        median: super::quantile::quantile(&mut values.clone(), 0.5),
        sd,
        n_used: values.len() as u64,
        n_skipped: (scores.len() - values.len()) as u64,
        reasons,
    }
}

/// All hidden entries as one vector, which is another metric than the mean over genes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flat {
    /// Pearson's r; 0 where either is constant.
    pub pcc: f64,
    /// Mean squared error.
    pub mse: f64,
    /// Entries.
    pub n: u64,
}

/// See [`Flat`]. Entries that are not finite on either side are left out.
pub fn flat(truth: &Matrix<f32>, imputed: &Matrix<f32>, entries: Entries<'_>) -> Flat {
    let scored = |&at: &usize| entries.scored(at) && truth.values[at].is_finite() && imputed.values[at].is_finite();
    let pair = |at: usize| (f64::from(truth.values[at]), f64::from(imputed.values[at]));
    let (a, b): (Vec<f64>, Vec<f64>) = (0..truth.values.len()).filter(scored).map(pair).unzip();
    let squares: f64 = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum();
    Flat { pcc: pearson(&a, &b).unwrap_or(0.0), mse: squares / a.len().max(1) as f64, n: a.len() as u64 }
}

#[cfg(test)]
mod tests;
