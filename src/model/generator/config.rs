//! `[model.generator]`: the encoder whose gene side conditions, and the network that paints (`spatia.md` §6).

use serde::{Deserialize, Serialize};

use crate::model::dit::DitConfig;
use crate::model::spatia::SpatiaConfig;

/// Genes of a cell, the most expressed, whose tokens the network looks at.
pub const TOP_GENES: usize = 64;

/// z and z_cell, before the gene encoder's tokens.
pub(super) const VECTORS: usize = 2;

/// `[model.generator]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorConfig {
    /// The encoder as its first stage trained it; only its gene side is built.
    pub encoder: SpatiaConfig,
    /// The network.
    pub dit: DitConfig,
}

impl GeneratorConfig {
    /// What is wrong with it, each with its key; empty when nothing is.
    pub fn problems(&self) -> Vec<String> {
        let here = |problems: Vec<String>, from: &str, to: &str| -> Vec<String> {
            problems.into_iter().map(|p| p.replace(from, to)).collect()
        };
        let mut problems = here(self.encoder.problems(), "model.spatia.", "model.generator.encoder.");
        problems.extend(here(self.dit.problems(), "model.dit.", "model.generator.dit."));
        if self.dit.condition != self.encoder.h {
            problems.push(format!(
                "model.generator.dit.condition = {}: must be model.generator.encoder.h = {}, the width of z_cell",
                self.dit.condition, self.encoder.h
            ));
        }
        problems
    }

    /// Tokens of the condition, at most: z, z_cell, the extra tokens, the most expressed genes.
    pub fn n_tokens(&self) -> usize {
        VECTORS + self.encoder.gene.n_extra() + TOP_GENES.min(self.encoder.gene.context)
    }

    /// How many parameters the model for `genes` genes has, without making it.
    pub fn n_parameters(&self, genes: usize) -> f64 {
        let gene_side = self.encoder.parts(genes).into_iter();
        let gene_side = gene_side.filter(|(part, _)| ["gene_encoder", "cell_out", "final_fusion"].contains(part));
        let (d, condition) = (self.encoder.gene.width, self.dit.condition);
        let bridge = if d == condition { 0.0 } else { (d as f64 + 1.0) * condition as f64 };
        gene_side.map(|(_, n)| n).sum::<f64>() + bridge + self.dit.n_parameters()
    }

    /// About how many values a forward of `records` cells keeps for its backward.
    pub fn n_kept_values(&self, records: usize, recomputed: bool) -> f64 {
        // The gene side keeps nothing where it is frozen; counted all the same, with the rest of the encoder, as a bound.
        self.encoder.n_kept_values(records, recomputed) + self.dit.n_kept_values(records, self.n_tokens(), recomputed)
    }
}
