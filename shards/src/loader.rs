//! Brings the records that the order names: decoded row groups, kept within a bound of memory.
//!
//! A split that fits `window_bytes` is decoded once, when opened, in parallel; otherwise the row groups used last are
//! kept. What a batch holds never depends on which of the two it was. Knows no order, rank or model.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use crate::error::StoreError;
use crate::processed::Split;
use crate::reader::Shards;
use crate::row_group::{Columns, RowGroup};

/// One record of a batch: a row of a decoded row group, which also holds its neighbours.
#[derive(Debug, Clone)]
pub struct Slot {
    /// The row group.
    pub group: Arc<RowGroup>,
    /// An own row of it.
    pub row: usize,
}

impl Slot {
    /// Id of the record.
    pub fn record_id(&self) -> u64 {
        self.group.record_ids[self.row]
    }
}

/// The records of one split, on demand; share it between threads.
#[derive(Debug)]
pub struct Loader {
    shards: Arc<Shards>,
    split: Split,
    columns: Columns,
    window_bytes: u64,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    /// The whole split.
    All(Vec<Arc<RowGroup>>),
    /// Those used last, most recent first.
    Recent(Mutex<VecDeque<(u32, Arc<RowGroup>)>>),
}

impl Loader {
    /// Opens a split; decodes all of it if its `decoded_bytes` (with every column, whatever `columns` asks for) are at
    /// most `window_bytes`, by the same sum that decides the order.
    ///
    /// # Errors
    /// As [`Shards::read_row_group`].
    pub fn new(shards: Arc<Shards>, split: Split, columns: Columns, window_bytes: u64) -> Result<Loader, StoreError> {
        let kept = if shards.manifest().decoded_bytes(split) <= window_bytes {
            let decode = |entry| shards.read_row_group(entry, &columns).map(Arc::new);
            Kept::All(shards.row_groups(split).par_iter().map(decode).collect::<Result<_, _>>()?)
        } else {
            Kept::Recent(Mutex::new(VecDeque::new()))
        };
        Ok(Loader { shards, split, columns, window_bytes, kept })
    }

    /// Whether the whole split is in memory.
    pub fn holds_all(&self) -> bool {
        matches!(self.kept, Kept::All(_))
    }

    /// The folder it reads.
    pub fn shards(&self) -> &Shards {
        &self.shards
    }

    /// Record ids of the own records of every row group, in stored order; without reading again where all is in memory.
    ///
    /// # Errors
    /// As [`Shards::record_ids`].
    pub fn record_ids(&self) -> Result<Vec<Vec<u64>>, StoreError> {
        match &self.kept {
            Kept::All(groups) => Ok(groups.iter().map(|g| g.record_ids[..g.n_own].to_vec()).collect()),
            Kept::Recent(_) => self.shards.record_ids(self.split),
        }
    }

    /// The records at (row group of the split, own row), in that order: one lane's batch.
    ///
    /// # Errors
    /// [`StoreError::NoRecord`]; as [`Shards::read_row_group`].
    pub fn batch(&self, records: impl IntoIterator<Item = (u32, u32)>) -> Result<Vec<Slot>, StoreError> {
        let mut at_hand: Vec<(u32, Arc<RowGroup>)> = Vec::new(); // a lane's batch touches few row groups
        let mut slots = Vec::new();
        for (row_group, row) in records {
            let known = at_hand.iter().find(|(k, _)| *k == row_group).map(|(_, group)| group.clone());
            let group = match known {
                Some(group) => group,
                None => {
                    let group = self.row_group(row_group)?;
                    at_hand.push((row_group, group.clone()));
                    group
                }
            };
            if row as usize >= group.n_own {
                return Err(self.no_record(row_group, row));
            }
            slots.push(Slot { group, row: row as usize });
        }
        Ok(slots)
    }

    /// A decoded row group of the split.
    ///
    /// # Errors
    /// As [`Loader::batch`].
    pub fn row_group(&self, row_group: u32) -> Result<Arc<RowGroup>, StoreError> {
        let entries = self.shards.row_groups(self.split);
        let Some(entry) = entries.get(row_group as usize) else { return Err(self.no_record(row_group, 0)) };
        let recent = match &self.kept {
            Kept::All(groups) => return Ok(groups[row_group as usize].clone()),
            Kept::Recent(recent) => recent,
        };
        let take = |recent: &mut VecDeque<(u32, Arc<RowGroup>)>| {
            let at = recent.iter().position(|(k, _)| *k == row_group)?;
            let found = recent.remove(at)?;
            recent.push_front(found.clone());
            Some(found.1)
        };
        if let Some(group) = take(&mut recent.lock().expect("no reader panics while it holds the window")) {
            return Ok(group);
        }
        // Decoded outside of the lock: other lanes go on meanwhile; two may decode the same row group, one is kept.
        let group = Arc::new(self.shards.read_row_group(entry, &self.columns)?);
        let mut recent = recent.lock().expect("no reader panics while it holds the window");
        if let Some(group) = take(&mut recent) {
            return Ok(group);
        }
        recent.push_front((row_group, group.clone()));
        let (mut n_kept, mut used) = (0, 0);
        for (k, _) in recent.iter() {
            used += entries[*k as usize].decoded_bytes;
            if used > self.window_bytes {
                break;
            }
            n_kept += 1;
        }
        recent.truncate(n_kept);
        Ok(group)
    }

    fn no_record(&self, row_group: u32, row: u32) -> StoreError {
        StoreError::NoRecord { split: self.split.as_str(), row_group, row }
    }
}
