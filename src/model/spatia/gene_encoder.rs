//! The gene encoder: a token per gene of a variable list, and extra tokens in front (`spatia.md` §2).
//!
//! Token of gene g = E_g + V(x) + P_g; genes have no position among the tokens, so their order is irrelevant.

use super::config::{EXTRA_BEFORE_FAMILIES, SpatiaConfig};
use super::{positions, select_rows};
use crate::model::init::{Init, Scope};
use crate::model::layers::{Dropout, EncoderConfig, LayerNorm, Linear, Training, TransformerEncoder};
use crate::tensor::{Int, Module, Padding, Param, Tensor, look_up, relu};

/// V reads a gene's share in per cent: beside a bias of order 1 and under a norm, a share of .01 is next to nothing, and
/// denoising begins to learn much later (.2 nats a count after 300 steps of tiny).
const PER_CENT: f64 = 100.0;

/// eps of the last norm, as in the release; all others have 1e-5.
const LAST_EPS: f64 = 1e-6;

/// Gene lists of a micro-batch, padded to the longest.
#[derive(Debug, Clone)]
pub struct GeneInput {
    /// `[b, k]`: rows of the gene table; where padded any row will do, the last is kept for it.
    pub genes: Tensor<2, Int>,
    /// `[b, k]`: count / Σ counts of the cell, 0 where padded.
    pub values: Tensor<2>,
    /// `[b]`: Σ counts of the cell as it is read.
    pub depth: Tensor<1>,
    /// `[b, k]`: genomic bins 0…9,999, negative where unknown; without them P_g = 0.
    pub bins: Option<Tensor<2>>,
    /// Of `[b, k]` genes; `None` if none is padding.
    pub padding: Option<Padding>,
}

/// Tokens of the genes.
#[derive(Debug, Clone)]
pub struct GeneTokens {
    /// `[b, t + k, d]`: extra tokens, then genes.
    pub tokens: Tensor<3>,
    /// `[b, k, d]`: E_g, as MVC reads it.
    pub embeddings: Tensor<3>,
    /// Of `[b, k]` genes.
    pub padding: Option<Padding>,
    /// The same over all tokens, `[b, t + k]`.
    pub absent: Option<Padding>,
    /// t.
    pub n_extra: usize,
}

/// The network.
#[derive(Module, Debug)]
pub struct GeneEncoder {
    /// `[G + 1, d]`: E, its last row the padding's.
    pub table: Param<Tensor<2>>,
    /// V.
    pub value: ValueMlp,
    /// V′.
    pub depth: ValueMlp,
    /// `[t, d]`: base, depth, then the class families.
    pub extra: Param<Tensor<2>>,
    /// The blocks.
    pub encoder: TransformerEncoder,
    /// Norm of the last block's output.
    pub norm: LayerNorm,
}

/// A number as a vector: Linear(1 → d), LN, ReLU, dropout, Linear(d → d).
#[derive(Module, Debug)]
pub struct ValueMlp {
    /// 1 → d.
    pub linear1: Linear,
    /// Norm after it.
    pub norm: LayerNorm,
    /// d → d.
    pub linear2: Linear,
    #[module(skip)]
    dropout: Dropout,
}

impl GeneEncoder {
    /// For `genes` genes.
    pub fn new(scope: &Scope, config: &SpatiaConfig, genes: usize) -> Self {
        let (gene, dropout) = (&config.gene, config.dropout);
        let d = gene.width;
        let encoder = EncoderConfig::pre_norm(d, gene.blocks, gene.heads, dropout);
        Self {
            table: scope.param("table", [genes + 1, d], Init::Normal(1.0)),
            value: ValueMlp::new(&scope.child("value"), d, dropout),
            depth: ValueMlp::new(&scope.child("depth"), d, dropout),
            extra: scope.param("extra", [gene.n_extra(), d], Init::Normal(1.0)),
            encoder: TransformerEncoder::new(&scope.child("encoder"), &encoder),
            norm: LayerNorm::with_eps(&scope.child("norm"), d, LAST_EPS),
        }
    }

