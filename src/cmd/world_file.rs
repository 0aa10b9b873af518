//! `world.json`: on what the bits of a start depend, for every process of the run; a difference among them, or from the
//! start before, is a warning.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use syncytia_launch::{World, cores};
use syncytia_shards::durable;

use crate::train::config::TrainConfig;
use crate::train::run_folder::RunFolder;

/// What a process tells of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Its place among the processes.
    pub world: World,
    /// Cores it may use.
    pub cores: usize,
    /// Of syncytia.
    pub version: String,
    /// Instruction set.
    pub arch: String,
    /// Extensions that the kernels choose by.
    pub cpu_features: Vec<String>,
    /// The loaded C library.
    pub c_library: String,
    /// What it computes on.
    pub device: String,
}

/// The file.
#[derive(Serialize)]
struct WorldFile<'a> {
    shards: PathBuf,
    world_size: usize,
    threads: usize,
    lanes: usize,
    version: &'a str,
    arch: &'a str,
    cpu_features: &'a [String],
    c_library: &'a str,
    processes: &'a [Machine],
}

impl Machine {
    /// This process, which computes on `device`.
    pub fn this(world: &World, device: &str) -> Machine {
        Machine {
            world: world.clone(),
            cores: cores::usable(|name| std::env::var(name).ok()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            cpu_features: cpu_features().into_iter().map(str::to_owned).collect(),
            c_library: c_library(),
            device: device.to_owned(),
        }
    }

    /// What the bits depend on, by name.
    fn of_bits(&self) -> [(&'static str, String); 5] {
        [
            ("version", self.version.clone()),
            ("arch", self.arch.clone()),
            ("cpu_features", self.cpu_features.join(" ")),
            ("c_library", self.c_library.clone()),
            ("device", self.device.clone()),
        ]
    }
}

/// Writes the file and warns of what is not as it was, or not alike on all.
pub fn write(
    folder: &RunFolder,
    config: &TrainConfig,
    world_size: usize,
    machines: &[Machine],
    shards: &Path,
) -> anyhow::Result<()> {
    let first = &machines[0];
    for (rank, other) in machines.iter().enumerate().skip(1) {
        for ((name, ours), (_, theirs)) in first.of_bits().into_iter().zip(other.of_bits()) {
            if ours != theirs {
                eprintln!(
                    "warning: {name} is {ours} on rank 0 ({}) and {theirs} on rank {rank} ({}): {NOT_PROMISED}",
                    first.world.node, other.world.node
                );
            }
        }
    }
    let path = folder.world();
    if let Ok(text) = std::fs::read_to_string(&path)
        && let Ok(before) = serde_json::from_str::<serde_json::Value>(&text)
        && let Ok(before) = serde_json::from_value::<Vec<Machine>>(before["processes"].clone())
        && let Some(before) = before.first()
    {
        for ((name, then), (_, now)) in before.of_bits().into_iter().zip(first.of_bits()) {
            if then != now {
                eprintln!("warning: {name} was {then} when this run started and is {now} now: {NOT_PROMISED}");
            }
        }
    }
    let file = WorldFile {
        shards: std::path::absolute(shards).unwrap_or_else(|_| shards.to_owned()),
        world_size,
        threads: config.train.threads,
        lanes: config.train.lanes,
        version: &first.version,
        arch: &first.arch,
        cpu_features: &first.cpu_features,
        c_library: &first.c_library,
        processes: machines,
    };
    let text = serde_json::to_vec_pretty(&file)?;
    durable::write_atomic(&path, &text).with_context(|| format!("cannot write {}", path.display()))
}

const NOT_PROMISED: &str = "the same bits are not promised across that (docs/step.md §7)";

/// The instruction sets that the kernels choose by.
pub(super) fn cpu_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        let known = [
            ("avx2", std::is_x86_feature_detected!("avx2")),
            ("fma", std::is_x86_feature_detected!("fma")),
            ("avx512f", std::is_x86_feature_detected!("avx512f")),
            ("avx512dq", std::is_x86_feature_detected!("avx512dq")),
        ];
        known.into_iter().filter(|f| f.1).map(|f| f.0).collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

/// The loaded C library by name: flex's `exp` and `tanh` are the host's.
fn c_library() -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let Some(path) = mathematics(&maps).map(PathBuf::from) else { return "static or unknown".to_owned() };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match std::fs::read(&path) {
        Ok(bytes) => format!("{name} {}", &blake3::hash(&bytes).to_hex()[..16]),
        Err(_) => name,
    }
}

/// The mathematics part of the C library among the files of `/proc/self/maps`; libmpi and libmd are others.
fn mathematics(maps: &str) -> Option<&str> {
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let is = |path: &&str| name(path).starts_with("libm.so") || name(path).starts_with("libm-");
    maps.lines().filter_map(|line| line.split_whitespace().last()).find(is)
}

#[cfg(test)]
mod tests {
    use super::mathematics;

    #[test]
    fn the_mathematics_library_is_told_from_others_that_begin_alike() {
        let maps = "7f00-7f01 r-xp 00000000 fd:01 12 /usr/lib/openmpi/libmca_common_sm.so.40.30.0\n\
                    7f02-7f03 r-xp 00000000 fd:01 13 /usr/lib/libmd.so.0.0.5\n7f04-7f05 rw-p 00000000 00:00 0\n\
                    7f06-7f07 r-xp 00000000 fd:01 14 /usr/lib/x86_64-linux-gnu/libm.so.6\n";
        assert_eq!(mathematics(maps), Some("/usr/lib/x86_64-linux-gnu/libm.so.6"));
        assert_eq!(mathematics("7f06-7f07 r-xp 00000000 fd:01 14 /lib/libm-2.31.so"), Some("/lib/libm-2.31.so"));
        assert_eq!(mathematics(""), None);
    }
}
