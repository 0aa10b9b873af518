//! Which record a lane reads at a step: computed, not remembered (`docs/step.md` §2).
//!
//! `ids(global_step, lane)` is pure; resuming restores a number. Knows no file and no rank: row groups are lengths.

use std::sync::{Arc, Mutex, PoisonError};

use crate::draw::{Purpose, ShuffleStream};

/// A record by place: row group of the split, row among the group's own records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowRef {
    /// Index into the split's list of row groups.
    pub row_group: u32,
    /// Row among its own (not halo) records.
    pub row: u32,
}

/// What fixes the order.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderConfig {
    /// Seed of the run.
    pub seed: u64,
    /// Micro-batches of a step.
    pub lanes: usize,
    /// Records of a micro-batch.
    pub micro_batch: usize,
    /// How far records are mixed.
    pub window: Window,
}

/// How far records are mixed.
#[derive(Debug, Clone, PartialEq)]
pub enum Window {
    /// The split is one window: all records, sorted by record id, in one permutation per epoch.
    Whole {
        /// Every record of the split, sorted by record id.
        by_record_id: Vec<RowRef>,
    },
    /// Windows of this many row groups.
    RowGroups(usize),
}

/// A split that cannot be ordered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Fewer records than one step consumes.
    #[error(
        "the split has {records} records, one step consumes {global_batch} ({lanes} lanes × {micro_batch}): \
         lower train.lanes or train.micro_batch"
    )]
    TooFew {
        /// Records of the split.
        records: usize,
        /// lanes × micro_batch.
        global_batch: usize,
        /// Lanes.
        lanes: usize,
        /// Records of a micro-batch.
        micro_batch: usize,
    },
}

/// The order of a split.
#[derive(Debug)]
pub struct Order {
    config: OrderConfig,
    /// Own records of each row group.
    row_groups: Vec<u32>,
    n_records: usize,
    /// The permutation last used (epoch, or window of a lane): a cache, never a state.
    cached: Mutex<Vec<(Key, Arc<Vec<u32>>)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Epoch(u64),
    Groups(u64),
    Window { epoch: u64, lane: usize, window: usize },
}

impl Order {
    /// `row_groups`: number of own records of each row group of the split.
    pub fn new(config: OrderConfig, row_groups: Vec<u32>) -> Result<Self, OrderError> {
        assert!(config.lanes > 0 && config.micro_batch > 0, "lanes and micro_batch are checked to be positive");
        let n_records = row_groups.iter().map(|&n| n as usize).sum();
        let global_batch = config.lanes * config.micro_batch;
        if n_records < global_batch {
            let (lanes, micro_batch) = (config.lanes, config.micro_batch);
            return Err(OrderError::TooFew { records: n_records, global_batch, lanes, micro_batch });
        }
        if let Window::Whole { by_record_id } = &config.window {
            assert_eq!(by_record_id.len(), n_records, "a whole window lists every record once");
        }
        Ok(Self { config, row_groups, n_records, cached: Mutex::new(Vec::new()) })
    }

    /// Records of the split.
    pub fn n_records(&self) -> usize {
        self.n_records
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        (self.span_len_min() / self.config.micro_batch) as u64
    }

    /// Records an epoch leaves out, others each time.
    pub fn left_out_per_epoch(&self) -> usize {
        self.n_records - self.steps_per_epoch() as usize * self.config.lanes * self.config.micro_batch
    }

    /// The records lane `lane` reads at `global_step`, in slot order.
    pub fn ids(&self, global_step: u64, lane: usize) -> Vec<RowRef> {
        assert!(lane < self.config.lanes, "lane {lane} of {}", self.config.lanes);
        let (epoch, step) = (global_step / self.steps_per_epoch(), global_step % self.steps_per_epoch());
        let (lanes, b) = (self.config.lanes, self.config.micro_batch);
        match &self.config.window {
            Window::Whole { by_record_id } => {
                let permutation = self.cached(Key::Epoch(epoch));
                let first = step as usize * lanes * b + lane * b;
                permutation[first..first + b].iter().map(|&i| by_record_id[i as usize]).collect()
            }
            Window::RowGroups(per_window) => {
                let first = step as usize * b;
                (first..first + b).map(|offset| self.windowed(epoch, lane, *per_window, offset)).collect()
            }
        }
    }

    /// ⌊lN/lanes⌋..⌊(l+1)N/lanes⌋ of the epoch's concatenated row groups.
    fn span(&self, lane: usize) -> std::ops::Range<usize> {
        let (n, lanes) = (self.n_records, self.config.lanes);
        lane * n / lanes..(lane + 1) * n / lanes
    }

    /// ⌊N / lanes⌋: the shortest span, and for a whole window ⌊N / (lanes·b)⌋·b rounds to the same steps.
    fn span_len_min(&self) -> usize {
        self.n_records / self.config.lanes
    }

    /// First position of each permuted row group in the concatenation, and the end.
    fn starts(&self, groups: &[u32]) -> Vec<usize> {
        let mut starts = vec![0];
        for &g in groups {
            starts.push(starts[starts.len() - 1] + self.row_groups[g as usize] as usize);
        }
        starts
    }

