//! What is asked of a model: batch → prepare → loss. A closed set; `[task] kind` is the choice.
//!
//! `prepare` runs on the host, off the training thread where there is one: gathers, masks, weights of the loss terms.
//! `loss` runs where the tensors are and returns the terms of `docs/step.md` §4. A task knows no rank and no file.

pub mod alignment;
pub mod cells;
pub mod completion;
pub mod config;
pub mod embedding;
pub mod fusion;
pub mod generate;
pub mod imputation;
pub mod inference;
pub mod losses;
pub mod members;
pub mod painting;
pub mod paired;
pub mod perturbation;
pub mod places;
pub mod surroundings;
mod terms;

use syncytia_shards::loader::Slot;
use syncytia_shards::manifest::Manifest;
use syncytia_shards::row_group::{Columns, RowGroup};
use syncytia_shards::tables::vectors::VectorsOf;

use self::alignment::Alignment;
use self::cells::Cells;
use self::completion::{Completion, GeneMeans};
pub use self::config::TaskConfig;
use self::fusion::Fusion;
use self::generate::Generate;
use self::imputation::Imputation;
use self::members::Members;
use self::paired::Paired;
use self::places::PlaceRows;
use self::surroundings::Surroundings;
pub use self::terms::{Across, AcrossLane, Begun, Terms, Unread};
use crate::model::layers::Training;
use crate::model::{Model, ModelConfig};
use crate::tensor::Device;

/// Where a micro-batch's draws are keyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrawsAt {
    /// Training: by (global_step, slot).
    Step {
        /// Batches consumed before this one.
        global_step: u64,
        /// Slot of the micro-batch's first record.
        first_slot: usize,
    },
    /// Validation and assays: by (assay, record id). Validation is assay 0.
    Assay(u32),
}

impl DrawsAt {
    /// The stream of record `i` of the micro-batch: (slot, global_step, 0), or (id low, id high, assay).
    pub fn stream(self, i: usize, record_id: u64) -> [u32; 3] {
        match self {
            DrawsAt::Step { global_step, first_slot } => [(first_slot + i) as u32, global_step as u32, 0],
            DrawsAt::Assay(assay) => [record_id as u32, (record_id >> 32) as u32, assay],
        }
    }
}

