//! World size and rank, from whoever launched this process. The only file that reads rank variables; environment comes
//! in as a function, so that every launcher's variables can be a literal in a test. Must not know engines.
//!
//! | launcher | size, rank, local rank |
//! |---|---|
//! | torchrun | `WORLD_SIZE`, `RANK`, `LOCAL_RANK` (all three) |
//! | mpirun (Open MPI) | `OMPI_COMM_WORLD_SIZE`, `…_RANK`, `…_LOCAL_RANK` |
//! | mpirun (MPICH, Intel), `srun --mpi=pmi2` | `PMI_SIZE`, `PMI_RANK`, `MPI_LOCALRANKID` or `SLURM_LOCALID` |
//! | srun | `SLURM_STEP_NUM_TASKS`, `SLURM_PROCID`, `SLURM_LOCALID` |
//!
//! The innermost launcher wins, hence this order: an `mpirun` or `torchrun` inside a Slurm step starts its helpers with
//! srun, one per node, and their children inherit a `SLURM_STEP_NUM_TASKS` that counts nodes. `SLURM_NTASKS` is never
//! read: a batch shell has `SLURM_NTASKS=2` and `SLURM_PROCID=0` though it runs once, and would wait for a peer for ever.

use serde::{Deserialize, Serialize};

/// Who started this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Launcher {
    /// Nobody: a shell, a batch script, a notebook.
    Local,
    /// `srun`.
    Slurm,
    /// `mpirun` of Open MPI.
    OpenMpi,
    /// A process manager that speaks PMI: MPICH, Intel MPI, `srun --mpi=pmi2`.
    Pmi,
    /// `torchrun`.
    Torchrun,
}

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
    /// Several processes, and no engine that joins processes.
    #[error(
        "this build has no engine for {world_size} processes (found by {launcher:?}, rank {rank}); start one process and \
         give it threads with --ranks N, e.g. `srun --ntasks=1 --cpus-per-task=N syncytia train … --ranks N`"
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
const LAUNCHERS: [Variables; 4] = [
    Variables { launcher: Launcher::Torchrun, size: "WORLD_SIZE", rank: "RANK", local_rank: &["LOCAL_RANK"] },
    Variables {
        launcher: Launcher::OpenMpi,
        size: "OMPI_COMM_WORLD_SIZE",
        rank: "OMPI_COMM_WORLD_RANK",
        local_rank: &["OMPI_COMM_WORLD_LOCAL_RANK"],
    },
    Variables {
        launcher: Launcher::Pmi,
        size: "PMI_SIZE",
        rank: "PMI_RANK",
        local_rank: &["MPI_LOCALRANKID", "SLURM_LOCALID"],
    },
    Variables {
        launcher: Launcher::Slurm,
        size: "SLURM_STEP_NUM_TASKS",
        rank: "SLURM_PROCID",
        local_rank: &["SLURM_LOCALID"],
    },
];

impl World {
    /// One process, started by nobody.
    pub fn local() -> World {
        World { world_size: 1, rank: 0, local_rank: 0, launcher: Launcher::Local }
    }

    /// The world as the launcher's variables tell it; `vars` is `|name| std::env::var(name).ok()`.
    ///
    /// # Errors
    /// [`WorldError`] when a launcher's variables are incomplete, no numbers, or contradict each other.
    pub fn from_env(vars: impl Fn(&str) -> Option<String>) -> Result<World, WorldError> {
        for launcher in &LAUNCHERS {
            if let Some(world) = launcher.read(&vars)? {
                return Ok(world);
            }
        }
        Ok(World::local())
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
}

impl Variables {
    fn read(&self, vars: &impl Fn(&str) -> Option<String>) -> Result<Option<World>, WorldError> {
        let local = self.local_rank.iter().find(|name| vars(name).is_some());
        // `WORLD_SIZE` alone is a habit of batch scripts, not a launcher: torchrun sets all three.
        if self.launcher == Launcher::Torchrun && (vars(self.rank).is_none() || local.is_none()) {
            return Ok(None);
        }
        let Some(size) = vars(self.size) else { return Ok(None) };
        let world_size = number(self.size, size)?;
        let rank = vars(self.rank).ok_or(WorldError::Missing { present: self.size, missing: self.rank })?;
        let rank = number(self.rank, rank)?;
        if rank >= world_size {
            return Err(WorldError::OutOfRange { rank_name: self.rank, size_name: self.size, rank, world_size });
        }
        let local_rank = match local {
            Some(name) => number(name, vars(name).unwrap_or_default())?,
            None if world_size == 1 => 0,
            None => return Err(WorldError::Missing { present: self.size, missing: self.local_rank[0] }),
        };
        Ok(Some(World { world_size, rank, local_rank, launcher: self.launcher }))
    }
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
mod tests {
    use super::*;

