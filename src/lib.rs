//! What is learned? Tensors, engines, models, tasks, the trainer, evaluation and reports.

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
