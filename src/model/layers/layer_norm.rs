//! Layer normalisation over the last axis, biased variance, eps inside the root (PyTorch's definition).

use crate::model::init::{Init, Scope};
use crate::tensor::{Module, Param, Tensor, enter, layer_norm};

/// (x − mean) / √(var + eps) · weight + bias.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[d]`.
    pub weight: Param<Tensor<1>>,
    /// `[d]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    eps: f64,
}

/// PyTorch's default.
const EPS: f64 = 1e-5;

impl LayerNorm {
    /// Weight 1, bias 0, eps 1e-5.
    pub fn new(scope: &Scope, d: usize) -> Self {
        Self::with_eps(scope, d, EPS)
    }

    /// Weight 1, bias 0, with the eps named.
    pub fn with_eps(scope: &Scope, d: usize, eps: f64) -> Self {
        Self { weight: scope.param("weight", [d], Init::Ones), bias: scope.param("bias", [d], Init::Zeros), eps }
    }

    /// Any leading axes; the last is normalised.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (weight, bias) = (enter(self.weight.val(), &x), enter(self.bias.val(), &x));
        layer_norm(x, weight, bias, self.eps)
    }
}
