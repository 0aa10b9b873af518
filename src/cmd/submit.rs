//! `syncytia submit`: the batch script for this cluster, shown, checked against what Slurm has, and submitted.

use std::fs;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::Context;
use syncytia_launch::ExitCode;
use syncytia_launch::slurm::{self, Request};
use syncytia_shards::durable;
use syncytia_shards::reader::Shards;

use super::exit::UsageError;
use super::out;
use crate::config;
use crate::engine;
use crate::train::config::{ComputeOn, Ranks, TrainConfig};
use crate::train::run_folder::RunFolder;

/// Arguments of `submit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Train config.
    config: PathBuf,
    /// Shard folder.
    #[arg(long)]
    shards: PathBuf,
    /// Vectors that the task learns from, as for `train`; repeatable.
    #[arg(long, value_name = "DIR")]
    vectors: Vec<PathBuf>,
    /// Run folder; the scripts and logs lie there too.
    #[arg(long)]
    run: PathBuf,
    /// Nodes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    nodes: u32,
    /// Processes on each node, one rank each; of a single one, ranks are threads.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    tasks_per_node: u32,
    /// Cores of each process.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    cpus_per_task: u32,
    /// GPUs of each node.
    #[arg(long, default_value_t = 0)]
    gpus_per_node: u32,
    /// Memory of each node, e.g. 64G.
    #[arg(long)]
    mem: Option<String>,
    /// Partition; the site's default without it.
    #[arg(long)]
    partition: Option<String>,
    /// Account.
    #[arg(long)]
    account: Option<String>,
    /// Time of one life, e.g. 4:00:00; a run that needs more goes on in the next.
    #[arg(long, default_value = "24:00:00")]
    time: String,
    /// Seconds before the end at which the run saves and is requeued.
    #[arg(long, default_value_t = 300)]
    signal_before: u64,
    /// Lives after the first.
    #[arg(long, default_value_t = 50)]
    max_requeues: u32,
    /// Seeds, one run each: RUN/seed-42 and so on for 42-44.
    #[arg(long)]
    array: Option<String>,
    /// Copy the shards to each node's own disk.
    #[arg(long)]
    stage: bool,
    /// Shard these inputs first, then train, then evaluate.
    #[arg(long, value_name = "INPUT", num_args = 1..)]
    chain: Vec<String>,
    /// Shard config of the chain.
    #[arg(long, value_name = "FILE", requires = "chain")]
    shard_config: Option<PathBuf>,
    /// Begin with the weights of another run or checkpoint, as `train --from`.
    #[arg(long, value_name = "RUN_OR_CHECKPOINT")]
    from: Option<PathBuf>,
    /// A key of the config, repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Write and show, submit nothing.
    #[arg(long)]
    dry_run: bool,
    /// Submit without asking.
    #[arg(long)]
    yes: bool,
    /// Print the jobs as JSON.
    #[arg(long)]
    json: bool,
}

/// A batch script and how it waits for the one before.
struct Job {
    command: &'static str,
    script: PathBuf,
    text: String,
    dependency: &'static str,
    request: Request,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config: TrainConfig = config::load(&args.config, &args.set)?;
    config.check()?;
    if args.chain.is_empty() {
        Shards::open(&args.shards)?;
    }
    let train = request(args);
    check_ranks(&train, &config)?;
    if !args.chain.is_empty() && config.task.layer().is_none() {
        return Err(UsageError("--chain: its last job would be `evaluate`, which is for spackle".to_owned()).into());
    }
    let sinfo = match sinfo() {
        // A front end whose controller is away can still write and show the script.
        Err(error) if args.dry_run => {
            eprintln!("warning: {error:#}; the script is not checked against the cluster");
            None
        }
        asked => asked?,
    };
    let folder = RunFolder::at(absolute(&args.run)?);
    let jobs = jobs(args, &config, &train, &folder)?;
    match &sinfo {
        Some(said) => {
            let groups = slurm::parse_sinfo(said).map_err(usage)?;
            for job in &jobs {
                job.request.fits(&groups).map_err(|e| UsageError(format!("{}: {e}", job.command)))?;
            }
        }
        None => eprintln!("there is no sinfo here: whether the jobs can start is not checked"),
    }
    let log = folder.log();
    fs::create_dir_all(&log).with_context(|| format!("cannot make {}", log.display()))?;
    for job in &jobs {
        durable::write_atomic(&job.script, job.text.as_bytes())
            .with_context(|| format!("cannot write {}", job.script.display()))?;
        show(job);
    }
    let ids = if args.dry_run { None } else { Some(submit(args, &jobs)?) };
    report(args, &jobs, ids.as_deref())?;
    Ok(ExitCode::Done)
}

fn usage(error: slurm::SlurmError) -> UsageError {
    UsageError(error.to_string())
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("no absolute path for {}", path.display()))
}

