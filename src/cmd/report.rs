//! `syncytia report`: the page of an evaluated run again, or one page that compares several. No model, no shards.

use std::path::{Path, PathBuf};

use anyhow::Context;
use syncytia_launch::ExitCode;

use super::exit::UsageError;
use super::out;
use crate::report::comparison::{self, Judged};
use crate::report::findings::{self, Findings};
use crate::report::{self, Evaluation, ReportError, verdict};
use crate::train::run_folder::RunFolder;

/// Arguments of `report`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Evaluated run folders or checkpoints: one renders its page again, several are compared.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Folder for the page; needed to compare, else the page is beside its report.json.
    #[arg(long)]
    out: Option<PathBuf>,
    /// The evaluation on this split; the run's usual one if not given.
    #[arg(long)]
    split: Option<String>,
    /// Print report.json or comparison.json instead of the verdict.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match args.runs.as_slice() {
        [run] => again(run, args),
        runs => compare(runs, args),
    }
}

fn again(run: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let (evaluation, folder) = match evaluated(run, args.split.as_deref())? {
        (Found::Completion(evaluation), folder) => (evaluation, folder),
        (Found::Other(findings), folder) => return findings_again(&findings, &folder, args),
    };
    let page = report::write_page(&evaluation, args.out.as_ref().unwrap_or(&folder))?;
    if args.json {
        out::json(&report::numbers(&evaluation))?;
        return Ok(ExitCode::Done);
    }
    out::line(verdict::verdict(&evaluation))?;
    if let Some(ratio) = verdict::ratio_to_median(&evaluation) {
        out::line(ratio)?;
    }
    out::line(format_args!("report: {}", page.display()))?;
    Ok(ExitCode::Done)
}

fn findings_again(findings: &Findings, folder: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let page = findings::write_page(findings, args.out.as_deref().unwrap_or(folder))?;
    if args.json {
        out::json(&findings::numbers(findings))?;
    } else {
        out::line(format_args!("{}\nreport: {}", findings.verdict, page.display()))?;
    }
    Ok(ExitCode::Done)
}

fn compare(runs: &[PathBuf], args: &Args) -> anyhow::Result<ExitCode> {
    let Some(folder) = &args.out else {
        return Err(UsageError("to compare runs, say where the page goes: --out DIR".to_owned()).into());
    };
    let of_completion = |run: &PathBuf| match evaluated(run, args.split.as_deref())?.0 {
        Found::Completion(evaluation) => Ok(*evaluation),
        Found::Other(findings) => {
            let (run, task) = (run.display(), findings.task);
            Err(UsageError(format!("{run} is of the task \"{task}\": runs of completion are compared")).into())
        }
    };
    let evaluations = runs.iter().map(of_completion).collect::<anyhow::Result<Vec<_>>>()?;
    let paths = runs
        .iter()
        .map(|run| run.canonicalize().with_context(|| format!("cannot find {}", run.display())))
        .collect::<anyhow::Result<Vec<PathBuf>>>()?;
    if let Some((_, twice)) =
        paths.iter().zip(runs).enumerate().find(|(i, (p, _))| paths[..*i].contains(p)).map(|x| x.1)
    {
        return Err(UsageError(format!("{} is given twice", twice.display())).into());
    }
    let names = comparison::names(&paths.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    let judged: Vec<Judged> =
        names.into_iter().zip(evaluations).map(|(run, evaluation)| Judged { run, evaluation }).collect();
    let compared = comparison::compare(&judged);
    let page = comparison::write(&compared, folder)?;
    if args.json {
        out::json(&compared)?;
        return Ok(ExitCode::Done);
    }
    for note in &compared.notes {
        eprintln!("warning: {note}");
    }
    for (_, under) in compared.protocols() {
        out::line(&under.sentence)?;
    }
    out::line(format_args!("report: {}", page.display()))?;
    Ok(ExitCode::Done)
}

/// What `evaluate` stored.
enum Found {
    Completion(Box<Evaluation>),
    Other(Box<Findings>),
}

impl Found {
    fn load(folder: &Path) -> Result<Option<Found>, ReportError> {
        match findings::load(folder)? {
            Some(findings) => Ok(Some(Found::Other(Box::new(findings)))),
            None => Ok(report::load(folder)?.map(|evaluation| Found::Completion(Box::new(evaluation)))),
        }
    }

    fn split(&self) -> &str {
        match self {
            Found::Completion(evaluation) => &evaluation.facts.split,
            Found::Other(findings) => &findings.split,
        }
    }
}

/// What `evaluate` stored for a run, and where.
fn evaluated(run: &Path, split: Option<&str>) -> anyhow::Result<(Found, PathBuf)> {
    if !run.is_dir() {
        return Err(UsageError(format!("{} is no folder: name a run that was evaluated", run.display())).into());
    }
    let of_run = RunFolder::at(run);
    let folders = match split {
        Some(split) => vec![of_run.split_report(split), of_run.report()],
        None => vec![of_run.report()],
    };
    for folder in folders {
        let Some(found) = Found::load(&folder)? else { continue };
        if split.is_none_or(|split| split == found.split()) {
            return Ok((found, folder));
        }
    }
    Err(ReportError::NotEvaluated { run: run.to_owned(), split: split.map(str::to_owned) }.into())
}
