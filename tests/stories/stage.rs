//! A small data set from the section that ships with the project, and runs on it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use syncytia::engine::watchdog::Watched;
use syncytia::model::params::ParamSpec;
use syncytia::train::checkpoint::{self, CheckpointContents};
use syncytia::train::config::TrainConfig;
use syncytia::train::device;
use syncytia::train::error::TrainError;
use syncytia::train::lock::{RunLock, Timing};
use syncytia::train::ready::{self, Ready};
use syncytia::train::run_folder::RunFolder;
use syncytia::train::step::StepOutcome;
use syncytia::train::trainer::{self, End, Observer, Run, Start};
use syncytia_launch::world::World;
use syncytia_shards::process::{self, FilterConfig, ProcessConfig, SplitConfig};
use syncytia_shards::reader::Shards;
use syncytia_shards::writer::{self, WriteOptions};
use syncytia_shards::{ingest, processed::Processed};

/// The shipped section, processed to 16 genes with block splits.
pub fn processed() -> Processed {
    processed_with("top_moran = 16")
}

/// The same under another `[filter]`.
pub fn processed_with(filter: &str) -> Processed {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("shards/data/vis5a_cut.h5ad");
    let section = ingest::read_section(&path, &ingest::IngestOptions::default()).unwrap();
    let filter: FilterConfig = toml::from_str(filter).unwrap();
    process::process(vec![section], &filter, &ProcessConfig::default(), &SplitConfig::default()).unwrap()
}

/// Its shards, written once per test process, with row groups small enough that there are several.
pub fn shards() -> Arc<Shards> {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let options = WriteOptions { row_group_records: 100, ..WriteOptions::default() };
        writer::write(&processed(), "", &dir.path().join("shards"), &options).unwrap();
        dir
    });
    Arc::new(Shards::open(&dir.path().join("shards")).unwrap())
}

/// `configs/spackle/<name>.toml`.
pub fn shipped(name: &str) -> TrainConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("configs/spackle/{name}.toml"));
    toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// `configs/spackle/tiny.toml` with changes.
pub fn tiny(change: impl FnOnce(&mut TrainConfig)) -> TrainConfig {
    let mut config = shipped("tiny");
    config.train.micro_batch = 4;
    config.train.validate_every = 5;
    config.train.digest_every = 3;
    config.train.max_steps = 12;
    config.checkpoint.every = 4;
    config.checkpoint.keep = 20;
    change(&mut config);
    assert_eq!(config.problems(), Vec::<String>::new());
    config
}

/// Ids by (global_step, lane), in the order they were consumed.
pub type Consumed = Vec<(u64, usize, Vec<u64>)>;

/// What a run showed.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Record ids consumed, sorted by (step, lane).
    pub consumed: Consumed,
    /// (global_step, value, best).
    pub validations: Vec<(u64, f64, bool)>,
    /// Loss per step.
    pub losses: Vec<(u64, f64)>,
    /// Norm of the summed gradient per step.
    pub norms: Vec<f64>,
    /// Steps that ran twice.
    pub reruns: Vec<u64>,
    /// Warnings, each with its step.
    pub warnings: Vec<String>,
}

struct Witness(Arc<Mutex<Seen>>);

impl Observer for Witness {
    fn start(&mut self, _: &Start<'_>) {}

    fn step(&mut self, global_step: u64, outcome: &StepOutcome, _: Duration) {
        let mut seen = self.0.lock().unwrap();
        seen.losses.push((global_step, outcome.loss));
        seen.norms.push(outcome.gradient_norm);
        if outcome.rerun {
            seen.reruns.push(global_step);
        }
    }

    fn validation(&mut self, global_step: u64, value: f64, best: bool) {
        self.0.lock().unwrap().validations.push((global_step, value, best));
    }

    fn saving(&mut self, _: u64) {}

    fn parameters(&mut self, _: u64, _: &[ParamSpec], _: &[f32]) {}

    fn warn(&mut self, message: &str) {
        assert!(message.contains("is slow in"), "{message}"); // true on a busy machine
        self.0.lock().unwrap().warnings.push(message.to_owned());
    }

    fn consumed(&mut self, _: usize, global_step: u64, lane: usize, ids: &[u64]) {
        self.0.lock().unwrap().consumed.push((global_step, lane, ids.to_vec()));
    }
}

/// A run folder of its own.
pub struct Theatre {
    _dir: tempfile::TempDir,
    pub folder: RunFolder,
}

impl Theatre {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(PathBuf::from(dir.path()).join("run")).unwrap();
        Self { _dir: dir, folder }
    }

    /// Trains on `ranks`, going on from the newest checkpoint; stops by a vote after `stop_after` steps of this start.
    pub fn run(&self, config: &TrainConfig, ranks: usize, stop_after: Option<u64>) -> Result<(End, Seen), TrainError> {
        self.run_on(shards(), config, ranks, stop_after)
    }

    pub fn run_on(
        &self,
        shards: Arc<Shards>,
        config: &TrainConfig,
        ranks: usize,
        stop_after: Option<u64>,
    ) -> Result<(End, Seen), TrainError> {
        self.run_with(shards, config, ranks, stop_after, |n| trainer::thread_ranks(n, Duration::from_secs(600)))
    }

    /// As above, with engines of the caller's making.
    pub fn run_with(
        &self,
        shards: Arc<Shards>,
        config: &TrainConfig,
        ranks: usize,
        stop_after: Option<u64>,
        engines: impl FnOnce(usize) -> Vec<Watched>,
    ) -> Result<(End, Seen), TrainError> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let observer: Mutex<Witness> = Mutex::new(Witness(Arc::clone(&seen)));
        let asked = AtomicU64::new(0);
        // Every rank asks once per step; the vote of one is enough.
        let stop = || {
            let n = asked.fetch_add(1, Ordering::Relaxed);
            stop_after.is_some_and(|after| n / ranks as u64 + 1 >= after)
        };
        let lock = Arc::new(RunLock::acquire(&self.folder, None, Timing::default()).unwrap());
        let (resume, damaged) = ready::newest(&self.folder)?;
        assert_eq!(damaged, Vec::<String>::new());
        let place = device::find(config, &World::local(), |_| None)?;
        let ready = Ready::new(config, &shards)?.on(&place.device);
        let beginning = ready.state(resume.as_ref(), self.folder.root())?;
        let (resumed_from, folder, lock) = (resume.map(|r| r.name), &self.folder, Some(lock));
        let run = Run { ready: &ready, beginning, resumed_from, folder, lock, stop: &stop, observer: &observer };
        let (end, _) = trainer::train(&run, engines(ranks))?;
        drop(run);
        let mut seen = seen.lock().unwrap().clone();
        seen.consumed.sort();
        Ok((end, seen))
    }

    /// The newest checkpoint, without what may differ: the config's free keys.
    pub fn last(&self) -> CheckpointContents {
        let mut contents = checkpoint::newest_valid(&self.folder).unwrap().checkpoint.unwrap().contents;
        contents.state.as_object_mut().unwrap().remove("config");
        contents
    }
}
