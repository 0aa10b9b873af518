//! `syncytia pair`: which cells of a reference speak of which spot, in the folders of vectors that a stage of SpotDiff reads. `train`
//! makes them itself; this is for stages that are trained one by one, on several processes for instance.

use std::path::PathBuf;

use anyhow::Context;
use syncytia_launch::ExitCode;
use syncytia_launch::signals::StopVote;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::vectors::VectorsFacts;

use super::exit::UsageError;
use super::out;
use super::trained::Trained;
use crate::config;
use crate::train::checkpoint::Which;
use crate::train::config::{TrainConfig, ViewConfig};
use crate::train::pairing::{self, Written};

/// Arguments of `pair`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The train config whose stage will read them.
    config: PathBuf,
    /// Shard folder, made with a reference.
    #[arg(long)]
    shards: PathBuf,
    /// Of shards whose genes are cut into folds: which is hidden.
    #[arg(long)]
    fold: Option<u32>,
    /// For the last stage: the run or checkpoint of the first, whose network moves the cells. Without it they stay as they are.
    #[arg(long, value_name = "RUN_OR_CHECKPOINT")]
    moved_by: Option<PathBuf>,
    /// A key of the config, repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder to write: `spots`, and for the last stage on folds `cells` and `others`.
    #[arg(long)]
    out: PathBuf,
    /// Print what was written as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut config: TrainConfig = config::load(&args.config, &args.set)?;
    if !config.task.is_paired() {
        let kind = config.task.kind();
        return Err(UsageError(format!("task.kind = \"{kind}\" reads no pairs of spots and cells")).into());
    }
    if args.fold.is_some() {
        config.data.view = Some(ViewConfig { fold: args.fold, ..config.view() });
    }
    // Without a network to move the cells it is the first stage that reads them, where there is one.
    let stage = match &args.moved_by {
        Some(_) => config.last_stage(),
        None => config.first_stage().unwrap_or_else(|| config.last_stage()),
    };
    stage.check()?;
    let shards = Shards::open(&args.shards)?;
    if pairing::reads(&stage, shards.manifest()).is_empty() {
        let what = "the shards have no reference, or the model reads none: there is nothing to pair";
        return Err(UsageError(what.to_owned()).into());
    }
    let omega = args.moved_by.as_deref().map(|run| Trained::open(run, Which::Usual)).transpose()?;
    if let Some(omega) = &omega {
        omega.check_shards(&shards)?;
    }
    let omega = omega.map(|omega| Ok::<_, anyhow::Error>((omega.model()?, omega.checkpoint.manifest.digest())));
    let omega = omega.transpose()?;
    let stop = StopVote::on_signals().context("cannot listen to signals")?;
    let omega = omega.as_ref().map(|(model, digest)| (model, digest.as_str()));
    if pairing::write(&pairing::view(&shards, &stage)?, &stage, omega, &args.out, &|| stop.is_cast())?
        == Written::Stopped
    {
        out::line("stopped; run the same command again to go on")?;
        return Ok(ExitCode::Stopped);
    }
    let written: Vec<(PathBuf, VectorsFacts)> = pairing::folders(&args.out)
        .into_iter()
        .map(|dir| VectorsFacts::read(&dir).map(|facts| (dir, facts)))
        .collect::<Result<_, _>>()?;
    if args.json {
        let all: Vec<_> = written.iter().map(|(dir, facts)| serde_json::json!({"dir": dir, "n": facts.n})).collect();
        out::json(&all)?;
    } else {
        for (dir, facts) in written {
            out::line(format_args!("{}: {} {}, {} genes", dir.display(), facts.n, facts.of.plural(), facts.width))?;
        }
    }
    Ok(ExitCode::Done)
}
