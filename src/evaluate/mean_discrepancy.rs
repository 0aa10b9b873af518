//! Maximum mean discrepancy of two sets of vectors (Gretton et al. 2012): squared, unbiased, with the Gaussian kernel
//! exp(−d² / 2h²); h is the median distance of the records of both sets (the median heuristic).
//!
//! The number under a picture of measured and imputed spots. Near equal sets it is negative as often as not.

use syncytia_shards::draw::{Purpose, ShuffleStream};
use syncytia_shards::processed::Matrix;

use super::kernel_distance::unbiased;
use super::quantile::quantile;

/// Records of a set that are compared, at most; more are drawn by seed.
pub const RECORDS: usize = 2000;
/// Records of a set that the bandwidth is taken from, at most.
const FOR_BANDWIDTH: usize = 500;

/// A discrepancy and what it was made from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Discrepancy {
    /// MMD², unbiased.
    pub value: f64,
    /// h, in the unit of the vectors.
    pub bandwidth: f64,
    /// Records compared of each set.
    pub n: [u64; 2],
}

/// Of two sets, a record a row. None below two records in either, or where all are equal.
///
/// # Panics
/// If rows are of different lengths.
pub fn mean_discrepancy(a: &Matrix<f32>, b: &Matrix<f32>, seed: u64) -> Option<Discrepancy> {
    assert_eq!(a.n_cols, b.n_cols, "both sets have the same columns");
    if a.n_rows().min(b.n_rows()) < 2 {
        return None;
    }
    let (a, b) = (drawn(a, seed, 0), drawn(b, seed, 1));
    let bandwidth = median_distance(&a, &b)?;
    let kernel = |x: &[f64], y: &[f64]| libm::exp(-squared(x, y) / (2.0 * bandwidth * bandwidth));
    let value = unbiased(&a, &b, kernel);
    Some(Discrepancy { value, bandwidth, n: [a.n_rows() as u64, b.n_rows() as u64] })
}

fn drawn(set: &Matrix<f32>, seed: u64, side: u64) -> Matrix<f64> {
    let n = set.n_rows();
    let mut rows: Vec<u32> = (0..n as u32).collect();
    if n > RECORDS {
        rows = ShuffleStream::new(seed, Purpose::Discrepancy, &[side]).permutation(n);
        rows.truncate(RECORDS);
    }
    let values = rows.iter().flat_map(|&i| set.row(i as usize)).map(|&v| f64::from(v)).collect();
    Matrix { n_cols: set.n_cols, values }
}

/// Over all pairs of the first records of both sets; none where it is 0.
fn median_distance(a: &Matrix<f64>, b: &Matrix<f64>) -> Option<f64> {
    let of = |set: &'_ Matrix<f64>| -> Vec<Vec<f64>> {
        (0..set.n_rows().min(FOR_BANDWIDTH)).map(|i| set.row(i).to_vec()).collect()
    };
    let rows: Vec<Vec<f64>> = of(a).into_iter().chain(of(b)).collect();
    let to_later = |i: usize| rows[..i].iter().map(|other| squared(&rows[i], other)).collect::<Vec<_>>();
    let mut squares: Vec<f64> = (0..rows.len()).flat_map(to_later).collect();
    let median = quantile(&mut squares, 0.5).sqrt();
    (median > 0.0).then_some(median)
}

fn squared(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(n_cols: usize, values: &[f32]) -> Matrix<f32> {
        Matrix { n_cols, values: values.to_vec() }
    }

    /// By hand: a = {0, 1}, b = {2, 4}. Distances 1, 2, 1, 4, 3, 2: median 2. k(d) = exp(−d²/8).
    #[test]
    fn it_is_the_unbiased_estimate_at_the_median_distance() {
        let found = mean_discrepancy(&of(1, &[0., 1.]), &of(1, &[2., 4.]), 0).unwrap();
        let k = |d: f64| (-d * d / 8.0).exp();
        let known = k(1.0) + k(2.0) - (k(2.0) + k(4.0) + k(1.0) + k(3.0)) / 2.0;
        assert_eq!((found.bandwidth, found.n), (2.0, [2, 2]));
        assert!((found.value - known).abs() < 1e-15, "{} against {known}", found.value);
    }

    #[test]
    fn shifted_sets_are_apart_and_halves_of_one_set_are_not() {
        let line = |shift: f32, from: usize| {
            of(1, &(from..6000).step_by(2).map(|i| (i % 997) as f32 / 997.0 + shift).collect::<Vec<_>>())
        };
        let same = mean_discrepancy(&line(0.0, 0), &line(0.0, 1), 1).unwrap();
        let apart = mean_discrepancy(&line(0.0, 0), &line(0.5, 1), 1).unwrap();
        assert_eq!(same.n, [2000, 2000]);
        assert!(same.value.abs() < 2e-3 && apart.value > 0.2, "{same:?} {apart:?}");
        assert_eq!(mean_discrepancy(&line(0.0, 0), &line(0.5, 1), 1).unwrap(), apart);
        assert_eq!(mean_discrepancy(&of(1, &[1., 1.]), &of(1, &[1., 1.]), 0), None);
        assert_eq!(mean_discrepancy(&of(1, &[1.]), &of(1, &[1., 2.]), 0), None);
    }
}
