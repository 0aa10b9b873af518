//! `wass_corr` and `ks_score`: SPATIA's table has a "Wass. corr." and a "KS" that no source defines. These are ours, in the
//! words of `evaluation.md` §5, and comparable with nobody else's.

use crate::evaluate::metrics::pearson;

/// Pearson's r of (painted, real) Wasserstein-1 distances to a control population, over features × populations: are those far
/// from the control that should be? None below two pairs, or where one side does not vary.
pub fn wass_corr(distances: &[(f64, f64)]) -> Option<f64> {
    let varies = |side: fn(&(f64, f64)) -> f64| distances.iter().any(|pair| side(pair) != side(&distances[0]));
    if varies(|pair| pair.0) && varies(|pair| pair.1) { pearson(distances) } else { None }
}

/// 1 − the mean Kolmogorov–Smirnov statistic: 1 of equal distributions. None of no statistics.
pub fn ks_score(statistics: &[f64]) -> Option<f64> {
    (!statistics.is_empty()).then(|| 1.0 - statistics.iter().sum::<f64>() / statistics.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_one_where_painted_is_real() {
        assert!((wass_corr(&[(1.0, 1.0), (2.0, 2.0), (4.0, 4.0)]).unwrap() - 1.0).abs() < 1e-12);
        assert!((wass_corr(&[(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]).unwrap() + 1.0).abs() < 1e-12);
        assert_eq!(wass_corr(&[(1.0, 2.0), (1.0, 3.0)]), None, "what is painted does not vary");
        assert_eq!(wass_corr(&[]), None);
        assert_eq!(ks_score(&[0.0, 0.0]), Some(1.0));
        assert_eq!(ks_score(&[0.2, 0.6]), Some(0.6));
        assert_eq!(ks_score(&[]), None);
    }
}
