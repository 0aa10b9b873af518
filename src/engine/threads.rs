//! Ranks as threads of one process: shared memory, nothing to install.
//!
//! An all-reduce has two phases: every rank deposits its buffer; when all have arrived each sums its own segment over
//! the deposits; when all have summed, each gathers the segments. Waits are bounded by a deadline.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::{Convert, Engine, EngineError, PANICKED};
use crate::elementwise::bf16;

/// Values summed and converted at a time: what stays in the first cache.
const BLOCK: usize = 2048;

/// One thread-rank's handle.
#[derive(Debug)]
pub struct ThreadsEngine {
    rank: usize,
    sequence: u64,
    waited: Duration,
    group: Arc<Group>,
}

#[derive(Debug)]
struct Group {
    world_size: usize,
    deadline: Duration,
    state: Mutex<State>,
    arrived: Condvar,
    /// Each rank's contribution, then its segment of the sum.
    slots: Vec<RwLock<Deposit>>,
}

#[derive(Debug, Default)]
struct State {
    /// How many phases each rank has entered.
    phase: Vec<u64>,
    /// What each rank issued last, to name a mismatch.
    issued: Vec<(&'static str, usize)>,
    /// First rank that gave up, and why.
    aborted: Option<(usize, String, u8)>,
}

#[derive(Debug, Default)]
struct Deposit {
    i64s: Lot<i64>,
    f32s: Lot<f32>,
    bf16s: Lot<u16>,
}

/// Values of a rank.
#[derive(Debug, Default)]
struct Lot<T> {
    /// Its whole contribution.
    whole: Arc<Vec<T>>,
    /// Its segment of the sum.
    segment: Vec<T>,
}

/// What is summed, each kind in its own place and way.
trait Summed: Copy {
    fn lot(deposit: &Deposit) -> &Lot<Self>;
    fn lot_mut(deposit: &mut Deposit) -> &mut Lot<Self>;
    /// The sum of the ranks' parts, in rank order.
    fn sum(parts: &[&[Self]]) -> Vec<Self>;
}

impl Summed for i64 {
    fn lot(deposit: &Deposit) -> &Lot<i64> {
        &deposit.i64s
    }

    fn lot_mut(deposit: &mut Deposit) -> &mut Lot<i64> {
        &mut deposit.i64s
    }

    fn sum(parts: &[&[i64]]) -> Vec<i64> {
        let mut sum = parts[0].to_vec();
        for part in &parts[1..] {
            sum.iter_mut().zip(*part).for_each(|(s, &v)| *s = s.wrapping_add(v));
        }
        sum
    }
}

impl Summed for f32 {
    fn lot(deposit: &Deposit) -> &Lot<f32> {
        &deposit.f32s
    }

    fn lot_mut(deposit: &mut Deposit) -> &mut Lot<f32> {
        &mut deposit.f32s
    }

    fn sum(parts: &[&[f32]]) -> Vec<f32> {
        let mut sum = parts[0].to_vec();
        for part in &parts[1..] {
            sum.iter_mut().zip(*part).for_each(|(s, &v)| *s += v);
        }
        sum
    }
}

/// bf16 by its bits.
impl Summed for u16 {
    fn lot(deposit: &Deposit) -> &Lot<u16> {
        &deposit.bf16s
    }

    fn lot_mut(deposit: &mut Deposit) -> &mut Lot<u16> {
        &mut deposit.bf16s
    }

    fn sum(parts: &[&[u16]]) -> Vec<u16> {
        bf16::sum(parts)
    }
}

impl ThreadsEngine {
    /// Handles for ranks `0..world_size`; every wait ends after `deadline`.
    pub fn group(world_size: usize, deadline: Duration) -> Vec<ThreadsEngine> {
        assert!(world_size > 0, "a group has at least one rank");
        let state = State { phase: vec![0; world_size], issued: vec![("", 0); world_size], aborted: None };
        let group = Arc::new(Group {
            world_size,
            deadline,
            state: Mutex::new(state),
            arrived: Condvar::new(),
            slots: (0..world_size).map(|_| RwLock::default()).collect(),
        });
        (0..world_size)
            .map(|rank| ThreadsEngine { rank, sequence: 0, waited: Duration::ZERO, group: Arc::clone(&group) })
            .collect()
    }