    /// Variables as a line of a shell: `A=1 B=2`.
    fn env(line: &str) -> impl Fn(&str) -> Option<String> {
        let pairs: Vec<(String, String)> =
            line.split(' ').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect();
        move |name| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone())
    }

    fn check(line: &str, launcher: Launcher, rank: u32, world_size: u32, local_rank: u32) {
        let expected = World { world_size, rank, local_rank, launcher };
        assert_eq!(World::from_env(env(line)), Ok(expected), "{line}");
    }

    #[test]
    fn every_launcher_is_read_by_its_own_variables() {
        check("", Launcher::Local, 0, 1, 0);
        check("SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=3 SLURM_LOCALID=1", Launcher::Slurm, 3, 4, 1);
        check("OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_LOCAL_RANK=1", Launcher::OpenMpi, 1, 2, 1);
        check("PMI_SIZE=3 PMI_RANK=2 MPI_LOCALRANKID=0", Launcher::Pmi, 2, 3, 0);
        check("WORLD_SIZE=8 RANK=5 LOCAL_RANK=1", Launcher::Torchrun, 5, 8, 1);
    }

    #[test]
    fn a_batch_shell_is_one_process_though_it_has_tasks_and_a_rank() {
        // the batch shell of a two-node job under Slurm 22.05
        let shell = "SLURM_JOB_ID=6 SLURM_NTASKS=2 SLURM_NPROCS=2 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0";
        check(shell, Launcher::Local, 0, 1, 0);
    }

    #[test]
    fn one_task_inside_a_larger_allocation_is_one_process() {
        check("SLURM_NTASKS=1 SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0", Launcher::Slurm, 0, 1, 0);
    }

    #[test]
    fn a_launcher_inside_a_step_wins_over_the_step() {
        // mpirun's daemons run one per node: the inherited step variables count nodes
        let step = "SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=1 SLURM_LOCALID=0";
        let ompi = "OMPI_COMM_WORLD_SIZE=8 OMPI_COMM_WORLD_RANK=6 OMPI_COMM_WORLD_LOCAL_RANK=2";
        check(&format!("{step} {ompi}"), Launcher::OpenMpi, 6, 8, 2);
        check(&format!("{step} WORLD_SIZE=8 RANK=6 LOCAL_RANK=2"), Launcher::Torchrun, 6, 8, 2);
        // srun --mpi=pmi2: both say the same, the local rank comes from Slurm
        check("SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=1 SLURM_LOCALID=1 PMI_SIZE=2 PMI_RANK=1", Launcher::Pmi, 1, 2, 1);
    }

    #[test]
    fn an_exported_world_size_alone_is_no_launcher() {
        check("WORLD_SIZE=8", Launcher::Local, 0, 1, 0);
    }

    #[test]
    fn contradictions_are_refused_with_the_names_of_the_variables() {
        let refused = |line: &str| World::from_env(env(line)).unwrap_err().to_string();
        assert!(refused("SLURM_STEP_NUM_TASKS=2").contains("SLURM_PROCID is not"));
        assert!(refused("SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=0").contains("SLURM_LOCALID is not"));
        assert!(refused("SLURM_STEP_NUM_TASKS=two SLURM_PROCID=0").contains("\"two\""));
        assert!(refused("PMI_SIZE=2 PMI_RANK=2 MPI_LOCALRANKID=0").contains("PMI_RANK=2 does not fit PMI_SIZE=2"));
        assert!(refused("SLURM_STEP_NUM_TASKS=0 SLURM_PROCID=0 SLURM_LOCALID=0").contains("does not fit"));
    }

    #[test]
    fn several_processes_are_refused_in_words() {
        assert_eq!(World::local().require_single(), Ok(()));
        let two = World::from_env(env("WORLD_SIZE=2 RANK=1 LOCAL_RANK=1")).unwrap();
        let words = two.require_single().unwrap_err().to_string();
        assert!(words.contains("no engine for 2 processes") && words.contains("--ranks N"), "{words}");
    }

    #[test]
    fn a_job_carries_the_id_that_requeue_takes_and_its_life() {
        let job = |line: &str| Job::from_env(env(line)).unwrap();
        assert_eq!(job(""), None);
        assert_eq!(job("SLURM_JOB_ID=77"), Some(Job { id: "77".into(), restart_count: 0 }));
        let array = "SLURM_JOB_ID=79 SLURM_ARRAY_JOB_ID=78 SLURM_ARRAY_TASK_ID=1 SLURM_RESTART_COUNT=2";
        assert_eq!(job(array), Some(Job { id: "78_1".into(), restart_count: 2 }));
    }
}
