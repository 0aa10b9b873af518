//! Losses that have no model state: tensors in, per-entry or per-record tensors out; the task sums and weighs them
//! (`docs/step.md` §4). Draws are keyed.

pub mod cosine;
pub mod hierarchical;
pub mod info_nce;
pub mod negative_binomial;
pub mod reconstruction;
pub mod thinning;

use crate::tensor::{Tensor, log_sigmoid};

/// ln(1 + eˣ), without overflow and with its true gradient at 0.
fn softplus<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    -log_sigmoid(-x)
}
