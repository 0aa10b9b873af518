//! `syncytia verify`: every checksum and invariant of shards, a checkpoint or a run.

use std::path::PathBuf;

use syncytia_launch::ExitCode;
use syncytia_shards::tables::vectors::{VECTORS_FILE, Vectors, VectorsFacts};
use syncytia_shards::verify::verify;

use super::exit::UsageError;
use super::out;
use crate::train::checkpoint::{self, Which};

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A shard folder, a folder of vectors, a checkpoint, or a run folder.
    path: PathBuf,
    /// Print what was looked at as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if super::inspect::is_shards(&args.path) {
        let report = verify(&args.path)?;
        if args.json {
            out::json(&serde_json::json!({
                "files": report.n_files, "row_groups": report.n_row_groups, "records": report.n_records,
                "bytes": report.bytes,
            }))?;
        } else {
            out::line(report)?;
        }
        return Ok(ExitCode::Done);
    }
    if args.path.join(VECTORS_FILE).exists() {
        let facts = VectorsFacts::read(&args.path)?;
        Vectors::read(&args.path, facts.of, &facts.data_hash)?;
        if args.json {
            out::json(&serde_json::json!({"files": facts.parts.len(), "vectors": facts.n, "digest": facts.digest()}))?;
        } else {
            let (n, files) = (facts.n, facts.parts.len());
            out::line(format_args!("{n} vectors of {} in {files} files: every checksum holds", facts.of.plural()))?;
        }
        return Ok(ExitCode::Done);
    }
    if !args.path.is_dir() {
        let what = if args.path.exists() { "a file" } else { "not there" };
        return Err(UsageError(format!(
            "{} is {what}: verify looks at a shard folder, a folder of vectors, a checkpoint or a run folder; an instrument file is read with \
             `syncytia inspect`",
            args.path.display()
        ))
        .into());
    }
    let (checkpoint, damaged) = checkpoint::resolve(&args.path, Which::Last)?;
    for error in &damaged {
        eprintln!("{error}");
    }
    if args.json {
        let damaged: Vec<String> = damaged.iter().map(ToString::to_string).collect();
        out::json(&serde_json::json!({"whole": checkpoint.dir, "damaged": damaged}))?;
    } else {
        out::line(format_args!("{}: every tensor and file is what was saved", checkpoint.dir.display()))?;
    }
    Ok(if damaged.is_empty() { ExitCode::Done } else { ExitCode::Checkpoint })
}
