//! Which engines this build has: the one place that says so.

/// Names as `world.json` and the manual use them.
#[allow(unexpected_cfgs, reason = "a feature counts from the day the manifest declares it")]
pub const fn engines() -> &'static [&'static str] {
    match (cfg!(feature = "mpi"), cfg!(feature = "cuda")) {
        (false, false) => &["threads"],
        (true, false) => &["threads", "mpi"],
        (false, true) => &["threads", "nccl"],
        (true, true) => &["threads", "mpi", "nccl"],
    }
}

/// Whether ranks of several processes can be joined.
pub fn joins_processes() -> bool {
    engines().len() > 1
}

/// Whether ranks may compute on an NVIDIA GPU.
pub fn uses_gpus() -> bool {
    engines().contains(&"nccl")
}
