//! SpaCKLE: completion of a spot's expression from itself and its neighbours (`spackle.md` §5).
//!
//! h = Lin(E_m); h = T(h); Ê = Lout(h), attention over the spots of a neighbourhood. The options beyond the paper
//! (`input`, `rank_embedding`, `readout`) are the recipe of `best.toml`. Knows no file, no rank and no mask rule.

mod readout;

use std::cell::Cell;

use serde::{Deserialize, Serialize};

use self::readout::CentreResidual;
use super::init::{Init, Scope};
use super::kept::{self, Stack};
use super::layers::{Activation, AttentionAxis, EncoderConfig, Linear, NormPlacement, Training, TransformerEncoder};
use super::params::GeneAxis;
use crate::model::DataShape;
use crate::tensor::{Device, Module, Padding, Param, Tensor};

/// `[model.spackle]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpackleConfig {
    /// Model width; the paper fixes 128.
    pub d: usize,
    /// Encoder layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the feed-forward's hidden layer.
    pub feed_forward: usize,
    /// Dropout probability.
    pub dropout: f64,
    /// `post` (paper) or `pre`.
    pub norm: NormPlacement,
    /// `spots` (paper) or `batch` (what the release runs; needs `lanes = 1`).
    pub attention_axis: AttentionAxis,
    /// `copied` (release: every layer starts as layer 0) or `own`.
    pub init: LayerInit,
    /// What a spot's row holds.
    pub input: InputForm,
    /// A learned vector per neighbour rank (0 = centre, then by distance).
    pub rank_embedding: bool,
    /// What is predicted and how.
    pub readout: Readout,
}

impl SpackleConfig {
    /// Columns of a spot's row as it enters.
    fn width(&self, shape: DataShape) -> usize {
        self.input.per_gene() * shape.genes + shape.covariates
    }

    /// What is wrong with it, each with its key; `batch`: lanes and micro-batch.
    pub fn problems(&self, (lanes, micro_batch): (usize, usize)) -> Vec<String> {
        let mut problems = Vec::new();
        let mut must = |holds: bool, problem: String| {
            if !holds {
                problems.push(format!("model.spackle.{problem}"));
            }
        };
        must((0.0..0.99).contains(&self.dropout), format!("dropout = {}: must be in [0, 0.99)", self.dropout));
        must(
            self.d > 0 && self.heads > 0 && self.d.is_multiple_of(self.heads.max(1)),
            format!("heads = {}: must divide d = {}, both at least 1", self.heads, self.d),
        );
        must(self.feed_forward > 0, "feed_forward = 0: must be at least 1".into());
        must(
            self.attention_axis == AttentionAxis::Spots || (lanes == 1 && micro_batch == 256),
            format!(
                "attention_axis = \"batch\" demands train.lanes = 1 and train.micro_batch = 256 (now {lanes} and \
                 {micro_batch}): its results depend on the composition of the batch, and the release's is 256"
            ),
        );
        problems
    }

    /// How many parameters [`Spackle::new`] makes, without making them.
    pub fn n_parameters(&self, shape: DataShape) -> f64 {
        let linear = |n_in: f64, n_out: f64| (n_in + 1.0) * n_out;
        let [d, hidden, genes, spots] = [self.d, self.feed_forward, shape.genes, shape.spots].map(|n| n as f64);
        let norms = 4.0 * d;
        let layer = linear(d, 3.0 * d) + linear(d, d) + linear(d, hidden) + linear(hidden, d) + norms;
        let rank = if self.rank_embedding { spots * d } else { 0.0 };
        let centre = if self.readout == Readout::CentreResidual { linear(4.0 * genes, genes) } else { 0.0 };
        linear(self.width(shape) as f64, d) + rank + self.layers as f64 * layer + linear(d, genes) + centre
    }

    /// About how many values a forward of `records` neighbourhoods keeps for its backward. The multiples are what the
    /// peak memory of `paper.toml` showed (README, "Measured"): right to a third, not to a value.
    pub fn n_kept_values(&self, shape: DataShape, records: usize, recomputed: bool) -> f64 {
        let rows = records as f64 * shape.spots as f64;
        let attended = match self.attention_axis {
            AttentionAxis::Spots => shape.spots,
            AttentionAxis::Batch => records,
        };
        let scores = 3.0 * self.heads as f64 * attended as f64;
        let layer = 12.0 * self.d as f64 + 6.0 * self.feed_forward as f64 + scores;
        let stack = Stack { blocks: self.layers, input: self.d as f64, block: layer };
        rows * (2.0 * (self.width(shape) + shape.genes) as f64 + kept::of_stacks(&[stack], recomputed))
    }
}

/// Initial weights of the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerInit {
    /// Every layer starts with layer 0's weights.
    Copied,
    /// Each layer draws its own.
    Own,
}

/// What a spot's row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputForm {
    /// The completed values, hidden entries 0 (paper).
    Values,
    /// Visible values less the section's visible gene mean, else 0; then one visibility bit per gene.
    CentredWithVisibility,
}

