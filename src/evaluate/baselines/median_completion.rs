//! The adaptive median filter on log-expression, hidden entries at 0, along the graph the data were completed with
//! (`spared.md` §4).

use syncytia_shards::process::median;
use syncytia_shards::processed::Matrix;

use crate::evaluate::block::{Block, Seen};

/// Completed values; visible ones come back as they are.
pub fn fill(block: &Block, seen: &Seen) -> Matrix<f32> {
    median::complete(&seen.values, &block.windows)
}
