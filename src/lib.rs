//! What is learned? Tensors, engines, models, tasks, the trainer, evaluation and reports.

// What tests add up they add up on the cores, or allow for its last bits.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod cmd;
pub mod config;
pub mod doctor;
pub mod elementwise;
pub mod engine;
pub mod evaluate;
pub mod export;
pub mod gpu;
pub mod model;
pub mod optim;
pub mod report;
pub mod task;
pub mod tensor;
pub mod train;
