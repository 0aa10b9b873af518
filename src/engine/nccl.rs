//! Ranks as processes with a GPU each, joined by NCCL.
//!
//! Right first: what is summed lies on the host, goes to the device in pieces, is summed there and comes back, and the host
//! waits; overlap by events and gradients that never leave the device come later. Every operation begins with a *meeting*,
//! as with MPI: a maximum over a few words in which all see whether they issue the same operation with the same length.
//! NCCL has no time limit of its own, so nothing here waits without looking at the deadline, at the communicator's
//! asynchronous error and at peers that gave up; a call that does not return at all is the watchdog's matter.
//!
//! Must not know what is summed. Calls come from one thread at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::farewell::{self, Farewell};
use super::meeting::{self, Kind};
use super::peers::{Missing, NoNews, Peers};
use super::{Convert, Engine, EngineError};
use crate::gpu::driver::{Address, Driver, Handle};
use crate::gpu::nccl::{Communicator, DataType, Nccl, Operation, UniqueId};
use crate::gpu::{LibraryError, Version};

/// Bytes that travel at a time: the size of the buffers on both sides.
const PIECE: usize = 32 << 20;
/// How often a waiting rank asks for news of the others.
const LOOK: Duration = Duration::from_millis(10);
/// How long NCCL may take to let go.
const FAREWELL: Duration = Duration::from_secs(15);
/// Name of the library in [`EngineError::Library`].
const LIBRARY: &str = "NCCL";
/// Bytes of an operation's name that a mismatch tells.
const NAME: usize = 64;

/// This process's handle.
pub struct NcclEngine {
    nccl: Arc<Nccl>,
    driver: Arc<Driver>,
    place: Place,
    /// None after it was left or given up.
    communicator: Option<Communicator>,
    rank: usize,
    world_size: usize,
    sequence: u64,
    deadline: Duration,
    waited: Duration,
    peers: Arc<dyn Peers>,
}

/// Where it works: context, stream, and a buffer on either side.
struct Place {
    context: Handle,
    stream: Handle,
    device: Address,
    host: *mut u8,
}

// SAFETY: the handles name things of the process, not of a thread: every use makes the context its thread's own first, and an
// engine is used through `&mut`.
unsafe impl Send for Place {}

/// Who this rank is and on which device.
#[derive(Debug, Clone, Copy)]
pub struct Seat {
    /// This rank.
    pub rank: usize,
    /// Of so many.
    pub world_size: usize,
    /// Its device among those that the process sees.
    pub ordinal: usize,
}

impl NcclEngine {
    /// Joins the group that `id` names; every rank must come within `deadline`.
    ///
    /// # Errors
    /// [`EngineError::Join`] when a library refuses or somebody does not come.
    pub fn join(
        driver: Arc<Driver>,
        nccl: Arc<Nccl>,
        id: &UniqueId,
        seat: Seat,
        deadline: Duration,
        peers: Arc<dyn Peers>,
    ) -> Result<NcclEngine, EngineError> {
        let join = |error: LibraryError| EngineError::Join(error.to_string());
        let Seat { rank, world_size, ordinal } = seat;
        let (context, stream) = driver.lane(ordinal).map_err(join)?;
        let (device, host) = (driver.allocate(PIECE).map_err(join)?, driver.allocate_host(PIECE).map_err(join)?);
        let place = Place { context, stream, device, host };
        let communicator = nccl.begin(id, rank, world_size).map_err(join)?;
        let mut engine = NcclEngine {
            nccl,
            driver,
            place,
            communicator: Some(communicator),
            rank,
            world_size,
            sequence: 0,
            deadline,
            waited: Duration::ZERO,
            peers,
        };
        let operation = "joining the others over NCCL";
        engine.until(operation, 0, |engine| engine.nccl.is_settled(communicator)).inspect_err(|_| engine.give_up())?;
        Ok(engine)
    }

    /// The same without a store that tells of the others; for tests.
    ///
    /// # Errors
    /// As [`NcclEngine::join`].
    pub fn join_unwatched(
        driver: Arc<Driver>,
        nccl: Arc<Nccl>,
        id: &UniqueId,
        seat: Seat,
        deadline: Duration,
    ) -> Result<NcclEngine, EngineError> {
        NcclEngine::join(driver, nccl, id, seat, deadline, Arc::new(NoNews))
    }

    /// NCCL's version.
    pub fn version(&self) -> Version {
        self.nccl.version()
    }

    /// Returns when every rank issues this operation.
    fn meet(&mut self, operation: &'static str, kind: Kind, length: usize) -> Result<(), EngineError> {
        self.sequence += 1;
        let begun = Instant::now();
        let words = meeting::words(self.sequence, operation, kind, length);
        let mut all = meeting::both_ways(words);
        self.reduce(operation, kind.bytes(length), &mut all, (DataType::I64, Operation::Max))?;
        self.waited += begun.elapsed();
        if meeting::all_alike(&all) {
            return Ok(());
        }
        Err(self.mismatch(operation, length, words))
    }

