//! Who may have started a process, and what `--launcher` lets a user say. Must not know their variables.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::WorldError;

/// Who started this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Launcher {
    /// Nobody: a shell, a batch script, a notebook.
    Local,
    /// `srun`.
    Slurm,
    /// `srun --mpi=pmix`.
    Pmix,
    /// `mpirun` of Open MPI.
    OpenMpi,
    /// `mpirun` of MVAPICH.
    Mvapich,
    /// A process manager that speaks PMI: MPICH, Intel MPI, `srun --mpi=pmi2`.
    Pmi,
    /// `torchrun`.
    Torchrun,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Launcher::Local => "no launcher",
            Launcher::Slurm => "srun",
            Launcher::Pmix => "srun --mpi=pmix",
            Launcher::OpenMpi => "mpirun (Open MPI)",
            Launcher::Mvapich => "mpirun (MVAPICH)",
            Launcher::Pmi => "PMI (MPICH, Intel MPI, srun --mpi=pmi2)",
            Launcher::Torchrun => "torchrun",
        })
    }
}

/// What `--launcher` says: whose variables to believe, when the order of this file is not what the user means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LauncherChoice {
    /// `srun`, though another launcher's variables are there too.
    Slurm,
    /// Open MPI, MVAPICH, PMI or PMIx.
    Mpi,
    /// The variables that torchrun sets, by hand or by torchrun.
    Env,
    /// One process, whatever the variables say.
    Local,
}

impl LauncherChoice {
    /// Every choice, as the manual lists them.
    pub const ALL: [LauncherChoice; 4] =
        [LauncherChoice::Slurm, LauncherChoice::Mpi, LauncherChoice::Env, LauncherChoice::Local];

    /// As it is typed.
    pub const fn name(self) -> &'static str {
        match self {
            LauncherChoice::Slurm => "slurm",
            LauncherChoice::Mpi => "mpi",
            LauncherChoice::Env => "env",
            LauncherChoice::Local => "local",
        }
    }

    /// Whose variables are then asked.
    pub(super) const fn launchers(self) -> &'static [Launcher] {
        match self {
            LauncherChoice::Slurm => &[Launcher::Slurm],
            LauncherChoice::Mpi => &[Launcher::OpenMpi, Launcher::Mvapich, Launcher::Pmi, Launcher::Pmix],
            LauncherChoice::Env => &[Launcher::Torchrun],
            LauncherChoice::Local => &[],
        }
    }
}

impl FromStr for LauncherChoice {
    type Err = WorldError;

    fn from_str(name: &str) -> Result<LauncherChoice, WorldError> {
        let found = LauncherChoice::ALL.into_iter().find(|choice| choice.name() == name);
        found.ok_or_else(|| WorldError::UnknownLauncher { name: name.into() })
    }
}