    /// The record at `offset` of a lane's span: its window holds the span's part of `per_window` consecutive groups.
    fn windowed(&self, epoch: u64, lane: usize, per_window: usize, offset: usize) -> RowRef {
        let groups = self.cached(Key::Groups(epoch));
        let starts = self.starts(&groups);
        let span = self.span(lane);
        let position = span.start + offset;
        let first_group = starts.partition_point(|&s| s <= span.start) - 1;
        let group = starts.partition_point(|&s| s <= position) - 1;
        let window = (group - first_group) / per_window;
        let from = starts[first_group + window * per_window].max(span.start);
        let to = starts[(first_group + (window + 1) * per_window).min(groups.len())].min(span.end);
        let permutation = self.cached_of(Key::Window { epoch, lane, window }, to - from);
        let at = from + permutation[position - from] as usize;
        let group = starts.partition_point(|&s| s <= at) - 1;
        RowRef { row_group: groups[group], row: (at - starts[group]) as u32 }
    }

    fn cached(&self, key: Key) -> Arc<Vec<u32>> {
        let n = match key {
            Key::Groups(_) => self.row_groups.len(),
            _ => self.n_records,
        };
        self.cached_of(key, n)
    }

    fn cached_of(&self, key: Key, n: usize) -> Arc<Vec<u32>> {
        let mut cache = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = cache.iter().position(|(k, _)| *k == key) {
            return Arc::clone(&cache[found].1);
        }
        let seed = self.config.seed;
        let mut stream = match key {
            // The two kinds of epoch shuffles differ by a word, so that a window change is another order.
            Key::Epoch(epoch) => ShuffleStream::new(seed, Purpose::ShuffleEpoch, &[epoch]),
            Key::Groups(epoch) => ShuffleStream::new(seed, Purpose::ShuffleEpoch, &[epoch, 1]),
            Key::Window { epoch, lane, window } => {
                ShuffleStream::new(seed, Purpose::ShuffleWindow, &[epoch, lane as u64, window as u64])
            }
        };
        let permutation = Arc::new(stream.permutation(n));
        // Every lane's current window, the epoch and the next one: small, and bounded.
        if cache.len() > 2 * self.config.lanes + 4 {
            cache.remove(0);
        }
        cache.push((key, Arc::clone(&permutation)));
        permutation
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn whole(row_groups: &[u32], lanes: usize, micro_batch: usize) -> Result<Order, OrderError> {
        let by_record_id = row_groups
            .iter()
            .enumerate()
            .flat_map(|(g, &n)| (0..n).map(move |row| RowRef { row_group: g as u32, row }))
            .collect();
        let window = Window::Whole { by_record_id };
        Order::new(OrderConfig { seed: 3, lanes, micro_batch, window }, row_groups.to_vec())
    }

    fn windowed(row_groups: &[u32], lanes: usize, micro_batch: usize, per_window: usize) -> Result<Order, OrderError> {
        let window = Window::RowGroups(per_window);
        Order::new(OrderConfig { seed: 3, lanes, micro_batch, window }, row_groups.to_vec())
    }

    fn epoch(order: &Order, lanes: usize, epoch: u64) -> Vec<RowRef> {
        let steps = order.steps_per_epoch();
        (0..steps).flat_map(|s| (0..lanes).flat_map(move |l| order.ids(epoch * steps + s, l))).collect()
    }

    #[test]
    fn a_split_smaller_than_a_global_batch_is_refused_with_the_numbers() {
        let error = whole(&[10, 5], 4, 4).unwrap_err();
        assert_eq!(error, OrderError::TooFew { records: 15, global_batch: 16, lanes: 4, micro_batch: 4 });
    }

    #[test]
    fn epochs_differ_and_leave_other_records_out() {
        let order = whole(&[20, 13], 2, 5).unwrap();
        assert_eq!((order.steps_per_epoch(), order.left_out_per_epoch()), (3, 3));
        let (a, b) = (epoch(&order, 2, 0), epoch(&order, 2, 1));
        assert_ne!(a, b);
        assert_ne!(a.iter().collect::<BTreeSet<_>>(), b.iter().collect::<BTreeSet<_>>());
    }

    /// Golden: a change here breaks every checkpoint (`docs/step.md` §2).
    #[test]
    fn ids_of_a_toy_manifest_are_those_of_the_definition() {
        let order = whole(&[5, 4], 2, 2).unwrap();
        let first: Vec<(u32, u32)> = (0..3)
            .flat_map(|s| (0..2).flat_map(|l| order.ids(s, l)).collect::<Vec<_>>())
            .map(|r| (r.row_group, r.row))
            .collect();
        assert_eq!(first, GOLDEN_WHOLE, "the order of records changed");
    }

    const GOLDEN_WHOLE: [(u32, u32); 12] =
        [(1, 3), (0, 3), (0, 1), (1, 1), (0, 0), (0, 4), (0, 2), (1, 2), (1, 0), (0, 3), (1, 1), (0, 1)];

    proptest! {
        #[test]
        fn an_epoch_reads_no_record_twice_and_a_query_does_not_depend_on_others(
            sizes in proptest::collection::vec(1u32..40, 1..12), lanes in 1usize..5, b in 1usize..5, per in 1usize..5,
        ) {
            for order in [whole(&sizes, lanes, b), windowed(&sizes, lanes, b, per)].into_iter().flatten() {
                let all = epoch(&order, lanes, 1);
                let distinct: BTreeSet<_> = all.iter().collect();
                prop_assert_eq!(distinct.len(), all.len());
                prop_assert_eq!(all.len() + order.left_out_per_epoch(), order.n_records());
                prop_assert!(all.iter().all(|r| r.row < sizes[r.row_group as usize]));
                // A fresh order asked only for the last step gives the same ids.
                let last = 2 * order.steps_per_epoch() - 1;
                let fresh = Order::new(order.config.clone(), sizes.clone()).unwrap();
                prop_assert_eq!(fresh.ids(last, lanes - 1), order.ids(last, lanes - 1));
            }
        }
    }
}
