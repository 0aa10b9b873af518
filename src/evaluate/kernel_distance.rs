//! The kernel distance of two sets of features: unbiased MMD² with the kernel (x·y / d + 1)³ (`evaluation.md` §5). It is KID
//! only where the features are Inception's. Unbiased: near equal sets it is negative as often as not, and is not clipped.

use rayon::prelude::*;
use syncytia_shards::draw::{Purpose, ShuffleStream};
use syncytia_shards::processed::Matrix;

/// Larger sets are compared by subsets of this size, as torchmetrics does.
const SUBSET: usize = 1000;
/// How many of them.
const SUBSETS: u64 = 100;

/// The distance of two sets, a record a row; the mean over seeded subsets where a set has more than 1,000. None below two
/// records.
///
/// # Panics
/// If rows are of different lengths.
pub fn kernel_distance(a: &Matrix<f64>, b: &Matrix<f64>, seed: u64) -> Option<f64> {
    assert_eq!(a.n_cols, b.n_cols, "both sets have the same features");
    let n = a.n_rows().min(b.n_rows());
    if n < 2 {
        return None;
    }
    if a.n_rows().max(b.n_rows()) <= SUBSET {
        return Some(squared_discrepancy(a, b));
    }
    let drawn = |set: &Matrix<f64>, subset: u64, side: u64| {
        let mut rows = ShuffleStream::new(seed, Purpose::PaintedPictures, &[subset, side]).permutation(set.n_rows());
        rows.truncate(SUBSET.min(n));
        let values = rows.iter().flat_map(|&i| set.row(i as usize)).copied().collect();
        Matrix { n_cols: set.n_cols, values }
    };
    let apart = |subset| squared_discrepancy(&drawn(a, subset, 0), &drawn(b, subset, 1));
    let all: Vec<f64> = (0..SUBSETS).into_par_iter().map(apart).collect();
    Some(all.iter().sum::<f64>() / SUBSETS as f64)
}

fn squared_discrepancy(a: &Matrix<f64>, b: &Matrix<f64>) -> f64 {
    unbiased(a, b, kernel)
}

/// MMD² of two sets of at least two records each by any kernel.
pub(super) fn unbiased(a: &Matrix<f64>, b: &Matrix<f64>, kernel: impl Fn(&[f64], &[f64]) -> f64 + Sync) -> f64 {
    let pairs = |n: usize| (n * (n - 1)) as f64;
    let (n, m) = (a.n_rows(), b.n_rows());
    within(a, &kernel) / pairs(n) + within(b, &kernel) / pairs(m) - 2.0 * between(a, b, &kernel) / (n * m) as f64
}

/// Σ over ordered pairs of two records; rows side by side, their sums in order.
fn within(set: &Matrix<f64>, kernel: &(impl Fn(&[f64], &[f64]) -> f64 + Sync)) -> f64 {
    let row = |i: usize| (0..i).map(|j| kernel(set.row(i), set.row(j))).sum::<f64>();
    let rows: Vec<f64> = (0..set.n_rows()).into_par_iter().map(row).collect();
    2.0 * rows.iter().sum::<f64>()
}

fn between(a: &Matrix<f64>, b: &Matrix<f64>, kernel: &(impl Fn(&[f64], &[f64]) -> f64 + Sync)) -> f64 {
    let row = |i: usize| (0..b.n_rows()).map(|j| kernel(a.row(i), b.row(j))).sum::<f64>();
    let rows: Vec<f64> = (0..a.n_rows()).into_par_iter().map(row).collect();
    rows.iter().sum()
}

fn kernel(x: &[f64], y: &[f64]) -> f64 {
    let product: f64 = x.iter().zip(y).map(|(x, y)| x * y).sum();
    (product / x.len() as f64 + 1.0).powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(n_cols: usize, values: &[f64]) -> Matrix<f64> {
        Matrix { n_cols, values: values.to_vec() }
    }

    /// Tolerance 1e-9: sums of cubes below 1e4.
    #[test]
    fn the_distance_is_the_known_one() {
        let near = |ours: Option<f64>, known: f64| assert!((ours.unwrap() - known).abs() < 1e-9, "{ours:?}, {known}");
        let x = of(2, &[0., 0., 1., 0., 0., 1., 1., 1., 2., 1.]);
        let y = of(2, &[1., 0., 2., 1., 1., 2., 3., 2., 2., 2.]);
        near(kernel_distance(&x, &y, 0), 30.6375);
        near(kernel_distance(&x, &x, 0), -314.0 / 100.0); // no π
        near(kernel_distance(&of(1, &[0., 1.]), &of(1, &[1., 2.]), 0), 9.5);
        assert_eq!(kernel_distance(&of(1, &[1.]), &of(1, &[1., 2.]), 0), None);
    }

    /// Of 1,200 records each, drawn from two shifted lattices: the subsets' mean is near the whole's, and the seed's.
    #[test]
    fn large_sets_are_compared_by_seeded_subsets() {
        let lattice = |shift: f64| of(1, &(0..1200).map(|i| f64::from(i % 40) / 40.0 + shift).collect::<Vec<_>>());
        let (a, b) = (lattice(0.0), lattice(0.5));
        let (ours, again, other) = (kernel_distance(&a, &b, 1), kernel_distance(&a, &b, 1), kernel_distance(&a, &b, 2));
        assert_eq!(ours, again);
        assert_ne!(ours, other);
        let whole = squared_discrepancy(&a, &b);
        assert!((ours.unwrap() / whole - 1.0).abs() < 0.02, "{ours:?} against {whole} of all");
    }
}
