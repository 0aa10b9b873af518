//! What a summed gradient does to the parameters, on flat f32 buffers: clip, AdamW, schedule, EMA.
//!
//! Every rank does this arithmetic on the same bits and gets the same bits. Knows no model and no rank.

pub mod adamw;
pub mod clip;
pub mod ema;
pub mod schedule;

use serde::{Deserialize, Serialize};

/// `[optim]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimConfig {
    /// Peak learning rate.
    pub lr: f64,
    /// Adam's decay rates.
    #[serde(default = "betas")]
    pub betas: [f64; 2],
    /// Adam's ε.
    #[serde(default = "eps")]
    pub eps: f64,
    /// Decoupled weight decay; 0 is Adam.
    #[serde(default)]
    pub weight_decay: f64,
    /// Clip by the global norm to this; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Exponential moving average of the parameters with this decay; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// Course of the learning rate.
    #[serde(default)]
    pub schedule: schedule::Schedule,
    /// Steps of linear warm-up.
    #[serde(default)]
    pub warmup_steps: u64,
    /// Steps the schedule spans; required unless constant. Beyond it the rate stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_steps: Option<u64>,
}

fn betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn eps() -> f64 {
    1e-8
}
