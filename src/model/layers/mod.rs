//! Blocks the models share, each equal to its test vector in the specs.
//!
//! They take a [`Training`] instead of Burn's dropout: Burn draws from one generator per process, ours by key.

mod attention;
mod cross_attention;
mod dropout;
mod encoder;
mod layer_norm;
mod linear;
#[cfg(test)]
pub(crate) mod reference;
mod training;

pub use attention::{AttentionAxis, SelfAttention};
pub use cross_attention::CrossAttention;
pub use dropout::Dropout;
pub use encoder::{Activation, EncoderConfig, EncoderLayer, NormPlacement, TransformerEncoder};
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use training::{Training, before, in_block, in_products};
