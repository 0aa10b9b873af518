//! What is asked of a model: batch → prepare → loss. A closed set; `[task] kind` is the choice.
//!
//! `prepare` runs on the host, off the training thread where there is one: gathers, masks, weights of the loss terms.
//! `loss` runs where the tensors are and returns the terms of `docs/step.md` §4. A task knows no rank and no file.

pub mod completion;
pub mod inference;
pub mod losses;

use serde::{Deserialize, Serialize};
use syncytia_shards::loader::Slot;

use self::completion::{Completion, GeneMeans};
use crate::model::Model;
use crate::model::layers::Training;
use crate::tensor::{Device, Tensor};

/// `[task]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TaskConfig {
    /// Completion of hidden entries from the spot and its neighbours.
    Completion(completion::CompletionConfig),
}

impl TaskConfig {
    /// The layer it needs.
    pub fn layer(&self) -> &str {
        match self {
            TaskConfig::Completion(config) => &config.layer,
        }
    }
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
    /// First record of the lane whose loss is not finite, if any.
    pub first_bad: Option<u64>,
    /// S_k in f64, summed per record and then in record order.
    pub values: Vec<f64>,
}

/// A task with what it learned of the data.
#[derive(Debug, Clone)]
pub enum Task {
    /// Completion of hidden entries.
    Completion(Completion),
}

/// A micro-batch on the host, ready for the device.
#[derive(Debug, Clone)]
pub enum Prepared {
    /// For completion.
    Completion(completion::Prepared),
}

impl Prepared {
    /// W_k of its loss terms.
    pub fn weights(&self) -> &[f64] {
        match self {
            Prepared::Completion(batch) => &batch.weights,
        }
    }

    /// Its records, in slot order.
    pub fn ids(&self) -> &[u64] {
        match self {
            Prepared::Completion(batch) => &batch.ids,
        }
    }
}

impl Task {
    /// The task of a config, over a panel whose layer genes have these expressed fractions.
    pub fn new(config: &TaskConfig, fractions: &[f64], seed: u64) -> Task {
        match config {
            TaskConfig::Completion(config) => Task::Completion(Completion::new(config.clone(), fractions, seed)),
        }
    }

    /// The layer it needs.
    pub fn layer(&self) -> &str {
        match self {
            Task::Completion(task) => task.layer(),
        }
    }

    /// Names of the loss terms, in order.
    pub fn terms(&self) -> &'static [&'static str] {
        match self {
            Task::Completion(task) => task.terms(),
        }
    }

    /// λ_k of the loss terms, in order.
    pub fn lambdas(&self) -> Vec<f64> {
        match self {
            Task::Completion(task) => task.lambdas(),
        }
    }

    /// What it learns of a split's records before the first step (`assay`: what that assay leaves visible).
    pub fn gene_means(&self, slots: impl IntoIterator<Item = Slot>, assay: Option<u32>) -> GeneMeans {
        match self {
            Task::Completion(task) => task.gene_means(slots, assay),
        }
    }

    /// Gathers, draws and hides on the host.
    pub fn prepare(&self, slots: &[Slot], at: DrawsAt, means: &GeneMeans) -> Prepared {
        match self {
            Task::Completion(task) => Prepared::Completion(task.prepare(slots, at, means)),
        }
    }

    /// The loss terms of a lane.
    pub fn loss(&self, model: &Model, batch: &Prepared, training: &Training, device: &Device) -> Terms {
        match (self, model, batch) {
            (Task::Completion(task), Model::Spackle(model), Prepared::Completion(batch)) => {
                task.loss(model, batch, training, device)
            }
        }
    }

    /// Sum and weight of the selection metric over a micro-batch.
    pub fn validate(&self, model: &Model, batch: &Prepared, device: &Device) -> (f64, f64) {
        match (self, model, batch) {
            (Task::Completion(task), Model::Spackle(model), Prepared::Completion(batch)) => {
                task.validate(model, batch, device)
            }
        }
    }

    /// Assay that validation number `global_step` uses.
    pub fn validation_assay(&self, global_step: u64) -> u32 {
        match self {
            Task::Completion(task) => task.validation_assay(global_step),
        }
    }
}
