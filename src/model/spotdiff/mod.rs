//! SpotDiff: a spot's hidden genes by diffusion, given the visible ones, cells of a single-cell reference and a prompt
//! (`spotdiff.md`; re-implemented from the paper, of which no code was ever published).
//!
//! Three parts, trained in two stages: ω moves cells into the spatial domain ([`omega`]), then ψ ([`psi`]) learns with the
//! prompt ([`prompt`]) what is noise. [`schedule`] is the noise process, [`sampler`] leads noise to values. Knows no file
//! and no rank.

pub mod block;
pub mod config;
pub mod omega;
pub mod prompt;
pub mod psi;
pub mod psi_config;
pub mod sampler;
pub mod schedule;
pub mod t5;

use std::cell::Cell;

pub use self::config::SpotdiffConfig;
use self::omega::Omega;
use self::prompt::Prompt;
use self::psi::Psi;
use self::psi_config::Tokens;
use super::init::Scope;
use super::params::GeneAxis;
use crate::tensor::{Device, Module};

/// The model.
#[derive(Module, Debug)]
pub struct Spotdiff {
    /// Stage 1.
    pub omega: Omega,
    /// Stage 2, where `psi.use_text`.
    pub prompt: Option<Prompt>,
    /// Stage 2.
    pub psi: Psi,
}

impl Spotdiff {
    /// A new model for `genes` genes, initialised from `seed`; `config.problems()` is empty.
    pub fn new(config: &SpotdiffConfig, genes: usize, seed: u64, device: &Device) -> Self {
        let sites = Cell::new(0);
        let scope = Scope::root(seed, device, &sites);
        Self {
            omega: Omega::new(&scope.child("omega"), &config.omega, genes),
            prompt: config
                .psi
                .use_text
                .then(|| Prompt::new(&scope.child("prompt"), &config.prompt, genes, config.psi.d)),
            psi: Psi::new(&scope.child("psi"), &config.psi, genes),
        }
    }

    /// Where the tensor of this path holds genes. Tokens of some genes each hold them in their order, which no other panel has: a model
    /// of those is refused before ([`super::ModelConfig::one_panel`]).
    pub fn gene_axes(&self, path: &str) -> Vec<GeneAxis> {
        let at = |axis, blocks| vec![GeneAxis { axis, blocks }];
        let config = self.psi.config();
        match path {
            "psi.x_embedder.weight" if config.tokens != Tokens::Spot => at(1, config.channels()),
            "psi.last.weight" | "psi.last.bias" if config.tokens != Tokens::Spot => at(0, 1),
            "omega.down.0.linear.weight" => at(1, 1),
            "omega.last.weight" | "omega.last.bias" | "prompt.tables.genes" => at(0, 1),
            "psi.rna_embedder.weight" | "psi.visible_embedder.weight" | "psi.straight" => at(1, 1),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
