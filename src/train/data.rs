//! The data side of a run: a split with its order, and the threads that bring prepared batches ahead of use.

use std::ops::Range;
use std::sync::Arc;
use std::thread::Scope;

use syncytia_shards::order::{Order, OrderConfig, RowRef};
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::vectors::Vectors;

use super::config::TrainConfig;
use super::error::TrainError;
use super::feed::Feed;
use super::source::Source;
use super::step::LaneBatch;
use crate::task::completion::GeneMeans;
use crate::task::{DrawsAt, Prepared, Task};
use crate::tensor::Device;

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
        let source = Source::open(shards, vectors, Split::Train, config, task)?;
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

    /// Starts the threads that prepare `lanes`' batches of `steps`, a few ahead: `train.loaders` of them, each every so many
    /// steps. Sent on to `device` as well, if one is given.
    pub fn feed<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        task: &'env Task,
        config: &'env TrainConfig,
        lanes: Vec<usize>,
        steps: Range<u64>,
        device: Option<&'env Device>,
    ) -> Feed {
        let lanes = Arc::new(lanes);
        let batches = move |step: u64| -> Result<Vec<LaneBatch>, TrainError> {
            let mut batches = Vec::with_capacity(lanes.len());
            for &lane in lanes.iter() {
                let mut of_lane = self.batch(task, config, step, lane)?;
                if let Some(device) = device {
                    of_lane.batch.send(device);
                }
                batches.push(of_lane);
            }
            Ok(batches)
        };
        Feed::start(scope, config.train.loaders, steps, batches)
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
        let source = Source::open(shards, vectors, Split::Val, config, task)?;
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
