//! Our operations out of Burn's own, values and gradients: what a GPU runs where it has no kernel of ours (`tensor::cube`).
//!
//! Right first: every function here is held against its CPU kernel by a test. Tensors are plain ones, without a graph:
//! `cube` puts these behind the operations, whose gradients are then asked for by name.

pub mod attention;
pub mod compared;
pub mod layer_norm;
pub mod pack;
pub mod rows;

use std::sync::Arc;

use super::masks::dropout_mask;
use super::spans::Spans;
use super::{Device, DropoutDraws, Int, Tensor, TensorData};
use burn::tensor::DType;
use burn::tensor::activation::sigmoid;
use pack::Padded;

/// .044715 of the tanh form, and 2·√(2/π).
const CUBIC: f64 = 0.044_715;
const SLOPE: f64 = 1.595_769_121_605_730_7;

/// x · σ(2u), u = √(2/π)·(x + .044715 x³).
pub fn gelu_tanh(x: Tensor<1>) -> Tensor<1> {
    x.clone() * sigmoid(twice_u(x))
}

/// gradient · (σ + x·σ·(1 − σ)·2u′).
pub fn gelu_tanh_backward(x: Tensor<1>, gradient: Tensor<1>) -> Tensor<1> {
    let u = twice_u(x.clone());
    let (s, rest) = (sigmoid(u.clone()), sigmoid(-u)); // 1 − σ as σ(−2u): a subtraction would lose what is left of it
    let slope = (x.clone() * x.clone()).mul_scalar(3.0 * CUBIC).add_scalar(1.0).mul_scalar(SLOPE);
    gradient * (s.clone() + x * s * rest * slope)
}

fn twice_u(x: Tensor<1>) -> Tensor<1> {
    let cube = x.clone() * x.clone() * x.clone();
    (x + cube.mul_scalar(CUBIC)).mul_scalar(SLOPE)
}

/// `x` `[rows, width]` with elements dropped, counted inside of a record.
pub fn dropout(x: Tensor<2>, records: &Arc<Spans>, draws: DropoutDraws) -> Tensor<2> {
    let ([_, width], device) = (x.dims(), x.device());
    let padded = Padded::new(records, &device);
    let [b, n] = padded.shape();
    let mask = dropout_mask(draws, b, n * width, &device).reshape([b * n, width]);
    x.clone() * padded.unpad(mask).cast(x.dtype())
}

/// Integers of 64 bits on `device`, whatever its default is.
pub(super) fn integers<const D: usize>(values: Vec<i64>, shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::I64))
}

#[cfg(test)]
mod tests;
