//! A layer less its mean over the training observations (`spared.md` §7).

use crate::processed::Matrix;

/// Mean of every column over all rows of all parts (for deltas: of the training pieces), f64; 0 where there is no row.
pub fn column_means(parts: &[&Matrix<f32>]) -> Vec<f64> {
    let n_cols = parts.first().map_or(0, |m| m.n_cols);
    let n_rows: usize = parts.iter().map(|m| m.n_rows()).sum();
    let mut means = vec![0.0; n_cols];
    for layer in parts {
        for i in 0..layer.n_rows() {
            for (mean, &value) in means.iter_mut().zip(layer.row(i)) {
                *mean += f64::from(value);
            }
        }
    }
    means.iter_mut().for_each(|m| *m /= n_rows.max(1) as f64);
    means
}

/// `layer` less `means`, column by column.
pub fn subtract(layer: &Matrix<f32>, means: &[f64]) -> Matrix<f32> {
    assert_eq!(layer.n_cols, means.len(), "one mean per gene");
    let values = layer.values.iter().zip(means.iter().cycle()).map(|(&v, m)| (f64::from(v) - m) as f32).collect();
    Matrix { n_cols: layer.n_cols, values }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_over_training_observations_of_all_pieces() {
        let a = Matrix { n_cols: 2, values: vec![1.0, 10.0, 3.0, 20.0] };
        let b = Matrix { n_cols: 2, values: vec![5.0, 0.0] };
        let means = column_means(&[&a, &b]);
        assert_eq!(means, [3.0, 10.0]);
        assert_eq!(subtract(&a, &means).values, [-2.0, 0.0, 0.0, 10.0]);
    }
}
