//! World size and rank, from whoever launched this process, and where its peers meet. The only file that reads rank
//! variables; environment comes in as a function, so that every launcher's variables can be a literal in a test. Must
//! not know engines, nor the store that listens at the address found here.
//!
//! | launcher | size, rank, local rank |
//! |---|---|
//! | torchrun | `WORLD_SIZE`, `RANK`, `LOCAL_RANK` (all three) |
//! | mpirun (Open MPI) | `OMPI_COMM_WORLD_SIZE`, `…_RANK`, `…_LOCAL_RANK` |
//! | mpirun (MVAPICH) | `MV2_COMM_WORLD_SIZE`, `…_RANK`, `…_LOCAL_RANK` |
//! | mpirun (MPICH, Intel), `srun --mpi=pmi2` | `PMI_SIZE`, `PMI_RANK`, `MPI_LOCALRANKID` or `SLURM_LOCALID` |
//! | `srun --mpi=pmix` | `SLURM_STEP_NUM_TASKS`, `PMIX_RANK`, `SLURM_LOCALID` |
//! | srun | `SLURM_STEP_NUM_TASKS`, `SLURM_PROCID`, `SLURM_LOCALID` |
//!
//! The innermost launcher wins, hence this order: an `mpirun` or `torchrun` inside a Slurm step starts its helpers with
//! srun, one per node, and their children inherit a `SLURM_STEP_NUM_TASKS` that counts nodes. `SLURM_NTASKS` is never
//! read: a batch shell has `SLURM_NTASKS=2` and `SLURM_PROCID=0` though it runs once, and would wait for a peer for ever.
//! A shell that is itself a step (newer `salloc`, a notebook's kernel) is one process as well. `--launcher` overrides.

mod launcher;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::nodelist::{self, NodelistError};

pub use launcher::{Launcher, LauncherChoice};

/// This process among its peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    /// Number of processes.
    pub world_size: u32,
    /// This one, `0..world_size`.
    pub rank: u32,
    /// This one among those of its node.
    pub local_rank: u32,
    /// From whom we know.
    pub launcher: Launcher,
    /// Where it runs: Slurm's name of the node under srun, else the host name.
    pub node: String,
    /// What was read, as `NAME=value`; empty for one process.
    pub variables: Vec<String>,
}

/// `rank 3 of 4 (local rank 1 on n2), from srun: SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=3`: for the log's first line.
impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let World { world_size, rank, local_rank, launcher, node, variables } = self;
        if *launcher == Launcher::Local {
            return write!(f, "one process on {node}, started by no launcher");
        }
        let variables = variables.join(" ");
        write!(f, "rank {rank} of {world_size} (local rank {local_rank} on {node}), from {launcher}: {variables}")
    }
}

/// What is wrong with the launcher's variables, or with a world this build cannot serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    /// One variable of a launcher's set is there and another is not.
    #[error("{present} is set but {missing} is not; unset both, or start all processes with one launcher")]
    Missing {
        /// The variable that is there.
        present: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// A variable is not a whole number.
    #[error("{name}={value:?} is not a whole number")]
    NotANumber {
        /// Variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// The rank is outside the world.
    #[error("{rank_name}={rank} does not fit {size_name}={world_size}; ranks count from 0")]
    OutOfRange {
        /// Variable of the rank.
        rank_name: &'static str,
        /// Variable of the size.
        size_name: &'static str,
        /// Rank as read.
        rank: u32,
        /// Size as read.
        world_size: u32,
    },
    /// `--launcher` names none that we know.
    #[error("unknown launcher `{name}`: choose slurm, mpi, env or local")]
    UnknownLauncher {
        /// As typed.
        name: String,
    },
    /// `--launcher` names one whose variables are not there.
    #[error("--launcher {choice}: looked for {looked_for}, found {found}; leave --launcher out to see what is found")]
    Absent {
        /// As typed.
        choice: &'static str,
        /// Names of the variables.
        looked_for: String,
        /// Those of them that are set.
        found: String,
    },
    /// Two launchers count this process differently.
    #[error("PMIX_RANK={pmix} but SLURM_PROCID={slurm}; choose whom to believe with --launcher")]
    Contradiction {
        /// Rank that PMIx says.
        pmix: u32,
        /// Rank that Slurm says.
        slurm: u32,
    },
    /// A variable is not an address.
    #[error("{name}={value:?} is not host:port")]
    NotAnAddress {
        /// Variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// Slurm's list of hosts cannot be read.
    #[error("SLURM_STEP_NODELIST: {0}")]
    Hosts(#[from] NodelistError),
    /// Several processes, and no engine that joins processes.
    #[error(
        "this build has no engine for {world_size} processes (found by {launcher}, rank {rank}): rebuild with \
         `--features mpi`, or start one process and give it threads with --ranks N, e.g. `srun --ntasks=1 \
         --cpus-per-task=N syncytia train … --ranks N`"
    )]
    NoEngine {
        /// Processes found.
        world_size: u32,
        /// This one.
        rank: u32,
        /// From whom we know.
        launcher: Launcher,
    },
}

/// The variables of one launcher, in the order they are asked.
struct Variables {
    launcher: Launcher,
    size: &'static str,
    rank: &'static str,
    local_rank: &'static [&'static str],
}

