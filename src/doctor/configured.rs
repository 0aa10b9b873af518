//! The configured run, as far as it goes without starting: the config, the shards, what it will take of memory and disk,
//! whose the run folder is and what it would go on from. The only file here that knows models and training. Writes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use syncytia_launch::ExitCode;
use syncytia_launch::world::{Job, World};
use syncytia_shards::manifest::Manifest;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;

use super::devices::Usable;
use super::folder::{self, Room};
use super::limits::Demand;
use super::{Finding, Look, Verdict, bytes};
use crate::train::checkpoint::CheckpointError;
use crate::train::config::{Recompute, TrainConfig};
use crate::train::device;
use crate::train::error::TrainError;
use crate::train::lock::{self, LockError, Timing};
use crate::train::ready::{self, Beginning, Ready, Resumed};
use crate::train::run_folder::RunFolder;

/// The program itself, the allocator's reserve, decoders: what a run takes before its first record.
const BASE: f64 = (128u64 << 20) as f64;
/// Bytes per parameter and rank: value, two moments, average, the leaf, Burn's gradient and ours (4 each), the exact sum
/// and its deposit (8 each).
const PER_PARAMETER: f64 = (7 * 4 + 2 * 8) as f64;
/// Saves in memory at once: one written (as values and as bytes), one waiting, one being handed over.
const SAVES: f64 = 4.0;
/// Bytes of a checkpoint that are not tensors: state with its panel, manifest, per gene and tensor.
const BESIDE: u64 = 1 << 20;
/// Files and folders of a checkpoint.
const FILES: u64 = 8;
/// Logs, events, reports.
const OTHER_FILES: u64 = 64;
/// Bytes of them.
const OTHER_BYTES: u64 = 16 << 20;
/// Threads of a rank beside its kernel threads: itself, its feed.
const THREADS_PER_RANK: u64 = 2;
/// Threads of the process: main, saver, heartbeat, the pool that decodes.
const OTHER_THREADS: u64 = 8;

/// What the run takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Needs {
    /// Parameters.
    pub n_parameters: f64,
    /// Bytes of memory, about.
    pub memory: u64,
    /// Bytes of one checkpoint.
    pub checkpoint: u64,
    /// Disk of the whole run.
    pub disk: Room,
    /// Of the system's limits.
    pub limits: Demand,
}

/// The config by itself: what cannot work, and ranks against cores.
pub fn config(config: &TrainConfig, usable: Usable) -> Vec<Finding> {
    let problems = config.problems();
    if !problems.is_empty() {
        let advice = "change the key; docs/config.md has all of them";
        return problems.into_iter().map(|p| Finding::fail(ExitCode::Usage, "config", p, advice)).collect();
    }
    let train = &config.train;
    let model = config.model.name();
    let mut findings = vec![Finding::ok(
        "config",
        format!("{model}, {} steps of {} × {} records", train.max_steps, train.lanes, train.micro_batch),
    )];
    let ranks = train.ranks.alone(train.device, usable.cores, train.lanes);
    let found = format!("{ranks} × {} kernel threads, {} lanes, {} cores", train.threads, train.lanes, usable.cores);
    let idle = !train.lanes.is_multiple_of(ranks);
    findings.push(if ranks * train.threads > usable.cores {
        Finding::warn(
            "ranks",
            found,
            "more threads than cores only wait for each other: lower train.ranks or train.threads",
        )
    } else if idle {
        Finding::warn(
            "ranks",
            found,
            "some ranks have a lane more than others and the rest wait: take a divisor of lanes",
        )
    } else {
        Finding::ok("ranks", found)
    });
    if train.device.is_elsewhere() {
        findings.push(device(config));
    }
    findings
}

/// Whether there is what `train.device` asks for.
fn device(config: &TrainConfig) -> Finding {
    match device::find(config, &World::local(), |name| std::env::var_os(name)) {
        Ok(place) => Finding::ok("device", place.words),
        Err(error) => {
            let found = error.to_string().lines().map(str::trim).collect::<Vec<_>>().join(" ");
            Finding::fail(ExitCode::Usage, "device", found, "or set train.device = \"cpu\"")
        }
    }
}

