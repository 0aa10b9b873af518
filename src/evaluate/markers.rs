//! A marker gene measured beside the same gene imputed: Pearson's r, the first four moments, quantiles
//! (`spotdiff.md` §6.1).

use serde::{Deserialize, Serialize};
use syncytia_shards::processed::Matrix;

use super::gene_metrics::{Entries, column, pearson};
use super::quantile::quantile;

/// Which quantiles are told.
pub const QUANTILES: [f64; 7] = [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0];

/// How values are spread, in their own unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Population variance.
    pub variance: f64,
    /// Third standardised moment; 0 of equal values.
    pub skewness: f64,
    /// Fourth standardised moment less 3; 0 of equal values.
    pub excess_kurtosis: f64,
    /// At [`QUANTILES`], with linear interpolation.
    pub quantiles: [f64; 7],
}

/// One gene, measured and imputed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Marker {
    /// Name.
    pub gene: String,
    /// Pearson's r over the scored entries; none where either is constant.
    pub pcc: Option<f64>,
    /// What was measured.
    pub measured: Spread,
    /// What was imputed.
    pub imputed: Spread,
    /// Entries.
    pub n: u64,
}

/// Compares column `gene` of both, `[n, G]` in one space, on the entries scored; none where the method gives no value for one of
/// them, or there are none.
pub fn marker(
    name: &str,
    gene: usize,
    truth: &Matrix<f32>,
    imputed: &Matrix<f32>,
    entries: Entries<'_>,
) -> Option<Marker> {
    let (a, b) = column(truth, imputed, entries, gene);
    if b.iter().any(|v| !v.is_finite()) {
        return None;
    }
    Some(Marker {
        gene: name.to_owned(),
        pcc: pearson(&a, &b).ok(),
        measured: spread(&a)?,
        imputed: spread(&b)?,
        n: a.len() as u64,
    })
}

/// None of nothing.
pub fn spread(values: &[f64]) -> Option<Spread> {
    if values.is_empty() {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let moment = |k: i32| values.iter().map(|v| (v - mean).powi(k)).sum::<f64>() / n;
    let variance = moment(2);
    let standardised = |k: i32| if variance > 0.0 { moment(k) / variance.powf(f64::from(k) / 2.0) } else { 0.0 };
    let mut sorted = values.to_vec();
    Some(Spread {
        mean,
        variance,
        skewness: standardised(3),
        excess_kurtosis: if variance > 0.0 { standardised(4) - 3.0 } else { 0.0 },
        quantiles: QUANTILES.map(|q| quantile(&mut sorted, q)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against numpy and `scipy.stats.{skew, kurtosis}`; 1e-9 of numbers with ten digits.
    #[test]
    fn moments_and_quantiles_are_scipys() {
        let found = spread(&[0.0, 1.0, 2.0, 4.0, 8.0]).unwrap();
        let near = |ours: f64, known: f64| assert!((ours - known).abs() < 1e-9, "{ours} against {known}");
        near(found.mean, 3.0);
        near(found.variance, 8.0);
        near(found.skewness, 0.795_495_128_8);
        near(found.excess_kurtosis, -0.7375);
        for (ours, known) in found.quantiles.into_iter().zip([0.0, 0.2, 1.0, 2.0, 4.0, 7.2, 8.0]) {
            near(ours, known);
        }
        let flat = spread(&[2.0; 4]).unwrap();
        assert_eq!((flat.variance, flat.skewness, flat.excess_kurtosis), (0.0, 0.0, 0.0));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn a_marker_is_compared_where_it_was_measured() {
        let of = |values: &[f32]| Matrix { n_cols: 2, values: values.to_vec() };
        let truth = of(&[9., 1., 9., 2., 9., f32::NAN, 9., 4.]);
        let imputed = of(&[1., 2., 1., 4., 1., 100., 1., 8.]);
        let found = marker("Efnb2", 1, &truth, &imputed, Entries::All).unwrap();
        assert!((found.pcc.unwrap() - 1.0).abs() < 1e-12);
        assert_eq!((found.n, found.imputed.mean, found.measured.quantiles[6]), (3, 14.0 / 3.0, 4.0));
        assert_eq!(marker("flat", 0, &truth, &imputed, Entries::All).unwrap().pcc, None);
        let hidden = Matrix { n_cols: 2, values: vec![false, true, false, true, false, true, false, false] };
        assert_eq!(marker("Efnb2", 1, &truth, &imputed, Entries::Hidden(&hidden)).unwrap().n, 2);
        assert_eq!(marker("Efnb2", 1, &imputed, &truth, Entries::All), None, "a value is missing");
    }
}
