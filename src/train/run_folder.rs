//! Where a run keeps what: the only file that names the run folder's files. Must not know what is in them.
//!
//! ```text
//! RUN/config.toml · world.json · from.json (after `train --from`) · metrics.jsonl · metrics.superseded.jsonl · events.out.tfevents.* · lock
//!     log/{rank-000.jsonl, flight-rank-000.json} · train.sbatch · shard.sbatch · evaluate.sbatch (as submitted)
//!     checkpoints/step-00001000/{model.safetensors, train_state/{state.json, *.safetensors}, manifest.json}
//!     checkpoints/best/
//!     report/ · report-<split>/
//!     fold-0/ …                  whole run folders
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const STEP_PREFIX: &str = "step-";
const STEP_DIGITS: usize = 8;
const TENSOR_SUFFIX: &str = ".safetensors";

/// The folder of one run. A value that makes paths; nothing is read or written but by [`RunFolder::create`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    root: PathBuf,
}

impl RunFolder {
    /// Names an existing or future run folder.
    pub fn at(root: impl Into<PathBuf>) -> RunFolder {
        RunFolder { root: root.into() }
    }

    /// Makes the folder and the subfolders every run has; those that exist are left as they are.
    ///
    /// # Errors
    /// The system's.
    pub fn create(root: impl Into<PathBuf>) -> io::Result<RunFolder> {
        let run = RunFolder::at(root);
        fs::create_dir_all(run.checkpoints())?;
        fs::create_dir_all(run.log())?;
        Ok(run)
    }

    /// Removes what [`RunFolder::create`] made, if nothing came to lie in it.
    pub fn remove_if_empty(&self) {
        let own = [self.checkpoints(), self.log()];
        let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
        let alone = entries(&self.root).all(|entry| own.contains(&entry.path()));
        if alone && own.iter().all(|dir| entries(dir).next().is_none()) {
            for dir in own.iter().chain([&self.root]) {
                let _ = fs::remove_dir(dir);
            }
        }
    }

    /// The folder itself; TensorBoard's event files lie here.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The run folder of a stage before the last.
    pub fn stage(&self, kind: &str) -> PathBuf {
        self.root.join(kind)
    }

    /// Pairs of spots and cells that a stage reads; `None`: the last.
    pub fn pairs(&self, stage: Option<&str>) -> PathBuf {
        self.root.join(stage.map_or("pairs".to_owned(), |kind| format!("pairs-{kind}")))
    }

    /// The config as resolved.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// Machines, instruction set, C library, launcher.
    pub fn world(&self) -> PathBuf {
        self.root.join("world.json")
    }

    /// What became of the genes of the checkpoint it began with.
    pub fn from_ledger(&self) -> PathBuf {
        self.root.join("from.json")
    }

    /// One JSON object per log interval.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// Lines of `metrics.jsonl` that a resume made void.
    pub fn superseded_metrics(&self) -> PathBuf {
        self.root.join("metrics.superseded.jsonl")
    }

    /// A TensorBoard event file of process `pid` made at `unix_ns`; readers take the files of a run in this order.
    pub fn events(&self, unix_ns: u128, pid: u32) -> PathBuf {
        self.root.join(format!("events.out.tfevents.{unix_ns:020}.{pid}"))
    }

    /// Who trains here.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Logs of all ranks.
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// Log of one rank.
    pub fn rank_log(&self, rank: u32) -> PathBuf {
        self.log().join(format!("rank-{rank:03}.jsonl"))
    }

    /// The last operations of a rank that waited in vain.
    pub fn flight_record(&self, rank: usize) -> PathBuf {
        self.log().join(format!("flight-rank-{rank:03}.json"))
    }

    /// The batch script that `submit` wrote for a command.
    pub fn batch_script(&self, command: &str) -> PathBuf {
        self.root.join(format!("{command}.sbatch"))
    }

    /// The report of a split; the one that stands for the run is `report/`, see [`RunFolder::report`].
    pub fn split_report(&self, split: &str) -> PathBuf {
        self.root.join(format!("report-{split}"))
    }

    /// The report of the run: test split if present, else val.
    pub fn report(&self) -> PathBuf {
        self.root.join("report")
    }

    /// Every number of the run's report.
    pub fn report_json(&self) -> PathBuf {
        self.report().join("report.json")
    }

    /// The run folder a checkpoint lies in, if it lies in one.
    pub fn of_checkpoint(checkpoint: &Path) -> Option<RunFolder> {
        let run = RunFolder::at(checkpoint.parent()?.parent()?);
        (checkpoint.parent()? == run.checkpoints()).then_some(run)
    }

