//! Simple ways to genes that no spot was measured for, learnt from cells where all were (`evaluation.md` §10, gene folds): a
//! closed set. Each sees the visible genes of the spots, and all genes of the cells.
//!
//! To add one: a file here, a variant, an arm in `name`, `what` and `fills`.

mod alike;
mod knn;
mod mlp;
mod product;
mod ridge;
mod spage;
mod tangram;

use std::collections::BTreeMap;

use rayon::prelude::*;
use syncytia_shards::processed::Matrix;

use super::nearest::{nearest, places};
use super::standard::Scale;

/// What a fill may see. Expression is in logarithms or otherwise even; each side is standardised by itself.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// `[n, V]`: the spots' visible genes.
    pub spots: &'a Matrix<f32>,
    /// Where they are.
    pub xyz: &'a [[f32; 3]],
    /// `[c, V]`: the same genes of the cells.
    pub cells: &'a Matrix<f32>,
    /// `[c, H]`: the cells' other genes: those to be found in the spots.
    pub unseen: &'a Matrix<f32>,
}

/// A simple fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReferenceFill {
    /// Mean of the cells.
    GeneMean,
    /// Weighted mean of the 50 cells that correlate best.
    Knn,
    /// Ridge from visible to other genes, fitted on cells.
    Ridge,
    /// A masked perceptron fitted on cells.
    Mlp,
    /// Mean of the three above, standardised.
    Blend,
    /// The same, averaged over a spot and its 5 nearest.
    BlendSmooth,
    /// The 50 nearest cells along aligned principal vectors, after SpaGE.
    Spage,
    /// A soft map of cells to spots, after Tangram.
    Tangram,
}

impl ReferenceFill {
    /// All, in the order of the report.
    pub const ALL: [ReferenceFill; 8] = [
        ReferenceFill::GeneMean,
        ReferenceFill::Knn,
        ReferenceFill::Ridge,
        ReferenceFill::Mlp,
        ReferenceFill::Blend,
        ReferenceFill::BlendSmooth,
        ReferenceFill::Spage,
        ReferenceFill::Tangram,
    ];

    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            ReferenceFill::GeneMean => "gene_mean",
            ReferenceFill::Knn => "knn_reference",
            ReferenceFill::Ridge => "ridge_reference",
            ReferenceFill::Mlp => "reference_mlp",
            ReferenceFill::Blend => "reference_blend",
            ReferenceFill::BlendSmooth => "reference_blend_smooth",
            ReferenceFill::Spage => "spage",
            ReferenceFill::Tangram => "tangram",
        }
    }

    /// In words.
    pub fn what(self) -> &'static str {
        match self {
            ReferenceFill::GeneMean => "the cells' mean, the same in every spot",
            ReferenceFill::Knn => "mean of the 50 cells that correlate best over visible genes",
            ReferenceFill::Ridge => "ridge from visible to hidden genes, fitted on cells",
            ReferenceFill::Mlp => "perceptron of 2 × 256 fitted on cells with genes hidden at random, mean of 3 seeds",
            ReferenceFill::Blend => "mean of k-NN, ridge and perceptron, standardised",
            ReferenceFill::BlendSmooth => "that mean over a spot and its 5 nearest",
            ReferenceFill::Spage => "the 50 nearest cells along aligned principal vectors (after SpaGE, our own words)",
            ReferenceFill::Tangram => "soft map of cells to spots (after Tangram, our own words)",
        }
    }
}

/// What the fitted fills spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Steps of a perceptron.
    pub mlp_steps: u64,
    /// Perceptrons whose mean is taken.
    pub mlp_seeds: u64,
    /// Steps of Tangram's map.
    pub tangram_steps: u64,
}

/// As defined: 1,500 steps of three perceptrons, 1,000 of Tangram.
pub const EFFORT: Effort = Effort { mlp_steps: 1500, mlp_seeds: 3, tangram_steps: 1000 };

/// Spots over which the smooth blend is averaged beside the spot itself.
const SMOOTH: usize = 5;

/// The fills named, `[n, H]` each in the cells' own unit (Tangram's: the sum of the cells in a spot); what several need is made
/// once. Draws are keyed by the number of the perceptron alone.
///
/// # Panics
/// If there are no cells, or the sides have different genes.
pub fn fills(given: &Given, which: &[ReferenceFill], effort: &Effort) -> BTreeMap<ReferenceFill, Matrix<f32>> {
    assert_eq!(given.spots.n_cols, given.cells.n_cols, "spots and cells have the same visible genes");
    assert!(given.cells.n_rows() > 0 && given.cells.n_rows() == given.unseen.n_rows(), "every cell has all genes");
    let standard = Standard::of(given);
    let asked = |fills: &[ReferenceFill]| fills.iter().any(|fill| which.contains(fill));
    let blends = [ReferenceFill::Blend, ReferenceFill::BlendSmooth];
    let mut found: BTreeMap<ReferenceFill, Matrix<f32>> = BTreeMap::new(); // standardised
    let singles: [(ReferenceFill, &(dyn Fn() -> Matrix<f32> + Sync)); 5] = [
        (ReferenceFill::GeneMean, &|| zeros(given.spots.n_rows(), given.unseen.n_cols)),
        (ReferenceFill::Knn, &|| knn::fill(&standard)),
        (ReferenceFill::Ridge, &|| ridge::fill(&standard)),
        (ReferenceFill::Mlp, &|| mlp::fill(&standard, effort.mlp_steps, effort.mlp_seeds)),
        (ReferenceFill::Spage, &|| spage::fill(&standard)),
    ];
    for (fill, make) in singles {
        let in_blend = matches!(fill, ReferenceFill::Knn | ReferenceFill::Ridge | ReferenceFill::Mlp);
        if asked(&[fill]) || (in_blend && asked(&blends)) {
            found.insert(fill, make());
        }
    }
    if asked(&blends) {
        let blend = mean(&[&found[&ReferenceFill::Knn], &found[&ReferenceFill::Ridge], &found[&ReferenceFill::Mlp]]);
        found.insert(ReferenceFill::BlendSmooth, smooth(&blend, given.xyz));
        found.insert(ReferenceFill::Blend, blend);
    }
    found.values_mut().for_each(|fill| *fill = standard.of_unseen.back(fill));
    if asked(&[ReferenceFill::Tangram]) {
        found.insert(ReferenceFill::Tangram, tangram::fill(given, effort.tangram_steps));
    }
    found.retain(|fill, _| which.contains(fill));
    found
}

