//! Multi-head self-attention with a fused in-projection, as PyTorch's `MultiheadAttention` names and lays it out.

use super::linear::{Linear, affine};
use super::{Dropout, Training};
use crate::model::init::{Init, Scope};
use crate::tensor::{Bool, Module, Param, Tensor, softmax};

/// Which axis of `[batch, spots, d]` attends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttentionAxis {
    /// The spots of a neighbourhood attend to each other: the model of the paper.
    Spots,
    /// The items of the batch attend to each other, slot by slot: what the release runs (`spackle.md` §8 D1).
    Batch,
}

/// softmax(q kᵀ / √(d/heads)) v, with dropout on the weights.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// `[3d, d]`: rows q, k, v.
    pub in_proj_weight: Param<Tensor<2>>,
    /// `[3d]`.
    pub in_proj_bias: Param<Tensor<1>>,
    /// `[d, d]`.
    pub out_proj: Linear,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    dropout: Dropout,
}

impl SelfAttention {
    /// `d` must be a multiple of `heads`. In-projection Xavier uniform, its bias and the out-projection's bias 0.
    pub fn new(scope: &Scope, d: usize, heads: usize, dropout: f64) -> Self {
        assert!(heads > 0 && d.is_multiple_of(heads), "the model's width {d} must be a multiple of its {heads} heads");
        Self {
            in_proj_weight: scope.param("in_proj_weight", [3 * d, d], Init::XavierUniform),
            in_proj_bias: scope.param("in_proj_bias", [3 * d], Init::Zeros),
            out_proj: Linear::with_init(&scope.child("out_proj"), d, d, Init::FanIn(d), Init::Zeros),
            heads,
            dropout: Dropout { p: dropout, site: scope.next_site() },
        }
    }

    /// `x`: `[b, s, d]`; the second axis attends. `absent`: `[b, s]`, true where a key is padding.
    pub fn forward(&self, x: Tensor<3>, absent: Option<&Tensor<2, Bool>>, training: Option<&Training>) -> Tensor<3> {
        let [b, s, d] = x.dims();
        let (h, dh) = (self.heads, d / self.heads);
        let qkv = affine(x.reshape([b * s, d]), &self.in_proj_weight, &self.in_proj_bias, training);
        let qkv = qkv.reshape([b, s, 3 * h, dh]);
        let part = |i: usize| qkv.clone().narrow(2, i * h, h).swap_dims(1, 2); // [b, h, s, dh]
        let (q, k, v) = (part(0), part(1), part(2));
        let scores = q.mul_scalar(1.0 / (dh as f64).sqrt()).matmul(k.swap_dims(2, 3)); // [b, h, s, s]
        let scores = match absent {
            Some(absent) => {
                let absent = absent.clone().reshape([b, 1, 1, s]).expand([b, h, s, s]);
                scores.mask_fill(absent, f32::NEG_INFINITY)
            }
            None => scores,
        };
        let weights = self.dropout.forward(softmax(scores, 3), training);
        let mixed = weights.matmul(v).swap_dims(1, 2).reshape([b * s, d]);
        self.out_proj.forward2(mixed, training).reshape([b, s, d])
    }
}
