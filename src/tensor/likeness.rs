//! Which of some rows is most like each of others: rows at length 1, and the largest of a row of scores. Not tracked: what is chosen by
//! them is a constant.

use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;

use super::values::{of, slice};

/// What a length is at least: a row without one stays at 0 and is like nothing.
pub(super) const SHORTEST: f32 = 1e-12;

/// The operations on a backend; x `[rows, d]`.
#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub trait Likeness: Backend {
    /// Every row over its length.
    fn unit_rows(x: FloatTensor<Self>) -> FloatTensor<Self>;
    /// Of every row its largest value and where it is, `[2 · rows]`; the first of equals.
    fn largest_of_rows(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl Likeness for Flex {
    fn unit_rows(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let x = x.to_contiguous();
        let (shape, mut out) = (x.shape(), Vec::with_capacity(slice(&x).len()));
        slice(&x).chunks_exact(shape[1].max(1)).for_each(|row| push_unit(row, &mut out));
        of(out, shape)
    }

    fn largest_of_rows(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let x = x.to_contiguous();
        let [rows, width] = [x.shape()[0], x.shape()[1]];
        let found: Vec<f32> = slice(&x).chunks_exact(width.max(1)).flat_map(first_largest).collect();
        of(found, [2 * rows])
    }
}

fn push_unit(row: &[f32], to: &mut Vec<f32>) {
    const LANES: usize = 16; // independent sums, so that the compiler vectorises; their number is part of the result
    let mut sums = [0.0f32; LANES];
    for chunk in row.chunks(LANES) {
        sums.iter_mut().zip(chunk).for_each(|(s, x)| *s += x * x);
    }
    let length = sums.iter().sum::<f32>().sqrt().max(SHORTEST);
    to.extend(row.iter().map(|x| x / length));
}

fn first_largest(row: &[f32]) -> [f32; 2] {
    let better = |best: [f32; 2], (at, &value)| if value > best[0] { [value, at as f32] } else { best };
    row.iter().enumerate().fold([f32::NEG_INFINITY, 0.0], better)
}

/// `[rows, d]` of a device without gradients: every row over its length.
pub fn unit_rows(x: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Likeness>::unit_rows(x.into_dispatch()))
}

/// Of every row of `[rows, width]`, of a device without gradients, its largest value and where it is, the first of equals. On the host: a device is waited for.
///
/// # Panics
/// If rows are longer than f32 counts (2²⁴).
pub fn largest_of_rows(x: Tensor<2>) -> Vec<(f32, usize)> {
    assert!((1..=1 << 24).contains(&x.dims()[1]), "rows of values, whose places are told as f32");
    let found = <Dispatch as Likeness>::largest_of_rows(x.into_dispatch());
    let found: Vec<f32> = Tensor::<1>::from_dispatch(found).into_data().try_to_vec().expect("f32");
    found.chunks_exact(2).map(|pair| (pair[0], pair[1] as usize)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{TensorData, cpu};

    fn rows<const N: usize>(values: [[f32; 3]; N]) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.concat(), [N, 3]), &cpu())
    }

    #[test]
    fn rows_have_length_one_or_none() {
        let unit = unit_rows(rows([[3.0, 0.0, -4.0], [0.0; 3]])).into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(unit, [0.6, 0.0, -0.8, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn the_first_of_equals_is_the_largest() {
        let found = largest_of_rows(rows([[-3.0, -1.0, -1.0], [2.0, 5.0, 7.0], [0.0; 3]]));
        assert_eq!(found, [(-1.0, 1), (7.0, 2), (0.0, 0)]);
    }
}
