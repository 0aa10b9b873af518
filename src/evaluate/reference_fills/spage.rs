//! `spage`: nearest cells along principal vectors of both sides (the idea of SpaGE, Abdelaal et al. 2020; its choices are those of
//! `systems.md` §2).
//!
//! The principal components of spots and of cells are turned against each other (singular vectors of their product) so that
//! they come in pairs; pairs with a cosine above .3 stay, both sides are seen along the cells' vectors, and the 50 nearest
//! cells by cosine are averaged.

use faer::{Mat, Side};
use syncytia_shards::processed::Matrix;

use super::Standard;
use super::alike::{best, unit, weighted_mean};

/// Principal components of a side, at most.
const COMPONENTS: usize = 30;
/// Least cosine of a pair of principal vectors.
const ALIGNED: f64 = 0.3;

pub(super) fn fill(standard: &Standard) -> Matrix<f32> {
    let (of_spots, of_cells) = (components(&standard.spots), components(&standard.cells)); // [V, k]
    let pairs = (of_cells.transpose() * &of_spots).thin_svd().expect("a product of finite components decomposes");
    let cosines = pairs.S().column_vector();
    // The first pair stays whatever its cosine: without any there is nothing to compare along.
    let n_kept = (0..cosines.nrows()).filter(|&k| cosines[k] > ALIGNED).count().max(1);
    let vectors = of_cells * pairs.U().subcols(0, n_kept); // [V, kept]
    let seen = |rows: &Matrix<f32>| {
        let scores = Mat::from_fn(rows.n_rows(), rows.n_cols, |i, k| f64::from(rows.row(i)[k])) * &vectors;
        let row = |i: usize| (0..n_kept).map(move |k| (i, k));
        Matrix { n_cols: n_kept, values: (0..rows.n_rows()).flat_map(row).map(|at| scores[at] as f32).collect() }
    };
    let alike = best(&unit(&seen(&standard.spots)), &unit(&seen(&standard.cells)));
    weighted_mean(&alike, &standard.unseen, by_distance)
}

/// Directions `[V, k]` of greatest variance of standardised rows.
fn components(rows: &Matrix<f32>) -> Mat<f64> {
    let x = Mat::from_fn(rows.n_rows(), rows.n_cols, |i, k| f64::from(rows.row(i)[k]));
    let eigen =
        (x.transpose() * &x).self_adjoint_eigen(Side::Lower).expect("a Gram matrix of finite values decomposes");
    let (vectors, n) = (eigen.U(), rows.n_cols);
    Mat::from_fn(n, COMPONENTS.min(n), |i, k| vectors[(i, n - 1 - k)]) // eigenvalues ascend
}

/// 1 − d / Σd over distances d = 1 − cosine below 1, of their number less one; all weight to the only one.
pub(super) fn by_distance(cosines: &[f64]) -> Vec<f64> {
    let near: Vec<f64> = cosines.iter().map(|c| 1.0 - c).filter(|d| *d < 1.0).collect();
    let (n, sum) = (near.len(), near.iter().sum::<f64>());
    let weight = |cosine: &f64| match (1.0 - cosine, n) {
        (d, _) if d >= 1.0 => 0.0,
        (_, 1) => 1.0,
        (_, n) if sum <= 0.0 => 1.0 / n as f64,
        (d, n) => (1.0 - d / sum) / (n as f64 - 1.0),
    };
    cosines.iter().map(weight).collect()
}
