//! Soft-impute (Mazumder, Hastie & Tibshirani 2010) on one section: 40 rounds, threshold 10 (`evaluation.md` §10).
//!
//! The singular values of an `[n, G]` matrix with n ≫ G come from the eigenvectors of its G × G Gram matrix:
//! SVT(M) = M · V diag(max(1 − τ/s, 0)) Vᵀ.

use faer::{Mat, Side};
use syncytia_shards::processed::Matrix;

use super::{means, rings};
use crate::evaluate::block::{Block, Seen};

const ROUNDS: usize = 40;
const THRESHOLD: f64 = 10.0;

/// Transductive: fitted on the section's visible values.
pub fn fill(block: &Block, seen: &Seen) -> Matrix<f32> {
    let (n, genes) = (block.n_obs(), block.n_genes());
    let mean = means::of_genes(seen, means::mean);
    let start = rings::ring_mean(block, seen, 3);
    let centred = |v: f32, g: usize| f64::from(v) - f64::from(mean[g]);
    let visible = |i: usize, g: usize| seen.visible.row(i)[g];
    let mut m = Mat::from_fn(n, genes, |i, g| {
        let known = if visible(i, g) { &seen.values } else { &start };
        centred(known.row(i)[g], g)
    });
    let mut low_rank = m.clone();
    for _ in 0..ROUNDS {
        low_rank = shrink(&m);
        for g in 0..genes {
            for i in 0..n {
                if !visible(i, g) {
                    m[(i, g)] = low_rank[(i, g)];
                }
            }
        }
    }
    let at = |i: usize, g: usize| (low_rank[(i, g)] + f64::from(mean[g])) as f32;
    Matrix {
        n_cols: genes,
        values: (0..n).flat_map(|i| (0..genes).map(move |g| (i, g))).map(|(i, g)| at(i, g)).collect(),
    }
}

/// Singular values less the threshold, those below it gone.
fn shrink(m: &Mat<f64>) -> Mat<f64> {
    let gram = m.transpose() * m;
    // A symmetric matrix of finite numbers has an eigendecomposition.
    let eigen = gram.self_adjoint_eigen(Side::Lower).expect("a Gram matrix of finite values decomposes");
    let (vectors, values) = (eigen.U(), eigen.S().column_vector());
    let genes = gram.nrows();
    let scaled = Mat::from_fn(genes, genes, |i, k| {
        let s = values[k].max(0.0).sqrt();
        vectors[(i, k)] * if s > THRESHOLD { 1.0 - THRESHOLD / s } else { 0.0 }
    });
    m * (scaled * vectors.transpose())
}
