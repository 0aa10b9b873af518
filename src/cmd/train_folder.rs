//! Training in one run folder: its lock, what goes on, and the ranks of this process or of several.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use syncytia_launch::signals::StopVote;
use syncytia_launch::world::{Job, LauncherChoice, World};
use syncytia_shards::draw::STEP_VERSION;
use syncytia_shards::durable;
use syncytia_shards::reader::Shards;

use super::exit::{self, UsageError};
use super::follower::Follower;
use super::train_view::View;
use super::world_file::{self, Machine};
use crate::config;
use crate::engine::Engine;
use crate::engine::watchdog::Watched;
use crate::train::adopt::Ledger;
use crate::train::checkpoint::{self, Which};
use crate::train::config::TrainConfig;
use crate::train::device;
use crate::train::error::TrainError;
use crate::train::group::Alike;
use crate::train::heed;
use crate::train::join;
use crate::train::lock::{RunLock, Timing};
use crate::train::ready::{self, Ready, Resumed};
use crate::train::run_folder::RunFolder;
use crate::train::source::VectorsIdentity;
use crate::train::trainer::{self, End, Observer, Run};

/// How a run starts.
#[derive(Debug, Clone, Default)]
pub struct StartFrom {
    /// Whether to go on from the newest checkpoint.
    pub resume: ResumeIf,
    /// Who started this process.
    pub launcher: Option<LauncherChoice>,
    /// Whose weights a new run begins with.
    pub parent: Option<PathBuf>,
    /// The least share of the data's genes that the parent must know.
    pub min_genes: f64,
    /// Folders of the vectors that the task learns from.
    pub vectors: Vec<PathBuf>,
}

/// Whether to go on from the newest checkpoint.
#[derive(Default, Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ResumeIf {
    /// If there is one.
    #[default]
    Auto,
    /// Refuse a run folder that has one.
    Never,
    /// Refuse a run folder that has none.
    Must,
}

/// How training ended, in this process.
pub struct Trained {
    /// How.
    pub end: End,
    /// Whether this process has rank 0.
    pub leads: bool,
    /// Of its ranks.
    pub engines: Vec<Watched>,
}

impl Trained {
    /// Stopped while its data were made ready.
    pub fn before_a_step() -> Trained {
        Trained { end: End::Stopped { global_step: 0 }, leads: true, engines: Vec::new() }
    }
}

/// Trains in a locked run folder, on this process's ranks or as one of several processes. What is refused leaves no folder.
pub fn train(config: &TrainConfig, shards: &Path, run: &Path, start: &StartFrom) -> anyhow::Result<Trained> {
    // First of all: a USR1 that comes while data is loaded must become a vote, not the end.
    let stop = StopVote::on_signals().context("cannot listen to signals")?;
    train_until(&stop, config, shards, run, start)
}

/// The same, until `stop` is cast.
pub fn train_until(
    stop: &StopVote,
    config: &TrainConfig,
    shards: &Path,
    run: &Path,
    start: &StartFrom,
) -> anyhow::Result<Trained> {
    let trained = train_locked(stop, config, shards, run, start);
    if trained.is_err() {
        RunFolder::at(run).remove_if_empty();
    }
    trained
}

