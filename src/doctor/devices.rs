//! Cores, memory, instruction set, GPUs: what computes.

use std::fs;
use std::path::Path;

use super::cgroup::Cgroup;
use super::{Finding, bytes, engines};

/// What a run may use of the machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usable {
    /// Cores: the machine's, less those outside the affinity mask, less what the control group's quota holds back.
    pub cores: usize,
    /// Bytes of memory, whatever is least of the machine's, the control group's and the address-space limit; `None`
    /// where nobody tells.
    pub memory: Option<u64>,
}

/// Looks at the devices; `cpu_features` are the instruction sets that the kernels choose by.
pub fn look(cpu_features: &[&str]) -> (Vec<Finding>, Usable) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let group = Cgroup::of_this_process();
    let usable_cores = syncytia_launch::cores::usable(|name| std::env::var(name).ok());
    let memory = Memory::read(&fs::read_to_string("/proc/meminfo").unwrap_or_default());
    let address_space = super::limits::of_this_process().address_space;
    let least = [memory.total, group.memory, address_space].into_iter().flatten().min();
    let findings = vec![
        cores(usable_cores, field(&status, "Cpus_allowed_list"), group.cpus),
        said_of_memory(&memory, group.memory, least),
        instructions(cpu_features),
        gpus(Path::new("/proc/driver/nvidia")),
    ];
    (findings, Usable { cores: usable_cores, memory: least })
}

fn cores(usable: usize, allowed: Option<&str>, quota: Option<f64>) -> Finding {
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(": ")).map(|(_, m)| m);
    let mut found = format!("{usable} usable");
    if let Some(allowed) = allowed {
        found += &format!(", affinity {allowed}");
    }
    if let Some(quota) = quota {
        found += &format!(", the control group gives {quota:.1} cores' time");
    }
    if let Some(model) = model {
        found += &format!(" ({model})");
    }
    match quota {
        Some(quota) if quota + 0.5 < usable as f64 => {
            Finding::warn("cores", found, format!("set train.ranks to {}: more only wait for time", quota.max(1.0)))
        }
        _ => Finding::ok("cores", found),
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Memory {
    total: Option<u64>,
    available: Option<u64>,
}

impl Memory {
    fn read(meminfo: &str) -> Memory {
        let kib = |name| field(meminfo, name)?.trim_end_matches("kB").trim().parse::<u64>().ok().map(|n| n << 10);
        Memory { total: kib("MemTotal"), available: kib("MemAvailable") }
    }
}

fn said_of_memory(memory: &Memory, group: Option<u64>, usable: Option<u64>) -> Finding {
    let (Some(total), Some(usable)) = (memory.total, usable) else {
        return Finding::ok("memory", "not told by this system");
    };
    let mut found = bytes(total);
    if let Some(available) = memory.available {
        found += &format!(", {} of it free now", bytes(available));
    }
    if let Some(group) = group.filter(|&group| group < total) {
        found += &format!(", the control group gives {}", bytes(group));
    }
    match memory.available {
        Some(available) if available < usable / 10 => {
            Finding::warn("memory", found, "others use most of it: look with `top`, or ask for a node of your own")
        }
        _ => Finding::ok("memory", found),
    }
}

fn instructions(features: &[&str]) -> Finding {
    let arch = std::env::consts::ARCH;
    let found = match features {
        [] => arch.to_owned(),
        _ => format!("{arch} with {}", features.join(", ")),
    };
    if arch == "x86_64" && !features.contains(&"avx2") {
        return Finding::warn("instruction set", found, "no AVX2: expect a fraction of the speed; use a newer node");
    }
    Finding::ok("instruction set", found)
}

/// The driver's own folder in /proc: no library is loaded to ask.
fn gpus(driver: &Path) -> Finding {
    let Ok(version) = fs::read_to_string(driver.join("version")) else {
        return Finding::ok("GPUs", "no NVIDIA driver; ranks compute on the cores");
    };
    let of_driver = version.lines().next().and_then(super::program::version).unwrap_or("of an unknown version");
    let names = fs::read_dir(driver.join("gpus")).into_iter().flatten().filter_map(|gpu| {
        let text = fs::read_to_string(gpu.ok()?.path().join("information")).ok()?;
        Some(field(&text, "Model")?.to_owned())
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    let found = format!("{} ({}), NVIDIA driver {of_driver}", names.len(), names.join(", "));
    if engines::uses_gpus() {
        return Finding::ok("GPUs", found);
    }
    let advice =
        "this build has no CUDA engine: ranks compute on the cores and the GPUs stay idle; do not ask for a GPU node";
    Finding::warn("GPUs", found, advice)
}

/// The value of `name: value` in the files of /proc.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|l| l.split(':').next().is_some_and(|key| key.trim() == name))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn memory_is_read_as_linux_tells_it() {
        let text = "MemTotal:       24683664 kB\nMemFree:         6547720 kB\nMemAvailable:   23345092 kB\n";
        let memory = Memory::read(text);
        assert_eq!(memory, Memory { total: Some(24_683_664 << 10), available: Some(23_345_092 << 10) });
        assert_eq!(Memory::read(""), Memory { total: None, available: None });
        let said = said_of_memory(&memory, Some(8 << 30), Some(8 << 30)).found;
        assert_eq!(said, "24 GiB, 22 GiB of it free now, the control group gives 8.0 GiB");
    }

    #[test]
    fn fewer_cores_by_quota_than_by_count_are_a_warning() {
        assert_eq!(cores(8, Some("0-7"), None).verdict, Verdict::Ok);
        let held_back = cores(8, Some("0-7"), Some(2.0));
        assert_eq!(held_back.verdict, Verdict::Warn);
        assert!(held_back.found.contains("affinity 0-7") && held_back.advice.contains("to 2"), "{held_back:?}");
    }

    #[test]
    fn a_driver_with_gpus_is_named_and_this_build_does_not_use_them() {
        let dir = tempfile::tempdir().unwrap();
        assert!(gpus(dir.path()).found.contains("no NVIDIA driver"));
        let version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC";
        fs::write(dir.path().join("version"), version).unwrap();
        let gpu = dir.path().join("gpus/0000:00:04.0");
        fs::create_dir_all(&gpu).unwrap();
        fs::write(gpu.join("information"), "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t 30\n").unwrap();
        let found = gpus(dir.path());
        assert_eq!(found.found, "1 (NVIDIA H100 80GB HBM3), NVIDIA driver 535.104.05");
        assert_eq!(found.verdict == Verdict::Ok, engines::uses_gpus());
    }
}
