//! `ks_score`: SPATIA's table has a "KS" that no source defines. This is ours, in the words of `evaluation.md` §5, and comparable
//! with nobody else's.

/// 1 − the mean Kolmogorov–Smirnov statistic: 1 of equal distributions. None of no statistics.
pub fn ks_score(statistics: &[f64]) -> Option<f64> {
    (!statistics.is_empty()).then(|| 1.0 - statistics.iter().sum::<f64>() / statistics.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_where_painted_is_real() {
        assert_eq!(ks_score(&[0.0, 0.0]), Some(1.0));
        assert_eq!(ks_score(&[0.2, 0.6]), Some(0.6));
        assert_eq!(ks_score(&[]), None);
    }
}
