//! An image as tokens and back: patches row by row, channel last inside a patch, and their fixed positions
//! (`spatia.md` §3).

use crate::tensor::{Tensor, TensorData};

/// Tokens of an image, row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Rows of patches.
    pub rows: usize,
    /// Patches in a row.
    pub columns: usize,
}

impl Grid {
    /// Tokens.
    pub fn n_tokens(self) -> usize {
        self.rows * self.columns
    }
}

/// `[b, rows·p, columns·p, c]` → `[b, rows·columns, p·p·c]`.
pub fn to_patches(images: Tensor<4>, p: usize) -> Tensor<3> {
    let [b, height, width, c] = images.dims();
    assert!(height.is_multiple_of(p) && width.is_multiple_of(p), "{height}×{width} is not whole patches of {p}");
    let (rows, columns) = (height / p, width / p);
    let patches = images.reshape([b, rows, p, columns, p * c]).swap_dims(2, 3);
    patches.reshape([b, rows * columns, p * p * c])
}

/// `[b, rows·columns, p·p·c]` → `[b, rows·p, columns·p, c]`.
pub fn to_images(patches: Tensor<3>, grid: Grid, p: usize) -> Tensor<4> {
    let [b, n, values] = patches.dims();
    assert_eq!(n, grid.n_tokens(), "a patch for every place of the grid");
    let c = values / (p * p);
    let rows = patches.reshape([b, grid.rows, grid.columns, p, p * c]).swap_dims(2, 3);
    rows.reshape([b, grid.rows * p, grid.columns * p, c])
}

/// Fixed 2-D sine–cosine positions, `[rows·columns, d]` row-major; d a multiple of 4.
///
/// With e = d/2 per axis and ω_i = 10000^(−i/(e/2)): the first half is [sin(column·ω), cos(column·ω)], the second the
/// row's. Columns come first: the known quirk of MAE.
pub fn positions(grid: Grid, d: usize) -> TensorData {
    assert!(d.is_multiple_of(4), "sine and cosine of two axes");
    let quarter = d / 4;
    let frequencies: Vec<f64> = (0..quarter).map(|i| libm::pow(10_000.0, -(i as f64) / quarter as f64)).collect();
    let mut values = Vec::with_capacity(grid.n_tokens() * d);
    for row in 0..grid.rows {
        for column in 0..grid.columns {
            for at in [column, row] {
                values.extend(frequencies.iter().map(|f| libm::sin(at as f64 * f) as f32));
                values.extend(frequencies.iter().map(|f| libm::cos(at as f64 * f) as f32));
            }
        }
    }
    TensorData::new(values, [grid.n_tokens(), d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::cpu;

    #[test]
    fn positions_equal_the_spec_with_columns_first() {
        let all: Vec<f32> = positions(Grid { rows: 2, columns: 2 }, 8).try_to_vec().unwrap();
        let right = [0.84147098, 0.00999983, 0.54030231, 0.99995, 0., 0., 1., 1.]; // row 0, column 1
        let below = [0., 0., 1., 1., 0.84147098, 0.00999983, 0.54030231, 0.99995]; // row 1, column 0
        for (ours, expected) in all[8..24].iter().zip(right.iter().chain(&below)) {
            assert!((f64::from(*ours) - expected).abs() < 1e-7, "{ours} against {expected}"); // f32 near 1
        }
    }

    /// A 4×4 image of two channels, values 0…31, in patches of 2.
    #[test]
    fn patches_are_row_by_row_with_channels_last_and_go_back() {
        let values: Vec<f32> = (0..32).map(|i| i as f32).collect();
        let image = Tensor::<4>::from_data(TensorData::new(values.clone(), [1, 4, 4, 2]), &cpu());
        let patches = to_patches(image, 2);
        assert_eq!(patches.dims(), [1, 4, 8]);
        let flat: Vec<f32> = patches.clone().into_data().try_to_vec().unwrap();
        assert_eq!(flat[8..16], [4., 5., 6., 7., 12., 13., 14., 15.], "the second patch is to the right of the first");
        let back: Vec<f32> = to_images(patches, Grid { rows: 2, columns: 2 }, 2).into_data().try_to_vec().unwrap();
        assert_eq!(back, values);
    }
}