fn request(args: &Args) -> Request {
    Request {
        job_name: "syncytia".to_owned(),
        nodes: args.nodes,
        tasks_per_node: args.tasks_per_node,
        cpus_per_task: args.cpus_per_task,
        gpus_per_node: args.gpus_per_node,
        mem: args.mem.clone(),
        partition: args.partition.clone(),
        account: args.account.clone(),
        time: args.time.clone(),
        signal_before_s: Some(args.signal_before),
        array: args.array.clone(),
        output: String::new(),
    }
}

fn check_ranks(request: &Request, config: &TrainConfig) -> Result<(), UsageError> {
    let lanes = config.train.lanes;
    let (engine, feature) = match config.train.device {
        ComputeOn::Cuda => ("nccl", "cuda"),
        _ => ("mpi", "mpi"),
    };
    if request.tasks() > 1 && !engine::FOR_PROCESSES.contains(&engine) {
        eprintln!(
            "warning: this build has no engine for {} processes, and the job would refuse to start: rebuild with \
             `--features {feature}`, or name such a build by SYNCYTIA=PROGRAM when it runs",
            request.tasks()
        );
    }
    if let (2.., Ranks::Count(ranks)) = (request.tasks(), config.train.ranks)
        && ranks as u64 != request.tasks()
    {
        return Err(UsageError(format!(
            "train.ranks = {ranks}, and of {} processes every one is a rank: leave it out",
            request.tasks()
        )));
    }
    let share = std::env::var_os("NCCL_MULTI_RANK_GPU_ENABLE").is_some_and(|on| on == "1") && request.gpus_per_node > 0;
    if config.train.device == ComputeOn::Cuda && request.gpus_per_node < request.tasks_per_node && !share {
        return Err(UsageError(format!(
            "train.device = \"cuda\": {} GPUs of each node for {} processes there; ask for one each: --gpus-per-node {}",
            request.gpus_per_node, request.tasks_per_node, request.tasks_per_node
        )));
    }
    if request.tasks() <= lanes as u64 {
        return Ok(());
    }
    Err(UsageError(format!(
        "{} nodes × {} tasks are {} ranks, but train.lanes = {lanes} of the config lets at most {lanes} work: ask for fewer \
         nodes or tasks (more lanes are another run)",
        request.nodes,
        request.tasks_per_node,
        request.tasks()
    )))
}