/// Innermost first; `srun` last, because the others may run inside its step.
const LAUNCHERS: [Variables; 6] = [
    Variables { launcher: Launcher::Torchrun, size: "WORLD_SIZE", rank: "RANK", local_rank: &["LOCAL_RANK"] },
    Variables {
        launcher: Launcher::OpenMpi,
        size: "OMPI_COMM_WORLD_SIZE",
        rank: "OMPI_COMM_WORLD_RANK",
        local_rank: &["OMPI_COMM_WORLD_LOCAL_RANK"],
    },
    Variables {
        launcher: Launcher::Mvapich,
        size: "MV2_COMM_WORLD_SIZE",
        rank: "MV2_COMM_WORLD_RANK",
        local_rank: &["MV2_COMM_WORLD_LOCAL_RANK"],
    },
    Variables {
        launcher: Launcher::Pmi,
        size: "PMI_SIZE",
        rank: "PMI_RANK",
        local_rank: &["MPI_LOCALRANKID", STEP_LOCAL_RANK],
    },
    Variables { launcher: Launcher::Pmix, size: STEP_SIZE, rank: "PMIX_RANK", local_rank: &[STEP_LOCAL_RANK] },
    Variables { launcher: Launcher::Slurm, size: STEP_SIZE, rank: STEP_RANK, local_rank: &[STEP_LOCAL_RANK] },
];

const STEP_SIZE: &str = "SLURM_STEP_NUM_TASKS";
const STEP_RANK: &str = "SLURM_PROCID";
const STEP_LOCAL_RANK: &str = "SLURM_LOCALID";

/// Steps that are a shell: interactive (`salloc` since 21.08), batch script, extern (`ssh` into a job).
const SHELL_STEPS: [&str; 3] = ["4294967290", "4294967291", "4294967292"];

impl World {
    /// One process, started by nobody.
    pub fn local() -> World {
        let (launcher, node) = (Launcher::Local, host_name());
        World { world_size: 1, rank: 0, local_rank: 0, launcher, node, variables: Vec::new() }
    }

    /// The world as the launcher's variables tell it; `vars` is `|name| std::env::var(name).ok()`, `choice` is
    /// `--launcher`.
    ///
    /// # Errors
    /// [`WorldError`] when a launcher's variables are incomplete, no numbers, or contradict each other; when those of
    /// the chosen launcher are absent.
    pub fn from_env(
        vars: impl Fn(&str) -> Option<String>,
        choice: Option<LauncherChoice>,
    ) -> Result<World, WorldError> {
        let shell = vars("SLURM_STEP_ID").is_some_and(|step| SHELL_STEPS.contains(&step.as_str()));
        let asked: Vec<&Variables> = match choice {
            Some(choice) => LAUNCHERS.iter().filter(|v| choice.launchers().contains(&v.launcher)).collect(),
            None => LAUNCHERS.iter().filter(|v| !(shell && v.size == STEP_SIZE)).collect(),
        };
        for launcher in &asked {
            if let Some(mut world) = launcher.read(&vars)? {
                // Hydra hands the variables of the first node to all: only the step's own ranks may believe its name.
                if let (true, Some(name)) = (world.is_slurm_step(&vars), vars("SLURMD_NODENAME")) {
                    world.node = name;
                }
                return Ok(world);
            }
        }
        match choice {
            None | Some(LauncherChoice::Local) => Ok(World::local()),
            Some(choice) => Err(absent(choice, &asked, &vars)),
        }
    }

    /// [`World`] in words: who launched it, as read from which variables.
    pub fn source(&self) -> String {
        self.to_string()
    }

    /// Refuses a world of several processes, in words.
    ///
    /// # Errors
    /// [`WorldError::NoEngine`] when there is more than one process.
    pub fn require_single(&self) -> Result<(), WorldError> {
        if self.world_size == 1 {
            return Ok(());
        }
        Err(WorldError::NoEngine { world_size: self.world_size, rank: self.rank, launcher: self.launcher })
    }