impl InputForm {
    /// Columns of a row for each gene.
    fn per_gene(self) -> usize {
        match self {
            InputForm::Values => 1,
            InputForm::CentredWithVisibility => 2,
        }
    }
}

/// What is predicted and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readout {
    /// Every row by one linear head (paper).
    AllRows,
    /// The centre only: gene mean + mean of visible neighbours + zero-initialised skip and head.
    CentreResidual,
}

/// A micro-batch of neighbourhoods; row 0 of the second axis is the centre.
#[derive(Debug, Clone)]
pub struct SpackleInput {
    /// `[b, s, G]`: completed values with hidden entries 0.
    pub values: Tensor<3>,
    /// `[b, s, G]`: 1 where measured and not hidden.
    pub visible: Tensor<3>,
    /// `[b, G]`: the section's mean of visible values per gene.
    pub gene_mean: Tensor<2>,
    /// `[b, s, E]`: covariates as they are, and their mean over the section, `[b, E]`; `None` where there are none.
    pub covariates: Option<(Tensor<3>, Tensor<2>)>,
    /// Of `[b, s]` spots, neighbours that are not there.
    pub absent: Option<Padding>,
}

/// The network.
#[derive(Module, Debug)]
pub struct Spackle {
    /// Input width → d.
    pub linear: Linear,
    /// `[s, d]`, when `rank_embedding`.
    pub rank: Option<Param<Tensor<2>>>,
    /// The stack.
    pub transformer_encoder: TransformerEncoder,
    /// d → G.
    pub out_linear: Linear,
    /// The residual readout, when `readout = "centre_residual"`.
    pub centre: Option<CentreResidual>,
    #[module(skip)]
    input: InputForm,
}

impl Spackle {
    /// A new model for data of this shape, initialised from `seed`.
    pub fn new(config: &SpackleConfig, shape: DataShape, seed: u64, device: &Device) -> Self {
        let DataShape { genes, spots, .. } = shape;
        let sites = Cell::new(0);
        let scope = Scope::root(seed, device, &sites);
        let width = config.width(shape);
        let encoder = EncoderConfig {
            d: config.d,
            layers: config.layers,
            heads: config.heads,
            feed_forward: config.feed_forward,
            dropout: config.dropout,
            norm: config.norm,
            activation: Activation::Relu,
            axis: config.attention_axis,
            copied: config.init == LayerInit::Copied,
        };
        let (out_linear, centre) = match config.readout {
            Readout::AllRows => (Linear::new(&scope.child("out_linear"), config.d, genes), None),
            Readout::CentreResidual => (
                Linear::zeros(&scope.child("out_linear"), config.d, genes),
                Some(CentreResidual::new(&scope.child("centre"), genes)),
            ),
        };
        Self {
            linear: Linear::new(&scope.child("linear"), width, config.d),
            rank: config.rank_embedding.then(|| scope.param("rank", [spots, config.d], Init::Normal(0.02))),
            transformer_encoder: TransformerEncoder::new(&scope.child("transformer_encoder"), &encoder),
            out_linear,
            centre,
            input: config.input,
        }
    }

    /// Where the tensor of this path holds genes.
    pub fn gene_axes(&self, path: &str) -> Vec<GeneAxis> {
        let axes: &[(usize, usize)] = match path {
            "linear.weight" => &[(1, self.input.per_gene())],
            "out_linear.weight" | "out_linear.bias" | "centre.skip.bias" => &[(0, 1)],
            "centre.skip.weight" => &[(0, 1), (1, readout::FEATURES)],
            _ => &[],
        };
        axes.iter().map(|&(axis, blocks)| GeneAxis { axis, blocks }).collect()
    }

    /// Predictions `[b, s, G]`, or `[b, 1, G]` for a centre readout; row 0 is the centre in both.
    pub fn forward(&self, input: &SpackleInput, training: Option<&Training>) -> Tensor<3> {
        let mut x = match self.input {
            InputForm::Values => vec![input.values.clone()],
            InputForm::CentredWithVisibility => vec![readout::centred(input), input.visible.clone()],
        };
        if let Some((covariates, mean)) = &input.covariates {
            x.push(match self.input {
                InputForm::Values => covariates.clone(),
                InputForm::CentredWithVisibility => covariates.clone() - mean.clone().unsqueeze_dim(1),
            });
        }
        let x = if x.len() == 1 { x.remove(0) } else { Tensor::cat(x, 2) };
        let h = self.linear.forward(x, training);
        let h = match &self.rank {
            Some(rank) => h + rank.val().unsqueeze(),
            None => h,
        };
        let h = self.transformer_encoder.forward(h, input.absent.as_ref(), training);
        match &self.centre {
            None => self.out_linear.forward(h, training),
            Some(centre) => {
                let h = h.narrow(1, 0, 1);
                let simple = centre.forward(input, &h, training);
                self.out_linear.forward(h, training) + simple.unsqueeze_dim(1)
            }
        }
    }
}

#[cfg(test)]
mod tests;
