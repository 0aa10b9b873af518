//! The generator G1: a cell's picture from its genes (`spatia.md` §6).
//!
//! The gene side of a trained encoder says what is to be shown ([`Generator::condition`]), a diffusion transformer paints
//! it ([`crate::model::dit`]). No picture is an input of the condition: the encoder's image branch is not even built.
//! Knows no file and no rank.

pub mod config;
pub mod gene_lists;
pub mod gene_side;

use std::cell::Cell;

use self::config::VECTORS;
pub use self::config::{GeneratorConfig, TOP_GENES};
pub use self::gene_lists::{Counts, GeneLists, GeneReader};
use self::gene_side::GeneSide;
use super::dit::{Condition, Dit};
use super::init::Scope;
use super::layers::{Linear, Training};
use super::params::GeneAxis;
use crate::tensor::{Device, Module, Tensor, with_gradients};

/// The part whose parameters are also a [`crate::model::spatia::Spatia`]'s.
const ENCODER: &str = "encoder.";

/// The network.
#[derive(Module, Debug)]
pub struct Generator {
    /// Genes to the condition.
    pub encoder: GeneSide,
    /// Gene tokens to the condition's width, where that is another one.
    pub token_bridge: Option<Linear>,
    /// Noise to pictures.
    pub dit: Dit,
}

impl Generator {
    /// A new model for a panel of `genes` genes, initialised from `seed`; `config.problems()` is empty.
    pub fn new(config: &GeneratorConfig, genes: usize, seed: u64, device: &Device) -> Self {
        let sites = Cell::new(0);
        let scope = Scope::root(seed, device, &sites);
        let (d, condition) = (config.encoder.gene.width, config.dit.condition);
        Self {
            encoder: GeneSide::new(&scope.child("encoder"), &config.encoder, genes),
            token_bridge: (d != condition).then(|| Linear::new(&scope.child("token_bridge"), d, condition)),
            dit: Dit::new(&config.dit, seed, device),
        }
    }

    /// Where the tensor of this path holds genes.
    pub fn gene_axes(&self, path: &str) -> Vec<GeneAxis> {
        if path == "encoder.gene_encoder.table" { vec![GeneAxis { axis: 0, blocks: 1 }] } else { Vec::new() }
    }

    /// The name of this parameter in a checkpoint of the encoder alone.
    pub fn name_in_encoder(path: &str) -> Option<&str> {
        path.strip_prefix(ENCODER)
    }

    /// What cells of these genes are to look like: tokens `[b, 2 + t + top, condition]` are z, z_cell, the t extra tokens
    /// and the most expressed genes; the vector is z_cell.
    ///
    /// A frozen encoder answers as at inference, without autodiff and without dropout, also in training.
    pub fn condition(
        &self,
        cells: &GeneLists,
        dropped: Vec<bool>,
        training: Option<&Training>,
        device: &Device,
    ) -> Condition {
        let seen = if self.encoder.is_frozen() {
            self.encoder.valid().forward(&cells.input(&device.clone().without_autodiff()), None)
        } else {
            self.encoder.forward(&cells.input(device), training)
        };
        let (t, top) = (seen.tokens.n_extra, cells.k.min(TOP_GENES));
        let genes = with_gradients(seen.tokens.tokens.narrow(1, 0, t + top), device);
        let genes = match &self.token_bridge {
            Some(bridge) => bridge.forward(genes, training),
            None => genes,
        };
        let vector = with_gradients(seen.z_cell, device);
        let z = with_gradients(seen.z, device).unsqueeze_dim::<3>(1);
        let tokens = Tensor::cat(vec![z, vector.clone().unsqueeze_dim::<3>(1), genes], 1);
        Condition { tokens, absent: cells.absent(VECTORS + t, top), vector, dropped }
    }
}

#[cfg(test)]
mod tests;
