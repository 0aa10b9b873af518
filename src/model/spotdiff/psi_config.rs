//! What can be said of ψ in a config, and what follows from it: sizes, channels, counts.

use serde::{Deserialize, Serialize};

use crate::model::dit::time::TIME_FEATURES;
use crate::model::kept::{self, Stack};

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokens {
    /// All genes of a spot in one.
    #[default]
    Whole,
    /// Some genes of a spot.
    Spot,
    /// A spot of the micro-batch.
    Batch,
}

/// Where the visible genes enter, beside the noisy vector, which holds them too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visible {
    /// Their tokens, gene by gene, with what is visible at all.
    #[default]
    Token,
    /// The condition, as one vector: in stDiff's release.
    Condition,
}

/// Which GELU the feed-forward has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gelu {
    /// By tanh.
    #[default]
    Tanh,
    /// By the error function: in stDiff's release.
    Exact,
}

/// `[model.spotdiff.psi]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PsiConfig {
    /// Width of a token.
    pub d: usize,
    /// Blocks.
    pub blocks: usize,
    /// Attention heads; of no effect where a spot is one token, whose attention is a linear map.
    pub heads: usize,
    /// Genes of a token; absent: 4 up to 128 genes, 8 up to 512, 16 up to 1,024, else 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<usize>,
    /// What a token is.
    #[serde(default)]
    pub tokens: Tokens,
    /// Where the visible genes enter.
    #[serde(default)]
    pub visible: Visible,
    /// Of the feed-forward.
    #[serde(default)]
    pub gelu: Gelu,
    /// Whether the paired cells' genes also stand beside those of the spot, gene by gene.
    #[serde(default = "yes")]
    pub rna_channel: bool,
    /// Whether what the nearest spots show of a gene stands beside it: then a spot's values depend on its neighbours'.
    #[serde(default)]
    pub neighbours: bool,
    /// Whether the paired cells condition at all (an ablation).
    #[serde(default = "yes")]
    pub use_rna: bool,
    /// Whether the prompt conditions (an ablation).
    #[serde(default = "yes")]
    pub use_text: bool,
    /// Dropout after attention and feed-forward.
    #[serde(default)]
    pub dropout: f64,
}

fn yes() -> bool {
    true
}

/// Channels of what neighbours show of a gene: mean and visible share of the nearest, then of those and theirs.
pub const AROUND: usize = 4;

impl PsiConfig {
    /// What is wrong with it, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut refuse = |bad: bool, problem: String| {
            if bad {
                problems.push(format!("model.spotdiff.psi.{problem}"));
            }
        };
        for (name, size) in [("d", self.d), ("blocks", self.blocks), ("heads", self.heads)] {
            refuse(size == 0, format!("{name} = 0: must be at least 1"));
        }
        refuse(
            self.heads > 0 && !self.d.is_multiple_of(self.heads),
            format!("d = {} is not a multiple of psi.heads = {}", self.d, self.heads),
        );
        refuse(self.patch == Some(0), "patch = 0: must be at least 1".to_owned());
        refuse(
            self.patch.is_some() && self.tokens != Tokens::Spot,
            "patch: a token is a whole spot, unless tokens = \"spot\"; leave it out".to_owned(),
        );
        refuse(!(0.0..1.0).contains(&self.dropout), format!("dropout = {}: must be in [0, 1)", self.dropout));
        problems
    }

    /// Genes of a token, for `genes` in all.
    pub fn patch(&self, genes: usize) -> usize {
        match (self.tokens, self.patch) {
            (Tokens::Whole | Tokens::Batch, _) => genes,
            (Tokens::Spot, Some(patch)) => patch,
            (Tokens::Spot, None) => match genes {
                0..=128 => 4,
                129..=512 => 8,
                513..=1024 => 16,
                _ => 32,
            },
        }
    }

    /// Values of a gene in a token.
    pub(super) fn channels(&self) -> usize {
        let visible = match self.visible {
            Visible::Token => 2,
            Visible::Condition => 0,
        };
        1 + visible + usize::from(self.use_rna && self.rna_channel) + if self.neighbours { AROUND } else { 0 }
    }

    /// Channels that speak of a gene in its own unit, beside what the spot shows of it.
    pub(super) fn aligned(&self) -> usize {
        usize::from(self.use_rna && self.rna_channel) + if self.neighbours { 2 } else { 0 }
    }

    /// How many parameters it has for `genes` genes.
    pub fn n_parameters(&self, genes: usize) -> f64 {
        let linear = |n_in: f64, n_out: f64| (n_in + 1.0) * n_out;
        let patch = self.patch(genes);
        let [d, g, p, patches, channels] =
            [self.d, genes, patch, genes.div_ceil(patch), self.channels()].map(|n| n as f64);
        let block = linear(d, 6.0 * d) + linear(d, 3.0 * d) + linear(d, d) + linear(d, 4.0 * d) + linear(4.0 * d, d);
        let time = linear(TIME_FEATURES as f64, d) + linear(d, d);
        let embedded = usize::from(self.use_rna) + usize::from(self.visible == Visible::Condition);
        linear(channels * p, d)
            + patches * d
            + time
            + embedded as f64 * linear(g, d)
            + self.blocks as f64 * block
            + linear(d, 2.0 * d)
            + linear(d, p)
            + self.aligned() as f64 * g
    }

    /// About how many values a record keeps for its backward.
    pub fn n_kept_values(&self, genes: usize, recomputed: bool) -> f64 {
        let tokens = genes.div_ceil(self.patch(genes)) as f64;
        let stack = Stack { blocks: self.blocks, input: 1.0, block: 20.0 };
        tokens * self.d as f64 * (4.0 + kept::of_stacks(&[stack], recomputed))
    }
}
