//! A generator's pictures beside real ones.

use super::{Args, Evaluated, UsageError};
use crate::cmd::trained::Trained;

/// Evaluates a checkpoint of a generator and writes the report.
pub fn evaluate(_args: &Args, trained: &Trained) -> anyhow::Result<Evaluated> {
    Err(UsageError(format!(
        "{} is a checkpoint of {}, and `evaluate` is not for those yet: look at the sheet of `syncytia generate`",
        trained.checkpoint.dir.display(),
        trained.run.config.model.name()
    ))
    .into())
}
