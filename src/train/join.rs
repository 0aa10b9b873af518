//! From what the launcher says to a group of processes with an engine, a store and a watchdog.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use syncytia_launch::{ExitCode, World, exit};

use super::config::{ComputeOn, Ranks, TrainConfig};
use super::device::Place;
use super::error::TrainError;
use super::group::{self, Group};
use super::join_nccl::{self, Meeting};
use super::run_folder::RunFolder;
use crate::engine::EngineError;
use crate::engine::watchdog::Watched;
use crate::gpu::{self, Driver, LibraryError, Nccl};

/// Joins the processes of `world`; a process alone is a group by itself.
///
/// # Errors
/// [`TrainError::Config`] when this build has no engine for several processes, when there are more than lanes, or
/// `train.ranks` asks for another number; [`TrainError::Engine`] when they do not come together.
pub fn join(world: World, config: &TrainConfig, folder: &RunFolder, place: &Place) -> Result<Group, TrainError> {
    if world.world_size == 1 {
        return Ok(Group::alone(world));
    }
    let (lanes, world_size) = (config.train.lanes, world.world_size as usize);
    let mut problems = Vec::new();
    if world_size > lanes {
        problems.push(format!(
            "{world_size} processes were started and the config has train.lanes = {lanes}: at most one rank per lane"
        ));
    }
    if let Ranks::Count(ranks) = config.train.ranks
        && ranks != world_size
    {
        problems.push(format!(
            "train.ranks = {ranks} and {world_size} processes: every process is one rank; leave train.ranks (--ranks) out"
        ));
    }
    match (problems.is_empty(), config.train.device) {
        (false, _) => Err(TrainError::Config(problems)),
        (true, ComputeOn::Cpu | ComputeOn::Wgpu) => processes(world, config, folder),
        (true, ComputeOn::Cuda) => over_nccl(world, config, folder, place),
    }
}

/// Processes with a GPU each: they meet at the address that their launcher tells.
fn over_nccl(world: World, config: &TrainConfig, folder: &RunFolder, place: &Place) -> Result<Group, TrainError> {
    let vars = |name: &str| std::env::var(name).ok();
    let refused = |what: String| TrainError::Config(vec![what]);
    let address = world.rendezvous(vars).map_err(|e| refused(e.to_string()))?;
    let address = address.ok_or_else(|| refused(format!("{}: {NO_ADDRESS}", world.launcher)))?;
    let generation = world.generation(vars).map_err(|e| refused(e.to_string()))?;
    let generation = generation.unwrap_or_else(|| address.clone());
    let file = |name: &str| std::env::var_os(name);
    let join = |error: LibraryError| TrainError::Engine(EngineError::Join(error.to_string()));
    let driver = Arc::new(Driver::open(file(gpu::driver::FILE).as_deref()).map_err(join)?);
    let nccl = Arc::new(Nccl::open(file(gpu::nccl::FILE).as_deref()).map_err(join)?);
    let deadline = Duration::from_secs(config.train.deadline_s);
    let late = Alarm::set(deadline + LATE, &world);
    let meeting = Meeting { address: &address, generation: &generation, deadline };
    let (engine, news) = join_nccl::meet(&world, &meeting, driver, nccl, place.ordinal)?;
    drop(late);
    let watched = Watched::guarded(Box::new(engine), news, deadline, group::on_expiry(folder));
    Ok(Group::joined(world, watched))
}

const NO_ADDRESS: &str = "this launcher tells no address at which GPU processes may meet: start with srun, torchrun or \
     `syncytia launch`, or set SYNCYTIA_STORE=HOST:PORT (a free port of rank 0's host) for all";

/// How much longer than its own deadline the joining of a group may take before the process is ended.
const LATE: Duration = Duration::from_secs(10);

#[cfg(not(feature = "mpi"))]
fn processes(world: World, _: &TrainConfig, _: &RunFolder) -> Result<Group, TrainError> {
    let words = world.require_single().expect_err("there are several").to_string();
    Err(TrainError::Config(vec![words]))
}

#[cfg(feature = "mpi")]
fn processes(world: World, config: &TrainConfig, folder: &RunFolder) -> Result<Group, TrainError> {
    use super::news::StoreNews;
    use crate::engine::Engine;
    use crate::engine::mpi::MpiEngine;
    use crate::engine::peers::Peers;

    let deadline = Duration::from_secs(config.train.deadline_s);
    // MPI_Init waits for all processes, for ever, and cannot be asked to stop: a thread ends this one.
    let late = Alarm::set(deadline, &world);
    let mut engine = MpiEngine::join(deadline)?;
    if (engine.rank(), engine.world_size()) != (world.rank as usize, world.world_size as usize) {
        let (rank, size, library) = (engine.rank(), engine.world_size(), MpiEngine::library());
        return Err(TrainError::Config(vec![format!(
            "{} says rank {} of {}, and the MPI library of this build ({library}) says rank {rank} of {size}: start with \
             its own mpirun, or under Slurm with the --mpi type it was built for (Open MPI: pmix, MPICH: pmi2)",
            world.launcher, world.rank, world.world_size
        )]));
    }
    let news: Arc<dyn Peers> = Arc::new(StoreNews::meet(&mut engine, &world, deadline)?);
    drop(late);
    let engine = Box::new(engine.with_peers(Arc::clone(&news)));
    let watched = Watched::guarded(engine, news, deadline, group::on_expiry(folder));
    Ok(Group::joined(world, watched))
}

/// Ends the process when the others have not come in time; dropped, it does nothing.
struct Alarm {
    _disarm: std::sync::mpsc::Sender<()>,
}

impl Alarm {
    fn set(deadline: Duration, world: &World) -> Alarm {
        let (disarm, disarmed) = channel::<()>();
        let who = world.source();
        let wait = move || {
            if disarmed.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout) {
                let waited = deadline.as_secs();
                eprintln!("error: {who}: the other processes did not join within {waited} s (train.deadline_s)");
                exit::now(ExitCode::Peers.code());
            }
        };
        let _ = std::thread::Builder::new().name("join".to_owned()).spawn(wait); // without it, the launcher's own limit stays
        Alarm { _disarm: disarm }
    }
}
