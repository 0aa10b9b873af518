//! The simple fills every model is judged beside (`evaluation.md` §10): a closed set, each sees the visible values only.
//!
//! To add one: a file here, a variant, an arm in `name` and in `fill`.

mod means;
mod median_completion;
mod ridge_local;
mod rings;
mod soft_impute;
mod stlearn_sme;

use syncytia_shards::processed::Matrix;

use stlearn_sme::Itself;

pub use ridge_local::{Fit, RidgeLocal};

use super::block::{Block, Seen};

/// A simple fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Baseline {
    /// Mean of all visible values.
    GlobalMean,
    /// Mean of a gene's visible values.
    GeneMean,
    /// Median of a gene's visible values.
    GeneMedian,
    /// The adaptive median filter (`spared.md` §4).
    MedianCompletion,
    /// Mean over the spots one hop away.
    Ring1Mean,
    /// Mean over the spots up to three hops away.
    Ring3Mean,
    /// Ridge per gene from own values and ring means, fitted on the training sections.
    RidgeLocal,
    /// Soft-thresholded SVD of the section's visible values.
    SoftImpute,
    /// stLearn's mean over the nearest spots that are alike, the spot itself among them.
    StlearnSme,
    /// The same without the spot itself.
    StlearnSmeOthers,
}

impl Baseline {
    /// All, in the order of the report.
    pub const ALL: [Baseline; 10] = [
        Baseline::GlobalMean,
        Baseline::GeneMean,
        Baseline::GeneMedian,
        Baseline::MedianCompletion,
        Baseline::Ring1Mean,
        Baseline::Ring3Mean,
        Baseline::RidgeLocal,
        Baseline::SoftImpute,
        Baseline::StlearnSme,
        Baseline::StlearnSmeOthers,
    ];

    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            Baseline::GlobalMean => "global_mean",
            Baseline::GeneMean => "gene_mean",
            Baseline::GeneMedian => "gene_median",
            Baseline::MedianCompletion => "median_completion",
            Baseline::Ring1Mean => "ring1_mean",
            Baseline::Ring3Mean => "ring3_mean",
            Baseline::RidgeLocal => "ridge_local",
            Baseline::SoftImpute => "soft_impute",
            Baseline::StlearnSme => "stlearn_sme",
            Baseline::StlearnSmeOthers => "stlearn_sme_others",
        }
    }

    /// Predictions for every entry, `[n, G]`; `ridge` is fitted on the training blocks.
    pub fn fill(self, block: &Block, seen: &Seen, ridge: &RidgeLocal) -> Matrix<f32> {
        match self {
            Baseline::GlobalMean => means::global_mean(seen),
            Baseline::GeneMean => means::per_gene(seen, means::mean),
            Baseline::GeneMedian => means::per_gene(seen, means::median),
            Baseline::MedianCompletion => median_completion::fill(block, seen),
            Baseline::Ring1Mean => rings::ring_mean(block, seen, 1),
            Baseline::Ring3Mean => rings::ring_mean(block, seen, 3),
            Baseline::RidgeLocal => ridge.fill(block, seen),
            Baseline::SoftImpute => soft_impute::fill(block, seen),
            Baseline::StlearnSme => stlearn_sme::fill(block, seen, Itself::Kept),
            Baseline::StlearnSmeOthers => stlearn_sme::fill(block, seen, Itself::Left),
        }
    }
}
