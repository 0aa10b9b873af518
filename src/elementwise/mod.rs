//! Functions of single numbers in plain operations: loops the compiler vectorises, the same bits on every host. Knows nobody;
//! what they are for is tested where they are used (`src/tensor`, `src/optim`, `src/engine/reduce.rs`).

pub mod adamw;
pub mod average;
pub mod bf16;
pub mod exp;
pub mod fixed_point;
pub mod gelu;
