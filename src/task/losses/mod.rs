//! Losses that have no model state: tensors in, per-entry or per-record tensors out; the task sums and weighs them
//! (`docs/step.md` §4). Draws are keyed.

pub mod cosine;
pub mod gene_correlation;
pub mod hierarchical;
pub mod info_nce;
pub mod locality;
pub mod negative_binomial;
pub mod reconstruction;
pub mod thinning;

use crate::tensor::{Tensor, log_sigmoid};

/// A weight that cannot be one, in words.
pub fn positive_or_zero(key: &str, value: f64) -> Option<String> {
    (!(value >= 0.0 && value.is_finite())).then(|| format!("task.{key} = {value}: must be 0 or positive"))
}

/// ln(1 + eˣ), without overflow and with its true gradient at 0.
fn softplus<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    -log_sigmoid(-x)
}