    /// `host:port` where rank 0 lets its peers meet, when the engine cannot tell them: `SYNCYTIA_STORE`; torchrun's
    /// `MASTER_ADDR` and the port after `MASTER_PORT`, which torchrun's own store holds; under srun the first host of
    /// the step and [`step_port`]. None for one process and for `mpirun`, whose variables differ from node to node:
    /// there MPI's own broadcast tells.
    ///
    /// # Errors
    /// [`WorldError`] for an address or a host list that cannot be read.
    pub fn rendezvous(&self, vars: impl Fn(&str) -> Option<String>) -> Result<Option<String>, WorldError> {
        if let Some(value) = vars("SYNCYTIA_STORE") {
            let port = value.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
            return match port {
                Some(Ok(1..)) => Ok(Some(value)),
                _ => Err(WorldError::NotAnAddress { name: "SYNCYTIA_STORE", value }),
            };
        }
        if self.launcher == Launcher::Torchrun {
            let (Some(host), Some(port)) = (vars("MASTER_ADDR"), vars("MASTER_PORT")) else { return Ok(None) };
            let port: u16 = port.parse().map_err(|_| WorldError::NotAnAddress { name: "MASTER_PORT", value: port })?;
            let port = port.checked_add(1).unwrap_or(port - 1);
            let host = if host.contains(':') { format!("[{host}]") } else { host }; // IPv6
            return Ok(Some(format!("{host}:{port}")));
        }
        if !self.is_slurm_step(&vars) {
            return Ok(None);
        }
        let (Some(list), Some(job), Some(step)) =
            (vars("SLURM_STEP_NODELIST"), vars("SLURM_JOB_ID"), vars("SLURM_STEP_ID"))
        else {
            return Ok(None);
        };
        let (job, step) = (number("SLURM_JOB_ID", job)?, number("SLURM_STEP_ID", step)?);
        let first = nodelist::expand(&list)?.swap_remove(0); // never empty
        Ok(Some(format!("{first}:{}", step_port(job, step))))
    }

    /// The variables by which a process knows that it is `rank` of `world_size` on this host, started by ourselves: torchrun's,
    /// and the address of the store. [`World::from_env`] reads them.
    pub fn variables(rank: u32, world_size: u32, port: u16, generation: &str) -> Vec<(&'static str, String)> {
        vec![
            ("WORLD_SIZE", world_size.to_string()),
            ("RANK", rank.to_string()),
            ("LOCAL_RANK", rank.to_string()),
            ("TORCHELASTIC_RUN_ID", generation.to_owned()),
            ("SYNCYTIA_STORE", format!("127.0.0.1:{port}")),
        ]
    }

    /// The name of this start of this world, equal on all its ranks and on no other's: `job.step.restarts` under srun
    /// (an array's job as `78_1`), run id and restarts under torchrun. None where [`World::rendezvous`] knows nothing.
    ///
    /// # Errors
    /// [`WorldError::NotANumber`] for a restart count that is none.
    pub fn generation(&self, vars: impl Fn(&str) -> Option<String>) -> Result<Option<String>, WorldError> {
        if self.launcher == Launcher::Torchrun {
            let restarts =
                number("TORCHELASTIC_RESTART_COUNT", vars("TORCHELASTIC_RESTART_COUNT").unwrap_or("0".into()))?;
            return Ok(vars("TORCHELASTIC_RUN_ID").map(|run| format!("{run}.{restarts}")));
        }
        let (true, Some(step)) = (self.is_slurm_step(&vars), vars("SLURM_STEP_ID")) else { return Ok(None) };
        Ok(Job::from_env(&vars)?.map(|job| format!("{}.{step}.{}", job.id, job.restart_count)))
    }

    /// Whether the tasks of the Slurm step are the ranks of this world, so that the step's other variables hold too.
    fn is_slurm_step(&self, vars: &impl Fn(&str) -> Option<String>) -> bool {
        let says = |name: &str, value: u32| vars(name).is_some_and(|v| v.trim() == value.to_string());
        matches!(self.launcher, Launcher::Slurm | Launcher::Pmix | Launcher::Pmi)
            && says(STEP_SIZE, self.world_size)
            && says(STEP_RANK, self.rank)
    }
}

/// The port of a Slurm step: 20,000 + (job + 7919 · step) modulo 10,000. Below Linux' range of outgoing ports (32768),
/// so no connection holds it by chance. Job *and* step, because two jobs, or two steps of one, may share a node; and a
/// sum, because a hash lets 5 % of 1,000 neighbours in the queue collide and this none of them.
pub fn step_port(job: u32, step: u32) -> u16 {
    20_000 + ((u64::from(job) + 7919 * u64::from(step)) % 10_000) as u16
}

