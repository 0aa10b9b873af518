//! Ranks as processes, joined by the system's MPI through the crate `mpi` (feature `mpi`; Open MPI, MPICH).
//!
//! Every operation begins with a *meeting*: a non-blocking reduction of six words in which all see whether they issue the
//! same operation with the same length, and in which a rank that does not come is found before the deadline. Only then do
//! the data move, in blocking calls of a few MiB (an `MPI_Iallreduce` does not progress by itself in either library, so
//! nothing is gained by it); a rank that is lost in the middle of those is the watchdog's matter.
//!
//! Must not know what is summed. Calls come from one thread at a time (`MPI_THREAD_SERIALIZED`).

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mpi::environment::{self, Threading, Universe};
use mpi::ffi;

use super::farewell::{self, Farewell};
use super::meeting::{self, Kind};
use super::peers::{NoNews, Peers};
use super::waiting::Waiting;
use super::{Convert, Engine, EngineError};
use crate::elementwise::bf16;

/// Bytes that travel at a time: stays in the cache between the sum and what is made of it, and below the size at which both
/// libraries begin to allocate anew for every call. 256 KiB is slower, 4 MiB now better and now worse (benches/COMM.md).
const PIECE: usize = 1 << 20;
/// How long `MPI_Finalize` may take: a matter of milliseconds after a barrier.
const FAREWELL: Duration = Duration::from_secs(15);
/// `MPI_IN_PLACE`, which the crate lacks: an address that is none. It belongs to the header's family, as the type of a
/// handle does: pointers in Open MPI and in the standard's own ABI, numbers in MPICH and what descends from it.
const IN_PLACE: usize = if size_of::<ffi::MPI_Comm>() == size_of::<*const c_void>() { 1 } else { usize::MAX };
/// Names of the two libraries in [`EngineError::Library`].
const LIBRARY: &str = "MPI";

/// This process's handle.
pub struct MpiEngine {
    universe: Option<Universe>,
    comm: Comm,
    rank: usize,
    world_size: usize,
    sequence: u64,
    deadline: Duration,
    waited: Duration,
    peers: Arc<dyn Peers>,
}

/// A communicator's handle: a pointer in Open MPI, a number in MPICH.
#[derive(Clone, Copy)]
struct Comm(ffi::MPI_Comm);

// SAFETY: the handle names a communicator of the process, not of a thread; the library is initialised for calls from any
// one thread at a time, and an engine is used through `&mut`.
unsafe impl Send for Comm {}

impl MpiEngine {
    /// Joins the processes that one launcher started. Once per process.
    ///
    /// # Errors
    /// [`EngineError::Join`] when the library refuses or was built without threads.
    pub fn join(deadline: Duration) -> Result<MpiEngine, EngineError> {
        let (universe, threading) = environment::initialize_with_threading(Threading::Multiple)
            .ok_or_else(|| EngineError::Join("MPI was initialised before in this process".into()))?;
        if threading < Threading::Serialized {
            let provided = format!("{threading:?}");
            std::mem::forget(universe);
            return Err(EngineError::Join(format!(
                "the MPI library gives thread level {provided}, and a communication thread needs Serialized: use a build of \
                 the library with thread support"
            )));
        }
        // SAFETY: the library is initialised; the constants are the library's own; the pointers are to locals.
        let (comm, rank, world_size) = unsafe {
            let comm = ffi::RSMPI_COMM_WORLD;
            ffi::MPI_Comm_set_errhandler(comm, ffi::RSMPI_ERRORS_RETURN);
            let (mut rank, mut world_size): (c_int, c_int) = (0, 0);
            ffi::MPI_Comm_rank(comm, &mut rank);
            ffi::MPI_Comm_size(comm, &mut world_size);
            (Comm(comm), rank as usize, world_size as usize)
        };
        Ok(MpiEngine {
            universe: Some(universe),
            comm,
            rank,
            world_size,
            sequence: 0,
            deadline,
            waited: Duration::ZERO,
            peers: Arc::new(NoNews),
        })
    }

    /// From now on waits ask `peers` who is missing, and end when one gave up. Operations are counted from here on, as `peers`
    /// counts them: all ranks call this after the same ones.
    pub fn with_peers(mut self, peers: Arc<dyn Peers>) -> Self {
        self.peers = peers;
        self.sequence = 0;
        self
    }

    /// The library's own description, first line: `Open MPI v4.1.4, …`, `MPICH Version: 4.0.2`.
    pub fn library() -> String {
        let version = environment::library_version().unwrap_or_default();
        version.lines().next().unwrap_or_default().trim_end_matches('\0').trim().to_owned()
    }

    /// Returns when every rank issues this operation.
    fn meet(&mut self, operation: &'static str, kind: Kind, length: usize) -> Result<(), EngineError> {
        self.sequence += 1;
        if self.world_size == 1 {
            return Ok(());
        }
        let begun = Instant::now();
        let words = meeting::words(self.sequence, operation, kind, length);
        let mine = Box::new(meeting::both_ways(words));
        let all = self.wait_for_all(operation, kind.bytes(length), mine)?;
        self.waited += begun.elapsed();
        if meeting::all_alike(&all) {
            return Ok(());
        }
        Err(self.mismatch(operation, length, words))
    }