    /// Waits until every rank has entered as many phases as this one, checking that all issue the same operation.
    fn meet(&mut self, operation: &'static str, length: usize, bytes: usize) -> Result<(), EngineError> {
        let group = &self.group;
        let mut state = lock(&group.state);
        state.phase[self.rank] += 1;
        state.issued[self.rank] = (operation, length);
        let mine = state.phase[self.rank];
        group.arrived.notify_all();
        let start = Instant::now();
        loop {
            // A peer one phase ahead has met us already and overwritten what it issued: compare equals only.
            for (peer, (&phase, &(theirs, n))) in state.phase.iter().zip(&state.issued).enumerate() {
                if phase == mine && (theirs, n) != (operation, length) {
                    return Err(EngineError::Mismatch {
                        rank: self.rank,
                        operation,
                        length,
                        sequence: self.sequence,
                        peer,
                        peer_operation: theirs.to_owned(),
                        peer_length: n,
                    });
                }
            }
            if state.phase.iter().all(|&p| p >= mine) {
                self.waited += start.elapsed();
                return Ok(());
            }
            if let Some((peer, reason, code)) = state.aborted.clone() {
                return Err(EngineError::Peer {
                    rank: self.rank,
                    operation,
                    sequence: self.sequence,
                    peer,
                    reason,
                    code,
                });
            }
            let waited = start.elapsed();
            if waited >= group.deadline {
                let missing = (0..group.world_size).filter(|&r| state.phase[r] < mine).collect();
                return Err(EngineError::Deadline {
                    rank: self.rank,
                    operation,
                    sequence: self.sequence,
                    bytes,
                    waited_s: waited.as_secs(),
                    missing,
                    seen: vec![],
                });
            }
            let left = group.deadline - waited;
            state = group.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn all_reduce<T: Summed>(&mut self, operation: &'static str, data: &mut Vec<T>) -> Result<(), EngineError> {
        self.sequence += 1;
        let (n, w, bytes) = (data.len(), self.group.world_size, size_of_val(&data[..]));
        if w == 1 {
            return Ok(());
        }
        T::lot_mut(&mut write(&self.group.slots[self.rank])).whole = Arc::new(std::mem::take(data));
        self.meet(operation, n, bytes)?;
        let mine = self.segment(n, self.rank);
        let parts: Vec<Arc<Vec<T>>> = self.group.slots.iter().map(|s| Arc::clone(&T::lot(&read(s)).whole)).collect();
        let sum = T::sum(&parts.iter().map(|part| &part[mine.clone()]).collect::<Vec<_>>());
        drop(parts);
        T::lot_mut(&mut write(&self.group.slots[self.rank])).segment = sum;
        self.meet(operation, n, bytes)?;
        let own = std::mem::take(&mut T::lot_mut(&mut write(&self.group.slots[self.rank])).whole);
        *data = Arc::try_unwrap(own).unwrap_or_else(|shared| shared.to_vec());
        for (rank, slot) in self.group.slots.iter().enumerate() {
            data[self.segment(n, rank)].copy_from_slice(&T::lot(&read(slot)).segment);
        }
        // Nobody may overwrite a segment before all have gathered it.
        self.meet(operation, n, bytes)
    }

    fn segment(&self, length: usize, rank: usize) -> std::ops::Range<usize> {
        let w = self.group.world_size;
        rank * length / w..(rank + 1) * length / w
    }
}

impl Engine for ThreadsEngine {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.group.world_size
    }

    fn all_reduce_i64(&mut self, operation: &'static str, data: &mut Vec<i64>) -> Result<(), EngineError> {
        self.all_reduce(operation, data)
    }

    fn all_reduce_converted(
        &mut self,
        operation: &'static str,
        words: &mut Vec<i64>,
        tail: usize,
        convert: Convert<'_>,
        out: &mut [f32],
    ) -> Result<(), EngineError> {
        self.sequence += 1;
        let (n, w) = (out.len(), self.group.world_size);
        assert_eq!(n + tail, words.len(), "words are values, then the tail");
        if w == 1 {
            convert(0, &words[..n], out);
            return Ok(());
        }
        let (length, bytes) = (words.len(), words.len() * 8);
        write(&self.group.slots[self.rank]).i64s.whole = Arc::new(std::mem::take(words));
        self.meet(operation, length, bytes)?;
        let parts: Vec<Arc<Vec<i64>>> = self.group.slots.iter().map(|s| Arc::clone(&read(s).i64s.whole)).collect();
        let mine = self.segment(n, self.rank);
        let mut sums = [0i64; BLOCK];
        for first in mine.clone().step_by(BLOCK) {
            let block = first..mine.end.min(first + BLOCK);
            let sums = &mut sums[..block.len()];
            sum_into(sums, &parts, block.clone());
            convert(first, sums, &mut out[block]);
        }
        let mut tail_sums = vec![0; tail];
        sum_into(&mut tail_sums, &parts, n..length);
        drop(parts);
        {
            let mut slot = write(&self.group.slots[self.rank]);
            slot.f32s.segment.clear();
            slot.f32s.segment.extend_from_slice(&out[mine]);
        }
        self.meet(operation, length, bytes)?;
        for (rank, slot) in self.group.slots.iter().enumerate().filter(|(rank, _)| *rank != self.rank) {
            out[self.segment(n, rank)].copy_from_slice(&read(slot).f32s.segment);
        }
        let own = std::mem::take(&mut write(&self.group.slots[self.rank]).i64s.whole);
        *words = Arc::try_unwrap(own).unwrap_or_else(|shared| shared.to_vec());
        words[n..].copy_from_slice(&tail_sums);
        // Nobody may overwrite a segment before all have gathered it.
        self.meet(operation, length, bytes)
    }

    fn all_reduce_f32(&mut self, operation: &'static str, data: &mut Vec<f32>) -> Result<(), EngineError> {
        self.all_reduce(operation, data)
    }

    fn all_reduce_bf16(&mut self, operation: &'static str, data: &mut Vec<u16>) -> Result<(), EngineError> {
        self.all_reduce(operation, data)
    }

    fn barrier(&mut self, operation: &'static str) -> Result<(), EngineError> {
        self.sequence += 1;
        self.meet(operation, 0, 0)
    }

    fn abort(&mut self, reason: &str, code: u8) {
        let mut state = lock(&self.group.state);
        if state.aborted.is_none() {
            state.aborted = Some((self.rank, reason.to_owned(), code));
        }
        self.group.arrived.notify_all();
    }

    fn waited(&self) -> Duration {
        self.waited
    }
}

impl Drop for ThreadsEngine {
    /// A rank that leaves by panic or error must not leave the others waiting; one that leaves in order is not missed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abort("its thread panicked", PANICKED);
        }
    }
}

/// The wrapping sum of every rank's `range`.
fn sum_into(sums: &mut [i64], parts: &[Arc<Vec<i64>>], range: std::ops::Range<usize>) {
    sums.copy_from_slice(&parts[0][range.clone()]);
    for part in &parts[1..] {
        for (sum, &value) in sums.iter_mut().zip(&part[range.clone()]) {
            *sum = sum.wrapping_add(value);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
