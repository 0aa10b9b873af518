//! Columns at mean 0 and deviation 1.

use syncytia_shards::processed::Matrix;

/// Mean and population deviation of each column; a constant column has a deviation of 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale(Vec<[f64; 2]>);

impl Scale {
    /// Of these rows, at least one.
    pub fn of(rows: &Matrix<f32>) -> Scale {
        let n = rows.n_rows().max(1) as f64;
        let column = |k: usize| (0..rows.n_rows()).map(move |i| f64::from(rows.row(i)[k]));
        let both = |k: usize| {
            let mean = column(k).sum::<f64>() / n;
            let deviation = (column(k).map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
            [mean, if deviation > 0.0 { deviation } else { 1.0 }]
        };
        Scale((0..rows.n_cols).map(both).collect())
    }

    /// A value of column `k` in its deviations from its mean.
    pub fn standard(&self, k: usize, value: f32) -> f64 {
        (f64::from(value) - self.0[k][0]) / self.0[k][1]
    }

    /// All rows so.
    pub fn apply(&self, to: &Matrix<f32>) -> Matrix<f32> {
        self.each(to, |[mean, deviation], v| (v - mean) / deviation)
    }

    /// The way back.
    pub fn back(&self, from: &Matrix<f32>) -> Matrix<f32> {
        self.each(from, |[mean, deviation], v| v * deviation + mean)
    }

    fn each(&self, rows: &Matrix<f32>, f: impl Fn([f64; 2], f64) -> f64) -> Matrix<f32> {
        let of_row =
            |row: &[f32]| row.iter().zip(&self.0).map(|(&v, of)| f(*of, f64::from(v)) as f32).collect::<Vec<_>>();
        Matrix { n_cols: rows.n_cols, values: (0..rows.n_rows()).flat_map(|i| of_row(rows.row(i))).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_go_to_mean_0_and_deviation_1_and_back() {
        let rows = Matrix { n_cols: 2, values: vec![1.0, 5.0, 3.0, 5.0] };
        let scale = Scale::of(&rows);
        assert_eq!(scale.apply(&rows).values, [-1.0, 0.0, 1.0, 0.0]);
        assert_eq!(scale.back(&scale.apply(&rows)), rows);
    }
}