/// What `sinfo` says; `None` where there is none.
fn sinfo() -> anyhow::Result<Option<String>> {
    match Command::new("sinfo").args(slurm::SINFO_ARGS).output() {
        Ok(output) => Ok(Some(said(&output, "sinfo")?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("cannot run sinfo"),
    }
}

fn said(output: &Output, program: &str) -> Result<String, UsageError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(UsageError(format!("{program} refused ({}): {}", output.status, text(&output.stderr))))
}

/// The jobs with their scripts, as they will lie in the run folder.
fn jobs(args: &Args, config: &TrainConfig, train: &Request, folder: &RunFolder) -> anyhow::Result<Vec<Job>> {
    let (shards, run) = (absolute(&args.shards)?.display().to_string(), folder.root().display().to_string());
    let mut jobs = Vec::new();
    if !args.chain.is_empty() {
        jobs.push(job(folder, "shard", "", alone("shard", train), Vec::new(), shard_arguments(args, &shards)?)?);
    }

    let mut variables = vec![("SYNCYTIA_MAX_REQUEUES", args.max_requeues.to_string())];
    if train.tasks() == 1 {
        // A GPU is one process's, and a process one rank there.
        let ranks = match config.train.device.is_elsewhere() {
            true => 1,
            false => config.train.ranks.resolve(args.cpus_per_task as usize, config.train.lanes),
        };
        variables.push(("SYNCYTIA_RANKS", ranks.to_string()));
    }
    if args.stage {
        variables.push(("SYNCYTIA_STAGE", "1".to_owned()));
    }
    let mut arguments = vec![absolute(&args.config)?.display().to_string(), shards.clone(), run.clone()];
    arguments.extend(args.set.iter().flat_map(|set| ["--set".to_owned(), set.clone()]));
    let vectors = args.vectors.iter().map(|path| ("--vectors", path));
    for (option, path) in vectors.chain(args.from.iter().map(|path| ("--from", path))) {
        arguments.extend([option.to_owned(), absolute(path)?.display().to_string()]);
    }
    jobs.push(job(folder, "train", "afterok", train.clone(), variables, arguments)?);

    if !args.chain.is_empty() {
        // each seed is judged when it is done
        let dependency = if args.array.is_some() { "aftercorr" } else { "afterok" };
        let request = Request { array: args.array.clone(), ..alone("evaluate", train) };
        jobs.push(job(folder, "evaluate", dependency, request, Vec::new(), vec![run, "--shards".to_owned(), shards])?);
    }
    Ok(jobs)
}

fn shard_arguments(args: &Args, shards: &str) -> anyhow::Result<Vec<String>> {
    let mut arguments = vec![shards.to_owned()];
    for input in &args.chain {
        // NAME=PATH names a section, as for `syncytia shard`
        let (name, path) = super::shard::named(Path::new(input));
        let path = absolute(&path)?.display().to_string();
        arguments.push(name.map_or(path.clone(), |name| format!("{name}={path}")));
    }
    if let Some(config) = &args.shard_config {
        arguments.extend(["--config".to_owned(), absolute(config)?.display().to_string()]);
    }
    Ok(arguments)
}

/// One task beside the training, with the cores of one of its nodes.
fn alone(name: &str, train: &Request) -> Request {
    Request {
        job_name: format!("syncytia-{name}"),
        nodes: 1,
        tasks_per_node: 1,
        cpus_per_task: train.tasks_per_node.saturating_mul(train.cpus_per_task),
        gpus_per_node: 0,
        signal_before_s: None,
        array: None,
        ..train.clone()
    }
}

fn job(
    folder: &RunFolder,
    command: &'static str,
    dependency: &'static str,
    request: Request,
    mut variables: Vec<(&str, String)>,
    arguments: Vec<String>,
) -> anyhow::Result<Job> {
    let template = match command {
        "shard" => slurm::SHARD,
        "evaluate" => slurm::EVALUATE,
        _ => slurm::TRAIN,
    };
    let program = std::env::current_exe().context("cannot tell the path of this program")?;
    variables.push(("SYNCYTIA", program.display().to_string()));
    let request = Request { output: folder.log().join("%x-%j.out").display().to_string(), ..request };
    let lines = request.lines().map_err(usage)?;
    let text = slurm::script(template, &lines, &variables, &arguments);
    Ok(Job { command, script: folder.batch_script(command), text, dependency, request })
}

/// What differs from the template: the lines for Slurm and what was given.
fn show(job: &Job) {
    eprintln!("{}:", job.script.display());
    let asked = job.text.lines().filter(|l| l.starts_with("#SBATCH"));
    let given =
        job.text.lines().skip_while(|l| !l.starts_with("# what was given")).skip(1).take_while(|l| !l.is_empty());
    asked.chain(given).for_each(|line| eprintln!("  {line}"));
}

fn submit(args: &Args, jobs: &[Job]) -> anyhow::Result<Vec<String>> {
    if !args.yes && !agreed(jobs.len())? {
        return Err(UsageError("nothing was submitted".to_owned()).into());
    }
    let mut ids: Vec<String> = Vec::new();
    for job in jobs {
        let mut command = Command::new("sbatch");
        command.arg("--parsable");
        if let Some(before) = ids.last() {
            // a job whose forerunner failed would wait for ever
            command.arg(format!("--dependency={}:{before}", job.dependency)).arg("--kill-on-invalid-dep=yes");
        }
        let output = command.arg(&job.script).output();
        let output = match output {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let script = job.script.display();
                let words =
                    format!("there is no sbatch here: submit {script} where there is one; --dry-run only writes it");
                return Err(UsageError(words).into());
            }
            other => other.context("cannot run sbatch")?,
        };
        let result = said(&output, "sbatch").and_then(|text| {
            slurm::job_id(&text).ok_or(UsageError(format!("sbatch said {text:?}, which is no job id")))
        });
        match result {
            Ok(id) => ids.push(id),
            Err(error) if ids.is_empty() => return Err(error.into()),
            Err(error) => {
                let words = format!("{error}; already submitted: {}; end them with scancel", ids.join(" "));
                return Err(UsageError(words).into());
            }
        }
    }
    Ok(ids)
}

fn agreed(n_jobs: usize) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(UsageError("--yes submits without asking, --dry-run only writes and shows".to_owned()).into());
    }
    eprint!("submit {}? [y/N] ", if n_jobs == 1 { "it".to_owned() } else { format!("these {n_jobs} jobs") });
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y") || answer.trim().eq_ignore_ascii_case("yes"))
}

fn report(args: &Args, jobs: &[Job], ids: Option<&[String]>) -> anyhow::Result<()> {
    if args.json {
        let jobs: Vec<serde_json::Value> = (jobs.iter().enumerate())
            .map(|(i, job)| {
                serde_json::json!({"command": job.command, "script": job.script, "job": ids.map(|ids| &ids[i])})
            })
            .collect();
        return out::json(&serde_json::json!({"run": args.run, "submitted": ids.is_some(), "jobs": jobs}));
    }
    match ids {
        None => {
            out::line(format_args!("nothing was submitted (--dry-run); to do so: sbatch {}", jobs[0].script.display()))
        }
        Some(ids) => {
            for (job, id) in jobs.iter().zip(ids) {
                out::line(format_args!("{id}  {}", job.command))?;
            }
            Ok(())
        }
    }
}
