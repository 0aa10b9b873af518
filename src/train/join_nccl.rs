//! Processes that meet at the store of rank 0 before they have an engine: they see that all load the same NCCL, share the
//! id that rank 0 made, and join. Compiled in every build, so that it is tested without a GPU; offered by those with `cuda`.

use std::sync::Arc;
use std::time::Duration;

use syncytia_launch::ExitCode;
use syncytia_launch::world::World;

use super::error::TrainError;
use super::news::StoreNews;
use crate::engine::EngineError;
use crate::engine::nccl::{NcclEngine, Seat};
use crate::engine::peers::Peers;
use crate::gpu::nccl::{Nccl, UNIQUE_ID_BYTES, UniqueId};
use crate::gpu::{Driver, LibraryError};

/// Where and as whom processes meet.
#[derive(Debug, Clone, Copy)]
pub struct Meeting<'a> {
    /// `host:port` of rank 0's store.
    pub address: &'a str,
    /// This start of the job.
    pub generation: &'a str,
    /// How long anybody is waited for.
    pub deadline: Duration,
}

/// The key of rank 0's version of NCCL and the group's id.
const KEY: &str = "nccl";

/// Joins this process, on the device `ordinal`, with the others of `world`.
///
/// # Errors
/// [`TrainError::Engine`] when the store cannot be reached, the ranks load different versions of NCCL, or somebody does not
/// come; the others are told.
pub fn meet(
    world: &World,
    meeting: &Meeting<'_>,
    driver: Arc<Driver>,
    nccl: Arc<Nccl>,
    ordinal: usize,
) -> Result<(NcclEngine, Arc<StoreNews>), TrainError> {
    let news = Arc::new(StoreNews::at(meeting.address, meeting.generation, world, meeting.deadline)?);
    let joined = shared_id(world, &news, &nccl, meeting.deadline).and_then(|id| {
        let seat = Seat { rank: world.rank as usize, world_size: world.world_size as usize, ordinal };
        let peers = Arc::clone(&news) as Arc<dyn Peers>;
        NcclEngine::join(driver, nccl, &id, seat, meeting.deadline, peers)
    });
    match joined {
        Ok(engine) => Ok((engine, news)),
        Err(error) => {
            // Who was told by another has nothing to tell.
            if !matches!(error, EngineError::Peer { .. }) {
                news.abort(&error.to_string(), ExitCode::Peers.code());
            }
            Err(error.into())
        }
    }
}

/// The id that rank 0 made, once it is seen that this rank's NCCL is rank 0's version.
fn shared_id(world: &World, news: &StoreNews, nccl: &Nccl, deadline: Duration) -> Result<UniqueId, EngineError> {
    let refused = |error: LibraryError| EngineError::Join(error.to_string());
    let ours = nccl.version().to_string();
    if world.rank == 0 {
        let id = nccl.unique_id().map_err(refused)?;
        news.tell(KEY, &[&id.0[..], ours.as_bytes()].concat())?;
        return Ok(id);
    }
    let told = news.hear(KEY, deadline)?;
    let (id, theirs) = told.split_at_checked(UNIQUE_ID_BYTES).ok_or_else(|| {
        EngineError::Join("rank 0's id for NCCL is not understood: another version of this program?".to_owned())
    })?;
    if theirs != ours.as_bytes() {
        return Err(EngineError::Join(format!(
            "rank 0 loads NCCL {}, rank {} loads NCCL {ours} ({}): all ranks must load the same version (SYNCYTIA_NCCL names \
             its file)",
            String::from_utf8_lossy(theirs),
            world.rank,
            nccl.file()
        )));
    }
    Ok(UniqueId(id.try_into().expect("so many bytes were cut off")))
}
