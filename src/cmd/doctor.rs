//! `syncytia doctor`: a table of what a run needs and what there is, before it is queued.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use syncytia_launch::ExitCode;
use syncytia_launch::world::Job;

use super::{out, world_file};
use crate::config;
use crate::doctor::configured::{self, Needs};
use crate::doctor::devices::{self, Usable};
use crate::doctor::folder::{self, Folder, Room, Use};
use crate::doctor::{self, Finding, Look, Verdict, clock, gpu, limits, mpi, slurm, storage};
use crate::train::config::TrainConfig;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Train config; without one only the machine is looked at.
    config: Option<PathBuf>,
    /// Shard folder the run would read.
    #[arg(long)]
    shards: Option<PathBuf>,
    /// Vectors the run would read, as for `train`; repeatable.
    #[arg(long, value_name = "DIR")]
    vectors: Vec<PathBuf>,
    /// Run folder the run would write; the current folder's file system without it.
    #[arg(long)]
    run: Option<PathBuf>,
    /// Ranks as threads of this process, as for `train`.
    #[arg(long)]
    ranks: Option<String>,
    /// A key of the config, repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Seconds that one look may take before it is given up.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    patience: u64,
    /// Print the table as JSON.
    #[arg(long)]
    json: bool,
}

/// A line of the table and what it belongs to.
#[derive(Debug, Serialize)]
struct Line {
    area: &'static str,
    #[serde(flatten)]
    finding: Finding,
}

/// The table so far. Lines are printed as they come: a look may take its time.
struct Table {
    patience: Duration,
    json: bool,
    lines: Vec<Line>,
}

impl Table {
    /// Looks, with a bound on the time, and writes down what was found.
    fn look<T: Send + 'static>(
        &mut self,
        area: &'static str,
        unanswered: Verdict,
        look: impl FnOnce() -> Look<T> + Send + 'static,
    ) -> anyhow::Result<Option<T>> {
        let (findings, value) = doctor::look(area, self.patience, unanswered, look);
        self.write(area, findings)?;
        Ok(value)
    }

    fn write(&mut self, area: &'static str, findings: Vec<Finding>) -> anyhow::Result<()> {
        for finding in findings {
            if !self.json {
                if self.lines.last().is_none_or(|last| last.area != area) {
                    out::line(area)?;
                }
                out::line(format_args!("  {:<4} {:<21} {}", finding.verdict.as_str(), finding.what, finding.found))?;
                if !finding.advice.is_empty() {
                    out::line(format_args!("       {:<21} → {}", "", finding.advice))?;
                }
            }
            self.lines.push(Line { area, finding });
        }
        Ok(())
    }
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut table = Table { patience: Duration::from_secs(args.patience), json: args.json, lines: Vec::new() };
    let usable = machine(&mut table)?;
    let config = load(args, &mut table, usable)?;
    let needs = data(args, &mut table, config.as_ref(), usable)?;
    let demand = needs.as_ref().map(|(needs, _)| needs.limits).unwrap_or_default();
    table.look::<()>("limits", Verdict::Warn, move || (limits::look(demand), None))?;
    let now = run_folder(args, &mut table, needs.as_ref().map(|(needs, _)| *needs))?;
    start(args, &mut table, config, needs, now)?;
    conclude(&table)
}

fn machine(table: &mut Table) -> anyhow::Result<Usable> {
    let features = world_file::cpu_features();
    let usable = table.look("devices", Verdict::Warn, move || {
        let (findings, usable) = devices::look(&features);
        (findings, Some(usable))
    })?;
    table.look::<()>("gpu", Verdict::Warn, || (gpu::look(), None))?;
    let path = std::env::var_os("PATH");
    table.look::<()>("mpi", Verdict::Warn, {
        let path = path.clone();
        move || (mpi::look(path.as_deref()), None)
    })?;
    table.look::<()>("slurm", Verdict::Warn, {
        let path = path.clone();
        move || (slurm::tools(path.as_deref()), None)
    })?;
    table.write("slurm", slurm::world(|name| std::env::var(name).ok()))?;
    table.look::<()>("clock", Verdict::Warn, move || (clock::look(path.as_deref()), None))?;
    Ok(usable.unwrap_or(Usable { cores: 1, memory: None }))
}

/// The config if it can be read; what cannot work in it is in the table.
fn load(args: &Args, table: &mut Table, usable: Usable) -> anyhow::Result<Option<Arc<TrainConfig>>> {
    let Some(path) = &args.config else { return Ok(None) };
    let mut sets = args.set.clone();
    if let Some(ranks) = &args.ranks {
        sets.push(format!("train.ranks={ranks}"));
    }
    let path = path.clone();
    table.look("config", Verdict::Fail(ExitCode::Usage), move || match config::load::<TrainConfig>(&path, &sets) {
        Ok(config) => {
            let works = config.problems().is_empty();
            (configured::config(&config, usable), works.then(|| Arc::new(config)))
        }
        Err(error) => {
            let found = error.to_string().lines().map(str::trim).collect::<Vec<_>>().join(" ");
            (vec![Finding::fail(ExitCode::Usage, "config", found, "docs/config.md has every key")], None)
        }
    })
}

