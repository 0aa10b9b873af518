//! `syncytia train`: the run folder, its lock, what goes on, and what a user sees while it trains.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use serde::Serialize;
use syncytia_launch::ExitCode;
use syncytia_launch::signals::StopVote;
use syncytia_launch::world::{Job, World};
use syncytia_shards::durable;
use syncytia_shards::reader::Shards;

use super::exit::UsageError;
use super::out;
use super::train_view::View;
use crate::config::{self, ConfigError};
use crate::train::checkpoint::{self, CheckpointContents};
use crate::train::config::TrainConfig;
use crate::train::error::TrainError;
use crate::train::lock::{RunLock, Timing};
use crate::train::ready::Ready;
use crate::train::run_folder::RunFolder;
use crate::train::trainer::{self, End, Run};

/// Arguments of `train`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Train config.
    config: PathBuf,
    /// Shard folder.
    #[arg(long)]
    shards: PathBuf,
    /// Run folder; one that exists is gone on with.
    #[arg(long)]
    run: PathBuf,
    /// Ranks as threads of this process: a number or `auto` (train.ranks).
    #[arg(long)]
    ranks: Option<String>,
    /// A key of the config, repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Whether to go on from the newest checkpoint.
    #[arg(long, value_enum, default_value_t = Resume::Auto)]
    resume: Resume,
    /// Print the end as JSON.
    #[arg(long)]
    json: bool,
}

/// Whether to go on from the newest checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Resume {
    /// If there is one.
    Auto,
    /// Refuse a run folder that has one.
    Never,
    /// Refuse a run folder that has none.
    Must,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut sets = args.set.clone();
    if let Some(ranks) = &args.ranks {
        sets.push(format!("train.ranks={ranks}"));
    }
    let config: TrainConfig = config::load(&args.config, &sets).map_err(not_of_the_shards)?;
    let end = train(&config, &args.shards, &args.run, args.resume)?;
    let (code, step) = match end {
        End::Finished => (ExitCode::Done, config.train.max_steps),
        End::Stopped { global_step } => (ExitCode::Stopped, global_step),
    };
    if args.json {
        out::json(&serde_json::json!({"run": args.run, "global_step": step, "finished": end == End::Finished}))?;
    } else if end == End::Finished {
        out::line(format_args!("finished {step} steps in {}", args.run.display()))?;
    } else {
        out::line(format_args!("stopped and saved at step {step}; run the same command again to go on"))?;
    }
    Ok(code)
}

/// What entered the manifest is refused here, and the help says where it lives.
fn not_of_the_shards(mut error: ConfigError) -> ConfigError {
    if let ConfigError::Key { key, message, help, .. } = &mut error {
        let of_shards = |table: &str| message.starts_with(&format!("unknown field `{table}`"));
        if key.as_str() == "data.row_group_records"
            || ["input", "filter", "process", "split"].into_iter().any(of_shards)
        {
            *help = Some("this was fixed when the shards were written; `syncytia inspect SHARDS` shows it".into());
        }
    }
    error
}

/// Trains in a locked run folder.
pub fn train(config: &TrainConfig, shards: &Path, run: &Path, resume: Resume) -> anyhow::Result<End> {
    config.check()?;
    // First of all: a USR1 that comes while data is loaded must become a vote, not the end.
    let stop = StopVote::on_signals().context("cannot listen to signals")?;
    let vars = |name: &str| std::env::var(name).ok();
    let world = World::from_env(vars).map_err(|e| UsageError(e.to_string()))?;
    world.require_single().map_err(|e| UsageError(e.to_string()))?;
    let job = Job::from_env(vars).map_err(|e| UsageError(e.to_string()))?;
    let shards = Arc::new(Shards::open(shards)?);
    let ready = Ready::new(config, &shards)?;
    let folder = RunFolder::create(run).with_context(|| format!("cannot make the run folder {}", run.display()))?;
    let lock = Arc::new(RunLock::acquire(&folder, job, Timing::default())?);
    for healed in checkpoint::recover(&folder)? {
        eprintln!("after an interrupted save: {healed}");
    }
    let resumed = checkpoint_to_go_on_from(&folder, resume)?;
    let state = ready.state(resumed.as_ref(), folder.root())?; // the last that may refuse: what follows writes
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let world_size = config.train.ranks.resolve(cores, config.train.lanes);
    let path = folder.config();
    durable::write_atomic(&path, config::to_toml(config).as_bytes())?;
    write_world(&folder, config, world_size, cores, shards.dir())?;
    let view: Mutex<View> = Mutex::new(View::open(&folder, config, resumed.as_ref())?);
    let vote = || stop.is_cast();
    let resumed_from = resumed.map(|(name, _)| name);
    let run = Run { ready: &ready, state, resumed_from, lock, world_size, stop: &vote, observer: &view };
    Ok(trainer::train(&run)?)
}

fn checkpoint_to_go_on_from(
    folder: &RunFolder,
    resume: Resume,
) -> anyhow::Result<Option<(String, CheckpointContents)>> {
    let (newest, damaged) = trainer::newest(folder)?;
    for damage in damaged {
        eprintln!("warning: {damage}; the previous checkpoint is used");
    }
    match (resume, &newest) {
        (Resume::Never, Some((name, _))) => Err(UsageError(format!(
            "{} has checkpoint {name} and --resume never was given: choose another --run, or drop --resume never",
            folder.root().display()
        ))
        .into()),
        (Resume::Must, None) => Err(TrainError::Resume {
            run: folder.root().display().to_string(),
            what: "it has no checkpoint and --resume must was given".into(),
        }
        .into()),
        _ => Ok(newest),
    }
}

/// `world.json`: on what the bits of this start depend.
#[derive(Serialize)]
struct WorldFile<'a> {
    shards: PathBuf,
    version: &'a str,
    world_size: usize,
    threads: usize,
    lanes: usize,
    cores: usize,
    arch: &'a str,
    cpu_features: Vec<&'static str>,
    c_library: String,
}

fn write_world(
    folder: &RunFolder,
    config: &TrainConfig,
    world_size: usize,
    cores: usize,
    shards: &Path,
) -> anyhow::Result<()> {
    let file = WorldFile {
        shards: std::path::absolute(shards).unwrap_or_else(|_| shards.to_owned()),
        version: env!("CARGO_PKG_VERSION"),
        world_size,
        threads: config.train.threads,
        lanes: config.train.lanes,
        cores,
        arch: std::env::consts::ARCH,
        cpu_features: cpu_features(),
        c_library: c_library(),
    };
    let path = folder.world();
    let now = serde_json::to_value(&file)?;
    if let Ok(text) = std::fs::read_to_string(&path)
        && let Ok(before) = serde_json::from_str::<serde_json::Value>(&text)
    {
        for key in ["version", "arch", "cpu_features", "c_library"] {
            if before[key] != now[key] {
                eprintln!(
                    "warning: {key} was {} when this run started and is {} now: the same bits are not promised across \
                     that (docs/step.md §7)",
                    before[key], now[key]
                );
            }
        }
    }
    durable::write_atomic(&path, &serde_json::to_vec_pretty(&now)?)?;
    Ok(())
}

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
    let path =
        maps.lines().filter_map(|l| l.split_whitespace().last()).find(|p| p.contains("/libm")).map(PathBuf::from);
    let Some(path) = path else { return "static or unknown".to_owned() };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match std::fs::read(&path) {
        Ok(bytes) => format!("{name} {}", &blake3::hash(&bytes).to_hex()[..16]),
        Err(_) => name,
    }
}
