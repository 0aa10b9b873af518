//! `syncytia launch -n N -- train …`: N processes of this program on this host, by the `mpirun` of the MPI library it was
//! built with; a build with `cuda` and without MPI starts them itself. Under srun or mpirun it is not needed.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use syncytia_launch::signals::StopVote;
use syncytia_launch::{ExitCode, World, spawn};

use super::exit::UsageError;
use super::out;
use crate::doctor::mpi::{self, Family};
use crate::engine;

/// Arguments of `launch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Processes, one rank each.
    #[arg(short, value_parser = clap::value_parser!(u32).range(1..))]
    n: u32,
    /// Show the command and run nothing.
    #[arg(long)]
    dry_run: bool,
    /// Show it as JSON.
    #[arg(long)]
    json: bool,
    /// What to run, after `--`: a command of this program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.command.first().is_none_or(|c| c != "train") {
        let given = args.command.first().cloned().unwrap_or_default();
        return Err(UsageError(format!(
            "`{}` is the work of one process: launch starts `train` only",
            given.to_string_lossy()
        ))
        .into());
    }
    let Some(family) = mpi::built_for() else {
        if engine::FOR_PROCESSES.contains(&"nccl") {
            return by_ourselves(args);
        }
        return Err(UsageError(format!(
            "this build has no engine for {0} processes: give one process {0} ranks, `syncytia train … --ranks {0}`, or \
             rebuild with `--features mpi` (cores) or `--features cuda` (a GPU each)",
            args.n
        ))
        .into());
    };
    let path = std::env::var_os("PATH");
    let launcher = mpi::launcher_of(family, path.as_deref()).ok_or_else(|| {
        UsageError(format!("this program is linked with {0}, and no mpirun of {0} is on PATH", family.as_str()))
    })?;
    let this = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(launcher);
    if family == Family::OpenMpi {
        // More processes than cores is the user's word; containers run as root.
        command.args(["--oversubscribe", "--bind-to", "none"]);
        command.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
    }
    command.args(["-n", &args.n.to_string()]).arg(this).args(&args.command);
    // Processes with a GPU each meet at the store, not in MPI: what mpirun tells differs from node to node.
    if engine::FOR_PROCESSES.contains(&"nccl") {
        command.env("SYNCYTIA_STORE", format!("127.0.0.1:{}", free_port()?));
    }
    if args.dry_run || args.json {
        show(args, &command)?;
        if args.dry_run {
            return Ok(ExitCode::Done);
        }
    }
    run_to_its_end(command)
}

/// Without MPI: the processes are children of this one, and meet at the store of rank 0.
fn by_ourselves(args: &Args) -> anyhow::Result<ExitCode> {
    let this = std::env::current_exe().context("cannot find this program's own file")?;
    let generation = format!("launch.{}.{:?}", std::process::id(), std::time::SystemTime::UNIX_EPOCH.elapsed().ok());
    let port = free_port()?;
    let command = |rank| {
        let mut command = Command::new(&this);
        command.args(&args.command).envs(World::variables(rank, args.n, port, &generation));
        command.process_group(0).stdin(Stdio::null());
        end_with_this_process(&mut command);
        command
    };
    if args.dry_run || args.json {
        show(args, &command(0))?;
        if args.dry_run {
            return Ok(ExitCode::Done);
        }
    }
    let stop = StopVote::on_signals().context("cannot listen to signals")?;
    let tell = |child: &Child| {
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::USR1); // one that has ended needs no word
        }
    };
    let code =
        spawn::run((0..args.n).map(command).collect(), || stop.is_cast(), tell).context("cannot run the processes")?;
    Ok(ExitCode::ALL.into_iter().find(|c| i32::from(c.code()) == code).unwrap_or(ExitCode::Peers))
}

/// The command as it would run.
fn show(args: &Args, command: &Command) -> anyhow::Result<()> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|w| w.to_string_lossy().into_owned()).collect();
    match args.json {
        true => out::json(&serde_json::json!({ "command": words })),
        false => out::line(words.join(" ")),
    }
}

/// A port of this host that nobody listens at just now.
fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("no free port on this host")?;
    Ok(listener.local_addr().context("no free port on this host")?.port())
}

/// Open MPI's `mpirun` answers INT and TERM by killing the ranks a moment later; USR1 it hands on. So it runs in a process
/// group of its own, and every wish to stop becomes a USR1: the ranks vote, save and end with 75. A second Ctrl-C ends this
/// process at once, and with it mpirun, whose ranks do not outlive it.
fn run_to_its_end(mut command: Command) -> anyhow::Result<ExitCode> {
    let stop = StopVote::on_signals().context("cannot listen to signals")?;
    let name = command.get_program().to_string_lossy().into_owned();
    command.process_group(0).stdin(Stdio::null()); // a background group that reads the terminal would be stopped
    end_with_this_process(&mut command);
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    let mut told = false;
    loop {
        if let Some(status) = child.try_wait().with_context(|| format!("cannot wait for {name}"))? {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(ExitCode::ALL.into_iter().find(|c| Some(c.code()) == code).unwrap_or(ExitCode::Peers));
        }
        if stop.is_cast() && !told {
            told = true;
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a child has a process id")?;
            kill_process(pid, Signal::USR1).with_context(|| format!("cannot tell {name} to stop"))?;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The child gets KILL when this process ends, however it ends.
#[cfg(target_os = "linux")]
fn end_with_this_process(command: &mut Command) {
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)) };
}

#[cfg(not(target_os = "linux"))]
fn end_with_this_process(_: &mut Command) {}
