//! Layer normalisation without parameters of its own, and the one whose shift and scale come from the condition.

use crate::tensor::{Tensor, layer_norm, layer_norm_by_record};

/// DiT's, smaller than PyTorch's default.
const EPS: f64 = 1e-6;

/// (x − mean) / √(var + eps) over the last axis, biased variance.
pub(super) fn plain_norm(x: Tensor<3>) -> Tensor<3> {
    let (d, device) = (x.dims()[2], x.device());
    layer_norm(x, Tensor::ones([d], &device), Tensor::zeros([d], &device), EPS)
}

/// [`plain_norm`] · (1 + scale) + shift; `shift`, `scale`: `[b, 1, d]`.
pub(in crate::model) fn adaptive_norm(x: Tensor<3>, shift: Tensor<3>, scale: Tensor<3>) -> Tensor<3> {
    layer_norm_by_record(x, scale.add_scalar(1.0), shift, EPS)
}
