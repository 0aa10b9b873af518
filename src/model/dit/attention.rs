//! Attention among image tokens, and from them to the condition's tokens.

use super::Keys;
use crate::model::init::{Init, Scope};
use crate::model::layers::{Linear, Training, in_products};
use crate::tensor::{Module, Tensor, attend, attend_to, enter};

/// softmax(q kᵀ / √(d/heads)) v among the tokens of an image.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// d → 3d: rows q, k, v.
    pub qkv: Linear,
    /// d → d.
    pub proj: Linear,
    #[module(skip)]
    heads: usize,
}

impl SelfAttention {
    /// `d` must be a multiple of `heads`. Linear layers Xavier uniform with bias 0.
    pub fn new(scope: &Scope, d: usize, heads: usize) -> Self {
        let linear = |name, n_out| Linear::with_init(&scope.child(name), d, n_out, Init::XavierUniform, Init::Zeros);
        Self { qkv: linear("qkv", 3 * d), proj: linear("proj", d), heads }
    }

    /// `x`: `[b, n, d]`.
    pub fn forward(&self, x: Tensor<3>, training: Option<&Training>) -> Tensor<3> {
        let mixed = in_products(training, self.qkv.forward(x, training), |qkv| attend(qkv, self.heads));
        self.proj.forward(mixed, training)
    }
}

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
        let kv = self.kv.forward(enter(keys.tokens.clone(), &x), training);
        let mixed = in_products(training, self.q.forward(x, training), |q| {
            let kv = kv.cast(q.dtype());
            attend_to(q, kv, self.heads, keys.absent.clone())
        });
        self.proj.forward(mixed, training)
    }
}
