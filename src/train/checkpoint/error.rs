//! What can go wrong with checkpoints, with the facts a reader needs at night and the exit code that follows.

use std::io;
use std::path::{Path, PathBuf};

use syncytia_launch::ExitCode;

use crate::train::lock::LockError;

/// Why a checkpoint was not written, not read, or not found.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What lies on the disk is not what was written.
    #[error("checkpoint {} is damaged: {file}: {what}", dir.display())]
    Damaged {
        /// The checkpoint.
        dir: PathBuf,
        /// The file in it.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// Written by a newer version of this program.
    #[error("checkpoint {} has format version {found}, this build reads up to {known}; use a newer syncytia", dir.display())]
    Newer {
        /// The checkpoint.
        dir: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest version this build knows.
        known: u32,
    },
    /// What was to be saved contradicts itself: a bug of the caller.
    #[error("cannot save {file}: {what}")]
    Contents {
        /// File that would have been written.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// The path holds no checkpoint at all.
    #[error(
        "{} is neither a checkpoint (no {}) nor a run folder with a checkpoint; give a run folder that has trained, or \
         one of its checkpoints",
        path.display(), crate::train::run_folder::CheckpointFolder::MANIFEST
    )]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// The one that was asked for is not there.
    #[error("run {} has no checkpoint {wanted}; it has {}", run.display(), words(available))]
    NoSuch {
        /// The run folder.
        run: PathBuf,
        /// `best` or a step's folder name.
        wanted: String,
        /// Names that are there.
        available: Vec<String>,
    },
    /// There are checkpoints, and none of them can be used.
    #[error("every checkpoint in {} is damaged: {}; restore one from a copy, or start a new run", run.display(), listed(damaged))]
    AllDamaged {
        /// The run folder.
        run: PathBuf,
        /// Each with its fault, newest first.
        damaged: Vec<CheckpointError>,
    },
    /// Another job took the run folder over: this process must not write any more.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The saving thread ended before its time: a panic in it, which is a bug.
    #[error("the thread that saves checkpoints has died; the last checkpoint on disk in {} is the state", run.display())]
    SaverDied {
        /// The run folder.
        run: PathBuf,
    },
}

impl CheckpointError {
    /// Wraps the system's error with what was being done.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
        move |source| CheckpointError::Io { doing, path: path.to_owned(), source }
    }

    /// The exit code a command ends with: 7 where storage refused or a save failed, 2 where what was asked for does not
    /// exist or is another's, else 5.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            CheckpointError::Io { .. } => ExitCode::Storage,
            CheckpointError::NoSuch { .. } => ExitCode::Usage,
            CheckpointError::Lock(error) => error.exit_code(),
            _ => ExitCode::Checkpoint,
        }
    }
}

fn words(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn listed(errors: &[CheckpointError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl From<syncytia_shards::durable::FileError> for CheckpointError {
    fn from(error: syncytia_shards::durable::FileError) -> CheckpointError {
        CheckpointError::Io { doing: error.action, path: error.path, source: error.source }
    }
}