/// The shard folder: its manifest, and that every file is there with its size. `syncytia verify` reads every byte.
pub fn shards(dir: &Path) -> Look<Arc<Shards>> {
    let shards = match Shards::open(dir) {
        Ok(shards) => Arc::new(shards),
        Err(error) => {
            let refused = system_refused(&error);
            let code = if refused { ExitCode::Storage } else { ExitCode::Data };
            return (
                vec![Finding::fail(
                    code,
                    "shards",
                    words(&error),
                    "give --shards a folder that `syncytia shard` finished",
                )],
                None,
            );
        }
    };
    let manifest = shards.manifest();
    let count = |split: Split| format!("{} {}", manifest.n_records(split), split.as_str());
    let records: Vec<String> = [Split::Train, Split::Val, Split::Test].map(count).into();
    let found = format!("{}: {} records, {} genes", dir.display(), records.join(", "), manifest.panel.n_selected());
    let mut findings = vec![Finding::ok("shards", found)];
    for file in &manifest.obs().files {
        let wrong = match std::fs::metadata(dir.join(&file.name)) {
            Ok(meta) if meta.len() == file.bytes => continue,
            Ok(meta) => format!("{} has {} bytes, not the {} that were written", file.name, meta.len(), file.bytes),
            Err(error) => format!("{}: {error}", file.name),
        };
        findings.push(Finding::fail(
            ExitCode::Data,
            "shard file",
            wrong,
            "copy it again, or run `syncytia shard` again",
        ));
    }
    (findings, Some(shards))
}

/// What the run of `config` on data of this manifest takes.
pub fn needs(config: &TrainConfig, manifest: &Manifest, usable: Usable) -> Needs {
    let (train, shape) = (&config.train, config.model.shape(manifest));
    let ranks = train.ranks.alone(train.device, usable.cores, train.lanes);
    let n = config.model.n_parameters(shape);
    // weights, two moments, and the raw weights beside an average
    let groups = if config.optim.ema.is_some() { 4.0 } else { 3.0 };
    let tensors = 4.0 * n * groups;
    let recomputed = train.recompute == Recompute::Blocks;
    let (data, kept) = match config.model.n_kept_of_level(config.task.table(), train.micro_batch, recomputed) {
        // the vectors of all members stay in memory; there are no more niches than cells
        Some((kept, width)) => {
            let n_records: u64 =
                [Split::Train, Split::Val, Split::Test].map(|split| manifest.n_records(split)).iter().sum();
            (4.0 * n_records as f64 * width as f64, 4.0 * kept)
        }
        None => {
            let in_memory = |split| manifest.decoded_bytes(split).min(config.data.window_bytes) as f64;
            let kept = config.model.n_kept_values(shape, train.micro_batch, recomputed);
            (in_memory(Split::Train) + in_memory(Split::Val), 4.0 * kept)
        }
    };
    let memory = (BASE + data + ranks as f64 * (n * PER_PARAMETER + kept) + SAVES * tensors) as u64;
    let checkpoint = (tensors as u64).saturating_add(BESIDE);
    // those kept, the best, and one being written beside them
    let copies = config.checkpoint.keep as u64 + 2;
    let disk = Room {
        bytes: checkpoint.saturating_mul(copies).saturating_add(OTHER_BYTES),
        files: copies.saturating_mul(FILES).saturating_add(OTHER_FILES),
    };
    let threads = ranks as u64 * (train.threads as u64 + THREADS_PER_RANK) + OTHER_THREADS + usable.cores as u64;
    let limits = Demand { threads, largest_file: ((4.0 * n) as u64).saturating_add(BESIDE) };
    Needs { n_parameters: n, memory, checkpoint, disk, limits }
}

/// The memory of the run against what may be used.
pub fn memory(needs: &Needs, usable: Usable) -> Finding {
    let found = format!("about {} for {} parameters", bytes(needs.memory), needs.n_parameters);
    let advice = "lower train.ranks, train.micro_batch or the model's sizes, set train.recompute = \"blocks\", or ask for more memory";
    match usable.memory {
        Some(limit) if needs.memory > limit => {
            Finding::fail(ExitCode::Usage, "memory", format!("{found}, and {} may be used", bytes(limit)), advice)
        }
        Some(limit) if needs.memory > limit / 10 * 8 => {
            Finding::warn("memory", format!("{found}, and {} may be used", bytes(limit)), advice)
        }
        _ => Finding::ok("memory", found),
    }
}

