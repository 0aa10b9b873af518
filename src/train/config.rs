//! The train config as a user writes it: one table per owner, checked once, all problems in one go.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use syncytia_shards::process::pairing::Weighting;
use syncytia_shards::visible::ScaleKind;

pub use super::choices::{ComputeOn, Keep, OnNonFinite, Products, Ranks, Recompute, Reduction};
use super::error::TrainError;
use super::first_stage::FirstStage;
use crate::model::ModelConfig;
use crate::model::layers::Training;
use crate::optim::OptimConfig;
use crate::optim::schedule::Schedule;
use crate::task::TaskConfig;

/// A train config file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// `[data]`.
    #[serde(default)]
    pub data: DataConfig,
    /// `[model.<name>]`: the table's name is the choice.
    pub model: ModelConfig,
    /// `[task]`.
    pub task: TaskConfig,
    /// `[optim]`.
    pub optim: OptimConfig,
    /// `[train]`.
    pub train: LoopConfig,
    /// `[first]`, of a model that learns in two stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<FirstStage>,
    /// `[checkpoint]`.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// `[log]`.
    #[serde(default)]
    pub log: LogConfig,
}

/// `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Largest split, decoded, that is one window.
    pub window_bytes: u64,
    /// Row groups of a window otherwise.
    pub window_row_groups: usize,
    /// `[data.view]`: how shards of which something is hidden are seen, beside their reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<ViewConfig>,
    /// The folder of a T5 as Hugging Face has it, where prompts are read by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_encoder: Option<PathBuf>,
}

/// `[data.view]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ViewConfig {
    /// Which fold of genes is hidden, where genes are; `train` takes one after the other, or `--fold K`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<u32>,
    /// What values are divided by: `standardised` or `maximum`. Default `standardised`.
    pub scale: ScaleKind,
    /// Cells of the reference that a spot is paired with. Default 50.
    pub nearest_cells: usize,
    /// Their weights: `positive` (similarities above 0) or `spage`. Default `positive`.
    pub weighting: Weighting,
    /// Every cell stands a second time with this added to each of its counts (stDiff's augmentation); 0, the default: once.
    pub raised_cells: f32,
}

impl Default for ViewConfig {
    fn default() -> Self {
        Self {
            fold: None,
            scale: ScaleKind::Standardised,
            nearest_cells: 50,
            weighting: Weighting::Positive,
            raised_cells: 0.0,
        }
    }
}

impl std::fmt::Display for ViewConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scale = match self.scale {
            ScaleKind::Standardised => "standardised",
            ScaleKind::Maximum => "maximum",
        };
        let weighting = match self.weighting {
            Weighting::Positive => "positive",
            Weighting::Spage => "spage",
        };
        write!(f, "{scale}, {} nearest, {weighting}", self.nearest_cells)?;
        if self.raised_cells > 0.0 {
            write!(f, ", cells again with {} more of each gene", self.raised_cells)?;
        }
        self.fold.map_or(Ok(()), |fold| write!(f, ", fold {fold}"))
    }
}

impl Default for DataConfig {
    fn default() -> Self {
        Self { window_bytes: 2 << 30, window_row_groups: 4, view: None, text_encoder: None }
    }
}

/// `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoopConfig {
    /// Batches to consume.
    pub max_steps: u64,
    /// Micro-batches of a step: the numeric unit, and the most ranks the run will ever use.
    pub lanes: usize,
    /// Records of a micro-batch.
    pub micro_batch: usize,
    /// Parts that stay as they are, by the first words of their parameters' names.
    #[serde(default)]
    pub freeze: Vec<String>,
    /// Parts may be frozen as they were initialised: without it a new run that freezes some needs `--from`.
    #[serde(default)]
    pub freeze_untrained: bool,
    /// What ranks compute on.
    #[serde(default)]
    pub device: ComputeOn,
    /// What products are computed in; everything else is f32.
    #[serde(default)]
    pub products: Products,
    /// What of the forward is computed again in backward instead of kept: memory against speed.
    #[serde(default)]
    pub recompute: Recompute,
    /// How gradients are summed.
    #[serde(default)]
    pub reduction: Reduction,
    /// Whether buckets of gradients are summed while backward goes on; left out, as the engine does best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<bool>,
    /// Seed of every draw.
    pub seed: u64,
    /// Ranks: a number, or `auto` (one per core, at most `lanes`).
    #[serde(default)]
    pub ranks: Ranks,
    /// Kernel threads per rank.
    #[serde(default = "one")]
    pub threads: usize,
    /// Threads per rank that read and prepare the batches of the next steps.
    #[serde(default = "one")]
    pub loaders: usize,
    /// Lanes of a rank whose first forward, where a term goes over all lanes, is kept for the second: speed against memory.
    #[serde(default = "two")]
    pub kept_forwards: usize,
    /// What a NaN or infinity does.
    #[serde(default)]
    pub on_nonfinite: OnNonFinite,
    /// Steps between validations.
    #[serde(default = "hundred")]
    pub validate_every: u64,
    /// Steps between comparisons of the ranks' parameters.
    #[serde(default = "hundred")]
    pub digest_every: u64,
    /// Where gradients are added up, parameters updated and Adam's moments kept; where the model is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// Seconds a rank waits for another.
    #[serde(default = "deadline")]
    pub deadline_s: u64,
}

