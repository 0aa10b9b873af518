//! Processes under the `mpirun` that fits the MPI library of this build.

use std::process::{Command, Output};

use syncytia::engine::mpi::MpiEngine;

/// `mpirun -n N PROGRAM ARGUMENTS…`, as root and on fewer cores than processes if need be.
pub fn mpirun(n: usize, program: &str, arguments: &[&str]) -> Command {
    let open_mpi = MpiEngine::library().starts_with("Open MPI");
    let mut command = Command::new(if open_mpi { "mpirun.openmpi" } else { "mpirun.mpich" });
    if open_mpi {
        command.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]);
    }
    command.args(["-n", &n.to_string(), program]).args(arguments);
    command
}

/// What a command said, on both streams.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
