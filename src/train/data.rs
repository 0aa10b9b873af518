//! The data side of a run: a split with its order, and the threads that bring prepared batches ahead of use.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use syncytia_shards::order::{Order, OrderConfig, RowRef};
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::vectors::Vectors;

use super::config::TrainConfig;
use super::error::TrainError;
use super::source::Source;
use super::step::LaneBatch;
use crate::task::completion::GeneMeans;
use crate::task::{DrawsAt, Prepared, Task};

/// Batches that wait ahead of the step that uses them, per rank.
const AHEAD: usize = 2;

/// The training split in order.
#[derive(Debug)]
pub struct TrainData {
    source: Source,
    order: Order,
    means: GeneMeans,
}

/// The validation split: every record once, by id.
#[derive(Debug)]
pub struct ValData {
    source: Source,
    rows: Vec<RowRef>,
    means: GeneMeans,
}

impl TrainData {
    /// Opens the training split; decodes it when it is one window. `vectors`: those that the task reads.
    pub fn open(
        shards: &Arc<Shards>,
        vectors: &[Arc<Vectors>],
        config: &TrainConfig,
        task: &Task,
    ) -> Result<Self, TrainError> {
        Self::of(Source::open(shards, vectors, Split::Train, config, task)?, config, task)
    }

    /// The records of `source`.
    pub fn of(source: Source, config: &TrainConfig, task: &Task) -> Result<Self, TrainError> {
        let window = source.window(config)?;
        let (seed, lanes, micro_batch) = (config.train.seed, config.train.lanes, config.train.micro_batch);
        let order = Order::new(OrderConfig { seed, lanes, micro_batch, window }, source.sizes())
            .map_err(|source| TrainError::Order { split: "train", source })?;
        let means = source.means(task, None)?;
        Ok(Self { source, order, means })
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
        let records = self.source.records(&self.order.ids(global_step, lane))?;
        let at = DrawsAt::Step { global_step, first_slot: lane * config.train.micro_batch };
        Ok(LaneBatch { lane, batch: task.prepare(&records, at, &self.means) })
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
    pub fn open(
        shards: &Arc<Shards>,
        vectors: &[Arc<Vectors>],
        config: &TrainConfig,
        task: &Task,
    ) -> Result<Option<Self>, TrainError> {
        if shards.row_groups(Split::Val).is_empty() {
            return Ok(None);
        }
        Self::of(Source::open(shards, vectors, Split::Val, config, task)?, task)
    }

    /// The records of `source`, if it has any.
    pub fn of(source: Source, task: &Task) -> Result<Option<Self>, TrainError> {
        let rows = source.by_id()?;
        let means = source.means(task, Some(task.validation_assay(0)))?;
        Ok((!rows.is_empty()).then_some(Self { source, rows, means }))
    }

    /// Number of batches of `micro_batch`, the last one short.
    pub fn n_batches(&self, micro_batch: usize) -> usize {
        self.rows.len().div_ceil(micro_batch)
    }

    /// Batch `index` under `assay`'s mask.
    pub fn batch(&self, task: &Task, micro_batch: usize, index: usize, assay: u32) -> Result<Prepared, TrainError> {
        let rows = &self.rows[index * micro_batch..self.rows.len().min((index + 1) * micro_batch)];
        Ok(task.prepare(&self.source.records(rows)?, DrawsAt::Assay(assay), &self.means))
    }
}
