//! Training: the loop, one global step, what is saved and what is resumed.
//!
//! Reading order: `ready` (before the first step), `trainer` (the run), `step` (the definition), `data`, `validate`, `state`, `checkpoint`.

pub mod checkpoint;
pub mod config;
pub mod data;
pub mod error;
pub mod lock;
pub mod ready;
pub mod replicas;
pub mod run_folder;
pub mod saver;
pub mod state;
pub mod step;
pub mod trainer;
pub mod validate;
