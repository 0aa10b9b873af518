//! The Fréchet distance of two sets of features, each taken for a normal distribution: ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½)
//! (`evaluation.md` §5). It is FID only where the features are Inception's.
//!
//! Biased: of few records it is larger, and below as many records as features Σ has no full rank. Compare at one n alone.

use faer::{Mat, Side};
use syncytia_shards::processed::Matrix;

/// The distance of two sets, a record a row; none below two records.
///
/// # Panics
/// If rows are of different lengths or a feature is not finite.
pub fn frechet_distance(a: &Matrix<f64>, b: &Matrix<f64>) -> Option<f64> {
    assert_eq!(a.n_cols, b.n_cols, "both sets have the same features");
    if a.n_rows() < 2 || b.n_rows() < 2 {
        return None;
    }
    let ((mean_a, covariance_a), (mean_b, covariance_b)) = (moments(a), moments(b));
    let apart: f64 = mean_a.iter().zip(&mean_b).map(|(a, b)| (a - b).powi(2)).sum();
    let trace = |m: &Mat<f64>| (0..m.nrows()).map(|i| m[(i, i)]).sum::<f64>();
    // (Σ₁Σ₂)^½ has the trace of (S·Σ₂·S)^½ with S = Σ₁^½, which is symmetric.
    let root = root(&covariance_a);
    let between = &root * &covariance_b * &root;
    let shared: f64 = eigenvalues(&between).into_iter().map(f64::sqrt).sum();
    Some(apart + trace(&covariance_a) + trace(&covariance_b) - 2.0 * shared)
}

/// Mean and sample covariance (n − 1).
fn moments(set: &Matrix<f64>) -> (Vec<f64>, Mat<f64>) {
    let (n, d) = (set.n_rows(), set.n_cols);
    let mean: Vec<f64> = (0..d).map(|k| (0..n).map(|i| set.row(i)[k]).sum::<f64>() / n as f64).collect();
    let centred = Mat::from_fn(n, d, |i, k| set.row(i)[k] - mean[k]);
    // Plain sums in the order of records: a product on several threads may add in another order.
    let product = |j: usize, k: usize| (0..n).map(|i| centred[(i, j)] * centred[(i, k)]).sum::<f64>() / (n - 1) as f64;
    let mut covariance = Mat::zeros(d, d);
    for j in 0..d {
        for k in 0..=j {
            covariance[(j, k)] = product(j, k);
            covariance[(k, j)] = covariance[(j, k)];
        }
    }
    (mean, covariance)
}

/// The symmetric square root.
fn root(covariance: &Mat<f64>) -> Mat<f64> {
    let eigen = covariance.self_adjoint_eigen(Side::Lower).expect("a covariance of finite values decomposes");
    let (vectors, values) = (eigen.U(), eigen.S().column_vector());
    let d = covariance.nrows();
    let scaled = Mat::from_fn(d, d, |i, k| vectors[(i, k)] * values[k].max(0.0).sqrt());
    scaled * vectors.transpose()
}

/// Of a symmetric matrix without negative ones: those are rounding errors, and 0.
fn eigenvalues(symmetric: &Mat<f64>) -> Vec<f64> {
    let values = symmetric.self_adjoint_eigenvalues(Side::Lower).expect("a product of covariances decomposes");
    values.into_iter().map(|value| value.max(0.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(n_cols: usize, values: &[f64]) -> Matrix<f64> {
        Matrix { n_cols, values: values.to_vec() }
    }

    /// Tolerance 1e-9: of eigenvalues in f64.
    #[test]
    fn the_distance_is_the_known_one() {
        let x = of(2, &[0., 0., 1., 0., 0., 1., 1., 1., 2., 1.]);
        let y = of(2, &[1., 0., 2., 1., 1., 2., 3., 2., 2., 2.]);
        assert!((frechet_distance(&x, &y).unwrap() - 1.766_966_530_5).abs() < 1e-9);
        assert!(frechet_distance(&x, &x).unwrap().abs() < 1e-9);
        let one = frechet_distance(&of(1, &[0., 1., 2.]), &of(1, &[1., 3., 5.])).unwrap();
        assert!((one - 5.0).abs() < 1e-9, "{one}");
    }

    #[test]
    fn fewer_records_than_features_are_no_failure_and_one_record_has_no_distance() {
        let few = of(4, &[0., 1., 2., 3., 1., 1., 0., 5.]);
        assert!(frechet_distance(&few, &few).unwrap().abs() < 1e-6, "the root of a rounding error of 1e-14");
        let same = of(2, &[1., 2., 1., 2.]);
        assert!((frechet_distance(&same, &of(2, &[1., 4., 1., 4.])).unwrap() - 4.0).abs() < 1e-12, "no covariance");
        assert_eq!(frechet_distance(&of(1, &[1.]), &of(1, &[1., 2.])), None);
    }
}
