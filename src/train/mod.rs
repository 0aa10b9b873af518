//! Training: the loop, one global step, what is saved and what is resumed.
//!
//! Reading order: `ready` (before the first step), `group` (the processes of a run), `trainer` (the run), `step` (the
//! definition), `sums` (a gradient's way to the others), `data`, `validate`, `state`, `checkpoint`.

pub mod adopt;
pub mod checkpoint;
mod choices;
pub mod config;
pub mod data;
pub mod device;
pub mod error;
pub mod feed;
pub mod first_stage;
pub mod group;
pub mod heed;
pub mod join;
pub mod join_nccl;
pub mod lock;
pub mod news;
mod own_time;
pub mod pairing;
pub mod parity;
pub mod parts;
pub mod ready;
pub mod replicas;
pub mod run_folder;
pub mod saver;
pub mod source;
pub mod stages;
pub mod state;
pub mod step;
pub mod step_state;
pub mod stragglers;
pub mod sums;
pub mod text_encoder;
pub mod there;
pub mod trainer;
pub mod validate;
mod way;
