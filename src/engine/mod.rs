//! What sums over ranks: a closed set of engines behind one trait. Knows no model.
//!
//! Operations are issued by every rank in the same order with the same lengths; a wrong order or length, a lost peer
//! or an expired deadline is an error naming rank, operation and sequence number, never a hang. What no engine can do by
//! itself, because a call into a library does not return, the [`watchdog`] does.

pub mod buckets;
pub mod farewell;
pub mod flight;
pub mod meeting;
pub mod messages;
#[cfg(feature = "mpi")]
pub mod mpi;
pub mod nccl;
pub mod peers;
pub mod reduce;
pub mod tail;
pub mod threads;
pub mod waiting;
pub mod watchdog;

pub use threads::ThreadsEngine;

/// The engines of this build that join processes.
pub const FOR_PROCESSES: &[&str] = match (cfg!(feature = "mpi"), cfg!(feature = "cuda")) {
    (true, true) => &["mpi", "nccl"],
    (true, false) => &["mpi"],
    (false, true) => &["nccl"],
    (false, false) => &[],
};

use std::time::Duration;

/// The code a process ends with when one of its threads panicked: Rust's own.
const PANICKED: u8 = 101;

/// How sums of a segment become f32: (place of the first value, sums, out).
pub type Convert<'a> = &'a dyn Fn(usize, &[i64], &mut [f32]);

/// What is summed in a device's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// 64-bit integers, wrapping.
    I64,
    /// f32.
    F32,
}

impl Sum {
    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Sum::I64 => 8,
            Sum::F32 => 4,
        }
    }
}

/// Where a sum of bf16 in a device's memory lies: addresses, and what they hold.
#[derive(Debug, Clone, Copy)]
pub struct HalvesThere {
    /// This rank's values, a segment for every rank; the sums of all of them in the end.
    pub values: u64,
    /// As long: what the ranks have for this one's segment, in their order.
    pub received: u64,
    /// A segment: the sum of those.
    pub sum: u64,
    /// Values of a segment.
    pub segment: usize,
}

