//! A transformer encoder: self-attention and feed-forward with residuals, norm after (PyTorch's default) or before.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{AttentionAxis, Dropout, LayerNorm, Linear, SelfAttention, Training, before, in_block};
use crate::model::init::Scope;
use crate::tensor::{Module, Padding, Spans, Tensor, gelu, pack, relu, unpack};

/// Where the normalisation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormPlacement {
    /// x = LN(x + f(x)).
    Post,
    /// x = x + f(LN(x)).
    Pre,
}

/// What stands between the feed-forward's two maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// max(x, 0), PyTorch's default.
    Relu,
    /// x·Φ(x), exact (by erf).
    Gelu,
}

/// Sizes of an encoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncoderConfig {
    /// Model width.
    pub d: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the feed-forward's hidden layer.
    pub feed_forward: usize,
    /// Dropout on attention weights, after attention, inside and after the feed-forward.
    pub dropout: f64,
    /// Norm placement.
    pub norm: NormPlacement,
    /// The feed-forward's activation.
    pub activation: Activation,
    /// Which axis attends.
    pub axis: AttentionAxis,
    /// All layers start with layer 0's weights (PyTorch's stack deep-copies one layer).
    pub copied: bool,
}

/// The stack.
#[derive(Module, Debug)]
pub struct TransformerEncoder {
    /// Layers, first to last.
    pub layers: Vec<EncoderLayer>,
    #[module(skip)]
    axis: AttentionAxis,
}

/// One layer, fields in PyTorch's order.
#[derive(Module, Debug)]
pub struct EncoderLayer {
    /// Self-attention.
    pub self_attn: SelfAttention,
    /// d → feed-forward width.
    pub linear1: Linear,
    /// feed-forward width → d.
    pub linear2: Linear,
    /// Norm of the attention block.
    pub norm1: LayerNorm,
    /// Norm of the feed-forward block.
    pub norm2: LayerNorm,
    #[module(skip)]
    dropouts: [Dropout; 3],
    #[module(skip)]
    norm: NormPlacement,
    #[module(skip)]
    activation: Activation,
}

impl EncoderConfig {
    /// The block of ViT and of SPATIA: norm before, exact GELU, feed-forward 4 d, each layer with weights of its own.
    pub fn pre_norm(d: usize, layers: usize, heads: usize, dropout: f64) -> Self {
        Self {
            d,
            layers,
            heads,
            feed_forward: 4 * d,
            dropout,
            norm: NormPlacement::Pre,
            activation: Activation::Gelu,
            axis: AttentionAxis::Spots,
            copied: false,
        }
    }

    /// How many parameters the stack has.
    pub fn n_parameters(&self) -> f64 {
        let [d, hidden, layers] = [self.d, self.feed_forward, self.layers].map(|n| n as f64);
        let linear = |n_in: f64, n_out: f64| (n_in + 1.0) * n_out;
        layers * (linear(d, 3.0 * d) + linear(d, d) + linear(d, hidden) + linear(hidden, d) + 4.0 * d)
    }
}

impl TransformerEncoder {
    /// Layers under `layers.<i>`.
    pub fn new(scope: &Scope, config: &EncoderConfig) -> Self {
        let layers = (0..config.layers)
            .map(|i| {
                let drawn_as = if config.copied { 0 } else { i };
                EncoderLayer::new(&scope.child("layers").child(&drawn_as.to_string()), config)
            })
            .collect();
        Self { layers, axis: config.axis }
    }

    /// `[b, s, d]` → `[b, s, d]`. `absent`: of `[b, s]` tokens, those that are padding: nobody attends to it, it attends to
    /// nobody, nothing is computed for it, and it comes out as zeros.
    pub fn forward(&self, x: Tensor<3>, absent: Option<&Padding>, training: Option<&Training>) -> Tensor<3> {
        let through = |x: Tensor<3>, absent: Option<&Padding>| {
            let [b, s, _] = x.dims();
            let records = absent.map_or_else(|| Spans::equal(b, s), Padding::present).shared();
            let rows = self.layers.iter().fold(pack(x, &records), |x, layer| {
                let records = Arc::clone(&records);
                in_block(training, layer, x, move |layer, x, training| layer.forward(x, &records, training))
            });
            unpack(rows, &records, [b, s])
        };
        match self.axis {
            AttentionAxis::Spots => through(x, absent),
            AttentionAxis::Batch => through(x.swap_dims(0, 1), None).swap_dims(0, 1),
        }
    }
}

