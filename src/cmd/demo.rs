//! `syncytia demo`: the whole walk on the section inside the binary, offline.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use syncytia_launch::ExitCode;
use syncytia_shards::ingest::{self, IngestOptions};
use syncytia_shards::process;

use super::exit::UsageError;
use super::shard::{self, ShardConfig};
use super::{evaluate, train_folder};
use crate::config;
use crate::train::config::TrainConfig;
use crate::train::trainer::End;

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder to write; must not exist.
    #[arg(long, default_value = "demo")]
    out: PathBuf,
    /// Print report.json instead of the table.
    #[arg(long)]
    json: bool,
}

/// Visium section Vis5A, mouse muscle; `shards/data/README.md` has its source (Dryad, CC0).
const SECTION: &[u8] = include_bytes!("../../shards/data/vis5a_cut.h5ad");
const TRAIN: &str = include_str!("../../configs/spackle/tiny.toml");
const SHARD: &str = include_str!("../../configs/spackle/shard.toml");

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    if args.out.exists() {
        return Err(UsageError(format!("{} exists: remove it, or give another --out", args.out.display())).into());
    }
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    eprintln!("1/4 a real section: mouse muscle, Visium Vis5A (McKellar et al. 2021, CC0), 982 spots × 800 genes");
    let input = args.out.join("vis5a_cut.h5ad");
    std::fs::write(&input, SECTION).with_context(|| format!("cannot write {}", input.display()))?;
    eprintln!("2/4 filters, TPM, median completion, Moran's I; one section becomes train, val and test blocks");
    let shard_config: ShardConfig = config::parse(SHARD, "configs/spackle/shard.toml", &[])?;
    let section = ingest::read_section(&input, &IngestOptions::default())?;
    let processed = process::process(vec![section], &shard_config.filter, &shard_config.process, &shard_config.split)?;
    let shards = args.out.join("shards");
    shard::write(&processed, &shard_config, &shards, false, 0)?;
    let train_config: TrainConfig = config::parse(TRAIN, "configs/spackle/tiny.toml", &[])?;
    eprintln!("3/4 SpaCKLE, {} steps, one rank per core", train_config.train.max_steps);
    let run = args.out.join("run");
    if let End::Stopped { .. } =
        train_folder::train(&train_config, &shards, &run, &train_folder::StartFrom::default())?.end
    {
        eprintln!("stopped and saved in {}", run.display());
        return Ok(ExitCode::Stopped);
    }
    eprintln!("4/4 ten assays beside every simple fill, under both protocols");
    let evaluated = evaluate::usual(&run, &shards)?;
    evaluated.show(args.json)?;
    eprintln!("{:.0} s in all", started.elapsed().as_secs_f64());
    Ok(ExitCode::Done)
}
