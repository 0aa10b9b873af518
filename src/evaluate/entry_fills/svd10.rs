//! `svd10`: hidden entries at their gene's mean, then 20 rounds of the rank-10 SVD of the centred matrix, hidden entries
//! replaced each round.
//!
//! The ten right singular vectors of an `[n, G]` matrix are the eigenvectors of its G × G Gram matrix.

use faer::{Mat, Side};
use syncytia_shards::processed::Matrix;

use super::{Given, means};

const ROUNDS: usize = 20;
const RANK: usize = 10;

pub(super) fn fill(given: &Given) -> Matrix<f32> {
    let (n, genes) = (given.values.n_rows(), given.values.n_cols);
    let mean = means(given);
    let visible = |i: usize, g: usize| given.visible.row(i)[g];
    let start = |i: usize, g: usize| if visible(i, g) { f64::from(given.values.row(i)[g]) } else { mean[g] };
    let mut filled = Mat::from_fn(n, genes, start);
    let mut low_rank = filled.clone();
    for _ in 0..ROUNDS {
        low_rank = nearest_of_rank(&filled);
        for g in 0..genes {
            for i in (0..n).filter(|&i| !visible(i, g)) {
                filled[(i, g)] = low_rank[(i, g)];
            }
        }
    }
    let row = |i: usize| (0..genes).map(move |g| (i, g));
    Matrix { n_cols: genes, values: (0..n).flat_map(row).map(|at| low_rank[at] as f32).collect() }
}

/// Column means and the ten greatest directions of what is beyond them.
fn nearest_of_rank(m: &Mat<f64>) -> Mat<f64> {
    let (n, genes) = (m.nrows(), m.ncols());
    let mean: Vec<f64> = (0..genes).map(|g| (0..n).map(|i| m[(i, g)]).sum::<f64>() / n as f64).collect();
    let centred = Mat::from_fn(n, genes, |i, g| m[(i, g)] - mean[g]);
    let gram = centred.transpose() * &centred;
    let eigen = gram.self_adjoint_eigen(Side::Lower).expect("a Gram matrix of finite values decomposes");
    let vectors = eigen.U().subcols(genes - RANK.min(genes), RANK.min(genes)); // eigenvalues ascend
    let mut back = (&centred * vectors) * vectors.transpose();
    for g in 0..genes {
        (0..n).for_each(|i| back[(i, g)] += mean[g]);
    }
    back
}
