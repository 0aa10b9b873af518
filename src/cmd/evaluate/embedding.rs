//! Vectors of cells, niches and tissues beside what is simple.

use super::{Args, Evaluated, UsageError};
use crate::cmd::trained::Trained;

/// Evaluates a checkpoint of one of SPATIA's three stages and writes the report.
pub fn evaluate(_args: &Args, trained: &Trained) -> anyhow::Result<Evaluated> {
    Err(UsageError(format!(
        "{} is a checkpoint of {}, and `evaluate` is not for those yet",
        trained.checkpoint.dir.display(),
        trained.run.config.model.name()
    ))
    .into())
}
