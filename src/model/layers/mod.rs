//! Blocks the models share, each equal to its test vector in the specs.
//!
//! They take a [`Training`] instead of Burn's dropout: Burn draws from one generator per process, ours by key.

mod attention;
mod dropout;
mod encoder;
mod layer_norm;
mod linear;
mod training;

pub use attention::{AttentionAxis, SelfAttention};
pub use dropout::Dropout;
pub use encoder::{EncoderConfig, EncoderLayer, NormPlacement, TransformerEncoder};
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use training::{Training, before};
