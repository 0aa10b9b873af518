//! `syncytia launch -n N -- train …`: N processes of this program on this host, by the `mpirun` of the MPI library it was
//! built with. Under srun or mpirun it is not needed.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use syncytia_launch::ExitCode;

use super::exit::UsageError;
use super::out;
use crate::doctor::mpi::{self, Family};

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

/// Runs the command: this process becomes `mpirun`.
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
        return Err(UsageError(format!(
            "this build has no engine for {0} processes: give one process {0} ranks, `syncytia train … --ranks {0}`, or \
             rebuild with `--features mpi`",
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
    if args.dry_run || args.json {
        let words: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|w| w.to_string_lossy().into_owned())
            .collect();
        match args.json {
            true => out::json(&serde_json::json!({ "command": words }))?,
            false => out::line(words.join(" "))?,
        }
        if args.dry_run {
            return Ok(ExitCode::Done);
        }
    }
    Err(command.exec()).with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))
}
