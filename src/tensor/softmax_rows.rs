//! Softmax over the last axis and its gradient, for operations that are made of Burn's: on a GPU a pass each, on the cores what
//! Burn has.

use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension, tensor::FloatTensor};
use burn::tensor::{FloatDType, Tensor};

/// The operation on a backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub trait SoftmaxRows: Backend {
    /// softmax(x · scale), in f32.
    fn softmax_rows(x: FloatTensor<Self>, scale: f64) -> FloatTensor<Self> {
        composed::<Self>(x, scale)
    }

    /// Gradient of x: w·(g − Σ g·w)·scale of the weights w and their gradient g, both of f32.
    fn softmax_rows_backward(weights: FloatTensor<Self>, gradient: FloatTensor<Self>, scale: f64) -> FloatTensor<Self> {
        composed_backward::<Self>(weights, gradient, scale)
    }
}

impl SoftmaxRows for Flex {}

/// Out of Burn's own.
pub(super) fn composed<B: Backend>(x: FloatTensor<B>, scale: f64) -> FloatTensor<B> {
    let last = x.shape().num_dims() - 1;
    B::softmax(B::float_mul_scalar(B::float_cast(x, FloatDType::F32), scale.into()), last)
}

/// Out of Burn's own.
pub(super) fn composed_backward<B: Backend>(
    weights: FloatTensor<B>,
    gradient: FloatTensor<B>,
    scale: f64,
) -> FloatTensor<B> {
    let last = weights.shape().num_dims() - 1;
    let mean = B::float_sum_dim(B::float_mul(gradient.clone(), weights.clone()), last);
    B::float_mul_scalar(B::float_mul(weights, B::float_sub(gradient, mean)), scale.into())
}

/// softmax(x · scale) over the last axis, in f32.
pub fn softmax_rows<const D: usize>(x: Tensor<D>, scale: f64) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as SoftmaxRows>::softmax_rows(x.into_dispatch(), scale))
}

/// Gradient of x, of that of the weights.
pub fn softmax_rows_backward<const D: usize>(weights: Tensor<D>, gradient: Tensor<D>, scale: f64) -> Tensor<D> {
    let (weights, gradient) = (weights.into_dispatch(), gradient.into_dispatch());
    Tensor::from_dispatch(<Dispatch as SoftmaxRows>::softmax_rows_backward(weights, gradient, scale))
}
