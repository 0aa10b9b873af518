//! `syncytia evaluate`: a trained model judged beside what is simple, and the report. One file per kind of task.

mod beside;
mod cell_pictures;
mod completion;
mod embedding;
mod folds;
mod generation;
mod imputation;
mod sparse;

use std::path::{Path, PathBuf};

use syncytia_launch::ExitCode;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;

pub(super) use self::completion::pipeline;
use self::generation::GenerationArgs;
use super::exit::UsageError;
use super::imputed;
use super::out;
use super::trained::Trained;
use crate::report::{self, Findings};
use crate::task::TaskConfig;
use crate::train::checkpoint::Which;
use crate::train::run_folder::RunFolder;

/// Arguments of `evaluate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A run folder or a checkpoint.
    path: PathBuf,
    /// Shard folder.
    #[arg(long)]
    shards: Option<PathBuf>,
    /// `val` or `test`; test where the shards have it, else val.
    #[arg(long)]
    split: Option<String>,
    /// `best`, `last` or `step-N`; best where there is one, else the newest.
    #[arg(long)]
    checkpoint: Option<Which>,
    /// Score too where less and more is hidden. Of spackle: 10 to 80 % of the measured values (rule `uniform`, three assays each); of
    /// spotdiff, on shards with `data.holdout = "entries"`: 10, 30, 50, 70 % of all entries.
    #[arg(long)]
    sweep: bool,
    /// Of spatia: the label column that judges clusters; `cell_type`, `niche_type`, `tissue_type` and the like if not given.
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// Of niches and tissues: the folder of vectors of the level below, and that of regions where the model reads them; of a
    /// fusion: that of its fused vectors.
    #[arg(long, value_name = "DIR")]
    vectors: Vec<PathBuf>,
    #[command(flatten)]
    generation: GenerationArgs,
    #[command(flatten)]
    imputation: imputation::ImputationArgs,
    /// Print report.json instead of the table.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let split = args.split.as_deref().map(split_named).transpose()?;
    let mut runs = imputed::open(&args.path, args.checkpoint.unwrap_or_default(), args.imputation.text_encoder())?;
    let trained = runs.remove(0);
    let kind = trained.run.config.task.kind();
    if matches!(kind, "completion" | "generate") && (args.label.is_some() || !args.vectors.is_empty()) {
        let what = format!("--label and --vectors are for cells, niches and tissues, this is a run of \"{kind}\"");
        return Err(UsageError(what).into());
    }
    if let (false, Some(option)) = (kind == "generate", args.generation.given()) {
        return Err(UsageError(format!("{option} is for a generator: a run of \"{kind}\" paints nothing")).into());
    }
    if let (false, Some(option)) = (kind == "imputation", args.imputation.given()) {
        return Err(UsageError(format!("{option} is for spotdiff: a run of \"{kind}\" imputes nothing")).into());
    }
    let evaluated = match &trained.run.config.task {
        TaskConfig::Completion(_) => {
            let shards = args.shards.clone().map_or_else(|| shards_of_run(&args.path), Ok)?;
            completion::evaluate(&args.path, &trained, &shards, split, args.sweep)?
        }
        task if args.sweep && !task.is_paired() => {
            let what = format!("--sweep is for spackle and spotdiff: a run of \"{kind}\" hides nothing");
            return Err(UsageError(what).into());
        }
        TaskConfig::Cells(_) | TaskConfig::Niches(_) | TaskConfig::Tissues(_) | TaskConfig::Fusion(_) => {
            embedding::evaluate(args, &trained)?
        }
        TaskConfig::Generate(_) => generation::evaluate(args, &trained)?,
        TaskConfig::Alignment(_) | TaskConfig::Imputation(_) => {
            runs.insert(0, trained);
            imputation::evaluate(args, &runs, &args.path)?
        }
    };
    evaluated.show(args.json)?;
    Ok(ExitCode::Done)
}

/// Evaluates a run of completion on its usual split and writes the report.
pub fn usual(run: &Path, shards: &Path) -> anyhow::Result<Evaluated> {
    completion::evaluate(run, &Trained::open(run, Which::Usual)?, shards, None, false)
}

/// What an evaluation leaves.
pub struct Evaluated {
    /// `report.json`.
    pub json: serde_json::Value,
    /// The table as text.
    pub table: String,
    /// In sentences: whether the model beats what is simple.
    pub verdict: String,
    /// The page.
    pub page: PathBuf,
}

impl Evaluated {
    /// Writes the report of what was found into `folder`.
    pub fn of(findings: &Findings, folder: &Path) -> anyhow::Result<Evaluated> {
        let written = report::write_findings(findings, folder)?;
        let (table, verdict) = (findings.text_tables(), findings.verdict.clone());
        Ok(Evaluated { json: written.json, table, verdict, page: written.page })
    }

    /// The table, the verdict and where the page is; or `report.json`.
    pub fn show(&self, json: bool) -> anyhow::Result<()> {
        if json {
            return out::json(&self.json);
        }
        out::line(format_args!("{}{}\nreport: {}", self.table, self.verdict, self.page.display()))
    }
}

/// A split by its name.
pub(super) fn split_named(name: &str) -> Result<Split, UsageError> {
    match name {
        "train" => Ok(Split::Train),
        "val" => Ok(Split::Val),
        "test" => Ok(Split::Test),
        _ => Err(UsageError(format!("--split {name}: write val, test or train"))),
    }
}

/// The shards a run was trained on, as `world.json` notes them.
pub(super) fn shards_of_run(path: &Path) -> anyhow::Result<PathBuf> {
    std::fs::read(RunFolder::at(path).world())
        .ok()
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
        .and_then(|world| world["shards"].as_str().map(PathBuf::from))
        .ok_or_else(|| {
            UsageError(format!("{} does not say where its shards are: give --shards", path.display())).into()
        })
}

/// The lines of a run's `metrics.jsonl`; a bare checkpoint has none.
fn metrics_beside(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(RunFolder::at(path).metrics()).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The split that stands for a run: test where the shards have it, else val.
fn usual_split(shards: &Shards) -> Split {
    if shards.row_groups(Split::Test).is_empty() { Split::Val } else { Split::Test }
}

/// `RUN/report` for the usual split, `RUN/report-<split>` otherwise; beside a bare checkpoint in its own folder.
fn report_folder(path: &Path, checkpoint: &Path, split: Split, shards: &Shards) -> PathBuf {
    let run = RunFolder::at(path);
    let base = if run.checkpoints().exists() { run } else { RunFolder::at(checkpoint) };
    if split == usual_split(shards) { base.report() } else { base.split_report(split.as_str()) }
}