    /// Who does something else: all are in this call, because all saw the same words.
    fn mismatch(&mut self, operation: &'static str, length: usize, words: [i64; 3]) -> EngineError {
        const ROW: usize = 3 + NAME / 8;
        let mut all = vec![0i64; ROW * self.world_size];
        let mine = &mut all[self.rank * ROW..][..ROW];
        mine[..3].copy_from_slice(&words);
        let mut name = [0u8; NAME];
        let known = operation.len().min(NAME);
        name[..known].copy_from_slice(&operation.as_bytes()[..known]);
        for (word, eight) in mine[3..].iter_mut().zip(name.chunks_exact(8)) {
            *word = i64::from_le_bytes(eight.try_into().expect("eight bytes"));
        }
        let mine = mine.to_vec();
        // Each writes its own row alone, so that the sum is a gather.
        if let Err(error) = self.reduce(operation, 0, &mut all, (DataType::I64, Operation::Sum)) {
            return error;
        }
        let differs = all.chunks(ROW).enumerate().find(|(_, theirs)| *theirs != mine);
        let (peer, theirs) = differs.expect("the meeting found a difference");
        let name: Vec<u8> = theirs[3..].iter().flat_map(|word| word.to_le_bytes()).collect();
        EngineError::Mismatch {
            rank: self.rank,
            operation,
            length,
            sequence: self.sequence,
            peer,
            peer_operation: String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned(),
            peer_length: meeting::length_of(theirs),
        }
    }

    /// `values`, at most [`PIECE`] bytes, by way of the device. `bytes`: of the whole operation, for the error.
    fn reduce<T: Copy>(
        &mut self,
        operation: &'static str,
        bytes: usize,
        values: &mut [T],
        of: (DataType, Operation),
    ) -> Result<(), EngineError> {
        let size = size_of_val(values);
        assert!(size <= PIECE, "a piece is cut before it travels");
        let Some(communicator) = self.communicator else {
            return Err(self.refused(operation, "the group was left or given up"));
        };
        if size == 0 {
            return Ok(());
        }
        let (driver, nccl) = (Arc::clone(&self.driver), Arc::clone(&self.nccl));
        let Place { context, stream, device, host } = self.place;
        let own = |engine: &NcclEngine, error: LibraryError| engine.refused(operation, &error.to_string());
        // SAFETY: both buffers have PIECE bytes and stay; nothing else uses them before the stream is done, which is waited for
        // below, or the group is given up and they are never touched again. Plain numbers are copied as bytes.
        let on_stream = unsafe {
            driver.enter(context).map_err(|e| own(self, e))?;
            std::ptr::copy_nonoverlapping(values.as_ptr().cast::<u8>(), host, size);
            driver.copy_to(device, host, size, stream).map_err(|e| own(self, e))?;
            nccl.all_reduce(communicator, device, values.len(), of, stream).map_err(|e| own(self, e))?
        };
        if !on_stream {
            let settled = self.until(operation, bytes, |engine| engine.nccl.is_settled(communicator));
            settled.inspect_err(|_| self.give_up())?;
        }
        // SAFETY: as above.
        unsafe { driver.copy_from(host, device, size, stream) }.map_err(|e| own(self, e))?;
        let done = self.until(operation, bytes, |engine| {
            // What is done is done, whatever became of the others since.
            // SAFETY: the stream is of this engine's place.
            let done = unsafe { engine.driver.is_done(stream) }?;
            if !done {
                engine.nccl.is_settled(communicator)?; // for its error
            }
            Ok(done)
        });
        done.inspect_err(|_| self.give_up())?;
        // SAFETY: as above; the stream is done.
        unsafe { std::ptr::copy_nonoverlapping(host, values.as_mut_ptr().cast::<u8>(), size) };
        Ok(())
    }