/// What the disk must still give: the whole run's, less what an earlier part of it has there.
pub fn room(needs: &Needs, run: &Path) -> Room {
    let there = folder::size_of(&RunFolder::at(run).checkpoints());
    Room { bytes: needs.disk.bytes.saturating_sub(there.bytes), files: needs.disk.files.saturating_sub(there.files) }
}

/// Who holds the run folder; `now` is the time by its file system.
pub fn holder(run: &Path, job: Option<Job>, now: SystemTime) -> Finding {
    let timing = Timing::default();
    let what = "run lock";
    match lock::in_use(&RunFolder::at(run), job, now, timing) {
        Ok(None) => Finding::ok(what, "nobody trains here"),
        Ok(Some(lock)) => {
            let found = format!("held by {}, last heartbeat {} s ago", lock.by, lock.age.as_secs());
            if lock.may_be_taken {
                return Finding::ok(what, format!("{found}: seems dead and is taken over if it stays silent"));
            }
            let after = timing.takeover_after.as_secs();
            let advice = format!(
                "stop that one (it saves and exits 75) or give another --run; a dead one is replaced after {after} s"
            );
            Finding::fail(ExitCode::Usage, what, found, advice)
        }
        Err(error) => Finding::fail(ExitCode::Storage, what, error.to_string(), "make the run folder readable"),
    }
}

/// Whether the shards fit the run and what a start would go on from: as `train` decides it, up to its first write.
pub fn start(config: &TrainConfig, shards: &Arc<Shards>, vectors: &[PathBuf], run: Option<&Path>) -> Vec<Finding> {
    let ready = match Ready::with_vectors(config, shards, vectors) {
        Ok(ready) => ready,
        Err(error) => {
            let advice = "another --shards, or the key that is named";
            return vec![Finding::fail(code_of(&error), "shards fit the run", words(&error), advice)];
        }
    };
    let steps = ready.train.order().steps_per_epoch();
    let mut findings = vec![Finding::ok("shards fit the run", format!("{steps} steps per epoch"))];
    let Some(run) = run else { return findings };
    let folder = RunFolder::at(run);
    let (newest, damaged) = match ready::newest(&folder) {
        Ok(found) => found,
        Err(error) => {
            let advice = "a run that cannot read its newest checkpoint is not begun anew";
            findings.push(Finding::fail(code_of(&error), "checkpoint", words(&error), advice));
            return findings;
        }
    };
    for damage in damaged {
        findings.push(Finding::warn("checkpoint", damage, "the previous one will be used"));
    }
    findings.push(match (&newest, ready.state(newest.as_ref(), run)) {
        (Some(Resumed { name, .. }), Ok(beginning)) if beginning.step.global_step >= config.train.max_steps => {
            Finding::ok("checkpoint", format!("{name}: whole, and the run is finished; raise train.max_steps to go on"))
        }
        (Some(Resumed { name, .. }), Ok(Beginning { step, .. })) => {
            Finding::ok("checkpoint", format!("{name}: whole, the run goes on from step {}", step.global_step))
        }
        (None, Ok(_)) => Finding::ok("checkpoint", "none: the run starts at step 0"),
        (_, Err(error)) => Finding::fail(
            code_of(&error),
            "checkpoint",
            words(&error),
            "what is named must be undone, or give another --run",
        ),
    });
    findings
}

/// A look at the start that took too long is no proof that it will not work: large shards take long to open.
pub const UNANSWERED: Verdict = Verdict::Warn;

fn system_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = |e: &(dyn std::error::Error + 'static)| {
        e.downcast_ref::<std::io::Error>().is_some_and(|io| ExitCode::of_io(io, ExitCode::Data) == ExitCode::Storage)
    };
    std::iter::successors(Some(error), |e| e.source()).any(io)
}

/// The code `train` would end with.
fn code_of(error: &TrainError) -> ExitCode {
    if system_refused(error) {
        return ExitCode::Storage;
    }
    match error {
        TrainError::Config(_) => ExitCode::Usage,
        TrainError::Checkpoint(error) => CheckpointError::exit_code(error),
        TrainError::Lock(error) => LockError::exit_code(error),
        TrainError::Resume { .. } => ExitCode::Checkpoint,
        TrainError::Storage { .. } => ExitCode::Storage,
        _ => ExitCode::Data,
    }
}

/// An error on one line.
fn words(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}
