//! Sums of a GPU in an order that is a function of the shape alone, in f32. Burn's over rows are one unit to each column, which goes
//! through all rows, or whatever was fastest in a build with `tuned`; its sum of a whole tensor adds where it comes first, by atomics.

use burn::backend::{Cube, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{DType, bf16};
use cubecl::prelude::*;

use super::launch::{cubes, units, unwritten, whole};
use super::{down, reshaped, up};
use crate::tensor::Tensor;

/// Rows that a unit adds up, one after the other: as the cores', whose bits these are as long as there are no more blocks than that.
pub const ROWS: usize = 128;

/// `[parts, rows, width]` → `[parts, blocks of rows, width]`, in f32.
#[cube(launch_unchecked)]
fn add_rows<F: Float>(x: &[F], out: &mut [f32], rows: usize, blocks: usize, width: usize, n: usize) {
    let mut at = ABSOLUTE_POS;
    while at < n {
        let column = at % width;
        let block = at / width % blocks;
        let part = at / width / blocks;
        let mut row = block * ROWS;
        let end = min(row + ROWS, rows);
        let mut sum = 0.0f32;
        while row < end {
            sum += f32::cast_from(x[(part * rows + row) * width + column]);
            row += 1;
        }
        out[at] = sum;
        at += CUBE_DIM as usize * CUBE_COUNT;
    }
}

/// Sums over the rows of each of `parts` equal parts, `[parts · width]` in f32. None where there is no kernel for its kind of numbers.
pub fn of_rows(x: FloatTensor<Cube>, parts: usize, width: usize) -> Option<FloatTensor<Cube>> {
    let mut x = whole(x);
    let mut rows = x.shape().num_elements() / (parts * width).max(1);
    loop {
        let blocks = rows.div_ceil(ROWS).max(1);
        let n = parts * blocks * width;
        let out = unwritten(n, &x, DType::F32);
        let (client, dtype) = (out.client.clone(), x.dtype());
        let (from, to) = (x.into_buffer_arg(), out.clone().into_buffer_arg());
        // SAFETY: `x` has `parts · rows · width` values and `out` a value for each unit's sum.
        unsafe {
            match dtype {
                DType::F32 => {
                    add_rows::launch_unchecked::<f32>(&client, cubes(n), units(), from, to, rows, blocks, width, n)
                }
                DType::BF16 => {
                    add_rows::launch_unchecked::<bf16>(&client, cubes(n), units(), from, to, rows, blocks, width, n)
                }
                _ => return None,
            }
        }
        if blocks == 1 {
            return Some(reshaped(out, [parts * width]));
        }
        (x, rows) = (out, blocks);
    }
}

/// `n` values from `at` on.
pub fn part(x: FloatTensor<Cube>, at: usize, n: usize) -> FloatTensor<Cube> {
    let x: Tensor<1> = up(x);
    down(x.narrow(0, at, n))
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::*;
    use crate::tensor::cpu;
    use crate::tensor::cube::flat::tests::padded;
    use crate::tensor::{affine_rows, flat, parameters_first};

    fn values(x: FloatTensor<Cube>) -> Vec<f32> {
        up::<1>(x).into_data().try_to_vec().unwrap()
    }

    /// Of values whose sums have another last bit in another order.
    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|i| (1.37 * i as f32).sin() * 2f32.powi(i as i32 % 9)).collect()
    }

    #[test]
    fn sums_of_rows_have_the_bits_of_the_cores() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        for [rows, width] in [[1, 1], [127, 3], [128, 5], [129, 300], [1000, 33], [9000, 2]] {
            let x = wave(rows * width);
            // The gradient of a bias: ours on the cores.
            let zeros = |n: usize| flat::values(vec![0.0; n], &cpu().autodiff()).require_grad();
            let [weight, bias] = [zeros(width).reshape([width, 1]), zeros(width).reshape([1, width])];
            let (weight, bias) = (weight.detach().require_grad(), bias.reshape([width]).detach().require_grad());
            let ones = zeros(rows).reshape([rows, 1]);
            let y =
                parameters_first(affine_rows(ones.clone(), weight.clone(), bias.clone()), weight, bias.clone(), ones);
            let by = flat::values(x.clone(), &cpu().autodiff()).reshape([rows, width]);
            let cores = bias.grad(&(y * by).sum().backward()).expect("it asks for one");
            let there = values(of_rows(down(padded(&x, &device)), 1, width).expect("f32"));
            assert_eq!(there, cores.into_data().try_to_vec::<f32>().unwrap(), "{rows} × {width}");
        }
    }

    #[test]
    fn sums_of_parts_are_those_of_each_part_by_itself() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        let x = wave(3 * 200 * 7);
        let together = values(of_rows(down(padded(&x, &device)), 3, 7).expect("f32"));
        let alone = x.chunks(200 * 7).flat_map(|x| values(of_rows(down(padded(x, &device)), 1, 7).expect("f32")));
        assert_eq!(together, alone.collect::<Vec<_>>());
        assert!(
            values(of_rows(down(padded(&[], &device)), 1, 7).expect("f32")).iter().all(|&sum| sum == 0.0),
            "of no row"
        );
    }

    #[test]
    fn a_total_is_summed_in_that_order_too() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        let x = wave(5000);
        let blocks = x.chunks(ROWS).map(|block| block.iter().fold(0.0f32, |sum, v| sum + v));
        let total = crate::tensor::total::<1>(padded(&x, &device)).into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(total, [blocks.fold(0.0f32, |sum, block| sum + block)]);
        let in_a_row = x.iter().fold(0.0f32, |sum, v| sum + v);
        assert_ne!(total, [in_a_row], "values that have the same sum in another order say nothing");
    }

    #[test]
    fn more_rows_than_blocks_of_blocks_are_added_up_too() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        let n = ROWS * ROWS * 2 + 5;
        let x: Vec<f32> = (0..n).map(|i| (i % 3) as f32).collect();
        assert_eq!(values(of_rows(down(padded(&x, &device)), 1, 1).expect("f32")), [x.iter().sum::<f32>()]);
    }
}
