//! The data side of a run: a split with its order, and the threads that bring prepared batches ahead of use.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use syncytia_shards::loader::{Loader, Slot};
use syncytia_shards::order::{Order, OrderConfig, RowRef, Window};
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;

use super::config::TrainConfig;
use super::error::TrainError;
use super::step::LaneBatch;
use crate::task::completion::GeneMeans;
use crate::task::{DrawsAt, Prepared, Task};

/// Batches that wait ahead of the step that uses them, per rank.
const AHEAD: usize = 2;

/// The training split in order.
#[derive(Debug)]
pub struct TrainData {
    loader: Loader,
    order: Order,
    means: GeneMeans,
}

/// The validation split: every record once, in record-id order.
#[derive(Debug)]
pub struct ValData {
    loader: Loader,
    rows: Vec<RowRef>,
    means: GeneMeans,
}

impl TrainData {
    /// Opens the training split; decodes it when it is one window.
    pub fn open(shards: &Arc<Shards>, config: &TrainConfig, task: &Task) -> Result<Self, TrainError> {
        let loader = open(shards, Split::Train, config, task)?;
        let window = if loader.holds_all() {
            Window::Whole { by_record_id: by_record_id(&loader)? }
        } else {
            Window::RowGroups(config.data.window_row_groups)
        };
        let (seed, lanes, micro_batch) = (config.train.seed, config.train.lanes, config.train.micro_batch);
        let sizes = shards.row_groups(Split::Train).iter().map(|g| g.n_own).collect();
        let order = Order::new(OrderConfig { seed, lanes, micro_batch, window }, sizes)
            .map_err(|source| TrainError::Order { split: "train", source })?;
        let means = means(&loader, shards.row_groups(Split::Train).len(), task, None)?;
        Ok(Self { loader, order, means })
    }

    /// The order of its records.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// Lane `lane`'s prepared batch of `global_step`.
    pub fn batch(
        &self,
        task: &Task,
        config: &TrainConfig,
        global_step: u64,
        lane: usize,
    ) -> Result<LaneBatch, TrainError> {
        let rows = self.order.ids(global_step, lane);
        let slots = self.loader.batch(rows.iter().map(|r| (r.row_group, r.row)))?;
        let at = DrawsAt::Step { global_step, first_slot: lane * config.train.micro_batch };
        Ok(LaneBatch { lane, batch: task.prepare(&slots, at, &self.means) })
    }

    /// Starts a thread that prepares `lanes`' batches of steps `from..to`, a few ahead.
    pub fn feed<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        task: &'env Task,
        config: &'env TrainConfig,
        lanes: Vec<usize>,
        steps: std::ops::Range<u64>,
    ) -> Receiver<Result<Vec<LaneBatch>, TrainError>> {
        let (sender, receiver) = sync_channel(AHEAD);
        scope.spawn(move || self.produce(&sender, task, config, &lanes, steps));
        receiver
    }

    fn produce(
        &self,
        sender: &SyncSender<Result<Vec<LaneBatch>, TrainError>>,
        task: &Task,
        config: &TrainConfig,
        lanes: &[usize],
        steps: std::ops::Range<u64>,
    ) {
        for step in steps {
            let batches = lanes.iter().map(|&lane| self.batch(task, config, step, lane)).collect();
            // The receiver is gone when the rank stopped: nothing is lost, the order is a number.
            if sender.send(batches).is_err() {
                return;
            }
        }
    }
}

impl ValData {
    /// Opens the validation split, if the shards have one.
    pub fn open(shards: &Arc<Shards>, config: &TrainConfig, task: &Task) -> Result<Option<Self>, TrainError> {
        let groups = shards.row_groups(Split::Val).len();
        if groups == 0 {
            return Ok(None);
        }
        let loader = open(shards, Split::Val, config, task)?;
        let rows = by_record_id(&loader)?;
        let means = means(&loader, groups, task, Some(task.validation_assay(0)))?;
        Ok(Some(Self { loader, rows, means }))
    }

    /// Number of batches of `micro_batch`, the last one short.
    pub fn n_batches(&self, micro_batch: usize) -> usize {
        self.rows.len().div_ceil(micro_batch)
    }

    /// Batch `index` under `assay`'s mask.
    pub fn batch(&self, task: &Task, micro_batch: usize, index: usize, assay: u32) -> Result<Prepared, TrainError> {
        let rows = &self.rows[index * micro_batch..self.rows.len().min((index + 1) * micro_batch)];
        let slots = self.loader.batch(rows.iter().map(|r| (r.row_group, r.row)))?;
        Ok(task.prepare(&slots, DrawsAt::Assay(assay), &self.means))
    }
}

fn open(shards: &Arc<Shards>, split: Split, config: &TrainConfig, task: &Task) -> Result<Loader, TrainError> {
    Ok(Loader::new(Arc::clone(shards), split, task.columns(), config.data.window_bytes)?)
}

fn by_record_id(loader: &Loader) -> Result<Vec<RowRef>, TrainError> {
    let mut rows: Vec<(u64, RowRef)> = Vec::new();
    for (row_group, ids) in loader.record_ids()?.into_iter().enumerate() {
        let place = |(row, id)| (id, RowRef { row_group: row_group as u32, row: row as u32 });
        rows.extend(ids.into_iter().enumerate().map(place));
    }
    rows.sort_unstable_by_key(|r| r.0);
    Ok(rows.into_iter().map(|r| r.1).collect())
}

/// One pass over a split, a row group at a time, in stored order.
fn means(loader: &Loader, row_groups: usize, task: &Task, assay: Option<u32>) -> Result<GeneMeans, TrainError> {
    let mut failed = None;
    let slots = (0..row_groups as u32).map_while(|k| match loader.row_group(k) {
        Ok(group) => Some(group),
        Err(error) => {
            failed = Some(error);
            None
        }
    });
    let means = task.gene_means(
        slots.flat_map(|group| (0..group.n_own).map(move |row| Slot { group: Arc::clone(&group), row })),
        assay,
    );
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(means),
    }
}
