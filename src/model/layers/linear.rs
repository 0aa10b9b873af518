//! y = x Wᵀ + b, weight `[out, in]` as in PyTorch: what is in memory is what is in the checkpoint.

use super::{Training, before};
use crate::model::init::{Init, Scope};
use crate::tensor::{Module, Param, Tensor, enter, weight_first};

/// An affine map of the last axis.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    /// PyTorch's default initialisation (Kaiming uniform with a = √5, bias by fan-in).
    pub fn new(scope: &Scope, n_in: usize, n_out: usize) -> Self {
        Self::with_init(scope, n_in, n_out, Init::FanIn(n_in), Init::FanIn(n_in))
    }

    /// All zero: a head that starts as the identity of what it is added to.
    pub fn zeros(scope: &Scope, n_in: usize, n_out: usize) -> Self {
        Self::with_init(scope, n_in, n_out, Init::Zeros, Init::Zeros)
    }

    /// With the initialisations named.
    pub fn with_init(scope: &Scope, n_in: usize, n_out: usize, weight: Init, bias: Init) -> Self {
        Self { weight: scope.param("weight", [n_out, n_in], weight), bias: scope.param("bias", [n_out], bias) }
    }

    /// `[rows, in]` → `[rows, out]`.
    pub fn forward2(&self, x: Tensor<2>, training: Option<&Training>) -> Tensor<2> {
        affine(x, &self.weight, &self.bias, training)
    }

    /// `[b, s, in]` → `[b, s, out]`. Rows are flattened first: a broadcast weight would make one gradient per batch item.
    pub fn forward(&self, x: Tensor<3>, training: Option<&Training>) -> Tensor<3> {
        let [b, s, n_in] = x.dims();
        let y = self.forward2(x.reshape([b * s, n_in]), training);
        let n_out = y.dims()[1];
        y.reshape([b, s, n_out])
    }
}

/// x Wᵀ + b for rows `[rows, in]`, weight `[out, in]`, bias `[out]`. Backward tells of both parameters before it computes
/// the gradient of x, behind which the last of them can travel.
pub(super) fn affine(
    x: Tensor<2>,
    weight: &Param<Tensor<2>>,
    bias: &Param<Tensor<1>>,
    training: Option<&Training>,
) -> Tensor<2> {
    let y = x.clone().matmul(weight.val().set_require_grad(false).transpose());
    let y = before(training, before(training, y, weight), bias);
    let y = weight_first(y, weight.val(), x);
    let bias = enter(bias.val(), &y);
    y + bias.unsqueeze::<2>()
}
