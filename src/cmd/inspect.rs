//! `syncytia inspect`: what the reader sees in shards, checkpoints, runs and input files.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use syncytia_launch::ExitCode;
use syncytia_shards::ingest;
use syncytia_shards::manifest::MANIFEST_FILE;
use syncytia_shards::reader::Shards;

use crate::train::checkpoint::{self, Which};
use crate::train::run_folder::{CheckpointFolder, RunFolder};
use crate::train::state;

/// Arguments of `inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A shard folder, a checkpoint, a run folder, an `.h5ad` file or a Space Ranger folder.
    path: PathBuf,
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
        if args.json {
            println!("{}", serde_json::to_string_pretty(shards.manifest())?);
        } else {
            println!("{}", shards.manifest());
        }
        return Ok(ExitCode::Done);
    }
    if path.join(CheckpointFolder::MODEL).exists() || RunFolder::at(path).checkpoints().exists() {
        return inspect_checkpoint(path, args.json);
    }
    let description = ingest::describe(path)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&description)?);
    } else {
        println!("{description}");
    }
    Ok(ExitCode::Done)
}

fn inspect_checkpoint(path: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let (checkpoint, damaged) = checkpoint::resolve(path, Which::Usual)?;
    for error in &damaged {
        eprintln!("{error}");
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&checkpoint.contents.state)?);
        return Ok(ExitCode::Done);
    }
    let run = state::run_state(&checkpoint.contents).map_err(|e| anyhow!("{}: {e}", checkpoint.dir.display()))?;
    println!("checkpoint {}", checkpoint.dir.display());
    println!(
        "model      {}, {} genes, neighbourhoods of {} spots",
        run.config.model.name(),
        run.shape.genes,
        run.shape.spots
    );
    println!("steps      {} batches consumed, {} updates", run.global_step, run.optim_step);
    if let Some(best) = run.best {
        println!("best       validation {:.6} at step {}", best.value, best.global_step);
    }
    println!("data       {}", run.data_hash);
    println!("written by syncytia {}, step definition {}", run.version, run.step_version);
    for tensor in &checkpoint.contents.model {
        println!("  {} {:?}", tensor.name, tensor.shape);
    }
    Ok(ExitCode::Done)
}
