//! A run before its first step: data opened, model built, a resume compared. Nothing is written, so a refusal leaves
//! everything as it was.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use syncytia_shards::draw::STEP_VERSION;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::vectors::VectorsOf;

use super::adopt::{Ledger, adopt};
use super::checkpoint::{self, CheckpointContents};
use super::config::{Recompute, TrainConfig};
use super::data::{TrainData, ValData};
use super::error::TrainError;
use super::pairing;
use super::parts::Parts;
use super::run_folder::RunFolder;
use super::source::{self, VectorsIdentity};
use super::state::{self, Parent, RunState};
use super::step_state::StepState;
use super::text_encoder;
use crate::model::Model;
use crate::task::Task;
use crate::task::fusion::UpTo;
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
        let shape = config.model.shape(manifest);
        let device = with_gradients(&cpu(), config);
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
            vectors: vectors.iter().map(|vectors| VectorsIdentity::of(vectors)).collect(),
            text_encoder: match (&config.data.text_encoder, config.task.kind()) {
                (Some(dir), kind) if kind != "alignment" => Some(text_encoder::digest(dir)?),
                _ => None,
            },
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

    /// The run computes on `device`.
    #[must_use]
    pub fn on(mut self, device: &Device) -> Self {
        self.device = with_gradients(device, self.config);
        self
    }

    /// Which vectors it learns from, from below.
    pub fn vectors(&self) -> &[VectorsIdentity] {
        &self.fresh.vectors
    }

    /// Digest of the text encoder that reads its prompts, where one does.
    pub fn text_encoder(&self) -> Option<&str> {
        self.fresh.text_encoder.as_deref()
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
        let other_text = match (&theirs.text_encoder, &self.fresh.text_encoder) {
            (Some(there), Some(ours)) if there != ours => Some(format!(
                "its prompts were read by another text encoder (BLAKE3 of its files {there}, of data.text_encoder {ours})"
            )),
            _ => None,
        };
        let misfit = config
            .task
            .unlearned(&theirs.config.task)
            .or(other_text)
            .or_else(|| (theirs.genes != self.fresh.genes).then(|| config.model.one_panel()).flatten())
            .or_else(|| self.other_niches(&theirs))
            .or_else(|| self.other_encoder(&parent.digest, &theirs));
        if let Some(what) = misfit.or_else(|| config.model.renamed(&theirs.config.model)) {
            return Err(refuse(what));
        }
        let (flat, ledger) =
            adopt(&parent.contents.model, &theirs.genes, &self.model, &self.fresh.genes, min_genes).map_err(refuse)?;
        self.model = self.model.clone().from_flat(&flat, &self.device);
        self.fresh.parent = Some(Parent { digest: parent.digest.clone(), genes: ledger.counts() });
        Ok(ledger)
    }

    /// Where niches are used frozen that were learned with pictures of their regions and are now read without, or the other way.
    fn other_niches(&self, theirs: &RunState) -> Option<String> {
        let with = |reads: bool| if reads { "true" } else { "false" };
        let (ours, there) = (self.config.model.reads_regions(), theirs.config.model.reads_regions());
        let frozen = self.config.task.table() != VectorsOf::Niche && theirs.config.task.learned() >= Some(UpTo::Niche);
        (frozen && ours != there).then(|| {
            format!("its niches were learned with model.spatia.regions = {}, here it is {}", with(there), with(ours))
        })
    }

    /// Where the vectors given are neither the parent's own nor those that it learned from, in words. Of the highest alone is
    /// it asked where the parent does not say what it learned from: those below it are what the highest were made of.
    fn other_encoder(&self, parent: &str, theirs: &RunState) -> Option<String> {
        // Those of regions are of the encoder of the cells' vectors: that was looked at when they were read.
        let levels: Vec<&VectorsIdentity> = self.fresh.vectors.iter().filter(|v| v.of != VectorsOf::Region).collect();
        let (&highest, below) = levels.split_last()?;
        let learned_on = |ours: &VectorsIdentity| theirs.vectors.iter().find(|theirs| theirs.of == ours.of);
        let of_another = |ours: &&VectorsIdentity| {
            ours.producer != parent && learned_on(ours).is_some_and(|theirs| theirs.producer != ours.producer)
        };
        if let Some(network) = pairing::network(&highest.producer) {
            let known = network == parent
                || learned_on(highest).is_some_and(|theirs| pairing::network(&theirs.producer) == Some(network));
            return (!known).then(|| {
                format!(
                    "the pairs given were made with cells moved by {network}, not by this checkpoint ({parent}): make them with \
                     `syncytia pair` of the checkpoint given to --from"
                )
            });
        }
        let unknown = || (highest.producer != parent && learned_on(highest).is_none()).then_some(highest);
        let ours = below.iter().copied().chain([highest]).find(of_another).or_else(unknown)?;
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
        if saved.text_encoder != self.fresh.text_encoder {
            let said = |of: &RunState| of.text_encoder.clone().unwrap_or_else(|| "none".to_owned());
            changes.push(format!("data.text_encoder has other files: BLAKE3 {} → {}", said(&saved), said(&self.fresh)));
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

fn with_gradients(device: &Device, config: &TrainConfig) -> Device {
    let device = device.clone().autodiff();
    match config.train.recompute {
        Recompute::Cheap => device.gradient_checkpointing(),
        Recompute::None | Recompute::Blocks => device,
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
