//! What is asked of a model: batch → prepare → loss. A closed set; `[task] kind` is the choice.
//!
//! `prepare` runs on the host, off the training thread where there is one: gathers, masks, weights of the loss terms.
//! `loss` runs where the tensors are and returns the terms of `docs/step.md` §4. A task knows no rank and no file.

pub mod completion;

use serde::{Deserialize, Serialize};

use crate::tensor::Tensor;

/// `[task]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TaskConfig {
    /// Completion of hidden entries from the spot and its neighbours.
    Completion(completion::CompletionConfig),
}

/// Where a micro-batch's draws are keyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrawsAt {
    /// Training: by (global_step, slot).
    Step {
        /// Batches consumed before this one.
        global_step: u64,
        /// Slot of the micro-batch's first record.
        first_slot: usize,
    },
    /// Validation and assays: by (assay, record id). Validation is assay 0.
    Assay(u32),
}

/// The terms of a lane's loss, in the task's fixed order.
#[derive(Debug)]
pub struct Terms {
    /// S_k: sums on the device, `[1]` each.
    pub sums: Vec<Tensor<1>>,
    /// λ_k.
    pub lambdas: Vec<f64>,
    /// First record of the lane whose loss is not finite, if any.
    pub first_bad: Option<u64>,
    /// S_k in f64, summed per record and then in record order.
    pub values: Vec<f64>,
}