/// This host's own name.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

impl Variables {
    fn names(&self) -> impl Iterator<Item = &'static str> {
        [self.size, self.rank].into_iter().chain(self.local_rank.iter().copied())
    }

    fn read(&self, vars: &impl Fn(&str) -> Option<String>) -> Result<Option<World>, WorldError> {
        // Hydra inside a step: the step's local rank is that of Hydra's helper.
        let foreign = self.launcher == Launcher::Pmi
            && (vars(STEP_SIZE) != vars(self.size) || vars(STEP_RANK) != vars(self.rank));
        let believed = |name: &str| vars(name).is_some() && !(foreign && name == STEP_LOCAL_RANK);
        let local = self.local_rank.iter().find(|name| believed(name));
        // `WORLD_SIZE` alone is a habit of batch scripts, not a launcher: torchrun sets all three.
        if self.launcher == Launcher::Torchrun && (vars(self.rank).is_none() || local.is_none()) {
            return Ok(None);
        }
        // PMIx says no size: its rank is the sign, and a missing size (a bare prterun) is an error, not one process.
        if self.launcher == Launcher::Pmix && vars(self.rank).is_none() {
            return Ok(None);
        }
        let Some(size) = vars(self.size) else {
            return match self.launcher {
                Launcher::Pmix => Err(WorldError::Missing { present: self.rank, missing: self.size }),
                _ => Ok(None),
            };
        };
        let world_size = number(self.size, size)?;
        let rank = vars(self.rank).ok_or(WorldError::Missing { present: self.size, missing: self.rank })?;
        let rank = number(self.rank, rank)?;
        if rank >= world_size {
            return Err(WorldError::OutOfRange { rank_name: self.rank, size_name: self.size, rank, world_size });
        }
        if let (Launcher::Pmix, Some(slurm)) = (self.launcher, vars(STEP_RANK)) {
            let slurm = number(STEP_RANK, slurm)?;
            if slurm != rank {
                return Err(WorldError::Contradiction { pmix: rank, slurm });
            }
        }
        let local_rank = match local {
            Some(name) => number(name, vars(name).unwrap_or_default())?,
            None if world_size == 1 => 0,
            None => return Err(WorldError::Missing { present: self.size, missing: self.local_rank[0] }),
        };
        let variables = vec![format!("{}={world_size}", self.size), format!("{}={rank}", self.rank)];
        Ok(Some(World { world_size, rank, local_rank, launcher: self.launcher, variables, ..World::local() }))
    }
}

fn absent(choice: LauncherChoice, asked: &[&Variables], vars: &impl Fn(&str) -> Option<String>) -> WorldError {
    let mut names: Vec<&str> = asked.iter().flat_map(|v| v.names()).collect();
    names.sort_unstable();
    names.dedup();
    let found: Vec<&str> = names.iter().copied().filter(|name| vars(name).is_some()).collect();
    let found = if found.is_empty() { "none".into() } else { format!("only {}", found.join(", ")) };
    WorldError::Absent { choice: choice.name(), looked_for: names.join(", "), found }
}

fn number(name: &'static str, value: String) -> Result<u32, WorldError> {
    value.trim().parse().map_err(|_| WorldError::NotANumber { name, value })
}

/// The scheduler's job this process belongs to: who holds a run folder, and in which life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// As `scontrol requeue` wants it: `1234`, or `1234_7` for an element of an array.
    pub id: String,
    /// How often the scheduler started it again; 0 on the first start, when Slurm leaves the variable unset.
    pub restart_count: u32,
}

impl Job {
    /// The job, if this runs inside one.
    ///
    /// # Errors
    /// [`WorldError::NotANumber`] for a restart count that is none.
    pub fn from_env(vars: impl Fn(&str) -> Option<String>) -> Result<Option<Job>, WorldError> {
        // SLURM_JOB_ID differs per array element and is not what requeue takes.
        let id = match (vars("SLURM_ARRAY_JOB_ID"), vars("SLURM_ARRAY_TASK_ID")) {
            (Some(array), Some(task)) => Some(format!("{array}_{task}")),
            _ => vars("SLURM_JOB_ID"),
        };
        let Some(id) = id else { return Ok(None) };
        let restart_count = match vars("SLURM_RESTART_COUNT") {
            Some(count) => number("SLURM_RESTART_COUNT", count)?,
            None => 0,
        };
        Ok(Some(Job { id, restart_count }))
    }
}

#[cfg(test)]
mod tests;
