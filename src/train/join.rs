//! From what the launcher says to a group of processes with an engine, a store and a watchdog.

use syncytia_launch::World;

use super::config::{Ranks, TrainConfig};
use super::error::TrainError;
use super::group::Group;
use super::run_folder::RunFolder;

/// Joins the processes of `world`; a process alone is a group by itself.
///
/// # Errors
/// [`TrainError::Config`] when this build has no engine for several processes, when there are more than lanes, or
/// `train.ranks` asks for another number; [`TrainError::Engine`] when they do not come together.
pub fn join(world: World, config: &TrainConfig, folder: &RunFolder) -> Result<Group, TrainError> {
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
    match problems.is_empty() {
        true => processes(world, config, folder),
        false => Err(TrainError::Config(problems)),
    }
}

#[cfg(not(feature = "mpi"))]
fn processes(world: World, _: &TrainConfig, _: &RunFolder) -> Result<Group, TrainError> {
    let words = world.require_single().expect_err("there are several").to_string();
    Err(TrainError::Config(vec![words]))
}

#[cfg(feature = "mpi")]
fn processes(world: World, config: &TrainConfig, folder: &RunFolder) -> Result<Group, TrainError> {
    use std::sync::Arc;
    use std::time::Duration;

    use super::group;
    use super::news::StoreNews;
    use crate::engine::Engine;
    use crate::engine::mpi::MpiEngine;
    use crate::engine::peers::Peers;
    use crate::engine::watchdog::Watched;

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
#[cfg(feature = "mpi")]
struct Alarm {
    _disarm: std::sync::mpsc::Sender<()>,
}

#[cfg(feature = "mpi")]
impl Alarm {
    fn set(deadline: std::time::Duration, world: &World) -> Alarm {
        use std::sync::mpsc::{RecvTimeoutError, channel};

        use syncytia_launch::{ExitCode, exit};

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
