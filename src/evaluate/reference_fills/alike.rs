//! The cells most alike to each spot, and means over them.

use rayon::prelude::*;
use syncytia_shards::processed::Matrix;

use super::product::{product, view};
use crate::evaluate::nearest::first_sorted;

/// Cells a spot's mean is taken over.
pub(super) const CELLS: usize = 50;
/// Spots compared at once.
const BLOCK: usize = 128;

/// Rows of length 1; a row of zeros stays.
pub(super) fn unit(rows: &Matrix<f32>) -> Matrix<f32> {
    each(rows, |_| 0.0)
}

/// Rows less their own mean, of length 1: their products are correlations.
pub(super) fn centred_unit(rows: &Matrix<f32>) -> Matrix<f32> {
    each(rows, |row| row.iter().map(|&v| f64::from(v)).sum::<f64>() / row.len().max(1) as f64)
}

fn each(rows: &Matrix<f32>, centre: impl Fn(&[f32]) -> f64 + Sync) -> Matrix<f32> {
    let of = |i: usize| {
        let row = rows.row(i);
        let mean = centre(row);
        let length = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>().sqrt();
        let length = if length > 0.0 { length } else { 1.0 };
        row.iter().map(move |&v| ((f64::from(v) - mean) / length) as f32)
    };
    Matrix { n_cols: rows.n_cols, values: (0..rows.n_rows()).into_par_iter().flat_map_iter(of).collect() }
}

/// Of each spot the cells whose rows have the greatest product with its own, and the product; the greatest first, of equals the
/// lower number.
pub(super) fn best(spots: &Matrix<f32>, cells: &Matrix<f32>) -> Vec<Vec<(u32, f32)>> {
    let (n_cells, d) = (cells.n_rows(), cells.n_cols);
    let block = |rows: &[f32]| -> Vec<Vec<(u32, f32)>> {
        let n = rows.len() / d;
        let mut products = vec![0.0; n * n_cells];
        product(view(rows, n, d), view(&cells.values, n_cells, d).transpose(), &mut products);
        let of_spot = |row: &[f32]| {
            let mut all: Vec<(u32, f32)> = (0u32..).zip(row.iter().copied()).collect();
            first_sorted(&mut all, CELLS, |a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            all
        };
        products.chunks(n_cells).map(of_spot).collect()
    };
    spots.values.par_chunks(BLOCK * d).flat_map_iter(block).collect()
}

/// Of each spot the mean of `values` `[c, H]` over its cells by `weights` of their products; the same weight for all where
/// none has any.
pub(super) fn weighted_mean(
    alike: &[Vec<(u32, f32)>],
    values: &Matrix<f32>,
    weights: impl Fn(&[f64]) -> Vec<f64> + Sync,
) -> Matrix<f32> {
    let of_spot = |cells: &Vec<(u32, f32)>| {
        let mut by = weights(&cells.iter().map(|of| f64::from(of.1)).collect::<Vec<_>>());
        if by.iter().sum::<f64>() <= 0.0 {
            by.fill(1.0 / cells.len() as f64);
        }
        let mut sums = vec![0.0; values.n_cols];
        for (&(cell, _), weight) in cells.iter().zip(by) {
            sums.iter_mut().zip(values.row(cell as usize)).for_each(|(sum, &v)| *sum += weight * f64::from(v));
        }
        sums.into_iter().map(|sum| sum as f32)
    };
    Matrix { n_cols: values.n_cols, values: alike.par_iter().flat_map_iter(of_spot).collect() }
}