/// Records of a micro-batch, in slot order.
#[derive(Debug, Clone)]
pub enum Records<'a> {
    /// Spots or cells.
    Obs(Vec<Slot>),
    /// Cells where they stand.
    Surrounded(Vec<Slot>, &'a Surroundings),
    /// Niches or tissues.
    Places(PlaceRows<'a>),
    /// Spots, by their rows, beside the cells of a reference.
    Paired(&'a Paired, Vec<usize>),
}

/// A task with what it learned of the data.
#[derive(Debug, Clone)]
pub enum Task {
    /// Completion of hidden entries.
    Completion(Completion),
    /// SPATIA's first stage.
    Cells(Cells),
    /// SPATIA's second and third stage.
    Members(Members),
    /// SPATIA's last step.
    Fusion(Fusion),
    /// Pictures from genes.
    Generate(Generate),
    /// SpotDiff's first stage.
    Alignment(Alignment),
    /// SpotDiff's second stage.
    Imputation(Imputation),
}

/// A micro-batch on the host, ready for the device.
#[derive(Debug, Clone)]
pub enum Prepared {
    /// For completion.
    Completion(completion::Prepared),
    /// For SPATIA's first stage.
    Cells(cells::Prepared),
    /// For SPATIA's second and third stage.
    Members(members::Prepared),
    /// For SPATIA's last step.
    Fusion(Box<fusion::Prepared>),
    /// For pictures from genes.
    Generate(generate::Prepared),
    /// For SpotDiff's first stage.
    Alignment(alignment::Prepared),
    /// For SpotDiff's second stage.
    Imputation(Box<imputation::Prepared>),
}

impl Prepared {
    /// W_k of its loss terms.
    pub fn weights(&self) -> &[f64] {
        match self {
            Prepared::Completion(batch) => &batch.weights,
            Prepared::Cells(batch) => &batch.weights,
            Prepared::Members(batch) => &batch.weights,
            Prepared::Fusion(batch) => &batch.weights,
            Prepared::Generate(batch) => &batch.weights,
            Prepared::Alignment(batch) => &batch.weights,
            Prepared::Imputation(batch) => &batch.weights,
        }
    }

    /// Sends what a step reads to `device`, ahead of it; gives how many values. The tensors are the same whenever they are made.
    pub fn send(&mut self, device: &Device) -> usize {
        match self {
            Prepared::Completion(batch) => batch.send(device),
            Prepared::Cells(batch) => batch.send(device),
            Prepared::Members(batch) => batch.send(device),
            Prepared::Fusion(batch) => batch.send(device),
            Prepared::Generate(batch) => batch.send(device),
            Prepared::Alignment(batch) => batch.send(device),
            Prepared::Imputation(batch) => batch.rows.send(device),
        }
    }

    /// Its records, in slot order.
    pub fn ids(&self) -> &[u64] {
        match self {
            Prepared::Completion(batch) => &batch.ids,
            Prepared::Cells(batch) => &batch.ids,
            Prepared::Members(batch) => &batch.seen.ids,
            Prepared::Fusion(batch) => &batch.cells.ids,
            Prepared::Generate(batch) => &batch.ids,
            Prepared::Alignment(batch) => &batch.ids,
            Prepared::Imputation(batch) => &batch.ids,
        }
    }
}

impl Task {
    /// The task of a config, for a model on these shards.
    ///
    /// # Errors
    /// In words: what the shards lack.
    pub fn new(config: &TaskConfig, model: &ModelConfig, manifest: &Manifest, seed: u64) -> Result<Task, String> {
        let of = config.table();
        match (config, model) {
            (TaskConfig::Completion(config), _) => {
                Completion::of_shards(config.clone(), manifest, seed).map(Task::Completion)
            }
            (TaskConfig::Cells(config), ModelConfig::Spatia(model)) => {
                Cells::new(*config, model, manifest, seed).map(Task::Cells)
            }
            (TaskConfig::Niches(config) | TaskConfig::Tissues(config), ModelConfig::Spatia(model)) => {
                Ok(Task::Members(Members::new(*config, of, model, seed)))
            }
            (TaskConfig::Fusion(config), ModelConfig::Spatia(model)) => {
                Fusion::new(*config, model, manifest, seed).map(Task::Fusion)
            }
            (TaskConfig::Generate(config), ModelConfig::Generator(model)) => {
                Generate::new(*config, model, manifest, seed).map(Task::Generate)
            }
            (TaskConfig::Alignment(config), ModelConfig::Spotdiff(_)) => {
                Ok(Task::Alignment(Alignment::new(*config, seed)))
            }
            (TaskConfig::Imputation(config), ModelConfig::Spotdiff(model)) => {
                Imputation::of_shards(*config, model, manifest, seed).map(Task::Imputation)
            }
            (config, _) => Err(config.of_another_model()),
        }
    }

    /// Which table its records are of.
    pub fn table(&self) -> VectorsOf {
        match self {
            Task::Members(task) => task.of(),
            _ => VectorsOf::Obs,
        }
    }

    /// What it reads of records.
    pub fn columns(&self) -> Columns {
        match self {
            Task::Members(_) | Task::Alignment(_) | Task::Imputation(_) => Columns::default(),
            Task::Completion(task) => task.columns(),
            Task::Cells(task) => task.columns(),
            Task::Fusion(task) => task.columns(),
            Task::Generate(task) => task.columns(),
        }
    }

    /// Names of the loss terms, in order.
    pub fn terms(&self) -> &[&'static str] {
        match self {
            Task::Completion(task) => task.terms(),
            Task::Cells(task) => task.terms(),
            Task::Members(task) => task.terms(),
            Task::Fusion(task) => task.terms(),
            Task::Generate(task) => task.terms(),
            Task::Alignment(task) => task.terms(),
            Task::Imputation(task) => task.terms(),
        }
    }

    /// λ_k of the loss terms, in order.
    pub fn lambdas(&self) -> Vec<f64> {
        match self {
            Task::Completion(task) => task.lambdas(),
            Task::Cells(task) => task.lambdas(),
            Task::Members(task) => task.lambdas(),
            Task::Fusion(task) => task.lambdas(),
            Task::Generate(task) => task.lambdas(),
            Task::Alignment(task) => task.lambdas(),
            Task::Imputation(task) => task.lambdas(),
        }
    }

    /// What of these records it cannot read, in words.
    pub fn foreign(&self, group: &RowGroup) -> Option<String> {
        let Task::Cells(task) = self else { return None };
        let (family, label) = task.foreign_label(group)?;
        Some(format!(
            "the label {family} = `{label}` of section {} is none of the classes of model.spatia.gene.families: add it to \
             classes, parents or unknown of the family",
            group.section
        ))
    }

    /// What it learns of a split's records before the first step (`assay`: what that assay leaves visible).
    pub fn gene_means(&self, slots: impl IntoIterator<Item = Slot>, assay: Option<u32>) -> GeneMeans {
        match self {
            Task::Completion(task) => task.gene_means(slots, assay),
            _ => GeneMeans::default(), // nothing: the records are not even read
        }
    }

    /// Gathers, draws and hides on the host.
    pub fn prepare(&self, records: &Records<'_>, at: DrawsAt, means: &GeneMeans) -> Prepared {
        match (self, records) {
            (Task::Completion(task), Records::Obs(slots)) => Prepared::Completion(task.prepare(slots, at, means)),
            (Task::Cells(task), Records::Obs(slots)) => Prepared::Cells(task.prepare(slots, at)),
            (Task::Members(task), Records::Places(rows)) => Prepared::Members(task.prepare(rows, at)),
            (Task::Fusion(task), Records::Surrounded(slots, around)) => {
                Prepared::Fusion(Box::new(task.prepare(slots, Some(around), at)))
            }
            (Task::Fusion(task), Records::Obs(slots)) => Prepared::Fusion(Box::new(task.prepare(slots, None, at))),
            (Task::Generate(task), Records::Obs(slots)) => Prepared::Generate(task.prepare(slots, at)),
            (Task::Alignment(task), Records::Paired(paired, rows)) => {
                Prepared::Alignment(task.prepare(paired, rows, at))
            }
            (Task::Imputation(task), Records::Paired(paired, rows)) => {
                Prepared::Imputation(Box::new(task.prepare(paired, rows, at)))
            }
            _ => unreachable!("{MIXED}"),
        }
    }

    /// Whether it has a term over all lanes, the last of its terms.
    pub fn crosses_lanes(&self) -> bool {
        match self {
            Task::Cells(task) => task.crosses_lanes(),
            _ => false,
        }
    }

    /// A lane's forward as far as the term over all lanes reads it: the same code as in [`Task::loss`], so the same bits.
    pub fn begin(&self, model: &Model, batch: &Prepared, training: &Training, device: &Device) -> Begun {
        match (self, model, batch) {
            (Task::Cells(task), Model::Spatia(model), Prepared::Cells(batch)) => {
                task.begin(model, batch, training, device)
            }
            _ => unreachable!("{MIXED}"),
        }
    }

    /// The term over the vectors of all slots, flat in slot order.
    pub fn across(&self, model: &Model, vectors: &[f32], slots: usize) -> Across {
        match (self, model) {
            (Task::Cells(task), Model::Spatia(model)) => task.across(model, vectors, slots),
            _ => unreachable!("{MIXED}"),
        }
    }

    /// The loss terms of a lane.
    pub fn loss(
        &self,
        model: &Model,
        batch: &Prepared,
        training: &Training,
        across: Option<AcrossLane<'_>>,
        device: &Device,
    ) -> Terms {
        match (self, model, batch) {
            (Task::Completion(task), Model::Spackle(model), Prepared::Completion(batch)) => {
                task.loss(model, batch, training, device)
            }
            (Task::Cells(task), Model::Spatia(model), Prepared::Cells(batch)) => {
                task.loss(model, batch, training, across, device)
            }
            (Task::Members(task), model, Prepared::Members(batch)) => task.loss(model, batch, training, device),
            (Task::Fusion(task), Model::Spatia(model), Prepared::Fusion(batch)) => {
                task.loss(model, batch, training, device)
            }
            (Task::Generate(task), Model::Generator(model), Prepared::Generate(batch)) => {
                task.loss(model, batch, training, device)
            }
            (Task::Alignment(task), Model::Spotdiff(model), Prepared::Alignment(batch)) => {
                task.loss(model, batch, training, device)
            }
            (Task::Imputation(task), Model::Spotdiff(model), Prepared::Imputation(batch)) => {
                task.loss(model, batch, training, device)
            }
            _ => unreachable!("{MIXED}"),
        }
    }

    /// Sum and weight of the selection metric over a micro-batch.
    pub fn validate(&self, model: &Model, batch: &Prepared, device: &Device) -> (f64, f64) {
        match (self, model, batch) {
            (Task::Completion(task), Model::Spackle(model), Prepared::Completion(batch)) => {
                task.validate(model, batch, device)
            }
            (Task::Cells(task), Model::Spatia(model), Prepared::Cells(batch)) => task.validate(model, batch, device),
            (Task::Members(task), model, Prepared::Members(batch)) => task.validate(model, batch, device),
            (Task::Fusion(task), Model::Spatia(model), Prepared::Fusion(batch)) => task.validate(model, batch, device),
            (Task::Generate(task), Model::Generator(model), Prepared::Generate(batch)) => {
                task.validate(model, batch, device)
            }
            (Task::Alignment(task), Model::Spotdiff(model), Prepared::Alignment(batch)) => {
                task.validate(model, batch, device)
            }
            (Task::Imputation(task), Model::Spotdiff(model), Prepared::Imputation(batch)) => {
                task.validate(model, batch, device)
            }
            _ => unreachable!("{MIXED}"),
        }
    }

    /// Assay that validation number `global_step` uses.
    pub fn validation_assay(&self, global_step: u64) -> u32 {
        match self {
            Task::Completion(task) => task.validation_assay(global_step),
            _ => 0,
        }
    }
}

const MIXED: &str = "task, model and batch were made for each other";
