//! A run before its first step: data opened, model built, a resume compared. Nothing is written, so a refusal leaves
//! everything as it was.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use syncytia_shards::draw::STEP_VERSION;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;

use super::adopt::{Ledger, adopt};
use super::checkpoint::{self, CheckpointContents};
use super::config::TrainConfig;
use super::data::{TrainData, ValData};
use super::error::TrainError;
use super::parts::Parts;
use super::run_folder::RunFolder;
use super::source::{self, Source, VectorsIdentity};
use super::state::{self, Parent, RunState};
use super::step::StepState;
use crate::model::Model;
use crate::task::Task;
use crate::task::paired::Paired;
use crate::tensor::{Device, cpu};

/// A checkpoint to go on from.
#[derive(Debug, Clone, PartialEq)]
pub struct Resumed {
    /// Name of its folder.
    pub name: String,
    /// Its identity: the digest of its manifest.
    pub digest: String,
    /// What it holds.
    pub contents: CheckpointContents,
}

/// The newest valid checkpoint of a run folder, and in words the damaged ones passed over.
pub fn newest(folder: &RunFolder) -> Result<(Option<Resumed>, Vec<String>), TrainError> {
    let found = checkpoint::newest_valid(folder)?;
    let damaged = found.damaged.iter().map(ToString::to_string).collect();
    let resumed = found.checkpoint.map(|found| Resumed {
        name: found.dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        digest: found.manifest.digest(),
        contents: found.contents,
    });
    Ok((resumed, damaged))
}

/// Where a run begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Beginning {
    /// What a step is a function of.
    pub step: StepState,
    /// What the checkpoint says beside it.
    pub run: RunState,
    /// The parameters that stay as they are, flat in declaration order.
    pub frozen: Vec<f32>,
}

/// What all ranks of a run share, read-only.
pub struct Ready<'a> {
    /// The resolved config.
    pub config: &'a TrainConfig,
    /// The task.
    pub task: Task,
    /// What trains, in order.
    pub train: TrainData,
    /// What selects, if there is any.
    pub val: Option<ValData>,
    /// The model as initialised.
    pub model: Model,
    /// Its parameters.
    pub parts: Parts,
    /// Where it computes.
    pub device: Device,
    fresh: RunState,
}

impl<'a> Ready<'a> {
    /// Opens the data and builds the model.
    ///
    /// # Errors
    /// A config that cannot work; shards without the layer, a train split or a whole global batch.
    pub fn new(config: &'a TrainConfig, shards: &Arc<Shards>) -> Result<Self, TrainError> {
        Self::with_vectors(config, shards, &[])
    }

    /// The same for a task that learns from the vectors in the folders `vectors`.
    ///
    /// # Errors
    /// As [`Ready::new`]; [`source::vectors`].
    pub fn with_vectors(
        config: &'a TrainConfig,
        shards: &Arc<Shards>,
        vectors: &[PathBuf],
    ) -> Result<Self, TrainError> {
        config.check()?;
        let manifest = shards.manifest();
        let task = Task::new(&config.task, &config.model, manifest, config.train.seed).map_err(TrainError::Data)?;
        if shards.row_groups(Split::Train).is_empty() {
            return Err(TrainError::Data("the shards have no train split".into()));
        }
        let vectors = source::vectors(vectors, config, shards)?;
        let train = TrainData::open(shards, &vectors, config, &task)?;
        let val = ValData::open(shards, &vectors, config, &task)?;
        let identities = vectors.iter().map(|vectors| VectorsIdentity::of(vectors)).collect();
        Self::of_data(config, shards, identities, task, (train, val))
    }

