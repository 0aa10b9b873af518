//! `syncytia train`: what is asked for, whether it is one run folder or several, and the last word.

use std::path::PathBuf;

use syncytia_launch::ExitCode;
use syncytia_launch::world::LauncherChoice;

use super::exit::UsageError;
use super::out;
use super::train_folder::{ResumeIf, StartFrom, Trained, leave, train};
use super::train_pairs;
use crate::config::{self, ConfigError};
use crate::train::config::TrainConfig;
use crate::train::trainer::End;

/// Arguments of `train`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Train config.
    config: PathBuf,
    /// Shard folder.
    #[arg(long)]
    shards: PathBuf,
    /// Run folder; one that exists is gone on with.
    #[arg(long)]
    run: PathBuf,
    /// Ranks as threads of this process: a number or `auto` (train.ranks).
    #[arg(long)]
    ranks: Option<String>,
    /// Who started this process, where that is not found by itself: slurm, mpi, env (torchrun) or local (one process).
    #[arg(long)]
    launcher: Option<LauncherChoice>,
    /// A key of the config, repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Whether to go on from the newest checkpoint.
    #[arg(long, value_enum, default_value_t = ResumeIf::Auto)]
    resume: ResumeIf,
    /// Begin with the weights of another run or checkpoint (its best, else its newest), also on another panel of genes; a run
    /// that exists goes on and ignores it.
    #[arg(long, value_name = "RUN_OR_CHECKPOINT")]
    from: Option<PathBuf>,
    /// Vectors that the task learns from (niches: of cells; tissues: of niches; fusion: of both, in two), as `embed` writes
    /// them; repeatable.
    #[arg(long, value_name = "DIR")]
    vectors: Vec<PathBuf>,
    /// Of shards whose genes are cut into folds: this one alone; without it all, one after the other.
    #[arg(long)]
    fold: Option<u32>,
    /// With --from: the least share of the data's genes that it must know.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, requires = "from", value_parser = share)]
    min_genes: f64,
    /// Print the end as JSON.
    #[arg(long)]
    json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("{text} is not a share between 0 and 1"))
}

impl Args {
    fn start(&self) -> StartFrom {
        StartFrom {
            resume: self.resume,
            launcher: self.launcher,
            parent: self.from.clone(),
            min_genes: self.min_genes,
            vectors: self.vectors.clone(),
        }
    }
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut sets = args.set.clone();
    if let Some(ranks) = &args.ranks {
        sets.push(format!("train.ranks={ranks}"));
    }
    let config: TrainConfig = config::load(&args.config, &sets).map_err(not_of_the_shards)?;
    if super::inspect::is_shards(&args.run) {
        let what = format!("--run {}: these are shards; a run needs a folder of its own", args.run.display());
        return Err(UsageError(what).into());
    }
    let Trained { end, leads, engines } = match config.task.is_paired() {
        true => train_pairs::train(&config, &args.shards, &args.run, args.fold, &args.start())?,
        false if args.fold.is_some() => {
            return Err(UsageError(format!("--fold: task.kind = \"{}\" knows no folds", config.task.kind())).into());
        }
        false => train(&config, &args.shards, &args.run, &args.start())?,
    };
    let (code, step) = match end {
        End::Finished => (ExitCode::Done, config.train.max_steps),
        End::Stopped { global_step } => (ExitCode::Stopped, global_step),
    };
    let spoken = if leads { tell(args, end, step) } else { Ok(()) }; // rank 0 speaks for all
    leave(engines);
    spoken.map(|()| code)
}

fn tell(args: &Args, end: End, step: u64) -> anyhow::Result<()> {
    if args.json {
        out::json(&serde_json::json!({"run": args.run, "global_step": step, "finished": end == End::Finished}))
    } else if end == End::Finished {
        out::line(format_args!("finished {step} steps in {}", args.run.display()))
    } else {
        out::line(format_args!("stopped and saved at step {step}; run the same command again to go on"))
    }
}

/// What entered the manifest is refused here, and the help says where it lives.
fn not_of_the_shards(mut error: ConfigError) -> ConfigError {
    if let ConfigError::Key { key, message, help, .. } = &mut error {
        let of_shards = |table: &str| message.starts_with(&format!("unknown field `{table}`"));
        if key.as_str() == "data.row_group_records"
            || ["input", "filter", "process", "split"].into_iter().any(of_shards)
        {
            *help = Some("this was fixed when the shards were written; `syncytia inspect SHARDS` shows it".into());
        }
    }
    error
}