/// Both sides, each gene at mean 0 and deviation 1 over its own side.
struct Standard {
    /// `[n, V]`.
    spots: Matrix<f32>,
    /// `[c, V]`.
    cells: Matrix<f32>,
    /// `[c, H]`.
    unseen: Matrix<f32>,
    of_unseen: Scale,
}

impl Standard {
    fn of(given: &Given) -> Standard {
        let own = |rows: &Matrix<f32>| Scale::of(rows).apply(rows);
        let of_unseen = Scale::of(given.unseen);
        Standard { spots: own(given.spots), cells: own(given.cells), unseen: of_unseen.apply(given.unseen), of_unseen }
    }
}

fn zeros(n: usize, n_cols: usize) -> Matrix<f32> {
    Matrix { n_cols, values: vec![0.0; n * n_cols] }
}

/// The mean of several of one shape.
pub fn mean(of: &[&Matrix<f32>]) -> Matrix<f32> {
    let at = |i: usize| of.iter().map(|matrix| matrix.values[i]).sum::<f32>() / of.len() as f32;
    Matrix { n_cols: of[0].n_cols, values: (0..of[0].values.len()).map(at).collect() }
}

/// Each row the mean of its own and those of the 5 nearest spots.
pub fn smooth(rows: &Matrix<f32>, xyz: &[[f32; 3]]) -> Matrix<f32> {
    let around = nearest(&places(xyz), SMOOTH);
    let of = |i: usize| {
        let mut sums: Vec<f64> = rows.row(i).iter().map(|&v| f64::from(v)).collect();
        for &other in &around[i] {
            sums.iter_mut().zip(rows.row(other as usize)).for_each(|(sum, &v)| *sum += f64::from(v));
        }
        let n = (1 + around[i].len()) as f64;
        sums.into_iter().map(move |sum| (sum / n) as f32)
    };
    Matrix { n_cols: rows.n_cols, values: (0..rows.n_rows()).into_par_iter().flat_map_iter(of).collect() }
}

/// Gene folds: every gene filled in by what the genes of the other folds tell. `spots` `[n, G]` and `cells` `[c, G]` have the same
/// genes, `fold_of` the fold of each; a fold's own values of the spots reach no fill.
pub fn over_folds(
    spots: &Matrix<f32>,
    xyz: &[[f32; 3]],
    cells: &Matrix<f32>,
    fold_of: &[u32],
    which: &[ReferenceFill],
    effort: &Effort,
) -> BTreeMap<ReferenceFill, Matrix<f32>> {
    let mut folds = fold_of.to_vec();
    folds.sort_unstable();
    folds.dedup();
    let one = |&fold: &u32| {
        let genes = |hidden: bool| (0..fold_of.len()).filter(|&g| (fold_of[g] == fold) == hidden).collect::<Vec<_>>();
        let (hidden, visible) = (genes(true), genes(false));
        let [of_spots, of_cells] = [spots, cells].map(|side| columns(side, &visible));
        let unseen = columns(cells, &hidden);
        (hidden, fills(&Given { spots: &of_spots, xyz, cells: &of_cells, unseen: &unseen }, which, effort))
    };
    let found: Vec<_> = folds.par_iter().map(one).collect();
    let mut all: BTreeMap<ReferenceFill, Matrix<f32>> = BTreeMap::new();
    for (hidden, fills) in found {
        for (fill, predicted) in fills {
            let whole = all.entry(fill).or_insert_with(|| zeros(spots.n_rows(), spots.n_cols));
            for (row, told) in whole.values.chunks_mut(spots.n_cols).zip(predicted.values.chunks(hidden.len())) {
                hidden.iter().zip(told).for_each(|(&gene, &v)| row[gene] = v);
            }
        }
    }
    all
}

/// Columns of a matrix, in that order.
pub fn columns(of: &Matrix<f32>, which: &[usize]) -> Matrix<f32> {
    let row = |i: usize| which.iter().map(move |&g| of.row(i)[g]);
    Matrix { n_cols: which.len(), values: (0..of.n_rows()).flat_map(row).collect() }
}

#[cfg(test)]
mod tests;