    /// The same for a task that learns from spots paired with the cells of a reference, made of these shards: `train`, and
    /// `val` where there is such a split.
    ///
    /// # Errors
    /// As [`Ready::new`]; [`Task::of_paired`].
    pub fn with_paired(
        config: &'a TrainConfig,
        shards: &Arc<Shards>,
        train: Arc<Paired>,
        val: Option<Arc<Paired>>,
    ) -> Result<Self, TrainError> {
        config.check()?;
        let genes = config.model.shape(shards.manifest()).genes;
        if train.genes() != genes {
            let found = train.genes();
            return Err(TrainError::Data(format!(
                "the pairs are of {found} genes, the panel of the shards has {genes}"
            )));
        }
        let task = Task::of_paired(&config.task, &config.model, &train, config.train.seed).map_err(TrainError::Data)?;
        let train = TrainData::of(Source::Paired(train), config, &task)?;
        let val = val.map(|val| ValData::of(Source::Paired(val), &task)).transpose()?.flatten();
        Self::of_data(config, shards, Vec::new(), task, (train, val))
    }

    /// The model and its first state, beside what it learns from.
    fn of_data(
        config: &'a TrainConfig,
        shards: &Arc<Shards>,
        vectors: Vec<VectorsIdentity>,
        task: Task,
        (train, val): (TrainData, Option<ValData>),
    ) -> Result<Self, TrainError> {
        let manifest = shards.manifest();
        let shape = config.model.shape(manifest);
        let device = cpu().autodiff();
        let model = config.model.build(shape, config.train.seed, &device);
        let parts = Parts::new(model.specs(), &config.train.freeze).map_err(|e| TrainError::Config(vec![e]))?;
        let genes = config.model.genes(&manifest.panel);
        let fresh = RunState {
            step_version: STEP_VERSION,
            global_step: 0,
            optim_step: 0,
            skipped_in_a_row: 0,
            exponents: vec![None; parts.trained.len()],
            best: None,
            validation_due: false,
            data_hash: manifest.data_hash(),
            vectors,
            shape,
            genes: genes.iter().map(|g| g.id.clone()).collect(),
            symbols: genes.iter().map(|g| g.symbol.clone()).collect(),
            panel: manifest.panel.clone(),
            shard_config: manifest.config.clone(),
            config: config.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            parent: None,
        };
        Ok(Ready { config, task, train, val, model, parts, device, fresh })
    }

    /// Which vectors it learns from, from below.
    pub fn vectors(&self) -> &[VectorsIdentity] {
        &self.fresh.vectors
    }

    /// The run begins with the weights of another's checkpoint. Gives what became of its genes.
    ///
    /// # Errors
    /// [`TrainError::From`]: another kind of model or other sizes; fewer than `min_genes` of the genes are known; a level that
    /// is used frozen and was not learned, or was learned on vectors of another encoder than those given.
    pub fn begin_from(&mut self, parent: &Resumed, min_genes: f64) -> Result<Ledger, TrainError> {
        let refuse = |what: String| TrainError::From { checkpoint: parent.name.clone(), what };
        let theirs = state::run_state(&parent.contents).map_err(refuse)?;
        let refuse = |what: String| TrainError::From { checkpoint: parent.name.clone(), what };
        if Beside::of(&theirs) != Beside::of(&self.fresh) {
            return Err(refuse(format!(
                "it learned with {}, these shards and this config have {}, or others: covariates and layers are not carried over",
                Beside::of(&theirs),
                Beside::of(&self.fresh)
            )));
        }
        let config = &self.config;
        let misfit = config.task.unlearned(&theirs.config.task).or_else(|| self.other_encoder(&parent.digest, &theirs));
        if let Some(what) = misfit.or_else(|| config.model.renamed(&theirs.config.model)) {
            return Err(refuse(what));
        }
        let (flat, ledger) =
            adopt(&parent.contents.model, &theirs.genes, &self.model, &self.fresh.genes, min_genes).map_err(refuse)?;
        self.model = self.model.clone().from_flat(&flat, &self.device);
        self.fresh.parent = Some(Parent { digest: parent.digest.clone(), genes: ledger.counts() });
        Ok(ledger)
    }

