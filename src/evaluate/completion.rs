//! The completion protocols: ten assays, each hides, fills and scores; the model beside every simple fill.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use syncytia_shards::processed::Matrix;

use super::baselines::{Baseline, Fit, RidgeLocal};
use super::block::{Block, Pipeline, Seen};
use super::metrics::{self, Figure, Metrics};

/// When hiding happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// After normalising and completing, as published: visible values carry traces of hidden ones.
    Paper,
    /// In the raw counts, before everything.
    Strict,
}

impl Protocol {
    /// Both, in the order of the report.
    pub const ALL: [Protocol; 2] = [Protocol::Paper, Protocol::Strict];

    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Paper => "paper",
            Protocol::Strict => "strict",
        }
    }
}

/// Assays of the report; validation is assay 0.
pub const ASSAYS: std::ops::RangeInclusive<u32> = 1..=10;
/// Assay whose mask the ridge is fitted with, on the training sections.
const FIT_ASSAY: u32 = 11;

/// One method under one protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Each assay's metrics.
    pub assays: Vec<Metrics>,
}

impl Scores {
    /// Mean over assays: value, and the mean numbers used and skipped.
    pub fn mean(&self) -> BTreeMap<&'static str, Figure> {
        let n = self.assays.len().max(1) as f64;
        let mut sums: BTreeMap<&'static str, (f64, u64, u64)> = BTreeMap::new();
        for assay in &self.assays {
            for (name, figure) in assay.named() {
                let sum = sums.entry(name).or_default();
                sum.0 += figure.value;
                sum.1 += figure.n_used;
                sum.2 += figure.n_skipped;
            }
        }
        let rounded = |total: u64| (total as f64 / n).round() as u64;
        let mean =
            |(value, used, skipped)| Figure { value: value / n, n_used: rounded(used), n_skipped: rounded(skipped) };
        sums.into_iter().map(|(name, sum)| (name, mean(sum))).collect()
    }

    /// Mean over assays of the MSE.
    pub fn mse(&self) -> f64 {
        self.assays.iter().map(|a| a.mse.value).sum::<f64>() / self.assays.len().max(1) as f64
    }

    /// Standard deviation of the MSE over assays.
    pub fn mse_sd(&self) -> f64 {
        let n = self.assays.len() as f64;
        let mean = self.mse();
        let squares: f64 = self.assays.iter().map(|a| (a.mse.value - mean).powi(2)).sum();
        (squares / (n - 1.0).max(1.0)).sqrt()
    }
}

/// Everything one protocol gave.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The model.
    pub model: Scores,
    /// The simple fills.
    pub baselines: BTreeMap<&'static str, Scores>,
    /// Pearson's r of the model per gene, mean over assays; `None` where no assay scored the gene.
    pub pcc_per_gene: Vec<Option<f64>>,
    /// The first assay, kept for maps and scatter, per block.
    pub first_assay: Vec<Shown>,
}

/// One block in one assay.
#[derive(Debug, Clone)]
pub struct Shown {
    /// What was hidden.
    pub hidden: Matrix<bool>,
    /// What the model said.
    pub predicted: Matrix<f32>,
}

/// What the protocols run on.
pub struct Setting<'a> {
    /// Evaluated blocks.
    pub blocks: &'a [Block],
    /// Training blocks, for the ridge.
    pub train: &'a [Block],
    /// How counts became layers.
    pub pipeline: &'a Pipeline,
    /// Which assays: [`ASSAYS`] for a report.
    pub assays: std::ops::RangeInclusive<u32>,
    /// The draw: (assay, record id, out).
    pub mask: &'a (dyn Fn(u32, u64, &mut [bool]) + Sync),
    /// The model: predictions for a block from what is visible.
    pub model: &'a dyn Fn(&Block, &Seen) -> Matrix<f32>,
}

