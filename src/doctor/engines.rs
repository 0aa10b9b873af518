//! Which engines this build has, as the doctor tells it.

use crate::engine;

/// Names as `world.json` and the manual use them.
pub fn engines() -> Vec<&'static str> {
    [&["threads"], engine::FOR_PROCESSES].concat()
}

/// Whether ranks of several processes can be joined.
pub fn joins_processes() -> bool {
    !engine::FOR_PROCESSES.is_empty()
}

/// Whether ranks may compute on an NVIDIA GPU.
pub fn uses_gpus() -> bool {
    engine::FOR_PROCESSES.contains(&"nccl")
}
