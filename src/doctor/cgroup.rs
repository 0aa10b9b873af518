//! What the control group of this process allows: batch systems and containers limit a job there, and neither the number
//! of cores nor the memory of the machine shows it. Versions 1 and 2. Must not know what the limits are for.

use std::fs;
use std::path::{Path, PathBuf};

/// Limits; `None` where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cgroup {
    /// Cores' worth of time.
    pub cpus: Option<f64>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// A version 1 group without a limit says a number near 2^63.
const NO_LIMIT: u64 = 1 << 60;

impl Cgroup {
    /// Of this process.
    pub fn of_this_process() -> Cgroup {
        let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Cgroup::of(Path::new("/sys/fs/cgroup"), &membership)
    }

    /// Of a process with this `/proc/PID/cgroup`, groups mounted below `root`: the tightest limit of the group and all
    /// above it.
    fn of(root: &Path, membership: &str) -> Cgroup {
        let mut found = Cgroup::default();
        for line in membership.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let mounts = match controllers {
                "" => vec![root.to_owned(), root.join("unified")],
                _ => controllers.split(',').map(|c| root.join(c)).chain([root.join(controllers)]).collect(),
            };
            for folder in mounts.iter().flat_map(|mount| upwards(mount, path)) {
                found.tighten(&folder);
            }
        }
        found
    }

    fn tighten(&mut self, folder: &Path) {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        let quota = || {
            let text = read("cpu.max")?;
            let mut words = text.split_whitespace().map(str::parse::<f64>);
            Some((words.next()?.ok()?, words.next()?.ok()?))
        };
        let old_quota = || {
            let quota = read("cpu.cfs_quota_us")?.trim().parse::<f64>().ok()?;
            Some((quota, number("cpu.cfs_period_us")? as f64))
        };
        let cpus = quota().or_else(old_quota).filter(|&(quota, period)| quota > 0.0 && period > 0.0);
        if let Some((quota, period)) = cpus {
            let cpus = quota / period;
            self.cpus = Some(self.cpus.map_or(cpus, |before| before.min(cpus)));
        }
        let memory = number("memory.max").or_else(|| number("memory.limit_in_bytes")).filter(|&n| n < NO_LIMIT);
        self.memory = least(self.memory, memory);
        self.pids = least(self.pids, number("pids.max"));
    }
}

fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    [a, b].into_iter().flatten().min()
}

/// `mount/path` and every folder above it up to `mount`: inside a container the path may be that of the host and not be
/// there.
fn upwards(mount: &Path, path: &str) -> Vec<PathBuf> {
    let own = mount.join(path.trim_start_matches('/'));
    own.ancestors().take_while(|folder| folder.starts_with(mount)).map(Path::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_tightest_limit_on_the_way_up_counts_in_version_2() {
        let root = tree(&[
            ("slurm/cpu.max", "max 100000\n"),
            ("slurm/memory.max", "8589934592\n"),
            ("slurm/job_7/cpu.max", "250000 100000\n"),
            ("slurm/job_7/memory.max", "max\n"),
            ("slurm/job_7/pids.max", "512\n"),
        ]);
        let found = Cgroup::of(root.path(), "0::/slurm/job_7\n");
        assert_eq!(found, Cgroup { cpus: Some(2.5), memory: Some(8 << 30), pids: Some(512) });
    }

    #[test]
    fn version_1_has_a_tree_per_controller_and_says_no_limit_as_a_huge_number() {
        let root = tree(&[
            ("cpu,cpuacct/j/cpu.cfs_quota_us", "150000"),
            ("cpu,cpuacct/j/cpu.cfs_period_us", "100000"),
            ("memory/j/memory.limit_in_bytes", "9223372036854771712"),
            ("pids/pids.max", "max"),
        ]);
        let found = Cgroup::of(root.path(), "8:pids:/j\n4:memory:/j\n2:cpu,cpuacct:/j\n0::/\n");
        assert_eq!(found, Cgroup { cpus: Some(1.5), memory: None, pids: None });
        fs::write(root.path().join("cpu,cpuacct/j/cpu.cfs_quota_us"), "-1").unwrap();
        assert_eq!(Cgroup::of(root.path(), "2:cpu,cpuacct:/j\n").cpus, None);
    }
}
