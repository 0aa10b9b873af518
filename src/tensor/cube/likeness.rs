//! Rows at length 1 on a GPU, and the largest of a row: what token merging reads of a device is two numbers a token, not all scores.

use burn::backend::{Cube, TensorMetadata, tensor::FloatTensor};
use burn::tensor::DType;
use cubecl::prelude::*;

use super::launch::{UNITS, cubes, units, unwritten, whole};
use super::reshaped;
use super::row::{across, cubes_of_rows, sum_over_row};
use crate::tensor::likeness::{Likeness, SHORTEST};

#[cube(launch_unchecked)]
fn unit(x: &[f32], out: &mut [f32], rows: usize, width: usize, #[comptime] across: usize) {
    let mut meeting = Shared::<[f32]>::new_slice(UNITS as usize);
    let unit = UNIT_POS as usize % across;
    let at_once = UNITS as usize / across;
    let mut first = CUBE_POS * at_once;
    while first < rows {
        let row = first + UNIT_POS as usize / across;
        let from = row * width;
        let mut squares = 0.0f32;
        let mut i = unit;
        while row < rows && i < width {
            squares += x[from + i] * x[from + i];
            i += across;
        }
        let length = max(sum_over_row(squares, &mut meeting, unit, across).sqrt(), SHORTEST);
        let mut i = unit;
        while row < rows && i < width {
            out[from + i] = x[from + i] / length;
            i += across;
        }
        first += CUBE_COUNT * at_once;
    }
}

/// A unit to each row: the first of equals is that of a loop.
#[cube(launch_unchecked)]
fn largest(x: &[f32], out: &mut [f32], rows: usize, width: usize) {
    let mut row = ABSOLUTE_POS;
    while row < rows {
        // As on the cores, what is not a number is not the largest.
        let mut most = f32::min_value();
        let mut place = 0.0f32;
        for i in 0..width {
            let value = x[row * width + i];
            if value > most {
                most = value;
                place = f32::cast_from(i as u32);
            }
        }
        out[2 * row] = most;
        out[2 * row + 1] = place;
        row += CUBE_DIM as usize * CUBE_COUNT;
    }
}

impl Likeness for Cube {
    fn unit_rows(x: FloatTensor<Cube>) -> FloatTensor<Cube> {
        let (shape, client) = (x.shape(), x.client.clone());
        assert_eq!(x.dtype(), DType::F32, "rows of f32");
        let ([rows, width], across) = ([shape[0], shape[1]], across(shape[1]));
        let out = unwritten(rows * width, &x, DType::F32);
        if rows * width == 0 {
            return reshaped(out, shape);
        }
        let (x, y) = (whole(x).into_buffer_arg(), out.clone().into_buffer_arg());
        // SAFETY: both have `rows · width` values, and a unit reads and writes below them.
        unsafe { unit::launch_unchecked(&client, cubes_of_rows(rows, across), units(), x, y, rows, width, across) };
        reshaped(out, shape)
    }

    fn largest_of_rows(x: FloatTensor<Cube>) -> FloatTensor<Cube> {
        let (shape, client) = (x.shape(), x.client.clone());
        assert_eq!(x.dtype(), DType::F32, "rows of f32");
        let [rows, width] = [shape[0], shape[1]];
        let out = unwritten(2 * rows, &x, DType::F32);
        let (x, y) = (whole(x).into_buffer_arg(), out.clone().into_buffer_arg());
        // SAFETY: `x` has `rows · width` values, `out` two of each row.
        unsafe { largest::launch_unchecked(&client, cubes(rows), units(), x, y, rows, width) };
        out
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use crate::tensor::cube::flat::tests::padded;
    use crate::tensor::likeness::{largest_of_rows, unit_rows};
    use crate::tensor::{Device, Tensor, cpu, flat};

    /// Widths with units to spare and units that go round; values with equals among them, and a row of zeros.
    #[test]
    fn rows_are_the_cores_and_what_lies_behind_them_is_not_read() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        for [rows, width] in [[1, 1], [300, 7], [9, 33], [5, 1100]] {
            let values: Vec<f32> =
                (0..rows * width).map(|i| if i < width { 0.0 } else { (i * 7 % 11) as f32 - 5.0 }).collect();
            let run = |device: &Device, made: fn(&[f32], &Device) -> Tensor<1>| {
                let x = made(&values, device).reshape([rows, width]);
                (unit_rows(x.clone()).into_data().try_to_vec::<f32>().unwrap(), largest_of_rows(x))
            };
            let (unit, largest) = run(&cpu(), |values, device| flat::values(values.to_vec(), device));
            let (unit_there, largest_there) = run(&device, padded);
            assert_eq!(largest, largest_there, "{rows} × {width}");
            let apart = unit.iter().zip(&unit_there).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(unit.len() == unit_there.len() && apart <= 1e-6, "{rows} × {width}: {apart}");
        }
    }

    #[test]
    fn what_is_not_a_number_is_not_the_largest() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        let values = [f32::NAN, -2.0, -1.0, -1.0, f32::NEG_INFINITY, f32::NAN, -3.0, f32::NAN];
        let largest = |x: Tensor<1>| largest_of_rows(x.reshape([2, 4]));
        assert_eq!(largest(flat::values(values.to_vec(), &cpu())), [(-1.0, 2), (-3.0, 2)]);
        assert_eq!(largest(padded(&values, &device)), [(-1.0, 2), (-3.0, 2)]);
    }
}
