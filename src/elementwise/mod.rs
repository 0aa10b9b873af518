//! Functions of single numbers in plain f32 operations: loops the compiler vectorises, the same bits on every host. Knows no
//! tensor; their accuracy is tested where they are operations of one (`src/tensor`).

pub mod exp;
pub mod gelu;