    /// Encodes the lists.
    pub fn forward(&self, input: &GeneInput, training: Option<&Training>) -> GeneTokens {
        let ([b, k], d) = (input.values.dims(), self.table.val().dims()[1]);
        let embeddings = look_up(self.table.val(), input.genes.clone().reshape([b * k])).reshape([b, k, d]);
        let values = input.values.clone().mul_scalar(PER_CENT).clamp(0.0, 1e5).reshape([b, k, 1]);
        let genes = embeddings.clone() + self.value.forward(values, training);
        let genes = match &input.bins {
            Some(bins) => genes + positions::genome(bins.clone(), d),
            None => genes,
        };
        let log2_depth = input.depth.clone().log1p().div_scalar(std::f64::consts::LN_2);
        let depth = self.depth.forward(log2_depth.reshape([b, 1, 1]), training);
        let t = self.extra.val().dims()[0];
        let extra: Tensor<3> = self.extra.val().unsqueeze::<3>().expand([b, t, d]);
        let mut parts = vec![extra.clone().narrow(1, 0, 1), extra.clone().narrow(1, 1, 1) + depth];
        if t > EXTRA_BEFORE_FAMILIES {
            parts.push(extra.narrow(1, EXTRA_BEFORE_FAMILIES, t - EXTRA_BEFORE_FAMILIES));
        }
        parts.push(genes);
        let tokens = Tensor::cat(parts, 1);
        let absent = Padding::side_by_side(b, &[(t, None), (k, input.padding.as_ref())]);
        let tokens = self.encoder.forward(tokens, absent.as_ref(), training);
        let tokens = super::norm_last(&self.norm, tokens, training);
        GeneTokens { tokens, embeddings, padding: input.padding.clone(), absent, n_extra: t }
    }

    /// E of `genes`, `[n]` → `[n, d]`.
    pub fn embeddings(&self, genes: Vec<i64>) -> Tensor<2> {
        select_rows(self.table.val(), genes)
    }
}

impl ValueMlp {
    fn new(scope: &Scope, d: usize, dropout: f64) -> Self {
        Self {
            linear1: Linear::new(&scope.child("linear1"), 1, d),
            norm: LayerNorm::new(&scope.child("norm"), d),
            linear2: Linear::new(&scope.child("linear2"), d, d),
            dropout: Dropout { p: dropout, site: scope.next_site() },
        }
    }

    /// `[b, s, 1]` → `[b, s, d]`.
    fn forward(&self, x: Tensor<3>, training: Option<&Training>) -> Tensor<3> {
        let x = self.linear1.forward(x, training);
        let x = relu(super::norm_last(&self.norm, x, training));
        self.linear2.forward(self.dropout.forward(x, training), training)
    }
}

impl GeneTokens {
    /// `[b, t, d]`: base, depth, class families.
    pub fn extra(&self) -> Tensor<3> {
        self.tokens.clone().narrow(1, 0, self.n_extra)
    }

    /// `[b, k, d]`: the genes.
    pub fn genes(&self) -> Tensor<3> {
        let n = self.tokens.dims()[1];
        self.tokens.clone().narrow(1, self.n_extra, n - self.n_extra)
    }

    /// `[b, d]`: mean of the extra tokens.
    pub fn vector(&self) -> Tensor<2> {
        self.extra().mean_dim(1).squeeze_dim(1)
    }

    /// The same genes with other tokens.
    pub fn with_tokens(&self, tokens: Tensor<3>) -> GeneTokens {
        GeneTokens { tokens, ..self.clone() }
    }
}

/// What the encoder reads of a cell's counts: count / Σ counts of every gene, and Σ counts. An empty cell reads zeros.
pub fn values_and_depth(counts: &[f32]) -> (Vec<f32>, f32) {
    let depth: f64 = counts.iter().map(|&c| f64::from(c)).sum();
    let value = |&count: &f32| if depth > 0.0 { (f64::from(count) / depth) as f32 } else { 0.0 };
    (counts.iter().map(value).collect(), depth as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shares_of_the_cell_and_depth_their_sum() {
        let (values, depth) = values_and_depth(&[3., 0., 5., 2.]);
        assert_eq!(values, [0.3, 0., 0.5, 0.2]);
        assert!((f64::from(depth).ln_1p() / std::f64::consts::LN_2 - 3.45943162).abs() < 1e-8);
        assert_eq!(values_and_depth(&[0., 0.]), (vec![0., 0.], 0.0));
    }
}
