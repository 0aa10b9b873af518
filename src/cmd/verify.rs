//! `syncytia verify`: every checksum and invariant of shards, a checkpoint or a run.

use std::path::PathBuf;

use syncytia_launch::ExitCode;
use syncytia_shards::verify::verify;

use crate::train::checkpoint::{self, Which};

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A shard folder, a checkpoint, or a run folder.
    path: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if super::inspect::is_shards(&args.path) {
        println!("{}", verify(&args.path)?);
        return Ok(ExitCode::Done);
    }
    let (checkpoint, damaged) = checkpoint::resolve(&args.path, Which::Last)?;
    for error in &damaged {
        eprintln!("{error}");
    }
    println!("{}: every tensor and file is what was saved", checkpoint.dir.display());
    Ok(if damaged.is_empty() { ExitCode::Done } else { ExitCode::Checkpoint })
}