/// Runs the ten assays under `protocol`.
pub fn run(setting: &Setting<'_>, protocol: Protocol) -> Outcome {
    let seen_of = |block: &Block, hidden: &Matrix<bool>| match protocol {
        Protocol::Paper => block.seen_as_in_the_paper(hidden),
        Protocol::Strict => block.seen_strictly(hidden, setting.pipeline),
    };
    let hide = |block: &Block, assay: u32| block.hidden(&|id, out: &mut [bool]| (setting.mask)(assay, id, out));
    let ridge = fit(setting, &hide, &seen_of);
    let mut outcome = Outcome {
        model: Scores { assays: Vec::new() },
        baselines: BTreeMap::new(),
        pcc_per_gene: Vec::new(),
        first_assay: Vec::new(),
    };
    let truth = stack(setting.blocks.iter().map(|b| &b.target));
    let mut per_gene: Vec<Vec<f64>> = vec![Vec::new(); truth.n_cols];
    for assay in setting.assays.clone() {
        let hidden: Vec<Matrix<bool>> = setting.blocks.iter().map(|b| hide(b, assay)).collect();
        let seen: Vec<Seen> = setting.blocks.iter().zip(&hidden).map(|(b, h)| seen_of(b, h)).collect();
        let scored = stack(hidden.iter());
        let predicted: Vec<Matrix<f32>> =
            setting.blocks.iter().zip(&seen).map(|(b, s)| (setting.model)(b, s)).collect();
        let stacked = stack(predicted.iter());
        outcome.model.assays.push(metrics::score(&truth, &stacked, &scored));
        for (values, r) in per_gene.iter_mut().zip(metrics::pearson_per_gene(&truth, &stacked, &scored)) {
            values.extend(r);
        }
        let fills = |baseline: Baseline| {
            let parts: Vec<Matrix<f32>> =
                setting.blocks.iter().zip(&seen).map(|(b, s)| baseline.fill(b, s, &ridge)).collect();
            (baseline.name(), metrics::score(&truth, &stack(parts.iter()), &scored))
        };
        let scores: Vec<_> = Baseline::ALL.par_iter().map(|&baseline| fills(baseline)).collect();
        for (name, metrics) in scores {
            outcome.baselines.entry(name).or_insert_with(|| Scores { assays: Vec::new() }).assays.push(metrics);
        }
        if assay == *setting.assays.start() {
            let shown = |(hidden, predicted)| Shown { hidden, predicted };
            outcome.first_assay = hidden.into_iter().zip(predicted).map(shown).collect();
        }
    }
    let mean = |v: Vec<f64>| (!v.is_empty()).then(|| v.iter().sum::<f64>() / v.len() as f64);
    outcome.pcc_per_gene = per_gene.into_iter().map(mean).collect();
    outcome
}

fn fit(
    setting: &Setting<'_>,
    hide: &dyn Fn(&Block, u32) -> Matrix<bool>,
    seen_of: &dyn Fn(&Block, &Matrix<bool>) -> Seen,
) -> RidgeLocal {
    let hidden: Vec<Matrix<bool>> = setting.train.iter().map(|b| hide(b, FIT_ASSAY)).collect();
    let seen: Vec<Seen> = setting.train.iter().zip(&hidden).map(|(b, h)| seen_of(b, h)).collect();
    let fits: Vec<Fit<'_>> = setting
        .train
        .iter()
        .zip(seen.iter().zip(&hidden))
        .map(|(block, (seen, hidden))| Fit { block, seen, hidden })
        .collect();
    RidgeLocal::fit(&fits)
}

/// Blocks under one another.
fn stack<'a, T: Clone + 'a>(parts: impl Iterator<Item = &'a Matrix<T>>) -> Matrix<T> {
    let mut out = Matrix { n_cols: 0, values: Vec::new() };
    for part in parts {
        out.n_cols = part.n_cols;
        out.values.extend_from_slice(&part.values);
    }
    out
}
