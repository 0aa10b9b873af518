//! A ridge from one set of vectors to another: the simple way from a cell's genes to its picture and back.

use faer::linalg::solvers::Solve;
use faer::{Mat, Side};
use syncytia_shards::processed::Matrix;

use super::standard::Scale;

/// λ per record, of columns scaled to a deviation of 1.
const RIDGE: f64 = 0.01;

/// Predictions `[m, e]` for `queries` `[m, d]` by a ridge from `from` `[n, d]` to `to` `[n, e]`, and the truth `[m, e]` of
/// `targets`, both in columns of `to` at mean 0 and deviation 1.
pub fn predicted(
    from: &Matrix<f32>,
    to: &Matrix<f32>,
    queries: &Matrix<f32>,
    targets: &Matrix<f32>,
) -> [Matrix<f32>; 2] {
    let (of_from, of_to) = (Scale::of(from), Scale::of(to));
    let (x, y) = (standard(&of_from, from), standard(&of_to, to));
    let mut gram = x.transpose() * &x;
    for i in 0..gram.nrows() {
        gram[(i, i)] += RIDGE * x.nrows() as f64 + f64::MIN_POSITIVE;
    }
    let moments = x.transpose() * &y;
    // A Gram matrix with a ridge on its diagonal is positive definite.
    let weights = gram.llt(Side::Lower).expect("a ridge makes it positive definite").solve(&moments);
    [matrix(&(standard(&of_from, queries) * weights)), matrix(&standard(&of_to, targets))]
}

fn standard(scale: &Scale, rows: &Matrix<f32>) -> Mat<f64> {
    Mat::from_fn(rows.n_rows(), rows.n_cols, |i, k| scale.standard(k, rows.row(i)[k]))
}

fn matrix(of: &Mat<f64>) -> Matrix<f32> {
    let at = |i: usize| (0..of.ncols()).map(move |k| of[(i, k)] as f32);
    Matrix { n_cols: of.ncols(), values: (0..of.nrows()).flat_map(at).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::retrieval::Ranks;

    #[test]
    fn a_linear_relation_is_found() {
        let x = |i: usize| [(i as f32 * 0.7).sin(), (i as f32 * 1.1).cos()];
        let from = Matrix { n_cols: 2, values: (0..50).flat_map(x).collect() };
        let y = |i: usize| [3.0 * x(i)[0] - x(i)[1] + 2.0, x(i)[1], x(i)[0] + x(i)[1]];
        let to = Matrix { n_cols: 3, values: (0..50).flat_map(y).collect() };
        let [told, truth] = predicted(&from, &to, &from, &to);
        assert!(Ranks::by_cosine(&told, &truth).recall_at(1) > 0.95);
    }
}
