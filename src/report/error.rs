//! Why there is no page.

use std::path::PathBuf;

use syncytia_shards::durable::FileError;

/// What stands between a run and its page.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Nobody evaluated the run (on that split).
    #[error(
        "{} has not been evaluated{}: run `syncytia evaluate {}{}` first",
        run.display(),
        split.as_ref().map_or_else(String::new, |s| format!(" on {s}")),
        run.display(),
        split.as_ref().map_or_else(String::new, |s| format!(" --split {s}"))
    )]
    NotEvaluated {
        /// Run folder or checkpoint.
        run: PathBuf,
        /// The split that was asked for, if one was.
        split: Option<String>,
    },
    /// What the evaluation stored is missing, changed or of another version.
    #[error("{}: {what}; run `syncytia evaluate` again", path.display())]
    Stored {
        /// The stored file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The system refused a file.
    #[error(transparent)]
    File(#[from] FileError),
}
