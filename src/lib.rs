//! What is learned? Tensors, engines, models, tasks, the trainer, evaluation and reports.

pub mod train;