    /// One fold of a cross-validation, a whole run folder.
    pub fn fold(&self, fold: u32) -> RunFolder {
        RunFolder::at(self.root.join(format!("fold-{fold}")))
    }

    /// All checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// The checkpoint of a step.
    pub fn checkpoint(&self, step: u64) -> CheckpointFolder {
        CheckpointFolder::at(self.checkpoints().join(Self::checkpoint_name(step)))
    }

    /// The checkpoint with the lowest validation value so far.
    pub fn best(&self) -> CheckpointFolder {
        CheckpointFolder::at(self.checkpoints().join(Self::BEST_NAME))
    }

    /// Folder name of the best checkpoint.
    pub const BEST_NAME: &'static str = "best";

    /// Folder name of a step's checkpoint, `step-00001000`.
    pub fn checkpoint_name(step: u64) -> String {
        format!("{STEP_PREFIX}{step:0STEP_DIGITS$}")
    }

    /// The step a checkpoint's folder name stands for; `None` for any other name.
    pub fn step_of(name: &str) -> Option<u64> {
        let step = name.strip_prefix(STEP_PREFIX)?.parse().ok()?;
        (Self::checkpoint_name(step) == name).then_some(step)
    }
}

/// The folder of one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointFolder {
    root: PathBuf,
}

impl CheckpointFolder {
    /// File of the weights that evaluation uses.
    pub const MODEL: &'static str = "model.safetensors";
    /// File of the run's state, relative to the checkpoint.
    pub const STATE: &'static str = "train_state/state.json";
    /// File of the digests, written last.
    pub const MANIFEST: &'static str = "manifest.json";
    const TRAIN_STATE: &'static str = "train_state";

    /// Names an existing or future checkpoint.
    pub fn at(root: impl Into<PathBuf>) -> CheckpointFolder {
        CheckpointFolder { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What only a resume needs.
    pub fn train_state(&self) -> PathBuf {
        self.root.join(Self::TRAIN_STATE)
    }

    /// The digests.
    pub fn manifest(&self) -> PathBuf {
        self.root.join(Self::MANIFEST)
    }

    /// A file inside, by its name relative to the checkpoint.
    pub fn file(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Relative name of a group of training-state tensors: `raw`, `adam_m`, `adam_v`, `ema`.
    pub fn train_tensors(stem: &str) -> String {
        format!("{}/{stem}{TENSOR_SUFFIX}", Self::TRAIN_STATE)
    }

    /// The group a relative name stands for; `None` for any other file.
    pub fn stem_of(relative: &str) -> Option<&str> {
        relative.strip_prefix(Self::TRAIN_STATE)?.strip_prefix('/')?.strip_suffix(TENSOR_SUFFIX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_and_its_folder_name_are_each_others_inverse() {
        for step in [0, 1, 1000, 99_999_999, 100_000_000, u64::MAX] {
            assert_eq!(RunFolder::step_of(&RunFolder::checkpoint_name(step)), Some(step));
        }
        assert_eq!(RunFolder::checkpoint_name(1000), "step-00001000");
        for other in ["step-1000", "step-", "step-0000100x", "best", ".tmp-step-00001000-1-0", "step-+0001000"] {
            assert_eq!(RunFolder::step_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_checkpoint_knows_its_run_and_a_copy_of_it_has_none() {
        let run = RunFolder::at("/a/R");
        assert_eq!(RunFolder::of_checkpoint(run.best().root()), Some(run.clone()));
        assert_eq!(RunFolder::of_checkpoint(Path::new("/a/copies/step-00000001")), None);
        assert_eq!(RunFolder::of_checkpoint(Path::new("best")), None);
    }

    #[test]
    fn a_group_of_tensors_and_its_file_name_are_each_others_inverse() {
        assert_eq!(CheckpointFolder::train_tensors("adam_m"), "train_state/adam_m.safetensors");
        assert_eq!(CheckpointFolder::stem_of("train_state/adam_m.safetensors"), Some("adam_m"));
        assert_eq!(CheckpointFolder::stem_of(CheckpointFolder::MODEL), None);
        assert_eq!(CheckpointFolder::stem_of(CheckpointFolder::STATE), None);
    }

    #[test]
    fn making_a_run_folder_twice_keeps_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path().join("R")).unwrap();
        fs::write(run.rank_log(0), "x").unwrap();
        let again = RunFolder::create(folder.path().join("R")).unwrap();
        assert_eq!(fs::read_to_string(again.rank_log(0)).unwrap(), "x");
        assert_eq!(again.rank_log(12), folder.path().join("R/log/rank-012.jsonl"));
    }
}