    /// Where the vectors given are neither the parent's own nor those that it learned from, in words. Of the highest alone is
    /// it asked where the parent does not say what it learned from: those below it are what the highest were made of.
    fn other_encoder(&self, parent: &str, theirs: &RunState) -> Option<String> {
        let (highest, below) = self.fresh.vectors.split_last()?;
        let learned_on = |ours: &VectorsIdentity| theirs.vectors.iter().find(|theirs| theirs.of == ours.of);
        let of_another = |ours: &&VectorsIdentity| {
            ours.producer != parent && learned_on(ours).is_some_and(|theirs| theirs.producer != ours.producer)
        };
        let unknown = || (highest.producer != parent && learned_on(highest).is_none()).then_some(highest);
        let ours = below.iter().chain([highest]).find(of_another).or_else(unknown)?;
        let or_those =
            learned_on(ours).map(|theirs| format!(", or give those it learned from, made by {}", theirs.producer));
        Some(format!(
            "the vectors of {} given were made by {}, another encoder than this checkpoint's ({parent}): make them with \
             `syncytia embed` of the checkpoint given to --from, --level {}{}",
            ours.of.plural(),
            ours.producer,
            ours.of.level(),
            or_those.unwrap_or_default()
        ))
    }

    /// The state before the first step, or that of a checkpoint of `run` once nothing differs that would alter the trajectory.
    ///
    /// # Errors
    /// [`TrainError::Resume`] by name of what differs; a run that is beyond `train.max_steps`.
    pub fn state(&self, resume: Option<&Resumed>, run: &Path) -> Result<Beginning, TrainError> {
        let Some(Resumed { name, contents, .. }) = resume else {
            let (trained, frozen) = self.parts.split(&self.model.to_flat());
            let step = StepState::new(trained, self.parts.trained.len(), self.config.optim.ema.is_some());
            return Ok(Beginning { step, run: self.fresh.clone(), frozen });
        };
        let refuse = |what: String| TrainError::Resume { run: format!("{} from {name}", run.display()), what };
        let saved = state::run_state(contents).map_err(refuse)?;
        let mut changes = self.config.changed_on_resume(&saved.config);
        if saved.step_version != self.fresh.step_version {
            changes.push(format!("step definition: {} → {}", saved.step_version, self.fresh.step_version));
        }
        if saved.data_hash != self.fresh.data_hash {
            changes.push(format!("shards: data hash {} → {}", saved.data_hash, self.fresh.data_hash));
        }
        if saved.vectors != self.fresh.vectors {
            let said = |of: &RunState| VectorsIdentity::in_words(&of.vectors);
            changes.push(format!("vectors: {} → {}", said(&saved), said(&self.fresh)));
        }
        if !changes.is_empty() {
            return Err(refuse(format!(
                "these would alter the trajectory:\n  {}\nundo them, or start a new run folder",
                changes.join("\n  ")
            )));
        }
        let (at, max_steps) = (saved.global_step, self.config.train.max_steps);
        if at > max_steps {
            let run = run.display();
            return Err(TrainError::Config(vec![format!(
                "train.max_steps = {max_steps}: {run} stands at step {at} already; give at least that, or a new run folder"
            )]));
        }
        let (step, frozen) = state::from_contents(contents, &saved, &self.parts).map_err(refuse)?;
        Ok(Beginning { step, run: RunState { config: self.config.clone(), ..saved }, frozen })
    }
}

/// What a model sees beside its genes, and as what it sees them.
#[derive(PartialEq)]
struct Beside<'a> {
    covariates: usize,
    context: Vec<&'a str>,
    layer: Option<&'a str>,
}

impl Beside<'_> {
    fn of(run: &RunState) -> Beside<'_> {
        let context = run.panel.context.iter().map(|&gene| run.panel.genes[gene as usize].id.as_str()).collect();
        Beside { covariates: run.shape.covariates, context, layer: run.config.task.layer() }
    }
}

impl std::fmt::Display for Beside<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (n, context) = (self.covariates, self.context.len());
        write!(f, "{n} covariates ({context} of them context genes), {}", self.layer.unwrap_or("counts"))
    }
}
