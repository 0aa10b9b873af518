//! `config.json` of a T5, as Hugging Face writes it: what of it the encoder needs.

use serde::Deserialize;

use super::T5Error;

/// Sizes of the encoder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct T5Config {
    /// Width of a token.
    pub d_model: usize,
    /// Width of a head; heads · d_kv need not be d_model.
    pub d_kv: usize,
    /// Hidden layer of the feed-forward.
    pub d_ff: usize,
    /// Layers.
    pub num_layers: usize,
    /// Heads.
    pub num_heads: usize,
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Buckets of relative positions, half of them for tokens ahead.
    #[serde(default = "buckets")]
    pub relative_attention_num_buckets: usize,
    /// Distance from which on all share a bucket.
    #[serde(default = "max_distance")]
    pub relative_attention_max_distance: usize,
    /// Inside the root of the norms.
    #[serde(default = "eps")]
    pub layer_norm_epsilon: f64,
    /// `relu` (v1.0) or `gated-gelu` (v1.1).
    #[serde(default)]
    pub feed_forward_proj: FeedForwardKind,
}

/// The feed-forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum FeedForwardKind {
    /// wo(relu(wi x)), v1.0.
    #[default]
    #[serde(rename = "relu")]
    Relu,
    /// wo(gelu(wi_0 x) · wi_1 x), gelu in its tanh form, v1.1.
    #[serde(rename = "gated-gelu")]
    GatedGelu,
}

fn buckets() -> usize {
    32
}

fn max_distance() -> usize {
    128
}

fn eps() -> f64 {
    1e-6
}

impl T5Config {
    /// From the text of `config.json`; `file` names it in errors.
    pub fn read(text: &str, file: &str) -> Result<Self, T5Error> {
        let refuse = |what: String| T5Error::Config { file: file.to_owned(), what };
        let config: Self = serde_json::from_str(text).map_err(|e| refuse(e.to_string()))?;
        let sizes = [
            ("d_model", config.d_model),
            ("d_kv", config.d_kv),
            ("d_ff", config.d_ff),
            ("num_layers", config.num_layers),
            ("num_heads", config.num_heads),
            ("vocab_size", config.vocab_size),
        ];
        if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(refuse(format!("{key} = 0: must be at least 1")));
        }
        let (n, far) = (config.relative_attention_num_buckets, config.relative_attention_max_distance);
        if n < 4 || !n.is_multiple_of(4) || far <= n / 4 {
            return Err(refuse(format!(
                "relative_attention_num_buckets = {n} must be a multiple of 4, and relative_attention_max_distance = {far} \
                 more than a quarter of it"
            )));
        }
        Ok(config)
    }

    /// The bucket of a token `ahead` (negative: behind) of the one that asks.
    pub fn bucket(&self, ahead: i64) -> usize {
        let half = self.relative_attention_num_buckets / 2;
        let exact = half / 2;
        let distance = ahead.unsigned_abs() as usize;
        let side = if ahead > 0 { half } else { 0 };
        if distance < exact {
            return side + distance;
        }
        // In f32 and in this order, as the reference computes it: at the borders the rounding decides.
        let over = libm::logf(distance as f32 / exact as f32);
        let most = libm::log(self.relative_attention_max_distance as f64 / exact as f64) as f32;
        let log = (over / most * (half - exact) as f32) as usize;
        side + (exact + log).min(half - 1)
    }
}
