//! How far apart two samples are: Wasserstein-1 and Kolmogorov–Smirnov of numbers, sliced Wasserstein of vectors
//! (`evaluation.md` §5).

use syncytia_shards::processed::Matrix;

/// ∫ |F − G|: how far values must be moved, on average, to turn one sample into the other; in their unit.
///
/// # Panics
/// If a sample is empty.
pub fn wasserstein_1(a: &[f64], b: &[f64]) -> f64 {
    let mut sum = 0.0;
    let mut before: Option<f64> = None;
    let mut difference = 0.0;
    steps(a, b, |value, f, g| {
        sum += before.map_or(0.0, |before| difference * (value - before));
        before = Some(value);
        difference = f64::abs(f - g);
    });
    sum
}

/// sup |F − G|: the Kolmogorov–Smirnov statistic, 0 of equal samples, 1 of samples that do not overlap.
///
/// # Panics
/// If a sample is empty.
pub fn kolmogorov_smirnov(a: &[f64], b: &[f64]) -> f64 {
    let mut largest: f64 = 0.0;
    steps(a, b, |_, f, g| largest = largest.max((f - g).abs()));
    largest
}

/// Calls `each(value, F, G)` for every distinct value, ascending: the shares of both samples that are at most that large.
fn steps(a: &[f64], b: &[f64], mut each: impl FnMut(f64, f64, f64)) {
    assert!(!a.is_empty() && !b.is_empty(), "a sample of nothing has no distribution");
    let sorted = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted
    };
    let (a, b) = (sorted(a), sorted(b));
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        let value = a.get(i).copied().unwrap_or(f64::INFINITY).min(b.get(j).copied().unwrap_or(f64::INFINITY));
        i += a[i..].iter().take_while(|v| **v <= value).count();
        j += b[j..].iter().take_while(|v| **v <= value).count();
        each(value, i as f64 / a.len() as f64, j as f64 / b.len() as f64);
    }
}

/// Mean over `directions`, each as long as a row, of Wasserstein-1 along it.
///
/// # Panics
/// If a sample or the directions are empty.
pub fn sliced_wasserstein(a: &Matrix<f64>, b: &Matrix<f64>, directions: &Matrix<f64>) -> f64 {
    let along = |sample: &Matrix<f64>, direction: &[f64]| -> Vec<f64> {
        (0..sample.n_rows()).map(|i| sample.row(i).iter().zip(direction).map(|(x, w)| x * w).sum()).collect()
    };
    let n = directions.n_rows();
    assert!(n > 0, "at least one direction");
    let apart = |k| wasserstein_1(&along(a, directions.row(k)), &along(b, directions.row(k)));
    (0..n).map(apart).sum::<f64>() / n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tolerance 1e-12: sums of a few numbers.
    fn near(ours: f64, known: f64) {
        assert!((ours - known).abs() < 1e-12, "{ours} against {known}");
    }

    #[test]
    fn wasserstein_is_scipys() {
        near(wasserstein_1(&[0., 1., 3.], &[5., 6., 8.]), 5.0);
        near(wasserstein_1(&[0., 1., 2., 3.], &[0.5, 1., 2.5, 2.]), 0.25);
        near(wasserstein_1(&[3., 0., 1.], &[1., 3., 0.]), 0.0);
        near(wasserstein_1(&[0., 1.], &[0., 0., 1., 2.]), 0.25); // of different sizes
    }

    #[test]
    fn kolmogorov_smirnov_is_scipys() {
        near(kolmogorov_smirnov(&[0., 1., 2., 3.], &[0.5, 1., 2.5, 2.]), 0.25);
        near(kolmogorov_smirnov(&[1., 2., 3., 4., 5.], &[3., 4., 5., 6., 7.]), 0.4);
        near(kolmogorov_smirnov(&[1.], &[2., 3.]), 1.0);
        near(kolmogorov_smirnov(&[2., 2., 1.], &[2., 1., 2.]), 0.0);
    }

    #[test]
    fn sliced_wasserstein_is_the_mean_over_directions() {
        let of = |values: &[f64]| Matrix { n_cols: 2, values: values.to_vec() };
        let x = of(&[0., 0., 1., 0., 0., 1., 1., 1., 2., 1.]);
        let y = of(&[1., 0., 2., 1., 1., 2., 3., 2., 2., 2.]);
        near(sliced_wasserstein(&x, &y, &of(&[1., 0., 0., 1., 0.6, 0.8])), 1.013_333_333_333_333_3);
        near(sliced_wasserstein(&x, &x, &of(&[1., 0.])), 0.0);
    }
}
