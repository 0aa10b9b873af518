//! From an error to the exit code a script may rely on.

use std::io;

use syncytia_launch::ExitCode;
use syncytia_shards::error::StoreError;
use syncytia_shards::ingest::IngestError;
use syncytia_shards::process::ProcessError;

use crate::config::ConfigError;
use crate::report::ReportError;
use crate::train::checkpoint::CheckpointError;
use crate::train::error::TrainError;
use crate::train::lock::LockError;

/// A wrong use that no other type names.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The exit code of an error: storage first, whatever was being done; then by whose error it is.
pub fn code_of(error: &anyhow::Error) -> ExitCode {
    for cause in error.chain() {
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && ExitCode::of_io(io, ExitCode::Data) == ExitCode::Storage
        {
            return ExitCode::Storage;
        }
    }
    error.chain().find_map(of_type).unwrap_or(ExitCode::Data)
}

/// The exit code as a number, for a message to other processes.
pub fn number(error: &anyhow::Error) -> u8 {
    code_of(error).code()
}

fn of_type(cause: &(dyn std::error::Error + 'static)) -> Option<ExitCode> {
    if cause.is::<UsageError>() || cause.is::<ConfigError>() {
        return Some(ExitCode::Usage);
    }
    if let Some(error) = cause.downcast_ref::<LockError>() {
        return Some(error.exit_code());
    }
    if let Some(error) = cause.downcast_ref::<CheckpointError>() {
        return Some(error.exit_code());
    }
    if let Some(error) = cause.downcast_ref::<ProcessError>() {
        return Some(match error {
            ProcessError::Config { .. } => ExitCode::Usage,
            _ => ExitCode::Data,
        });
    }
    if cause.is::<IngestError>() || cause.is::<StoreError>() || cause.is::<ReportError>() {
        return Some(ExitCode::Data);
    }
    cause.downcast_ref::<TrainError>().map(|error| {
        let code = error.exit_code();
        ExitCode::ALL.into_iter().find(|c| c.code() == code).unwrap_or(ExitCode::Peers)
    })
}