    /// Waits for `done` with an eye on the deadline and on peers that gave up.
    fn until(
        &self,
        operation: &'static str,
        bytes: usize,
        done: impl Fn(&NcclEngine) -> Result<bool, LibraryError>,
    ) -> Result<(), EngineError> {
        let begun = Instant::now();
        let mut looked = Duration::ZERO;
        for turn in 0u64.. {
            match done(self) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => return Err(self.cause(operation, &error)),
            }
            meeting::rest(turn);
            let waited = begun.elapsed();
            if waited >= looked + LOOK {
                looked = waited;
                self.give_up_if_hopeless(operation, bytes, waited)?;
            }
        }
        unreachable!("the loop ends by a return")
    }

    /// An error when a peer gave up or the deadline has passed.
    fn give_up_if_hopeless(&self, operation: &'static str, bytes: usize, waited: Duration) -> Result<(), EngineError> {
        if let Some(error) = self.peer_gave_up(operation) {
            return Err(error);
        }
        if waited < self.deadline {
            return Ok(());
        }
        let (rank, sequence) = (self.rank, self.sequence);
        let Missing { ranks: missing, seen } = self.peers.missing(sequence);
        Err(EngineError::Deadline { rank, operation, sequence, bytes, waited_s: waited.as_secs(), missing, seen })
    }

    fn peer_gave_up(&self, operation: &'static str) -> Option<EngineError> {
        let (rank, sequence) = (self.rank, self.sequence);
        let aborted = self.peers.aborted().filter(|a| a.rank != rank)?;
        let (peer, reason, code) = (aborted.rank, aborted.reason, aborted.code);
        Some(EngineError::Peer { rank, operation, sequence, peer, reason, code })
    }

    /// An asynchronous error is mostly the echo of a peer that is gone: the store may know whose.
    fn cause(&self, operation: &'static str, error: &LibraryError) -> EngineError {
        self.peer_gave_up(operation).unwrap_or_else(|| self.refused(operation, &error.to_string()))
    }

    fn refused(&self, operation: &'static str, message: &str) -> EngineError {
        let (rank, sequence, message) = (self.rank, self.sequence, message.to_owned());
        EngineError::Library { rank, operation, sequence, library: LIBRARY, message }
    }

    /// Ends the group from this side. The kernel that waits for the others is taken off the device; that may hang, so a thread
    /// does it that is left behind.
    fn give_up(&mut self) {
        if let Some(communicator) = self.communicator.take() {
            let nccl = Arc::clone(&self.nccl);
            let aborting = std::thread::Builder::new().name("nccl abort".to_owned());
            let _ = aborting.spawn(move || nccl.abort(communicator)); // without a thread the end of the process does it
        }
    }

    fn sum_all<T: Copy>(
        &mut self,
        operation: &'static str,
        kind: Kind,
        data: &mut [T],
        of: DataType,
    ) -> Result<(), EngineError> {
        self.meet(operation, kind, data.len())?;
        let bytes = size_of_val(data);
        data.chunks_mut(PIECE / size_of::<T>())
            .try_for_each(|chunk| self.reduce(operation, bytes, chunk, (of, Operation::Sum)))
    }
}

impl Engine for NcclEngine {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn all_reduce_i64(&mut self, operation: &'static str, data: &mut Vec<i64>) -> Result<(), EngineError> {
        self.sum_all(operation, Kind::SumI64, data, DataType::I64)
    }

    fn all_reduce_converted(
        &mut self,
        operation: &'static str,
        words: &mut Vec<i64>,
        tail: usize,
        convert: Convert<'_>,
        out: &mut [f32],
    ) -> Result<(), EngineError> {
        let n = out.len();
        assert_eq!(n + tail, words.len(), "words are values, then the tail");
        self.sum_all(operation, Kind::SumI64, words, DataType::I64)?;
        convert(0, &words[..n], out);
        Ok(())
    }

    fn all_reduce_f32(&mut self, operation: &'static str, data: &mut Vec<f32>) -> Result<(), EngineError> {
        self.sum_all(operation, Kind::SumF32, data, DataType::F32)
    }

    fn barrier(&mut self, operation: &'static str) -> Result<(), EngineError> {
        self.meet(operation, Kind::Barrier, 0)
    }

    /// The store carries it: see [`Peers::abort`].
    fn abort(&mut self, _: &str, _: u8) {
        self.give_up();
    }

    fn waited(&self) -> Duration {
        self.waited
    }

    fn leave(&mut self) {
        let Some(communicator) = self.communicator.take() else { return };
        let nccl = Arc::clone(&self.nccl);
        let goodbye = move || {
            if let Err(error) = nccl.leave(communicator) {
                tracing::warn!("{error}; everything was saved before");
            }
        };
        if farewell::say(LIBRARY, FAREWELL, goodbye) == Farewell::Unanswered {
            tracing::warn!("rank {}: NCCL did not let go within {} s: left without", self.rank, FAREWELL.as_secs());
        }
        let Place { context, device, host, .. } = self.place;
        // SAFETY: the group is left, nothing runs on the stream any more, and no use follows a goodbye.
        let freed = unsafe {
            self.driver
                .enter(context)
                .and_then(|()| self.driver.free(device))
                .and_then(|()| self.driver.free_host(host))
        };
        if let Err(error) = freed {
            tracing::warn!("{error}");
        }
    }
}

impl Drop for NcclEngine {
    /// A rank that leaves by an error must not wait for the others: its side of the group is ended from a thread of its own.
    fn drop(&mut self) {
        self.give_up();
    }
}
