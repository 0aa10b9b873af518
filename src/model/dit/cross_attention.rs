//! Attention from image tokens to the condition's tokens.

use super::Keys;
use crate::model::init::{Init, Scope};
use crate::model::layers::{Linear, Training};
use crate::tensor::{Module, Tensor, enter, softmax};

/// softmax(q kᵀ / √(d/heads)) v with q from the image and k, v from the condition; adds nothing at the start.
#[derive(Module, Debug)]
pub struct CrossAttention {
    /// d → d.
    pub q: Linear,
    /// Condition's width → 2d: rows k, v.
    pub kv: Linear,
    /// d → d, zero at the start.
    pub proj: Linear,
    #[module(skip)]
    heads: usize,
}

impl CrossAttention {
    /// `d` must be a multiple of `heads`.
    pub fn new(scope: &Scope, d: usize, condition: usize, heads: usize) -> Self {
        let linear =
            |name, n_in, n_out| Linear::with_init(&scope.child(name), n_in, n_out, Init::XavierUniform, Init::Zeros);
        Self {
            q: linear("q", d, d),
            kv: linear("kv", condition, 2 * d),
            proj: Linear::zeros(&scope.child("proj"), d, d),
            heads,
        }
    }

    /// `x`: `[b, n, d]`.
    pub fn forward(&self, x: Tensor<3>, keys: &Keys, training: Option<&Training>) -> Tensor<3> {
        let [b, n, d] = x.dims();
        let s = keys.tokens.dims()[1];
        let (h, dh) = (self.heads, d / self.heads);
        let kv = self.kv.forward(enter(keys.tokens.clone(), &x), training).reshape([b, s, 2 * h, dh]);
        let part = |i: usize| kv.clone().narrow(2, i * h, h).swap_dims(1, 2); // [b, h, s, dh]
        let q = self.q.forward(x, training).reshape([b, n, h, dh]).swap_dims(1, 2);
        let scores = q.mul_scalar(1.0 / (dh as f64).sqrt()).matmul(part(0).swap_dims(2, 3)); // [b, h, n, s]
        let scores = match &keys.absent {
            Some(absent) => {
                let absent = absent.clone().reshape([b, 1, 1, s]).expand([b, h, n, s]);
                scores.mask_fill(absent, f32::NEG_INFINITY)
            }
            None => scores,
        };
        let mixed = softmax(scores, 3).matmul(part(1)).swap_dims(1, 2).reshape([b * n, d]);
        self.proj.forward2(mixed, training).reshape([b, n, d])
    }
}
