//! The adaptive median filter on log-expression, hidden entries at 0 (`spared.md` §4).
//!
//! On the symmetrised graph: the published yardsticks (2.44 on DLPFC) come from it; own-6-NN windows give 1.96.

use syncytia_shards::process::median;
use syncytia_shards::processed::Matrix;

use crate::evaluate::block::{Block, Seen};

/// Completed values; visible ones come back as they are.
pub fn fill(block: &Block, seen: &Seen) -> Matrix<f32> {
    median::complete(&seen.values, &block.rings)
}