    /// The maximum over ranks, with an eye on the deadline and on peers that give up.
    fn wait_for_all(
        &self,
        operation: &'static str,
        bytes: usize,
        mine: Box<[i64; 6]>,
    ) -> Result<[i64; 6], EngineError> {
        // The library may write here until the operation ends: on the way out by an error both are left to it for ever.
        let mine = Box::into_raw(mine);
        let all = Box::into_raw(Box::new([0i64; 6]));
        // SAFETY: both buffers live until the request has completed, or for ever; the handles are the library's.
        unsafe {
            let mut request = ffi::RSMPI_REQUEST_NULL;
            let (send, receive) = (mine.cast::<c_void>(), all.cast::<c_void>());
            let (of_type, sum) = (ffi::RSMPI_INT64_T, ffi::RSMPI_MAX);
            let code = ffi::MPI_Iallreduce(send, receive, 6, of_type, sum, self.comm.0, &mut request);
            self.check(operation, code)?;
            let waiting = Waiting {
                rank: self.rank,
                operation,
                sequence: self.sequence,
                bytes,
                deadline: self.deadline,
                peers: &*self.peers,
            };
            waiting.until(|| {
                let mut done: c_int = 0;
                let code = ffi::MPI_Test(&mut request, &mut done, ffi::RSMPI_STATUS_IGNORE);
                self.check(operation, code).map(|()| done != 0)
            })?;
            drop(Box::from_raw(mine));
            Ok(*Box::from_raw(all))
        }
    }

    /// Who does something else: all are in this call, because all saw the same words.
    fn mismatch(&self, operation: &'static str, length: usize, words: [i64; 3]) -> EngineError {
        const NAME: usize = 64;
        let mut mine = [0u8; NAME + 24];
        for (k, word) in words.iter().enumerate() {
            mine[8 * k..8 * k + 8].copy_from_slice(&word.to_le_bytes());
        }
        let name = &operation.as_bytes()[..operation.len().min(NAME)];
        mine[24..24 + name.len()].copy_from_slice(name);
        let mut all = vec![0u8; mine.len() * self.world_size];
        let (count, of_type) = (mine.len() as c_int, self.bytes_type());
        // SAFETY: `all` has room for every rank's bytes; both buffers outlive the blocking call.
        let code = unsafe {
            let (send, receive) = (mine.as_ptr().cast(), all.as_mut_ptr().cast());
            ffi::MPI_Allgather(send, count, of_type, receive, count, of_type, self.comm.0)
        };
        if let Err(error) = self.check(operation, code) {
            return error;
        }
        let differs = all.chunks(mine.len()).enumerate().find(|(_, theirs)| **theirs != mine);
        let (peer, theirs) = differs.expect("the meeting found a difference");
        let word = |k: usize| i64::from_le_bytes(theirs[8 * k..8 * k + 8].try_into().expect("eight bytes"));
        let name = String::from_utf8_lossy(&theirs[24..]).trim_end_matches('\0').to_owned();
        EngineError::Mismatch {
            rank: self.rank,
            operation,
            length,
            sequence: self.sequence,
            peer,
            peer_operation: name,
            peer_length: meeting::length_of(&[word(0), word(1), word(2)]),
        }
    }

    fn bytes_type(&self) -> ffi::MPI_Datatype {
        // SAFETY: a constant of the initialised library.
        unsafe { ffi::RSMPI_UINT8_T }
    }

    /// The wrapping sums of `values` over ranks, in their place: up to twice as fast as beside it (benches/COMM.md).
    fn sum_i64(&self, operation: &'static str, values: &mut [i64]) -> Result<(), EngineError> {
        // SAFETY: constants of the initialised library.
        let of_type = unsafe { ffi::RSMPI_INT64_T };
        self.sum(operation, values.as_mut_ptr().cast(), values.len(), of_type)
    }

    fn sum_f32(&self, operation: &'static str, values: &mut [f32]) -> Result<(), EngineError> {
        // SAFETY: as above.
        let of_type = unsafe { ffi::RSMPI_FLOAT };
        self.sum(operation, values.as_mut_ptr().cast(), values.len(), of_type)
    }

    /// `values`: `length` values of this type, at most [`PIECE`].
    fn sum(
        &self,
        operation: &'static str,
        values: *mut c_void,
        length: usize,
        of_type: ffi::MPI_Datatype,
    ) -> Result<(), EngineError> {
        let in_place = std::ptr::without_provenance(IN_PLACE);
        // SAFETY: the callers' slices outlive the blocking call.
        let code =
            unsafe { ffi::MPI_Allreduce(in_place, values, length as c_int, of_type, ffi::RSMPI_SUM, self.comm.0) };
        self.check(operation, code)
    }

