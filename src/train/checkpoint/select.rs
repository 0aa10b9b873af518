//! Which checkpoint: the newest valid one for a resume, the one a user means for everything else. What is there is found
//! by looking, not by a link that can lie. Must not know what is done with it.

use std::path::Path;
use std::str::FromStr;

use super::error::CheckpointError;
use super::publish::names;
use super::{Checkpoint, load};
use crate::train::run_folder::{CheckpointFolder, RunFolder};

/// The newest checkpoint that is whole, and those passed over on the way to it.
#[derive(Debug)]
pub struct Newest {
    /// `None` when the run has no checkpoint that is whole.
    pub checkpoint: Option<Checkpoint>,
    /// Newer ones that are damaged, newest first: to be named to the user.
    pub damaged: Vec<CheckpointError>,
}

/// Which of a run's checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Which {
    /// Best if present, else newest.
    #[default]
    Usual,
    /// The best on the validation split.
    Best,
    /// The newest valid one.
    Last,
    /// The one of a step.
    Step(u64),
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Which, String> {
        match text {
            "best" => Ok(Which::Best),
            "last" => Ok(Which::Last),
            _ => text
                .strip_prefix("step-")
                .and_then(|n| n.parse().ok())
                .map(Which::Step)
                .ok_or_else(|| format!("{text:?} is not a checkpoint; write best, last or step-N, e.g. step-1000")),
        }
    }
}

/// Steps that have a checkpoint folder, ascending; whether they are whole is not looked at.
///
/// # Errors
/// [`CheckpointError::Io`] when the folder cannot be listed.
pub fn steps(run: &RunFolder) -> Result<Vec<u64>, CheckpointError> {
    let mut steps: Vec<u64> = names(&run.checkpoints())?.iter().filter_map(|n| RunFolder::step_of(n)).collect();
    steps.sort_unstable(); // by number: a ninth digit sorts wrongly by name
    Ok(steps)
}

/// Loads the newest checkpoint that passes every check. Damaged ones are listed, never used and never deleted.
///
/// # Errors
/// [`CheckpointError::Io`] and [`CheckpointError::Newer`]: going back to an older checkpoint would lose work that is
/// there.
pub fn newest_valid(run: &RunFolder) -> Result<Newest, CheckpointError> {
    let mut damaged = Vec::new();
    for step in steps(run)?.into_iter().rev() {
        match load(run.checkpoint(step).root()) {
            Ok(checkpoint) => return Ok(Newest { checkpoint: Some(checkpoint), damaged }),
            Err(fault @ CheckpointError::Damaged { .. }) => damaged.push(fault),
            Err(other) => return Err(other),
        }
    }
    Ok(Newest { checkpoint: None, damaged })
}

/// Loads the checkpoint a user means by a path: a checkpoint's own folder, or a run folder and `which`. The second value
/// lists damaged ones that were passed over.
///
/// # Errors
/// [`CheckpointError`]: nothing there, the one asked for missing or damaged, or all damaged.
pub fn resolve(path: &Path, which: Which) -> Result<(Checkpoint, Vec<CheckpointError>), CheckpointError> {
    if CheckpointFolder::at(path).manifest().is_file() {
        return Ok((load(path)?, Vec::new()));
    }
    let run = RunFolder::at(path);
    let exact = |dir: &Path| -> Result<_, CheckpointError> {
        if !dir.is_dir() {
            let wanted = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Err(CheckpointError::NoSuch { run: path.to_owned(), wanted, available: available(&run)? });
        }
        Ok((load(dir)?, Vec::new()))
    };
    match which {
        Which::Best => exact(run.best().root()),
        Which::Step(step) => exact(run.checkpoint(step).root()),
        Which::Usual if run.best().root().is_dir() => match load(run.best().root()) {
            Ok(best) => Ok((best, Vec::new())),
            Err(fault @ CheckpointError::Damaged { .. }) => last(&run, vec![fault]),
            Err(other) => Err(other),
        },
        Which::Usual | Which::Last => last(&run, Vec::new()),
    }
}

fn last(
    run: &RunFolder,
    mut damaged: Vec<CheckpointError>,
) -> Result<(Checkpoint, Vec<CheckpointError>), CheckpointError> {
    let newest = newest_valid(run)?;
    damaged.extend(newest.damaged);
    match newest.checkpoint {
        Some(checkpoint) => Ok((checkpoint, damaged)),
        None if damaged.is_empty() => Err(CheckpointError::NotFound { path: run.root().to_owned() }),
        None => Err(CheckpointError::AllDamaged { run: run.root().to_owned(), damaged }),
    }
}

fn available(run: &RunFolder) -> Result<Vec<String>, CheckpointError> {
    let mut names: Vec<String> = steps(run)?.into_iter().map(RunFolder::checkpoint_name).collect();
    if run.best().root().is_dir() {
        names.push(RunFolder::BEST_NAME.to_owned());
    }
    Ok(names)
}