impl EncoderLayer {
    fn new(scope: &Scope, config: &EncoderConfig) -> Self {
        let (d, ff) = (config.d, config.feed_forward);
        let dropout = |site| Dropout { p: config.dropout, site };
        Self {
            self_attn: SelfAttention::new(&scope.child("self_attn"), d, config.heads, config.dropout),
            linear1: Linear::new(&scope.child("linear1"), d, ff),
            linear2: Linear::new(&scope.child("linear2"), ff, d),
            norm1: LayerNorm::new(&scope.child("norm1"), d),
            norm2: LayerNorm::new(&scope.child("norm2"), d),
            dropouts: std::array::from_fn(|_| dropout(scope.next_site())),
            norm: config.norm,
            activation: config.activation,
        }
    }

    fn forward(&self, x: Tensor<2>, records: &Arc<Spans>, training: Option<&Training>) -> Tensor<2> {
        // Each norm's tap stands before all uses of its x: on one of three it would change the order of their gradients' sum.
        match self.norm {
            NormPlacement::Post => {
                let x = before(training, x.clone() + self.attend(x, records, training), &self.norm1);
                let x = self.norm1.forward(x);
                let x = before(training, x.clone() + self.feed_forward(x, records, training), &self.norm2);
                self.norm2.forward(x)
            }
            NormPlacement::Pre => {
                let x = before(training, x, &self.norm1);
                let x = x.clone() + self.attend(self.norm1.forward(x), records, training);
                let x = before(training, x, &self.norm2);
                x.clone() + self.feed_forward(self.norm2.forward(x), records, training)
            }
        }
    }

    fn attend(&self, x: Tensor<2>, records: &Arc<Spans>, training: Option<&Training>) -> Tensor<2> {
        self.dropouts[0].forward_rows(self.self_attn.forward(x, records, training), records, training)
    }

    fn feed_forward(&self, x: Tensor<2>, records: &Arc<Spans>, training: Option<&Training>) -> Tensor<2> {
        let hidden = self.linear1.forward2(x, training);
        let hidden = match self.activation {
            Activation::Relu => relu(hidden),
            Activation::Gelu => gelu(hidden),
        };
        let hidden = self.dropouts[1].forward_rows(hidden, records, training);
        self.dropouts[2].forward_rows(self.linear2.forward2(hidden, training), records, training)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::layers::reference::{assert_near, filled, values, x};

    #[test]
    fn the_pre_norm_block_equals_its_vector() {
        let fills = [
            ("layers.0.self_attn.in_proj", 1.0),
            ("layers.0.self_attn.out_proj", 3.0),
            ("layers.0.linear1", 5.0),
            ("layers.0.linear2", 7.0),
        ];
        let encoder = filled(|scope| TransformerEncoder::new(scope, &EncoderConfig::pre_norm(4, 1, 1, 0.0)), &fills);
        let reference = [
            1.1917971562,
            -0.1474758615,
            1.9050424753,
            -0.9109208354,
            0.6861204618,
            1.3406097578,
            -0.082851205,
            1.0832259411,
            0.4408834391,
            -0.4589196328,
            3.2021290758,
            0.3501489009,
        ];
        // The reference is f64, ours f32 with values near 3.
        assert_near(&values(encoder.forward(x(), None, None)), &reference, 2e-6);
    }

    #[test]
    fn every_layer_runs_again_where_the_training_says_so() {
        use crate::tensor::RAN_AGAIN;

        let (device, sites) = (crate::tensor::cpu().autodiff(), std::cell::Cell::new(0));
        let config = EncoderConfig::pre_norm(4, 3, 1, 0.1);
        let encoder = TransformerEncoder::new(&Scope::root(1, &device, &sites), &config);
        for (recomputes, again) in [(true, 3), (false, 0)] {
            let training = Training::new(1, 0, 0).recomputing_blocks(recomputes);
            let y = encoder.forward(x().autodiff(), None, Some(&training));
            RAN_AGAIN.set(0);
            y.sum().backward();
            assert_eq!(RAN_AGAIN.get(), again);
        }
    }
}
