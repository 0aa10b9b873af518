//! ψ: what is noise in a spot's genes, given the visible ones, its paired cells and its prompt (`spotdiff.md` §4).
//!
//! A spot is one token, or some of its genes are; a record's output depends on what is given of that record alone (of which
//! `neighbours` is a part). With `tokens = "batch"` a spot is one token and the micro-batch is the sequence, as in stDiff's release.

use serde::{Deserialize, Serialize};

use super::block::PsiBlock;
use crate::model::dit::norm::adaptive_norm;
use crate::model::dit::time::{TIME_FEATURES, TimeEmbedding};
use crate::model::init::{Init, Scope};
use crate::model::kept::{self, Stack};
use crate::model::layers::{Linear, Training, in_block};
use crate::tensor::{Module, Param, Tensor, enter, silu};

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

/// What is known of the spots that are asked about, `[b, G]` each.
#[derive(Debug, Clone)]
pub struct Known {
    /// Visible values in [−1, 1], hidden ones 0.
    pub visible: Tensor<2>,
    /// 1 where visible.
    pub bits: Tensor<2>,
    /// Their paired cells' genes.
    pub pair: Tensor<2>,
    /// What their neighbours show, `[b, AROUND · G]`, where `neighbours`.
    pub around: Option<Tensor<2>>,
    /// Their prompts, `[b, d]`, as [`super::prompt::Prompt`] gives them.
    pub text: Option<Tensor<2>>,
}

/// The network.
#[derive(Module, Debug)]
pub struct Psi {
    /// A patch's channels → d.
    pub x_embedder: Linear,
    /// Where a patch stands, `[patches, d]`.
    pub positions: Param<Tensor<2>>,
    /// Time → d.
    pub t_embedder: TimeEmbedding,
    /// The paired cells' genes → d.
    pub rna_embedder: Option<Linear>,
    /// The visible genes → d, where they condition.
    pub visible_embedder: Option<Linear>,
    /// Blocks, first to last.
    pub blocks: Vec<PsiBlock>,
    /// Time and conditions → shift, scale of the last norm; zero at the start.
    pub last_ada_ln: Linear,
    /// d → patch; zero at the start.
    pub last: Linear,
    /// How much of each channel that speaks of a gene goes straight to it, `[channels, G]`: the pair, then both means of neighbours.
    /// Zero at the start; none where there is no such channel. The same at all times: in the gene's own unit at the last one, when preconditioned.
    pub straight: Option<Param<Tensor<2>>>,
    #[module(skip)]
    config: PsiConfig,
    #[module(skip)]
    genes: usize,
}

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
    fn aligned(&self) -> usize {
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

impl Psi {
    /// For `genes` genes.
    pub fn new(scope: &Scope, config: &PsiConfig, genes: usize) -> Self {
        let (d, patch) = (config.d, config.patch(genes));
        let linear = |name, n_in| Linear::with_init(&scope.child(name), n_in, d, Init::XavierUniform, Init::Zeros);
        let blocks = scope.child("blocks");
        Self {
            x_embedder: linear("x_embedder", config.channels() * patch),
            positions: scope.param("positions", [genes.div_ceil(patch), d], Init::Normal(0.02)),
            t_embedder: TimeEmbedding::new(&scope.child("t_embedder"), d),
            rna_embedder: config.use_rna.then(|| linear("rna_embedder", genes)),
            visible_embedder: (config.visible == Visible::Condition).then(|| linear("visible_embedder", genes)),
            blocks: (0..config.blocks).map(|i| PsiBlock::new(&blocks.child(&i.to_string()), config)).collect(),
            last_ada_ln: Linear::zeros(&scope.child("last_ada_ln"), d, 2 * d),
            last: Linear::zeros(&scope.child("last"), d, patch),
            straight: (config.aligned() > 0).then(|| scope.param("straight", [config.aligned(), genes], Init::Zeros)),
            config: *config,
            genes,
        }
    }

    /// What it was built from.
    pub fn config(&self) -> &PsiConfig {
        &self.config
    }

    /// What the network says of `noisy` (`[b, G]`: x_t where a gene is asked about, else the visible value), `[b, G]`.
    /// `times`: `[b]`, t / T.
    pub fn forward(&self, noisy: Tensor<2>, known: &Known, times: &[f64], training: Option<&Training>) -> Tensor<2> {
        let c = self.t_embedder.forward(times, &noisy.device(), training);
        let c = match &self.rna_embedder {
            Some(rna) => c + rna.forward2(known.pair.clone(), training),
            None => c,
        };
        let c = match &self.visible_embedder {
            Some(visible) => c + visible.forward2(known.visible.clone(), training),
            None => c,
        };
        let c = match &known.text {
            Some(text) if self.config.use_text => c + text.clone(),
            _ => c,
        };
        let c = silu(c); // every use begins with it

        let x = self.x_embedder.forward(self.patches(noisy, known), training);
        let at = enter(self.positions.val(), &x).unsqueeze::<3>();
        let x = self.blocks.iter().fold(x + at, |x, block| {
            in_block(training, block, (x, c.clone()), |block, (x, c), training| block.forward(x, &c, training))
        });

        let d = self.config.d;
        let ada = self.last_ada_ln.forward2(enter(c, &x), training);
        let part = |i: usize| ada.clone().narrow(1, i * d, d).unsqueeze_dim::<3>(1);
        let said = self.last.forward(adaptive_norm(x, part(0), part(1)), training);
        let [b, tokens, patch] = said.dims();
        let said = said.reshape([b, tokens * patch]).narrow(1, 0, self.genes);
        match &self.straight {
            Some(straight) => {
                let channels = self.aligned(known); // [b, channels, G]
                let by = enter(straight.val(), &channels).unsqueeze::<3>();
                said + (channels * by).sum_dim(1).squeeze_dim(1)
            }
            None => said,
        }
    }

    /// The channels of `straight`, `[b, channels, G]`.
    fn aligned(&self, known: &Known) -> Tensor<3> {
        let mut channels = Vec::new();
        if self.config.use_rna && self.config.rna_channel {
            channels.push(known.pair.clone());
        }
        if let Some(around) = known.around.as_ref().filter(|_| self.config.neighbours) {
            channels.extend([0, 2].map(|mean| around.clone().narrow(1, mean * self.genes, self.genes)));
        }
        Tensor::stack(channels, 1)
    }

    /// `[b, patches, channels · patch]`: the genes of a patch, channel after channel.
    fn patches(&self, noisy: Tensor<2>, known: &Known) -> Tensor<3> {
        let mut channels = vec![noisy];
        if self.config.visible == Visible::Token {
            channels.extend([known.visible.clone(), known.bits.clone()]);
        }
        if self.config.use_rna && self.config.rna_channel {
            channels.push(known.pair.clone());
        }
        let (b, n, patch) = (channels[0].dims()[0], self.config.channels(), self.config.patch(self.genes));
        let tokens = self.genes.div_ceil(patch);
        let all: Tensor<3> = Tensor::stack(channels, 1); // [b, n, G]
        let all = match &known.around {
            Some(around) if self.config.neighbours => {
                Tensor::cat(vec![all, around.clone().reshape([b, AROUND, self.genes])], 1)
            }
            _ => all,
        };
        let missing = tokens * patch - self.genes;
        let all = match missing {
            0 => all,
            _ => {
                let none = Tensor::zeros([b, n, missing], &all.device());
                Tensor::cat(vec![all, none], 2)
            }
        };
        all.reshape([b, n, tokens, patch]).swap_dims(1, 2).reshape([b, tokens, n * patch])
    }
}
