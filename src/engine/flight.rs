//! The flight record: the last operations of a rank with their times, kept in memory and written when something goes
//! wrong. Knows no file.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// Operations kept.
const KEPT: usize = 256;

/// One operation of a rank.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Operation {
    /// How many operations this rank had issued, this one included.
    pub sequence: u64,
    /// What.
    pub operation: &'static str,
    /// Bytes of its contribution.
    pub bytes: usize,
    /// Seconds from the start of the group to its entry.
    pub entered_s: f64,
    /// How long it took, seconds; none while it runs.
    pub took_s: Option<f64>,
}

/// A rank's record, shared between the rank and its watchdog.
#[derive(Debug)]
pub struct Flight {
    rank: usize,
    world_size: usize,
    began: Instant,
    began_unix_s: f64,
    operations: Mutex<VecDeque<Operation>>,
}

/// The record as it is written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlightRecord {
    /// The rank.
    pub rank: usize,
    /// Ranks in the group.
    pub world_size: usize,
    /// When the group began, by this host's clock, in seconds since 1970.
    pub began_unix_s: f64,
    /// Seconds from then to this record.
    pub written_s: f64,
    /// Why it was written.
    pub reason: String,
    /// The last operations, oldest first.
    pub operations: Vec<Operation>,
}

impl Flight {
    /// An empty record.
    pub fn new(rank: usize, world_size: usize) -> Flight {
        let began_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64());
        let operations = Mutex::new(VecDeque::with_capacity(KEPT));
        Flight { rank, world_size, began: Instant::now(), began_unix_s, operations }
    }

    /// Whose record it is.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// An operation begins; gives its sequence number, counted from 1.
    pub fn enter(&self, operation: &'static str, bytes: usize) -> u64 {
        let mut operations = self.lock();
        let sequence = operations.back().map_or(0, |o| o.sequence) + 1;
        if operations.len() == KEPT {
            operations.pop_front();
        }
        let entered_s = self.began.elapsed().as_secs_f64();
        operations.push_back(Operation { sequence, operation, bytes, entered_s, took_s: None });
        sequence
    }

    /// The operation entered last has ended.
    pub fn leave(&self) {
        let now = self.began.elapsed().as_secs_f64();
        if let Some(last) = self.lock().back_mut() {
            last.took_s = Some(now - last.entered_s);
        }
    }

    /// The operation that runs, and for how long.
    pub fn running(&self) -> Option<(Operation, Duration)> {
        let operation = self.lock().back().filter(|o| o.took_s.is_none()).cloned()?;
        let since = self.began.elapsed().as_secs_f64() - operation.entered_s;
        Some((operation, Duration::from_secs_f64(since.max(0.0))))
    }

    /// The record as it stands.
    pub fn record(&self, reason: &str) -> FlightRecord {
        FlightRecord {
            rank: self.rank,
            world_size: self.world_size,
            began_unix_s: self.began_unix_s,
            written_s: self.began.elapsed().as_secs_f64(),
            reason: reason.to_owned(),
            operations: self.lock().iter().cloned().collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Operation>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_operations_are_kept_in_order_and_the_running_one_is_known() {
        let flight = Flight::new(1, 3);
        assert_eq!(flight.running(), None);
        for k in 0..300 {
            assert_eq!(flight.enter("gradients", k), k as u64 + 1);
            assert_eq!(flight.running().unwrap().0.bytes, k);
            flight.leave();
        }
        flight.enter("validation", 8);
        let record = flight.record("a test");
        assert_eq!((record.operations.len(), record.rank, record.world_size), (KEPT, 1, 3));
        assert_eq!(record.operations[0].sequence, 301 - KEPT as u64 + 1);
        assert!(record.operations[..KEPT - 1].iter().all(|o| o.took_s.is_some()));
        assert_eq!(record.operations[KEPT - 1].took_s, None);
    }
}
