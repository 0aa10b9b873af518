//! `syncytia inspect`: what the reader sees in shards, checkpoints, runs and input files.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use syncytia_launch::ExitCode;
use syncytia_shards::durable;
use syncytia_shards::ingest;
use syncytia_shards::manifest::MANIFEST_FILE;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::vectors::{VECTORS_FILE, VectorsFacts};

use super::exit::UsageError;
use super::out;
use crate::report::contact_sheet;
use crate::train::checkpoint::{self, Which};
use crate::train::run_folder::{CheckpointFolder, RunFolder};
use crate::train::state;

/// Arguments of `inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A shard folder, a folder of vectors, a checkpoint, a run folder, an `.h5ad` file, a Space Ranger or MERSCOPE folder, a text table.
    path: PathBuf,
    /// Of shards with pictures: a contact sheet of random records, an HTML file.
    #[arg(long, value_name = "OUT.html")]
    sheet: Option<PathBuf>,
    /// Records on the contact sheet.
    #[arg(long, default_value_t = 48)]
    records: usize,
    /// Seed of the choice.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// Whether a folder holds shards: its manifest lists tables (a checkpoint's lists tensors).
pub fn is_shards(path: &Path) -> bool {
    path.join(MANIFEST_FILE).exists() && !path.join(CheckpointFolder::MODEL).exists()
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let path = &args.path;
    if is_shards(path) {
        let shards = Shards::open(path)?;
        if let Some(sheet) = &args.sheet {
            let page = contact_sheet::page(&shards, args.records, args.seed)?;
            out::check_file(sheet, &[])?;
            durable::write_atomic(sheet, page.as_bytes())
                .with_context(|| format!("cannot write {}", sheet.display()))?;
            out::line(sheet.display())?;
            return Ok(ExitCode::Done);
        }
        if args.json {
            out::json(shards.manifest())?;
        } else {
            out::line(shards.manifest())?;
        }
        return Ok(ExitCode::Done);
    }
    if path.join(VECTORS_FILE).exists() {
        let facts = VectorsFacts::read(path)?;
        return if args.json { out::json(&facts) } else { out::line(&facts) }.map(|()| ExitCode::Done);
    }
    if args.sheet.is_some() {
        return Err(UsageError(format!("--sheet: {} is no shard folder", path.display())).into());
    }
    if path.join(CheckpointFolder::MODEL).exists() || RunFolder::at(path).checkpoints().exists() {
        return inspect_checkpoint(path, args.json);
    }
    let description = ingest::describe(path)?;
    if args.json {
        out::json(&description)?;
    } else {
        out::line(&description)?;
    }
    Ok(ExitCode::Done)
}

fn inspect_checkpoint(path: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let (checkpoint, damaged) = checkpoint::resolve(path, Which::Usual)?;
    for error in &damaged {
        eprintln!("{error}");
    }
    if json {
        out::json(&checkpoint.contents.state)?;
        return Ok(ExitCode::Done);
    }
    let run = state::run_state(&checkpoint.contents).map_err(|e| anyhow!("{}: {e}", checkpoint.dir.display()))?;
    out::line(format_args!("checkpoint {}", checkpoint.dir.display()))?;
    out::line(format_args!(
        "model      {}, {} genes{}",
        run.config.model.name(),
        run.shape.genes,
        if run.shape.spots > 1 { format!(", neighbourhoods of {} spots", run.shape.spots) } else { String::new() }
    ))?;
    out::line(format_args!("steps      {} batches consumed, {} updates", run.global_step, run.optim_step))?;
    if let Some(best) = run.best {
        out::line(format_args!("best       validation {:.6} at step {}", best.value, best.global_step))?;
    }
    out::line(format_args!("data       {}", run.data_hash))?;
    out::line(format_args!("written by syncytia {}, step definition {}", run.version, run.step_version))?;
    for tensor in &checkpoint.contents.model {
        out::line(format_args!("  {} {:?}", tensor.name, tensor.shape))?;
    }
    Ok(ExitCode::Done)
}
