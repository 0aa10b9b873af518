//! Multi-head cross-attention: one sequence asks, another answers (`spatia.md` §4).

use std::sync::Arc;

use super::{Linear, Training, in_products};
use crate::model::init::Scope;
use crate::tensor::{Module, Padding, Tensor, attend_to};

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

    /// `x`: `[b, n, d]`, `y`: `[b, m, d_y]` → `[b, n, d]`. `absent`: of `[b, m]`, where `y` is padding; one of every row must
    /// not be.
    pub fn forward(
        &self,
        x: Tensor<3>,
        y: Tensor<3>,
        absent: Option<&Padding>,
        training: Option<&Training>,
    ) -> Tensor<3> {
        let absent = absent.map(|absent| Arc::new(absent.flags().to_vec()));
        let (q, kv) = (self.q.forward(x, training), self.kv.forward(y, training));
        let mixed = in_products(training, q, |q| {
            let kv = kv.cast(q.dtype());
            attend_to(q, kv, self.heads, absent)
        });
        self.out.forward(mixed, training)
    }
}
