//! Ranks as processes with a GPU each, joined by NCCL.
//!
//! What lies on the device is summed there, where it lies ([`Engine::all_reduce_there`]), on a stream of this engine's own, which the
//! host waits for. What lies on the host (the tail, digests, state kept on the host) goes to the device in pieces and comes back.
//! Every operation begins with a *meeting*, as with MPI: a maximum over a few words in which all see whether they issue the same
//! operation with the same length.
//! NCCL has no time limit of its own, so nothing here waits without looking at the deadline, at the communicator's
//! asynchronous error and at peers that gave up; a call that does not return at all is the watchdog's matter.
//!
//! **Beside backward** (`train.overlap = true`). Backward's thread adds gradients where they are and asks the device for an event
//! behind each bucket (`tensor::flat::lend`); a thread of its own waits for that event, meets the others and sums the bucket here,
//! while backward's goes on launching and the device computing (`train::there`). One bucket at a time, in one order on all ranks:
//! a sum begins when the one before it has ended everywhere, so that no rank's kernels wait for a sum that waits for another's. With
//! the state on the host (`train.keep = "host"`) gradients are read one by one as they become complete, and the device runs dry for
//! a launch or two each time. Off unless it is asked for: what it gains nobody has measured.
//!
//! Must not know what is summed. Calls come from one thread at a time.

mod by_host;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::farewell::{self, Farewell};
use super::meeting::{self, Kind};
use super::peers::{NoNews, Peers};
use super::waiting::Waiting;
use super::{Convert, Engine, EngineError, HalvesThere, Sum};
use crate::gpu::driver::{Address, Driver, Handle};
use crate::gpu::nccl::{Communicator, DataType, Nccl, Operation, UniqueId};
use crate::gpu::{LibraryError, Version};

/// Bytes that travel at a time: the size of the buffers on both sides.
const PIECE: usize = 32 << 20;
/// bf16 that travel at a time: a half of the device's buffer.
const HALVES: usize = PIECE / 2 / 2;
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

    /// Waits until what was `begun` is on the stream, puts `fetch` behind it, and waits until the stream is done.
    fn settle(
        &mut self,
        operation: &'static str,
        bytes: usize,
        communicator: Communicator,
        begun: Result<bool, LibraryError>,
        fetch: impl FnOnce() -> Result<(), LibraryError>,
    ) -> Result<(), EngineError> {
        let on_stream = begun.map_err(|error| self.refused(operation, &error.to_string()))?;
        if !on_stream {
            let settled = self.until(operation, bytes, |engine| engine.nccl.is_settled(communicator));
            settled.inspect_err(|_| self.give_up())?;
        }
        fetch().map_err(|error| self.refused(operation, &error.to_string()))?;
        let stream = self.place.stream;
        let done = self.until(operation, bytes, |engine| {
            // What is done is done, whatever became of the others since.
            // SAFETY: the stream is of this engine's place.
            let done = unsafe { engine.driver.is_done(stream) }?;
            if !done {
                engine.nccl.is_settled(communicator)?; // for its error
            }
            Ok(done)
        });
        done.inspect_err(|_| self.give_up())
    }

    /// Waits for `done` with an eye on the deadline and on peers that gave up.
    fn until(
        &self,
        operation: &'static str,
        bytes: usize,
        done: impl Fn(&NcclEngine) -> Result<bool, LibraryError>,
    ) -> Result<(), EngineError> {
        let waiting = Waiting {
            rank: self.rank,
            operation,
            sequence: self.sequence,
            bytes,
            deadline: self.deadline,
            peers: &*self.peers,
        };
        // An asynchronous error is mostly the echo of a peer that is gone: the store may know whose.
        let cause =
            |error: LibraryError| waiting.peer_gave_up().unwrap_or_else(|| self.refused(operation, &error.to_string()));
        waiting.until(|| done(self).map_err(cause))
    }

    /// Begins what works in the device's memory and waits until it is done, or gives the group up.
    fn there(
        &mut self,
        operation: &'static str,
        bytes: usize,
        begin: impl FnOnce(&Nccl, Communicator, Handle) -> Result<bool, LibraryError>,
    ) -> Result<(), EngineError> {
        let Some(communicator) = self.communicator else {
            return Err(self.refused(operation, "the group was left or given up"));
        };
        let Place { context, stream, .. } = self.place;
        // SAFETY: the context is of this engine's place.
        let begun = unsafe { self.driver.enter(context) }.and_then(|()| begin(&self.nccl, communicator, stream));
        self.settle(operation, bytes, communicator, begun, || Ok(()))
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

    fn sum_all<T: Copy>(&mut self, operation: &'static str, data: &mut [T], of: Sum) -> Result<(), EngineError> {
        let (kind, data_type) = named(of);
        self.meet(operation, kind, data.len())?;
        let bytes = size_of_val(data);
        data.chunks_mut(PIECE / size_of::<T>())
            .try_for_each(|chunk| self.reduce(operation, bytes, chunk, (data_type, Operation::Sum)))
    }
}

/// What ranks and NCCL call it.
fn named(of: Sum) -> (Kind, DataType) {
    match of {
        Sum::I64 => (Kind::SumI64, DataType::I64),
        Sum::F32 => (Kind::SumF32, DataType::F32),
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
        self.sum_all(operation, data, Sum::I64)
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
        self.sum_all(operation, words, Sum::I64)?;
        convert(0, &words[..n], out);
        Ok(())
    }

    fn all_reduce_f32(&mut self, operation: &'static str, data: &mut Vec<f32>) -> Result<(), EngineError> {
        self.sum_all(operation, data, Sum::F32)
    }

    fn all_reduce_bf16(&mut self, operation: &'static str, data: &mut Vec<u16>) -> Result<(), EngineError> {
        self.meet(operation, Kind::SumBf16, data.len())?;
        let (bytes, whole) = (2 * data.len(), HALVES / self.world_size * self.world_size);
        data.chunks_mut(whole).try_for_each(|chunk| self.sum_bf16(operation, bytes, chunk))
    }

    fn sums_there(&self) -> bool {
        true
    }

    unsafe fn all_reduce_there(
        &mut self,
        operation: &'static str,
        address: u64,
        length: usize,
        of: Sum,
    ) -> Result<(), EngineError> {
        let (kind, data_type) = named(of);
        self.meet(operation, kind, length)?;
        self.there(operation, of.bytes() * length, |nccl, communicator, stream| {
            // SAFETY: the caller's word on the memory.
            unsafe { nccl.all_reduce(communicator, address, length, (data_type, Operation::Sum), stream) }
        })
    }

    unsafe fn all_reduce_bf16_there(
        &mut self,
        operation: &'static str,
        at: HalvesThere,
        add: &mut dyn FnMut() -> Result<(), String>,
    ) -> Result<(), EngineError> {
        let HalvesThere { values, received, sum, segment } = at;
        let (w, rank) = (self.world_size, self.rank);
        let bytes = 2 * segment * w;
        self.meet(operation, Kind::SumBf16, segment * w)?;
        self.there(operation, bytes, |nccl, communicator, stream| {
            // SAFETY: the caller's word on the memory.
            unsafe { nccl.exchange(communicator, (values, received), (w, segment), DataType::Bf16, stream) }
        })?;
        add().map_err(|message| EngineError::Memory { rank, operation, message })?;
        self.there(operation, bytes, |nccl, communicator, stream| {
            // SAFETY: as above.
            unsafe { nccl.all_gather(communicator, (sum, values), segment, DataType::Bf16, stream) }
        })
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
            return; // what it still does may keep the driver from freeing anything, and nobody watches any more
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