/// The shards, and what a run on them takes.
fn data(
    args: &Args,
    table: &mut Table,
    config: Option<&Arc<TrainConfig>>,
    usable: Usable,
) -> anyhow::Result<Option<(Needs, Arc<syncytia_shards::reader::Shards>)>> {
    let area = "shards";
    let Some(dir) = args.shards.clone() else { return Ok(None) };
    let stuck = Verdict::Fail(ExitCode::Data);
    let shards = table.look(area, stuck, move || {
        let folder = Folder { asked: dir.clone(), at: dir.clone(), used: Use::Shards };
        let mut findings = if dir.is_dir() { folder::look(&folder, Room::default()) } else { vec![] };
        let (of_shards, shards) = configured::shards(&dir);
        findings.extend(of_shards);
        (findings, shards)
    })?;
    let (Some(config), Some(shards)) = (config, shards) else { return Ok(None) };
    let needs = configured::needs(config, shards.manifest(), usable);
    table.write(area, vec![configured::memory(&needs, usable)])?;
    Ok(Some((needs, shards)))
}

/// The run folder's file system; gives the time by its clock.
fn run_folder(args: &Args, table: &mut Table, needs: Option<Needs>) -> anyhow::Result<Option<SystemTime>> {
    let (area, asked, used) = match &args.run {
        Some(run) => ("run folder", run.clone(), Use::Run),
        None => ("this folder", PathBuf::from("."), Use::Here),
    };
    let stuck = if used == Use::Run { Verdict::Fail(ExitCode::Storage) } else { Verdict::Warn };
    let folder = table.look(area, stuck, move || match Folder::find(&asked, used) {
        Ok(folder) => {
            let need = needs.map(|needs| configured::room(&needs, &asked)).unwrap_or_default();
            (folder::look(&folder, need), Some(folder))
        }
        Err((code, found)) => (vec![Finding::fail(code, "folder", found, "give another --run")], None),
    })?;
    let Some(folder) = folder else { return Ok(None) };
    let now = table.look(area, stuck, {
        let folder = folder.clone();
        move || storage::promises(&folder)
    })?;
    if now.is_some() {
        let checkpoint = needs.map_or(0, |needs| needs.checkpoint);
        table.look::<()>(area, Verdict::Warn, move || (storage::speed(&folder, checkpoint), None))?;
    }
    Ok(now)
}

/// Whose the run folder is, and what a start would go on from.
fn start(
    args: &Args,
    table: &mut Table,
    config: Option<Arc<TrainConfig>>,
    needs: Option<(Needs, Arc<syncytia_shards::reader::Shards>)>,
    now: Option<SystemTime>,
) -> anyhow::Result<()> {
    let area = "start";
    if let Some(run) = args.run.clone() {
        let job = Job::from_env(|name| std::env::var(name).ok()).ok().flatten(); // a broken one is told above
        let now = now.unwrap_or_else(SystemTime::now);
        let stuck = Verdict::Fail(ExitCode::Storage);
        table.look::<()>(area, stuck, move || (vec![configured::holder(&run, job, now)], None))?;
    }
    let (Some(config), Some((_, shards))) = (config, needs) else { return Ok(()) };
    // A model that does not fit would end this process instead of being told.
    if table.lines.iter().any(|line| matches!(line.finding.verdict, Verdict::Fail(_)) && line.finding.what == "memory")
    {
        return Ok(());
    }
    let (run, vectors) = (args.run.clone(), args.vectors.clone());
    table.look::<()>(area, configured::UNANSWERED, move || {
        (configured::start(&config, &shards, &vectors, run.as_deref().filter(|run| Path::is_dir(run))), None)
    })?;
    Ok(())
}

fn conclude(table: &Table) -> anyhow::Result<ExitCode> {
    let code = doctor::exit_code(table.lines.iter().map(|line| &line.finding));
    let count = |wanted: fn(Verdict) -> bool| table.lines.iter().filter(|line| wanted(line.finding.verdict)).count();
    let (fails, warns) = (count(|v| matches!(v, Verdict::Fail(_))), count(|v| v == Verdict::Warn));
    if table.json {
        let verdict = if fails > 0 {
            "fail"
        } else if warns > 0 {
            "warn"
        } else {
            "ok"
        };
        out::json(&serde_json::json!({"verdict": verdict, "exit_code": code.code(), "findings": table.lines}))?;
    } else if fails == 0 {
        out::line(format_args!("everything needed is there; {warns} warnings"))?;
    }
    for Line { area, finding } in table.lines.iter().filter(|l| matches!(l.finding.verdict, Verdict::Fail(_))) {
        eprintln!("error: {area}: {}: {}; {}", finding.what, finding.found, finding.advice);
    }
    if fails > 0 {
        eprintln!(
            "the run cannot work as it is: {fails} lines say fail, the first gives the exit code {}",
            code.code()
        );
    }
    Ok(code)
}
