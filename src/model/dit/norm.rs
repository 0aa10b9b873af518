//! Layer normalisation without parameters of its own, and the one whose shift and scale come from the condition.

use crate::tensor::Tensor;

/// DiT's, smaller than PyTorch's default.
const EPS: f64 = 1e-6;

/// (x − mean) / √(var + eps) over the last axis, biased variance.
pub(super) fn plain_norm(x: Tensor<3>) -> Tensor<3> {
    let centred = x.clone() - x.mean_dim(2);
    let variance = (centred.clone() * centred.clone()).mean_dim(2);
    centred / variance.add_scalar(EPS).sqrt()
}

/// [`plain_norm`] · (1 + scale) + shift; `shift`, `scale`: `[b, 1, d]`.
pub(super) fn adaptive_norm(x: Tensor<3>, shift: Tensor<3>, scale: Tensor<3>) -> Tensor<3> {
    plain_norm(x) * scale.add_scalar(1.0) + shift
}