fn train_locked(
    stop: &StopVote,
    config: &TrainConfig,
    shards: &Path,
    run: &Path,
    start: &StartFrom,
) -> anyhow::Result<Trained> {
    config.check()?;
    let vars = |name: &str| std::env::var(name).ok();
    let world = World::from_env(vars, start.launcher).map_err(|e| UsageError(e.to_string()))?;
    let job = Job::from_env(vars).map_err(|e| UsageError(e.to_string()))?;
    let folder = RunFolder::at(run);
    if world.world_size > 1 && world.rank == 0 {
        eprintln!("{}", world.source());
    }
    let place = device::find(config, &world, |name| std::env::var_os(name))?;
    let mut group = join::join(world, config, &folder, &place)?;
    let prepared = Shards::open(shards).map(Arc::new);
    let shards = group.together("opening the shards", prepared.map_err(anyhow::Error::from), exit::number)?;
    let ready = Ready::with_vectors(config, &shards, &start.vectors).map_err(anyhow::Error::from);
    let mut ready = group.together("preparing the run", ready, exit::number)?.on(&place.device);
    let machine = Machine::this(&group.world, &place.words);
    group.alike(&alike(&ready, &shards, &machine, start))?;
    let taken = if group.leads() { take(&folder, job, start.resume).map(Some) } else { Ok(None) };
    let (lock, newest) = group.together("taking the run folder", taken, exit::number)?.unzip();
    let resumed = group.same_checkpoint(newest.flatten(), &folder)?;
    let ledger = match (&start.parent, &resumed) {
        (Some(parent), None) => {
            let begun = begin_from(&mut ready, parent, start.min_genes);
            let (ledger, digest) = group.together("reading the checkpoint to begin with", begun, exit::number)?;
            group.alike(&Alike(vec![("--from (digest of the checkpoint)".to_owned(), digest)]))?;
            Some(ledger)
        }
        (None, None) => {
            let anew = begins_anew(config, &folder);
            group.together("looking for the checkpoint it begins with", anew, exit::number)?;
            None
        }
        _ => None,
    };
    // The last that may refuse: what follows writes.
    let beginning = ready.state(resumed.as_ref(), folder.root()).map_err(anyhow::Error::from);
    let beginning = group.together("going on", beginning, exit::number)?;
    let machines = group.each(&machine)?;
    if group.leads() {
        heed::warnings(&ready, &shards)?.iter().for_each(|warning| eprintln!("warning: {warning}"));
    }
    let opened = if group.leads() {
        let world_size = world_size(config, &machines);
        world_file::write(&folder, config, world_size, &machines, shards.dir())
            .and_then(|()| Ok(durable::write_atomic(&folder.config(), config::to_toml(config).as_bytes())?))
            .and_then(|()| ledger.as_ref().map_or(Ok(()), |ledger| keep(&folder, ledger)))
            .and_then(|()| View::open(&folder, config, resumed.as_ref()))
            .map(|view| Box::new(Mutex::new(view)) as Box<Mutex<dyn Observer>>)
    } else {
        let follower = Follower::open(&folder, config, group.world.rank);
        follower.map(|follower| Box::new(Mutex::new(follower)) as Box<Mutex<dyn Observer>>)
    };
    let observer = group.together("opening the logs", opened, exit::number)?;
    let vote = || stop.is_cast();
    let resumed_from = resumed.map(|r| r.name);
    let run = Run { ready: &ready, beginning, resumed_from, folder: &folder, lock, stop: &vote, observer: &*observer };
    let deadline = Duration::from_secs(config.train.deadline_s);
    let leads = group.leads();
    let engines = group.engines(|| trainer::thread_ranks(world_size(config, &machines), deadline));
    let (end, engines) = trainer::train(&run, engines)?;
    Ok(Trained { end, leads, engines })
}

/// Ranks of the run: the processes, or in one process its threads.
fn world_size(config: &TrainConfig, machines: &[Machine]) -> usize {
    match machines {
        [alone] => config.train.ranks.alone(config.train.device, alone.cores, config.train.lanes),
        several => several.len(),
    }
}

/// What ranks must have in common.
fn alike(ready: &Ready<'_>, shards: &Shards, machine: &Machine, start: &StartFrom) -> Alike {
    let digest = |text: &str| blake3::hash(text.as_bytes()).to_hex()[..16].to_owned();
    Alike(vec![
        ("version".to_owned(), machine.version.clone()),
        ("step definition".to_owned(), STEP_VERSION.to_string()),
        ("config (digest)".to_owned(), digest(&config::to_toml(ready.config))),
        ("shards (data hash)".to_owned(), shards.manifest().data_hash()),
        ("vectors (digest)".to_owned(), VectorsIdentity::in_words(ready.vectors())),
        ("text encoder (digest)".to_owned(), ready.text_encoder().unwrap_or("none").to_owned()),
        ("--from".to_owned(), start.parent.as_ref().map_or("none".to_owned(), |parent| parent.display().to_string())),
        ("--min-genes".to_owned(), start.min_genes.to_string()),
    ])
}