/// One rank's handle on the group.
pub trait Engine: Send {
    /// This rank.
    fn rank(&self) -> usize;
    /// Number of ranks.
    fn world_size(&self) -> usize;
    /// Replaces `data` by the wrapping sum over ranks: associative, so the same bits in any order.
    fn all_reduce_i64(&mut self, operation: &'static str, data: &mut Vec<i64>) -> Result<(), EngineError>;
    /// Sums `words` over ranks, wrapping. Its last `tail` words come back as sums; of those before, every rank gets what
    /// `convert` makes of them in `out` (its length), each segment summed and converted by one rank and sent back as
    /// f32, which is half the bytes. `convert` gets the place of its first value, the sums and where they go.
    fn all_reduce_converted(
        &mut self,
        operation: &'static str,
        words: &mut Vec<i64>,
        tail: usize,
        convert: Convert<'_>,
        out: &mut [f32],
    ) -> Result<(), EngineError>;
    /// Replaces `data` by the sum over ranks, the same on every rank (`reduction = "fast"`: a tolerance, not a promise of
    /// bits).
    fn all_reduce_f32(&mut self, operation: &'static str, data: &mut Vec<f32>) -> Result<(), EngineError>;
    /// Replaces `data`, bf16 by their bits, by the sum over ranks as [`crate::elementwise::bf16`] defines it: the same on every rank and from every
    /// engine for one number of ranks (`reduction = "fast_bf16"`).
    fn all_reduce_bf16(&mut self, operation: &'static str, data: &mut Vec<u16>) -> Result<(), EngineError>;
    /// Whether [`Engine::all_reduce_there`] is this engine's.
    fn sums_there(&self) -> bool {
        false
    }
    /// Replaces `length` values in the memory of this rank's device by their sum over ranks, where they lie.
    ///
    /// # Safety
    /// Engines that say [`Engine::sums_there`] alone. The memory must be this rank's device's, `length` values of that kind that
    /// nobody else reads or writes until this returns, and all that was asked of the device for them must be done.
    unsafe fn all_reduce_there(
        &mut self,
        operation: &'static str,
        address: u64,
        length: usize,
        of: Sum,
    ) -> Result<(), EngineError> {
        let _ = (operation, address, length, of);
        unreachable!("asked of engines that sum in a device's memory")
    }
    /// Replaces bf16 in the memory of this rank's device by their sum over ranks as [`crate::elementwise::bf16`] defines it. Each rank gets
    /// the ranks' values of its own segment; `add` makes their sum, and returns when the device is done with it; all get all segments.
    ///
    /// # Safety
    /// As [`Engine::all_reduce_there`], of all three places.
    unsafe fn all_reduce_bf16_there(
        &mut self,
        operation: &'static str,
        at: HalvesThere,
        add: &mut dyn FnMut() -> Result<(), String>,
    ) -> Result<(), EngineError> {
        let _ = (operation, at, add);
        unreachable!("asked of engines that sum in a device's memory")
    }
    /// Returns when every rank has arrived.
    fn barrier(&mut self, operation: &'static str) -> Result<(), EngineError>;
    /// Tells the others that this rank cannot go on, so that none waits for it; `code` is the exit code it ends with.
    fn abort(&mut self, reason: &str, code: u8);
    /// Whether a reduction goes on beside backward, on a thread of its own, unless `train.overlap` says otherwise. Not among
    /// thread-ranks: they have a core each and memory between them. Not over NCCL: see there.
    fn overlaps(&self) -> bool {
        false
    }
    /// How long this rank has waited for others to arrive, in all: what is left of a reduction's time is its own.
    fn waited(&self) -> Duration;
    /// Leaves the group, after a last meeting of all; nothing may follow. An engine that is dropped without it leaves as one
    /// that died. Returns also where a library does not let go: everything is done by then.
    fn leave(&mut self) {}
    /// The last meeting, and then nobody waits for anybody.
    fn finish(&mut self) -> Result<(), EngineError> {
        self.barrier("end of the run")?;
        self.leave();
        Ok(())
    }
}

/// Why a group operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// A peer gave up.
    #[error("rank {rank}: {operation} (operation {sequence}) cannot finish: rank {peer} stopped: {reason}")]
    Peer {
        /// The rank that reports.
        rank: usize,
        /// What it was doing.
        operation: &'static str,
        /// How many operations this rank had issued.
        sequence: u64,
        /// The rank that stopped.
        peer: usize,
        /// Its reason.
        reason: String,
        /// The exit code it ended with.
        code: u8,
    },
    /// Someone did not arrive in time.
    #[error(
        "rank {rank}: {operation} (operation {sequence}, {bytes} bytes) waited {waited_s} s for {}; they are stuck or lost",
        missing_ranks(missing, seen)
    )]
    Deadline {
        /// The rank that reports.
        rank: usize,
        /// What it was doing.
        operation: &'static str,
        /// How many operations this rank had issued.
        sequence: u64,
        /// Bytes of its contribution.
        bytes: usize,
        /// How long it waited, seconds.
        waited_s: u64,
        /// Who had not arrived, as far as it is known.
        missing: Vec<usize>,
        /// What was last heard of them, in words.
        seen: Vec<String>,
    },
    /// Ranks disagree on what they are doing.
    #[error(
        "rank {rank} issues {operation} of {length} elements as operation {sequence}, rank {peer} issues \
         {peer_operation} of {peer_length}: every rank must issue the same operations in the same order"
    )]
    Mismatch {
        /// The rank that reports.
        rank: usize,
        /// What it does.
        operation: &'static str,
        /// How many elements.
        length: usize,
        /// How many operations this rank had issued.
        sequence: u64,
        /// The rank that differs.
        peer: usize,
        /// What that one does.
        peer_operation: String,
        /// How many elements there.
        peer_length: usize,
    },
    /// The library under an engine refused.
    #[error("rank {rank}: {operation} (operation {sequence}): {library} says: {message}")]
    Library {
        /// The rank that reports.
        rank: usize,
        /// What it was doing.
        operation: &'static str,
        /// How many operations this rank had issued.
        sequence: u64,
        /// Which library.
        library: &'static str,
        /// Its words.
        message: String,
    },
    /// The device does not give what is to be summed there.
    #[error("rank {rank}: {operation}: the device: {message}")]
    Memory {
        /// The rank that reports.
        rank: usize,
        /// What it was doing.
        operation: &'static str,
        /// Why, in words.
        message: String,
    },
    /// The group cannot be joined.
    #[error("cannot join the other processes: {0}")]
    Join(String),
}

fn missing_ranks(missing: &[usize], seen: &[String]) -> String {
    match (missing, seen) {
        ([], []) => "another rank (which one is not known: the store of rank 0 does not answer)".to_owned(),
        (missing, []) => format!("ranks {missing:?}"),
        (_, seen) => seen.join("; "),
    }
}
