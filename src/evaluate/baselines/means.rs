//! One number per gene, or one for all.

use syncytia_shards::processed::Matrix;

use crate::evaluate::block::Seen;

/// The mean of all visible values, everywhere.
pub fn global_mean(seen: &Seen) -> Matrix<f32> {
    let all: Vec<f32> =
        seen.values.values.iter().zip(&seen.visible.values).filter(|(_, v)| **v).map(|(x, _)| *x).collect();
    Matrix { n_cols: seen.values.n_cols, values: vec![mean(all); seen.values.values.len()] }
}

/// `statistic` of each gene's visible values, in every spot; 0 for a gene without any.
pub fn per_gene(seen: &Seen, statistic: impl Fn(Vec<f32>) -> f32) -> Matrix<f32> {
    let row = of_genes(seen, statistic);
    Matrix { n_cols: row.len(), values: row.repeat(seen.values.n_rows()) }
}

/// `statistic` of each gene's visible values.
pub fn of_genes(seen: &Seen, statistic: impl Fn(Vec<f32>) -> f32) -> Vec<f32> {
    let genes = seen.values.n_cols;
    (0..genes)
        .map(|g| {
            let visible = (g..seen.values.values.len()).step_by(genes).filter(|&i| seen.visible.values[i]);
            statistic(visible.map(|i| seen.values.values[i]).collect())
        })
        .collect()
}

/// Mean in f64; 0 of nothing.
pub fn mean(values: Vec<f32>) -> f32 {
    let n = values.len().max(1) as f64;
    (values.iter().map(|&v| f64::from(v)).sum::<f64>() / n) as f32
}

/// Median, the mean of the two middle values where even; 0 of nothing.
pub fn median(mut values: Vec<f32>) -> f32 {
    let n = values.len();
    if n == 0 {
        return 0.0;
    }
    values.sort_unstable_by(f32::total_cmp);
    if n % 2 == 1 { values[n / 2] } else { (values[n / 2 - 1] + values[n / 2]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_even_and_odd_counts() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![]), 0.0);
    }

    #[test]
    fn hidden_values_do_not_enter() {
        let seen = Seen {
            values: Matrix { n_cols: 2, values: vec![1.0, 9.0, 3.0, 9.0] },
            visible: Matrix { n_cols: 2, values: vec![true, false, true, false] },
            input: Matrix { n_cols: 2, values: vec![0.0; 4] },
            covariates: Matrix::default(),
        };
        assert_eq!(per_gene(&seen, mean).values, [2.0, 0.0, 2.0, 0.0]);
        assert_eq!(global_mean(&seen).values, [2.0; 4]);
    }
}