/// The weights of `parent`; what became of its genes.
fn begin_from(ready: &mut Ready<'_>, parent: &Path, min_genes: f64) -> anyhow::Result<(Ledger, String)> {
    let (found, damaged) = checkpoint::resolve(parent, Which::Usual)?;
    for damage in damaged {
        eprintln!("warning: {damage}");
    }
    let (name, digest) = (found.dir.display().to_string(), found.manifest.digest());
    let parent = Resumed { name, digest, contents: found.contents };
    let ledger = ready.begin_from(&parent, min_genes)?;
    Ok((ledger, parent.digest))
}

/// Refuses to begin with weights as initialised where that was not meant: a life that ended before its first save, of a run
/// that began with another's weights; parts that would stay as nobody trained them.
fn begins_anew(config: &TrainConfig, folder: &RunFolder) -> anyhow::Result<()> {
    if folder.from_ledger().exists() {
        return Err(UsageError(format!(
            "{} began with another checkpoint ({}) and has none of its own yet: give --from again, or another --run",
            folder.root().display(),
            folder.from_ledger().display()
        ))
        .into());
    }
    let train = &config.train;
    if train.freeze.is_empty() || train.freeze_untrained {
        return Ok(());
    }
    Err(UsageError(format!(
        "train.freeze = {:?}: these parts were never trained and would stay as they were initialised: give --from \
         RUN_OR_CHECKPOINT that has them, or --set train.freeze_untrained=true if that is meant",
        train.freeze
    ))
    .into())
}

/// What became of the parent's genes, said and written beside the run.
fn keep(folder: &RunFolder, ledger: &Ledger) -> anyhow::Result<()> {
    eprintln!("{} (all in {})", ledger.in_words(), folder.from_ledger().display());
    Ok(durable::write_atomic(&folder.from_ledger(), &serde_json::to_vec_pretty(ledger)?)?)
}

/// The run folder for this process alone, and its newest valid checkpoint.
fn take(folder: &RunFolder, job: Option<Job>, resume: ResumeIf) -> anyhow::Result<(Arc<RunLock>, Option<Resumed>)> {
    let root = folder.root();
    RunFolder::create(root).with_context(|| format!("cannot make the run folder {}", root.display()))?;
    let lock = Arc::new(RunLock::acquire(folder, job, Timing::default())?);
    for healed in checkpoint::recover(folder)? {
        eprintln!("after an interrupted save: {healed}");
    }
    let newest = checkpoint_to_go_on_from(folder, resume)?;
    Ok((lock, newest))
}

fn checkpoint_to_go_on_from(folder: &RunFolder, resume: ResumeIf) -> anyhow::Result<Option<Resumed>> {
    let (newest, damaged) = ready::newest(folder)?;
    for damage in damaged {
        eprintln!("warning: {damage}; the previous checkpoint is used");
    }
    match (resume, &newest) {
        (ResumeIf::Never, Some(Resumed { name, .. })) => Err(UsageError(format!(
            "{} has checkpoint {name} and --resume never was given: choose another --run, or drop --resume never",
            folder.root().display()
        ))
        .into()),
        (ResumeIf::Must, None) => Err(TrainError::Resume {
            run: folder.root().display().to_string(),
            what: "it has no checkpoint and --resume must was given".into(),
        }
        .into()),
        _ => Ok(newest),
    }
}

/// The last thing that a process does among others: the run folder is given back and the last word said, as whoever leaves
/// first may take the others along.
pub fn leave(engines: Vec<Watched>) {
    for mut engine in engines.into_iter().filter(Watched::is_guarded) {
        if let Err(error) = engine.finish() {
            eprintln!("warning: {error}; everything was saved before");
        }
    }
}
