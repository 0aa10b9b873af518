//! `ridge_reference`: from visible to other genes, fitted on standardised cells, λ = 10 × number of visible genes.

use faer::linalg::solvers::Solve;
use faer::{Mat, Side};
use syncytia_shards::processed::Matrix;

use super::Standard;

/// λ per visible gene.
const RIDGE: f64 = 10.0;

pub(super) fn fill(standard: &Standard) -> Matrix<f32> {
    let dense = |rows: &Matrix<f32>| Mat::from_fn(rows.n_rows(), rows.n_cols, |i, k| f64::from(rows.row(i)[k]));
    let (x, y) = (dense(&standard.cells), dense(&standard.unseen));
    let n_visible = x.ncols();
    let mut gram = x.transpose() * &x;
    (0..n_visible).for_each(|i| gram[(i, i)] += RIDGE * n_visible as f64);
    let moments = x.transpose() * &y;
    let weights = gram.llt(Side::Lower).expect("a ridge makes it positive definite").solve(&moments);
    let told = dense(&standard.spots) * weights; // [n, H]
    let row = |i: usize| (0..told.ncols()).map(move |k| (i, k));
    let values = (0..told.nrows()).flat_map(row).map(|at| told[at] as f32).collect();
    Matrix { n_cols: told.ncols(), values }
}
