//! Metrics of completion on masked entries (`evaluation.md` §1), as the SpaRED library defines them.

use serde::{Deserialize, Serialize};
use syncytia_shards::processed::Matrix;

/// A figure with what it was made from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The value; never NaN.
    pub value: f64,
    /// Entries, genes or spots it averages.
    pub n_used: u64,
    /// Genes or spots left out because the metric is undefined there.
    pub n_skipped: u64,
}

/// All metrics of one prediction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Mean squared error over all scored entries.
    pub mse: Figure,
    /// Mean absolute error over all scored entries.
    pub mae: Figure,
    /// Mean over genes of Pearson's r over the gene's scored spots.
    pub pcc_gene: Figure,
    /// Mean over spots of Pearson's r over the spot's scored genes.
    pub pcc_spot: Figure,
    /// Mean over genes of 1 − residual / total sum of squares.
    pub r2_gene: Figure,
}

impl Metrics {
    /// Stable names and values, in the order of the report.
    pub fn named(&self) -> [(&'static str, Figure); 5] {
        [
            ("mse", self.mse),
            ("mae", self.mae),
            ("pcc_gene", self.pcc_gene),
            ("pcc_spot", self.pcc_spot),
            ("r2_gene", self.r2_gene),
        ]
    }
}

impl Metrics {
    /// The inverse of [`Metrics::named`]: `figure` gives the figure of a name, `None` where one is missing.
    pub fn from_named(figure: impl Fn(&str) -> Option<Figure>) -> Option<Metrics> {
        Some(Metrics {
            mse: figure("mse")?,
            mae: figure("mae")?,
            pcc_gene: figure("pcc_gene")?,
            pcc_spot: figure("pcc_spot")?,
            r2_gene: figure("r2_gene")?,
        })
    }
}

/// The release's guard against a zero norm.
const EPSILON: f64 = 1e-8;

/// Scores `predicted` against `truth` on the entries where `scored` holds; `[n, G]` each.
pub fn score(truth: &Matrix<f32>, predicted: &Matrix<f32>, scored: &Matrix<bool>) -> Metrics {
    let (n, genes) = (truth.n_rows(), truth.n_cols);
    assert_eq!((predicted.n_rows(), predicted.n_cols), (n, genes), "prediction and truth have one shape");
    let at = |row: usize, gene: usize| {
        let i = row * genes + gene;
        scored.values[i].then(|| (f64::from(truth.values[i]), f64::from(predicted.values[i])))
    };
    let (mut squared, mut absolute, mut entries) = (0.0, 0.0, 0u64);
    for row in 0..n {
        for gene in 0..genes {
            if let Some((t, p)) = at(row, gene) {
                squared += (t - p) * (t - p);
                absolute += (t - p).abs();
                entries += 1;
            }
        }
    }
    let over_entries = |sum: f64| Figure {
        value: if entries == 0 { 0.0 } else { sum / entries as f64 },
        n_used: entries,
        n_skipped: 0,
    };
    let columns: Vec<Vec<(f64, f64)>> = (0..genes).map(|g| (0..n).filter_map(|r| at(r, g)).collect()).collect();
    let rows: Vec<Vec<(f64, f64)>> = (0..n).map(|r| (0..genes).filter_map(|g| at(r, g)).collect()).collect();
    Metrics {
        mse: over_entries(squared),
        mae: over_entries(absolute),
        pcc_gene: mean_of(&columns, pearson),
        pcc_spot: mean_of(&rows, pearson),
        r2_gene: mean_of(&columns, r_squared),
    }
}

/// Pearson's r per gene, `None` where the gene has no scored entry.
pub fn pearson_per_gene(truth: &Matrix<f32>, predicted: &Matrix<f32>, scored: &Matrix<bool>) -> Vec<Option<f64>> {
    let genes = truth.n_cols;
    (0..genes)
        .map(|g| {
            let pairs: Vec<(f64, f64)> = (0..truth.n_rows())
                .map(|r| r * genes + g)
                .filter(|&i| scored.values[i])
                .map(|i| (f64::from(truth.values[i]), f64::from(predicted.values[i])))
                .collect();
            pearson(&pairs)
        })
        .collect()
}

fn mean_of(series: &[Vec<(f64, f64)>], metric: impl Fn(&[(f64, f64)]) -> Option<f64>) -> Figure {
    let values: Vec<f64> = series.iter().filter_map(|s| metric(s)).collect();
    let n = values.len();
    Figure {
        value: if n == 0 { 0.0 } else { values.iter().sum::<f64>() / n as f64 },
        n_used: n as u64,
        n_skipped: (series.len() - n) as u64,
    }
}

/// Skipped without entries; 0 where truth or prediction is constant (the release gives NaN for a constant prediction).
pub(super) fn pearson(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.is_empty() {
        return None;
    }
    let (mt, mp) = means(pairs);
    let (mut tt, mut pp, mut tp) = (0.0, 0.0, 0.0);
    for (t, p) in pairs {
        tt += (t - mt) * (t - mt);
        pp += (p - mp) * (p - mp);
        tp += (t - mt) * (p - mp);
    }
    Some(tp / (tt.sqrt().max(EPSILON) * pp.sqrt().max(EPSILON)))
}

/// Skipped with fewer than two entries or a constant truth (the release gives −∞ there).
fn r_squared(pairs: &[(f64, f64)]) -> Option<f64> {
    let (mean, _) = means(pairs);
    let total: f64 = pairs.iter().map(|(t, _)| (t - mean) * (t - mean)).sum();
    if pairs.len() < 2 || total == 0.0 {
        return None;
    }
    let residual: f64 = pairs.iter().map(|(t, p)| (t - p) * (t - p)).sum();
    Some(1.0 - residual / total)
}

fn means(pairs: &[(f64, f64)]) -> (f64, f64) {
    let n = pairs.len().max(1) as f64;
    (pairs.iter().map(|p| p.0).sum::<f64>() / n, pairs.iter().map(|p| p.1).sum::<f64>() / n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix<T: Copy, const N: usize>(rows: [[T; 3]; N]) -> Matrix<T> {
        Matrix { n_cols: 3, values: rows.concat() }
    }

    fn truth() -> Matrix<f32> {
        matrix([[1., 2., 0.5], [2., 1., 1.5], [3., 4., 2.5], [4., 3., 3.]])
    }

    fn predicted() -> Matrix<f32> {
        matrix([[1.5, 1.5, 1.], [1.5, 2., 1.], [2.5, 3.5, 2.], [4.5, 3., 2.5]])
    }

    /// Tolerance 5e-9: the references are printed with 8 decimals.
    fn check(metrics: Metrics, expected: [f64; 5]) {
        for ((name, figure), value) in metrics.named().into_iter().zip(expected) {
            assert!((figure.value - value).abs() < 5e-9, "{name}: {} against {value}", figure.value);
        }
    }

    #[test]
    fn all_entries_give_the_first_example() {
        let all = Matrix { n_cols: 3, values: vec![true; 12] };
        check(score(&truth(), &predicted(), &all), [0.29166666667, 0.5, 0.89614306, 0.55666357, 0.74293785]);
    }

    #[test]
    fn masked_entries_give_the_second_example() {
        let mask = matrix([[true, true, false], [true, false, false], [false, true, false], [true, true, false]]);
        let metrics = score(&truth(), &predicted(), &mask);
        check(metrics, [0.20833333333, 0.41666666667, 0.95284005, 0.25, 0.79464286]);
        assert_eq!((metrics.pcc_gene.n_used, metrics.pcc_gene.n_skipped), (2, 1));
    }

    #[test]
    fn constant_columns_are_zero_or_skipped_and_never_nan() {
        let all = Matrix { n_cols: 3, values: vec![true; 12] };
        let mut constant = predicted();
        constant.values.iter_mut().skip(1).step_by(3).for_each(|v| *v = 2.0);
        let metrics = score(&truth(), &constant, &all);
        assert!((metrics.mse.value - 0.66666667).abs() < 1e-8 && metrics.pcc_gene.value.is_finite());
        assert!((metrics.r2_gene.value - 0.44293785).abs() < 1e-8);
        let mut flat = truth();
        flat.values.iter_mut().skip(1).step_by(3).for_each(|v| *v = 2.0);
        let metrics = score(&flat, &predicted(), &all);
        assert!((metrics.mse.value - 0.45833333).abs() < 1e-8);
        assert_eq!((metrics.r2_gene.n_used, metrics.r2_gene.n_skipped), (2, 1));
        assert!((metrics.pcc_gene.value - 0.61330034).abs() < 1e-8, "a constant truth counts as 0");
    }
}