impl LoopConfig {
    /// What the forward of a lane has beside its input.
    pub fn training(&self, global_step: u64, lane: usize) -> Training {
        Training::new(self.seed, global_step, lane * self.micro_batch)
            .in_bf16(self.products == Products::Bf16)
            .recomputing_blocks(self.recompute == Recompute::Blocks)
    }

    /// Whether gradients, parameters and moments stay where the model is.
    pub fn keeps_there(&self) -> bool {
        self.keep.map_or(self.device.is_elsewhere(), |keep| keep == Keep::Device)
    }
}

/// `[checkpoint]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Steps between checkpoints; the last step always saves.
    pub every: u64,
    /// How many are kept beside the best.
    pub keep: usize,
    /// Seconds the end of a run waits for room where the last save finds none.
    pub patience_s: u64,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 500, keep: 3, patience_s: 600 }
    }
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Steps between log lines.
    pub every: u64,
    /// Every rank writes the record ids it consumes to its log.
    pub record_ids: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { every: 20, record_ids: false }
    }
}

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

fn hundred() -> u64 {
    100
}

fn deadline() -> u64 {
    600
}

impl TrainConfig {
    /// How shards of which something is hidden are seen.
    pub fn view(&self) -> ViewConfig {
        self.data.view.unwrap_or_default()
    }