    /// The sums of at most [`PIECE`] bytes of bf16, which the library has no type for: each rank gets all ranks' values of its
    /// segment, adds them, and sends the segment back; the same bytes in all as a sum by segments.
    fn sum_bf16(&self, operation: &'static str, values: &mut [u16]) -> Result<(), EngineError> {
        let (n, w) = (values.len(), self.world_size);
        let starts: Vec<c_int> = (0..=w).map(|rank| (rank * n / w) as c_int).collect();
        let lengths: Vec<c_int> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mine = lengths[self.rank] as usize;
        let (mut theirs, of_mine) = (vec![0u16; mine * w], vec![mine as c_int; w]);
        let at: Vec<c_int> = (0..w).map(|rank| (rank * mine) as c_int).collect();
        // SAFETY: `values` has a segment for every rank, `theirs` one of this rank's length from each; the call blocks.
        let code = unsafe {
            let (of_type, to) = (ffi::RSMPI_UINT16_T, theirs.as_mut_ptr().cast());
            let from = values.as_ptr().cast();
            let (lengths, starts) = (lengths.as_ptr(), starts.as_ptr());
            ffi::MPI_Alltoallv(from, lengths, starts, of_type, to, of_mine.as_ptr(), at.as_ptr(), of_type, self.comm.0)
        };
        self.check(operation, code)?;
        let parts: Vec<&[u16]> = (0..w).map(|rank| &theirs[rank * mine..][..mine]).collect();
        let segment = bf16::sum(&parts);
        // SAFETY: a segment to send, room for those of all; the call blocks.
        let code = unsafe {
            let (of_type, to) = (ffi::RSMPI_UINT16_T, values.as_mut_ptr().cast());
            let (from, count) = (segment.as_ptr().cast(), mine as c_int);
            ffi::MPI_Allgatherv(from, count, of_type, to, lengths.as_ptr(), starts.as_ptr(), of_type, self.comm.0)
        };
        self.check(operation, code)
    }

    fn check(&self, operation: &'static str, code: c_int) -> Result<(), EngineError> {
        if code == 0 {
            return Ok(());
        }
        let mut text = vec![0u8; 4096];
        let mut length: c_int = 0;
        // SAFETY: the buffer is longer than MPI_MAX_ERROR_STRING of both libraries (256 and 512).
        unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast(), &mut length) };
        text.truncate(length.max(0) as usize);
        let message = String::from_utf8_lossy(&text).into_owned();
        let (rank, sequence) = (self.rank, self.sequence);
        Err(EngineError::Library { rank, operation, sequence, library: LIBRARY, message })
    }
}

impl Engine for MpiEngine {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn all_reduce_i64(&mut self, operation: &'static str, data: &mut Vec<i64>) -> Result<(), EngineError> {
        self.meet(operation, Kind::SumI64, data.len())?;
        if self.world_size == 1 {
            return Ok(());
        }
        data.chunks_mut(PIECE / 8).try_for_each(|chunk| self.sum_i64(operation, chunk))
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
        self.meet(operation, Kind::SumI64, words.len())?;
        if self.world_size == 1 {
            convert(0, &words[..n], out);
            return Ok(());
        }
        for (k, sums) in words.chunks_mut(PIECE / 8).enumerate() {
            let first = k * (PIECE / 8);
            self.sum_i64(operation, sums)?;
            let values = n.saturating_sub(first).min(sums.len());
            if values > 0 {
                convert(first, &sums[..values], &mut out[first..first + values]);
            }
        }
        Ok(())
    }

    fn all_reduce_f32(&mut self, operation: &'static str, data: &mut Vec<f32>) -> Result<(), EngineError> {
        self.meet(operation, Kind::SumF32, data.len())?;
        if self.world_size == 1 {
            return Ok(());
        }
        data.chunks_mut(PIECE / 4).try_for_each(|chunk| self.sum_f32(operation, chunk))
    }

    fn all_reduce_bf16(&mut self, operation: &'static str, data: &mut Vec<u16>) -> Result<(), EngineError> {
        self.meet(operation, Kind::SumBf16, data.len())?;
        if self.world_size == 1 {
            return Ok(());
        }
        data.chunks_mut(PIECE / 2).try_for_each(|chunk| self.sum_bf16(operation, chunk))
    }

    fn barrier(&mut self, operation: &'static str) -> Result<(), EngineError> {
        self.meet(operation, Kind::Barrier, 0)
    }

    /// The store carries it: see [`Peers::abort`].
    fn abort(&mut self, _: &str, _: u8) {}

    fn overlaps(&self) -> bool {
        self.world_size > 1
    }

    fn waited(&self) -> Duration {
        self.waited
    }

    fn leave(&mut self) {
        if let Some(universe) = self.universe.take() {
            let library = environment::library_version().unwrap_or_default();
            if farewell::say(&library, FAREWELL, move || drop(universe)) == Farewell::Unanswered {
                let (rank, library, waited) = (self.rank, MpiEngine::library(), FAREWELL.as_secs());
                tracing::warn!("rank {rank}: MPI_Finalize of {library} did not return within {waited} s: left without");
            }
        }
    }
}

impl Drop for MpiEngine {
    /// A rank that leaves by an error must not wait for the others in `MPI_Finalize`: its process ends without, and the
    /// launcher ends the rest.
    fn drop(&mut self) {
        if let Some(universe) = self.universe.take() {
            std::mem::forget(universe);
        }
    }
}
