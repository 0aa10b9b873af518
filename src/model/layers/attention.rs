//! Multi-head self-attention with a fused in-projection, as PyTorch's `MultiheadAttention` names and lays it out.

use std::sync::Arc;

use super::linear::{Linear, affine};
use super::{Dropout, Training, in_products};
use crate::model::init::{Init, Scope};
use crate::tensor::{Module, Param, Spans, Tensor, attend_among};

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

    /// `x`: `[rows, d]`; the rows of each of the `records` attend to each other.
    pub fn forward(&self, x: Tensor<2>, records: &Arc<Spans>, training: Option<&Training>) -> Tensor<2> {
        let qkv = affine(x, &self.in_proj_weight, &self.in_proj_bias, training);
        let draws = self.dropout.draws(training);
        let mixed = in_products(training, qkv, |qkv| attend_among(qkv, self.heads, records, draws));
        self.out_proj.forward2(mixed, training)
    }
}
