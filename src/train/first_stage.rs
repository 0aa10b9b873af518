//! What the first of two stages differs in.

use serde::{Deserialize, Serialize};

use crate::optim::OptimConfig;
use crate::task::TaskConfig;

/// `[first]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstStage {
    /// Batches that it consumes.
    pub max_steps: u64,
    /// Its micro-batches of a step; those of `[train]` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lanes: Option<usize>,
    /// Its records of a micro-batch; those of `[train]` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// What it is asked.
    pub task: TaskConfig,
    /// How it steps.
    pub optim: OptimConfig,
}
