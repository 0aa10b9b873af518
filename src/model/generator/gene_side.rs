//! The gene side of SPATIA's encoder, alone: what a generated picture is conditioned on. It has no image encoder, so no
//! picture can reach it. Names of its parameters are those of [`crate::model::spatia::Spatia`].

use crate::model::init::Scope;
use crate::model::layers::{LayerNorm, Linear, Training, before};
use crate::model::spatia::gene_encoder::{GeneEncoder, GeneInput, GeneTokens};
use crate::model::spatia::tissue::FinalFusion;
use crate::model::spatia::{CellOut, SpatiaConfig};
use crate::tensor::{Module, ModuleVisitor, Param, Tensor};

/// The network.
#[derive(Module, Debug)]
pub struct GeneSide {
    /// Genes to tokens.
    pub gene_encoder: GeneEncoder,
    /// Mean of the extra tokens to z_cell; the picture's part is zeros.
    pub cell_out: CellOut,
    /// z_cell to z; niche and tissue are zeros.
    pub final_fusion: FinalFusion,
}

/// Cells as their genes alone say them.
#[derive(Debug, Clone)]
pub struct GeneOnly {
    /// Tokens of the genes.
    pub tokens: GeneTokens,
    /// `[b, h]`.
    pub z_cell: Tensor<2>,
    /// `[b, h]`.
    pub z: Tensor<2>,
}

impl GeneSide {
    /// For `genes` genes.
    pub fn new(scope: &Scope, config: &SpatiaConfig, genes: usize) -> Self {
        let (h, d, e) = (config.h, config.gene.width, config.image.width);
        let cell_out = scope.child("cell_out");
        Self {
            gene_encoder: GeneEncoder::new(&scope.child("gene_encoder"), config, genes),
            cell_out: CellOut {
                linear: Linear::new(&cell_out.child("linear"), d + e, h),
                norm: LayerNorm::new(&cell_out.child("norm"), h),
            },
            final_fusion: FinalFusion::new(&scope.child("final_fusion"), h),
        }
    }

    /// Encodes gene lists, as [`crate::model::spatia::Spatia::forward`] does without a picture.
    pub fn forward(&self, input: &GeneInput, training: Option<&Training>) -> GeneOnly {
        let tokens = self.gene_encoder.forward(input, training);
        let vector = tokens.vector();
        let ([b, d], n_in) = (vector.dims(), self.cell_out.linear.weight.val().dims()[1]);
        let no_picture = Tensor::zeros([b, n_in - d], &vector.device());
        let z_cell = self.cell_out.linear.forward2(Tensor::cat(vec![vector, no_picture], 1), training);
        let z_cell = self.cell_out.norm.forward(before(training, z_cell, &self.cell_out.norm));
        let z = self.final_fusion.forward(z_cell.clone(), None, None, training);
        GeneOnly { tokens, z_cell, z }
    }

    /// Whether no parameter of it trains.
    pub fn is_frozen(&self) -> bool {
        let mut any = AnyTrains(false);
        self.visit(&mut any);
        !any.0
    }
}

struct AnyTrains(bool);

impl ModuleVisitor for AnyTrains {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0 |= param.is_require_grad();
    }
}
