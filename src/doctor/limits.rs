//! Limits of this process, as a shell's `ulimit` sets them: files, threads, memory, sizes; and the shared memory that MPI
//! needs on one node.

use std::fs;

use syncytia_launch::ExitCode;

use super::cgroup::Cgroup;
use super::{Finding, bytes};

/// Open files of a run: shards, logs, checkpoints being written, and some for libraries.
const OPEN_FILES: u64 = 256;
/// Below this, two MPI ranks on one node fall back to slow paths or die; container runtimes give 64 MiB.
const SHARED_MEMORY: u64 = 256 << 20;

/// Soft limits; `None` is unlimited, or not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Open files.
    pub open_files: Option<u64>,
    /// Processes and threads of the user.
    pub processes: Option<u64>,
    /// Bytes of address space.
    pub address_space: Option<u64>,
    /// Bytes of one file.
    pub file_size: Option<u64>,
    /// Bytes of a core file.
    pub core: Option<u64>,
    /// Bytes of locked memory.
    pub locked_memory: Option<u64>,
    /// Bytes of the main thread's stack.
    pub stack: Option<u64>,
}

/// What a run asks of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// Threads at once.
    pub threads: u64,
    /// Bytes of its largest file.
    pub largest_file: u64,
}

/// As `/proc/self/limits` tells.
pub fn of_this_process() -> Limits {
    Limits::read(&fs::read_to_string("/proc/self/limits").unwrap_or_default())
}

impl Limits {
    fn read(text: &str) -> Limits {
        let soft = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Limits {
            open_files: soft("Max open files"),
            processes: soft("Max processes"),
            address_space: soft("Max address space"),
            file_size: soft("Max file size"),
            core: soft("Max core file size"),
            locked_memory: soft("Max locked memory"),
            stack: soft("Max stack size"),
        }
    }
}

/// Looks at the limits; `demand` is what the configured run asks, nothing where there is none.
pub fn look(demand: Demand) -> Vec<Finding> {
    let mut findings = judge(&of_this_process(), Cgroup::of_this_process().pids, demand);
    findings.extend(shared_memory());
    findings
}

fn judge(limits: &Limits, pids: Option<u64>, demand: Demand) -> Vec<Finding> {
    let count = |n: Option<u64>| n.map_or("unlimited".to_owned(), |n| n.to_string());
    let size = |n: Option<u64>| n.map_or("unlimited".to_owned(), bytes);
    let below = |limit: Option<u64>, need: u64| limit.is_some_and(|limit| limit < need);
    let mut findings = Vec::new();
    let mut line = |what: &str, found: String, too_low: bool, advice: &str| {
        findings.push(if too_low { Finding::warn(what, found, advice) } else { Finding::ok(what, found) });
    };
    let few = below(limits.open_files, OPEN_FILES);
    line("open files", count(limits.open_files), few, "raise it: ulimit -n 4096");
    // root is not held by the limit of processes, only by the control group's
    let need = demand.threads;
    let few = below(limits.processes, need) || below(pids, need);
    let mut found = count(limits.processes);
    if let Some(pids) = pids {
        found += &format!(", the control group gives {pids}");
    }
    if need > 0 {
        found += &format!("; the run starts about {need}");
    }
    line("processes and threads", found, few, "lower train.ranks or train.threads, or raise it: ulimit -u");
    let tight = below(limits.address_space, 4 << 30);
    line(
        "address space",
        size(limits.address_space),
        tight,
        "the allocator reserves ahead of use: ulimit -v unlimited",
    );
    line("core file", size(limits.core), false, "");
    let tight = below(limits.locked_memory, 64 << 10);
    line("locked memory", size(limits.locked_memory), tight, "InfiniBand needs more: ulimit -l unlimited");
    line("stack", size(limits.stack), below(limits.stack, 1 << 20), "raise it: ulimit -s 8192");
    findings.push(match limits.file_size {
        Some(limit) if limit < demand.largest_file => {
            let found = format!("{}, a checkpoint's largest file takes {}", bytes(limit), bytes(demand.largest_file));
            Finding::fail(ExitCode::Storage, "file size", found, "raise it: ulimit -f unlimited")
        }
        limit => Finding::ok("file size", size(limit)),
    });
    findings
}

#[cfg(unix)]
fn shared_memory() -> Option<Finding> {
    let what = "/dev/shm";
    let Ok(found) = rustix::fs::statvfs(what) else {
        return Some(Finding::warn(what, "not there", "MPI ranks on one node talk through it: mount a tmpfs there"));
    };
    let (size, free) = (found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize);
    let said = format!("{}, {} free", bytes(size), bytes(free));
    if free < SHARED_MEMORY {
        let advice = "MPI ranks on one node talk through it: docker run --shm-size=1g, or free what lies there";
        return Some(Finding::warn(what, said, advice));
    }
    Some(Finding::ok(what, said))
}

#[cfg(not(unix))]
fn shared_memory() -> Option<Finding> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Verdict, exit_code};

    const REAL: &str = "\
Limit                     Soft Limit           Hard Limit           Units     
Max file size             unlimited            unlimited            bytes     
Max stack size            8388608              unlimited            bytes     
Max core file size        0                    unlimited            bytes     
Max processes             96418                96418                processes 
Max open files            1024                 1048576              files     
Max locked memory         67108864             67108864             bytes     
Max address space         unlimited            unlimited            bytes     
";

    #[test]
    fn soft_limits_are_read_as_linux_tells_them() {
        let limits = Limits::read(REAL);
        assert_eq!((limits.open_files, limits.processes, limits.stack), (Some(1024), Some(96418), Some(8 << 20)));
        assert_eq!((limits.file_size, limits.address_space, limits.core), (None, None, Some(0)));
        assert!(judge(&limits, None, Demand::default()).iter().all(|f| f.verdict == Verdict::Ok));
    }

    #[test]
    fn what_the_run_needs_more_of_is_named() {
        let text =
            REAL.replace("1024   ", "64     ").replace("file size             unlimited", "file size             4096");
        let demand = Demand { threads: 40, largest_file: 1 << 20 };
        let findings = judge(&Limits::read(&text), Some(32), demand);
        let bad: Vec<&str> = findings.iter().filter(|f| f.verdict != Verdict::Ok).map(|f| f.what.as_str()).collect();
        assert_eq!(bad, ["open files", "processes and threads", "file size"], "{findings:?}");
        assert_eq!(exit_code(&findings), ExitCode::Storage);
    }
}
