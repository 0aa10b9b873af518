//! Multi-head cross-attention: one sequence asks, another answers (`spatia.md` §4).

use super::{Linear, Training};
use crate::model::init::Scope;
use crate::tensor::{Bool, Module, Tensor, softmax};

/// softmax(q kᵀ / √(d/heads)) v, q of `x`, k and v of `y`; all four maps with biases, no dropout.
#[derive(Module, Debug)]
pub struct CrossAttention {
    /// d → d, of the asking sequence.
    pub q: Linear,
    /// d_y → 2d, rows k, v: one product for both.
    pub kv: Linear,
    /// d → d.
    pub out: Linear,
    #[module(skip)]
    heads: usize,
}

impl CrossAttention {
    /// `d` must be a multiple of `heads`; `d_y` is the width of the answering sequence.
    pub fn new(scope: &Scope, d: usize, d_y: usize, heads: usize) -> Self {
        assert!(heads > 0 && d.is_multiple_of(heads), "the width {d} must be a multiple of its {heads} heads");
        Self {
            q: Linear::new(&scope.child("q"), d, d),
            kv: Linear::new(&scope.child("kv"), d_y, 2 * d),
            out: Linear::new(&scope.child("out"), d, d),
            heads,
        }
    }

    /// `x`: `[b, n, d]`, `y`: `[b, m, d_y]` → `[b, n, d]`. `absent`: `[b, m]`, true where `y` is padding; one of every
    /// row must not be.
    pub fn forward(
        &self,
        x: Tensor<3>,
        y: Tensor<3>,
        absent: Option<&Tensor<2, Bool>>,
        training: Option<&Training>,
    ) -> Tensor<3> {
        let ([b, n, d], m) = (x.dims(), y.dims()[1]);
        let (h, dh) = (self.heads, d / self.heads);
        let q = self.q.forward(x, training).reshape([b, n, h, dh]).swap_dims(1, 2); // [b, h, n, dh]
        let kv = self.kv.forward(y, training).reshape([b, m, 2 * h, dh]);
        let part = |i: usize| kv.clone().narrow(2, i * h, h).swap_dims(1, 2); // [b, h, m, dh]
        let (k, v) = (part(0), part(1));
        let scores = q.mul_scalar(1.0 / (dh as f64).sqrt()).matmul(k.swap_dims(2, 3)); // [b, h, n, m]
        let scores = match absent {
            Some(absent) => {
                let absent = absent.clone().reshape([b, 1, 1, m]).expand([b, h, n, m]);
                scores.mask_fill(absent, f32::NEG_INFINITY)
            }
            None => scores,
        };
        let mixed = softmax(scores, 3).matmul(v).swap_dims(1, 2).reshape([b, n, d]);
        self.out.forward(mixed, training)
    }
}