    /// Everything that cannot work, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut must = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        let (train, optim) = (&self.train, &self.optim);
        must(train.lanes > 0 && train.lanes <= 4096, format!("train.lanes = {}: must be 1 to 4096", train.lanes));
        must(train.micro_batch > 0, "train.micro_batch = 0: must be at least 1".into());
        must(
            (1..=u64::from(u32::MAX)).contains(&train.max_steps),
            format!("train.max_steps = {}: must be 1 to 2^32 − 1", train.max_steps),
        );
        must(train.threads > 0, "train.threads = 0: must be at least 1".into());
        must(
            (1..=64).contains(&train.loaders),
            format!("train.loaders = {}: must be 1 to 64 threads per rank", train.loaders),
        );
        must(train.validate_every > 0, "train.validate_every = 0: must be at least 1".into());
        must(train.digest_every > 0, "train.digest_every = 0: must be at least 1".into());
        must(self.checkpoint.every > 0, "checkpoint.every = 0: must be at least 1".into());
        must(self.checkpoint.keep > 0, "checkpoint.keep = 0: must be at least 1".into());
        must(self.log.every > 0, "log.every = 0: must be at least 1".into());
        must(self.data.window_row_groups > 0, "data.window_row_groups = 0: must be at least 1".into());
        must(
            train.products == Products::F32 || train.device.is_elsewhere(),
            "train.products: the cores have kernels for \"f32\" alone; set train.device = \"cuda\"".into(),
        );
        if let Ranks::Count(n) = train.ranks {
            must(
                n <= train.lanes,
                format!("train.ranks = {n}: at most train.lanes = {} ranks can share the lanes", train.lanes),
            );
        }
        must(
            optim.schedule == Schedule::Constant || optim.schedule_steps.is_some(),
            "optim.schedule_steps is missing: every schedule but \"constant\" needs it (it may differ from max_steps)"
                .into(),
        );
        let positive = |x: f64| x > 0.0 && x.is_finite();
        must(train.threads <= 1024, format!("train.threads = {}: at most 1024 per rank", train.threads));
        must(positive(optim.lr), format!("optim.lr = {}: must be positive and finite", optim.lr));
        must(positive(optim.eps), format!("optim.eps = {}: must be positive and finite", optim.eps));
        must(
            optim.betas.iter().all(|b| (0.0..1.0).contains(b)),
            format!("optim.betas = {:?}: each must be in [0, 1)", optim.betas),
        );
        must(
            optim.weight_decay >= 0.0 && optim.weight_decay.is_finite(),
            format!("optim.weight_decay = {}: must be 0 or positive", optim.weight_decay),
        );
        must(
            optim.clip_norm.is_none_or(positive),
            format!("optim.clip_norm = {:?}: must be positive; leave it out for no clipping", optim.clip_norm),
        );
        must(optim.ema.is_none_or(|d| (0.0..1.0).contains(&d)), "optim.ema: must be in [0, 1)".into());
        if self.data.view.is_some() && !self.task.is_paired() {
            problems.push(format!("data.view: task.kind = \"{}\" reads shards as they are", self.task.kind()));
        }
        if self.data.text_encoder.is_some() != self.model.reads_sentences() {
            problems.push(match &self.data.text_encoder {
                Some(_) => "data.text_encoder: no model.spotdiff.prompt.encoder = \"t5\" reads by it".to_owned(),
                None => "model.spotdiff.prompt.encoder = \"t5\": data.text_encoder = \"FOLDER\" of that T5 is missing"
                    .to_owned(),
            });
        }
        if self.data.view.is_some_and(|view| view.nearest_cells == 0) {
            problems.push("data.view.nearest_cells = 0: must be at least 1".to_owned());
        }
        let raise = self.view().raised_cells;
        if !(raise >= 0.0 && raise.fract() == 0.0) {
            problems.push(format!("data.view.raised_cells = {raise}: must be a whole number, 0 for none"));
        }
        if raise > 0.0 && (self.model.reads_reference() || self.first.is_some() || self.task.kind() == "alignment") {
            problems.push(
                "data.view.raised_cells: spots are paired with cells as they are; set model.spotdiff.psi.use_rna = false, and leave the first stage out"
                    .to_owned(),
            );
        }
        problems.extend(self.task.problems());
        problems.extend(self.model.problems((train.lanes, train.micro_batch)));
        problems.extend(self.task.misfit(&self.model));
        problems.extend(self.problems_of_first());
        problems
    }

    /// Refuses a config that cannot work.
    pub fn check(&self) -> Result<(), TrainError> {
        let problems = self.problems();
        if problems.is_empty() { Ok(()) } else { Err(TrainError::Config(problems)) }
    }

    /// What differs from `saved` and may not change on resume, as `key: saved → now`.
    pub fn changed_on_resume(&self, saved: &TrainConfig) -> Vec<String> {
        let strip = |config: &TrainConfig| {
            let mut value = serde_json::to_value(config).expect("a config is plain data");
            for table in ["checkpoint", "log"] {
                value.as_object_mut().expect("a config is a table").remove(table);
            }
            let may =
                ["max_steps", "ranks", "threads", "loaders", "overlap", "kept_forwards", "recompute", "deadline_s"];
            for key in may {
                value["train"].as_object_mut().expect("[train] is a table").remove(key);
            }
            // where it lies; what it is, is asked of its files
            value["data"].as_object_mut().expect("[data] is a table").remove("text_encoder");
            let mut parts = config.train.freeze.clone(); // a set: neither order nor repetition means anything
            parts.sort();
            parts.dedup();
            value["train"]["freeze"] = parts.into();
            value
        };
        let mut changes = Vec::new();
        differences("", &strip(saved), &strip(self), &mut changes);
        changes
    }
}

fn differences(path: &str, a: &serde_json::Value, b: &serde_json::Value, out: &mut Vec<String>) {
    match (a, b) {
        (serde_json::Value::Object(x), serde_json::Value::Object(y)) => {
            let keys: std::collections::BTreeSet<&String> = x.keys().chain(y.keys()).collect();
            for key in keys {
                let null = serde_json::Value::Null;
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                differences(&path, x.get(key).unwrap_or(&null), y.get(key).unwrap_or(&null), out);
            }
        }
        _ if a != b => out.push(format!("{path}: {a} → {b}")),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
