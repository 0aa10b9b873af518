//! The tissue transformer over niche vectors, and the fusion of the three levels (`spatia.md` §5).

use super::config::SpatiaConfig;
use super::context::{Context, ContextInput, ContextOutput};
use super::norm_last;
use crate::model::init::Scope;
use crate::model::layers::{LayerNorm, Linear, Training};
use crate::tensor::{Module, Tensor};

/// Shortest and longest wavelength of a niche's position features, µm.
pub const WAVELENGTHS_UM: (f64, f64) = (100.0, 40_000.0);

/// The network.
#[derive(Module, Debug)]
pub struct Tissue {
    /// Over [query; niches].
    pub context: Context,
}

impl Tissue {
    /// For `config`.
    pub fn new(scope: &Scope, config: &SpatiaConfig) -> Self {
        let (context, token) = (scope.child("context"), config.masked_token);
        Self { context: Context::new(&context, config.tissue, config.h, config.dropout, token, WAVELENGTHS_UM) }
    }

    /// Offsets are those of the niches' centres from the tissue's.
    pub fn forward(&self, niches: &ContextInput, training: Option<&Training>) -> ContextOutput {
        self.context.forward(niches, None, training)
    }
}

/// z = LN(Linear(concat(z_cell, z_niche, z_tissue))).
#[derive(Module, Debug)]
pub struct FinalFusion {
    /// 3h → h.
    pub linear: Linear,
    /// Norm of z.
    pub norm: LayerNorm,
}

impl FinalFusion {
    /// Of vectors of width `h`.
    pub fn new(scope: &Scope, h: usize) -> Self {
        Self { linear: Linear::new(&scope.child("linear"), 3 * h, h), norm: LayerNorm::new(&scope.child("norm"), h) }
    }

    /// `[b, h]` of `[b, h]` each; a missing level contributes zeros.
    pub fn forward(
        &self,
        cell: Tensor<2>,
        niche: Option<Tensor<2>>,
        tissue: Option<Tensor<2>>,
        training: Option<&Training>,
    ) -> Tensor<2> {
        let none = cell.zeros_like();
        let levels = vec![cell, niche.unwrap_or_else(|| none.clone()), tissue.unwrap_or(none)];
        norm_last(&self.norm, self.linear.forward2(Tensor::cat(levels, 1), training), training)
    }
}
