//! Softmax of rows on a GPU, one pass each way.

use burn::backend::{Cube, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{DType, bf16};
use cubecl::prelude::*;

use super::launch::{UNITS, units, unwritten, whole};
use super::reshaped;
use super::row::{across, cubes_of_rows, largest_of_row, sum_over_row};
use crate::tensor::softmax_rows::{SoftmaxRows, composed, composed_backward};

#[cube(launch_unchecked)]
fn forward<F: Float>(x: &[F], out: &mut [f32], rows: usize, width: usize, scale: f32, #[comptime] across: usize) {
    let mut meeting = Shared::<[f32]>::new_slice(UNITS as usize);
    let unit = UNIT_POS as usize % across;
    let at_once = UNITS as usize / across;
    let mut first = CUBE_POS * at_once;
    while first < rows {
        let row = first + UNIT_POS as usize / across;
        let from = row * width;
        let mut most = f32::min_value();
        let mut i = unit;
        while row < rows && i < width {
            most = max(most, f32::cast_from(x[from + i]) * scale);
            i += across;
        }
        let most = largest_of_row(most, &mut meeting, unit, across);
        let mut sum = 0.0f32;
        let mut i = unit;
        while row < rows && i < width {
            let e = (f32::cast_from(x[from + i]) * scale - most).exp();
            out[from + i] = e;
            sum += e;
            i += across;
        }
        let sum = sum_over_row(sum, &mut meeting, unit, across);
        let mut i = unit;
        while row < rows && i < width {
            out[from + i] /= sum;
            i += across;
        }
        first += CUBE_COUNT * at_once;
    }
}

/// w·(g − Σ g·w)·scale.
#[cube(launch_unchecked)]
fn backward(
    weights: &[f32],
    gradient: &[f32],
    out: &mut [f32],
    rows: usize,
    width: usize,
    scale: f32,
    #[comptime] across: usize,
) {
    let mut meeting = Shared::<[f32]>::new_slice(UNITS as usize);
    let unit = UNIT_POS as usize % across;
    let at_once = UNITS as usize / across;
    let mut first = CUBE_POS * at_once;
    while first < rows {
        let row = first + UNIT_POS as usize / across;
        let from = row * width;
        let mut sum = 0.0f32;
        let mut i = unit;
        while row < rows && i < width {
            sum += gradient[from + i] * weights[from + i];
            i += across;
        }
        let sum = sum_over_row(sum, &mut meeting, unit, across);
        let mut i = unit;
        while row < rows && i < width {
            out[from + i] = weights[from + i] * (gradient[from + i] - sum) * scale;
            i += across;
        }
        first += CUBE_COUNT * at_once;
    }
}

impl SoftmaxRows for Cube {
    fn softmax_rows(x: FloatTensor<Cube>, scale: f64) -> FloatTensor<Cube> {
        let (shape, dtype, client) = (x.shape(), x.dtype(), x.client.clone());
        let (n, width) = (shape.num_elements(), shape[shape.num_dims() - 1]);
        if n == 0 || !matches!(dtype, DType::F32 | DType::BF16) {
            return composed::<Cube>(x, scale);
        }
        let (rows, across) = (n / width, across(width));
        let out = unwritten(n, &x, DType::F32);
        let (cubes, x, y) = (cubes_of_rows(rows, across), whole(x).into_buffer_arg(), out.clone().into_buffer_arg());
        // SAFETY: both have `rows · width` values, and a unit reads and writes below them.
        unsafe {
            match dtype {
                DType::BF16 => {
                    forward::launch_unchecked::<bf16>(&client, cubes, units(), x, y, rows, width, scale as f32, across)
                }
                _ => forward::launch_unchecked::<f32>(&client, cubes, units(), x, y, rows, width, scale as f32, across),
            }
        }
        reshaped(out, shape)
    }

    fn softmax_rows_backward(weights: FloatTensor<Cube>, gradient: FloatTensor<Cube>, scale: f64) -> FloatTensor<Cube> {
        let (shape, client) = (weights.shape(), weights.client.clone());
        let (n, width) = (shape.num_elements(), shape[shape.num_dims() - 1]);
        if n == 0 || [&weights, &gradient].iter().any(|x| x.dtype() != DType::F32) {
            return composed_backward::<Cube>(weights, gradient, scale);
        }
        let (rows, across) = (n / width, across(width));
        let out = unwritten(n, &weights, DType::F32);
        let [weights, gradient] = [weights, gradient].map(|x| whole(x).into_buffer_arg());
        let (cubes, y) = (cubes_of_rows(rows, across), out.clone().into_buffer_arg());
        // SAFETY: as forward; the gradient is as long as the weights.
        unsafe {
            backward::launch_unchecked(
                &client,
                cubes,
                units(),
                weights,
                gradient,
                y,
                rows,
                width,
                scale as f32,
                across,
            );
        }
        reshaped(out, shape)
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::*;
    use crate::tensor::cube::flat::tests::padded;
    use crate::tensor::cube::{down, up};
    use crate::tensor::{Tensor, TensorData, cpu};

    /// Widths with units to spare and units that go round, rows that fill no cube, one value that is not there.
    #[test]
    fn rows_of_every_width_are_the_cores_and_what_lies_behind_them_is_not_read() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        for [rows, width] in [[1, 1], [300, 7], [9, 33], [5, 1100], [2, 256]] {
            let wave = |step: f32| (0..rows * width).map(|i| 20.0 * (step * i as f32).sin()).collect::<Vec<f32>>();
            let (mut x, by) = (wave(0.37), wave(0.11));
            if width > 1 {
                x[1] = f32::NEG_INFINITY;
            }
            let cores =
                |values: &[f32]| Tensor::<2>::from_data(TensorData::new(values.to_vec(), [rows, width]), &cpu());
            let there = |values: &[f32]| reshaped(down(padded(values, &device)), [rows, width]);
            let weights = crate::tensor::softmax(cores(&x).mul_scalar(0.3), 1);
            let mean = (cores(&by) * weights.clone()).sum_dim(1);
            let slopes = (weights.clone() * (cores(&by) - mean)).mul_scalar(0.3);
            let weights_there = Cube::softmax_rows(there(&x), 0.3);
            let slopes_there = Cube::softmax_rows_backward(weights_there.clone(), there(&by), 0.3);
            for (cores, there) in [(weights, weights_there), (slopes, slopes_there)] {
                let [a, b] = [cores, up(there)].map(|x: Tensor<2>| x.into_data().try_to_vec::<f32>().unwrap());
                let largest = a.iter().fold(1.0f32, |most, v| most.max(v.abs()));
                let apart = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(a.len() == b.len() && apart <= 2e-6 * largest, "{rows} × {width}: {apart} of {largest}");
            }
        }
    }
}
