//! `syncytia export`: a checkpoint as other tools load it.

use std::path::PathBuf;

use syncytia_launch::ExitCode;

use super::out;
use super::trained::Trained;
use crate::export::{self, Layout};
use crate::train::checkpoint::Which;

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A run folder or a checkpoint.
    path: PathBuf,
    /// Folder to write; must not exist.
    #[arg(long)]
    out: PathBuf,
    /// `plain`, or `spared` with the unused template that a strict load of the release demands.
    #[arg(long, default_value = "plain")]
    layout: Layout,
    /// `best`, `last` or `step-N`; best where there is one, else the newest.
    #[arg(long)]
    checkpoint: Option<Which>,
    /// Print where it was written as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let checkpoint = Trained::open(&args.path, args.checkpoint.unwrap_or_default())?.checkpoint;
    export::export(&checkpoint, &args.out, args.layout)?;
    if args.json {
        out::json(&serde_json::json!({"out": args.out, "checkpoint": checkpoint.dir}))?;
    } else {
        out::line(args.out.display())?;
    }
    Ok(ExitCode::Done)
}
