//! A step's state as a checkpoint holds it, and back.
//!
//! Weights carry the names and layouts of the reference implementation; what only training needs lives beside them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use syncytia_shards::panel::Panel;

use super::checkpoint::{CheckpointContents, NamedTensor};
use super::config::TrainConfig;
use super::parts::Parts;
use super::run_folder::CheckpointFolder;
use super::source::VectorsIdentity;
use super::step_state::StepState;
use crate::model::DataShape;
use crate::model::params::ParamSpec;

/// What a checkpoint says of its run, beside tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Version of `docs/step.md`.
    pub step_version: u32,
    /// Batches consumed.
    pub global_step: u64,
    /// Updates applied.
    pub optim_step: u64,
    /// Steps skipped in a row.
    pub skipped_in_a_row: u32,
    /// Scale of the exact sums, per tensor.
    pub exponents: Vec<Option<i16>>,
    /// Best value of the selection metric so far, and its step.
    pub best: Option<Best>,
    /// A stop postponed a due validation: run it first on resume.
    pub validation_due: bool,
    /// Identity of the shards.
    pub data_hash: String,
    /// Identity of the vectors it learns from, from below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vectors: Vec<VectorsIdentity>,
    /// Digest of the files of the text encoder that reads its prompts ([`super::text_encoder::digest`]); where they lie may change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_encoder: Option<String>,
    /// Genes and rows of a neighbourhood.
    pub shape: DataShape,
    /// Gene ids of the layer, in order.
    pub genes: Vec<String>,
    /// Symbols, in the same order.
    pub symbols: Vec<String>,
    /// The whole panel: what another section is aligned to.
    pub panel: Panel,
    /// How counts became layers: the shard config, TOML.
    pub shard_config: String,
    /// The resolved config, kept as TOML: JSON numbers may lose the last bit of an f64.
    #[serde(with = "as_toml")]
    pub config: TrainConfig,
    /// Version of syncytia.
    pub version: String,
    /// Whose weights it began with (`train --from`).
    pub parent: Option<Parent>,
}

/// Where a run's weights come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// The digest of the checkpoint's manifest.
    pub digest: String,
    /// Genes kept, new and lost.
    pub genes: [usize; 3],
}

/// A value of the selection metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Batches consumed when it was reached.
    pub global_step: u64,
    /// The value, kept by its bits.
    #[serde(with = "as_bits")]
    pub value: f64,
}

mod as_toml {
    use serde::{Deserialize, Deserializer, Serializer, de, ser};

    use crate::train::config::TrainConfig;

    pub fn serialize<S: Serializer>(config: &TrainConfig, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&toml::to_string(config).map_err(ser::Error::custom)?)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TrainConfig, D::Error> {
        toml::from_str(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

mod as_bits {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(value.to_bits())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(f64::from_bits(u64::deserialize(deserializer)?))
    }
}

/// Prefix of the release's state dict.
const PREFIX: &str = "model.";

/// A parameter's name in a checkpoint.
pub fn tensor_name(path: &str) -> String {
    format!("{PREFIX}{path}")
}

/// A checkpoint of `state`.
pub fn to_contents(run: &RunState, state: &StepState, parts: &Parts, frozen: &[f32]) -> CheckpointContents {
    let named = |specs: &[ParamSpec], flat: &[f32]| -> Vec<NamedTensor> {
        let one = |spec: &ParamSpec| NamedTensor {
            name: tensor_name(&spec.path),
            shape: spec.shape.clone(),
            values: flat[spec.range()].to_vec(),
        };
        specs.iter().map(one).collect()
    };
    let mut train_state = BTreeMap::new();
    train_state.insert("adam_m".to_owned(), named(&parts.trained, &state.adam_m));
    train_state.insert("adam_v".to_owned(), named(&parts.trained, &state.adam_v));
    if state.ema.is_some() {
        train_state.insert("raw".to_owned(), named(&parts.trained, &state.parameters));
    }
    let run = RunState {
        global_step: state.global_step,
        optim_step: state.optim_step,
        skipped_in_a_row: state.skipped_in_a_row,
        exponents: state.exponents.clone(),
        ..run.clone()
    };
    let metadata = [("format", "pt".to_owned()), ("producer", format!("syncytia {}", run.version))];
    CheckpointContents {
        model: named(&parts.all, &parts.join(state.evaluated(), frozen)),
        model_metadata: metadata.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        train_state,
        state: serde_json::to_value(&run).expect("a run state is plain data"),
    }
}

/// The run state of a checkpoint; an error names what this build cannot read.
pub fn run_state(contents: &CheckpointContents) -> Result<RunState, String> {
    serde_json::from_value(contents.state.clone())
        .map_err(|e| format!("its state.json is not what this build writes: {e}"))
}

/// The weights that evaluation uses, flat, in the order of `specs`.
pub fn evaluated(contents: &CheckpointContents, specs: &[ParamSpec]) -> Result<Vec<f32>, String> {
    flat(&contents.model, CheckpointFolder::MODEL, specs)
}

/// The step state of a checkpoint, and the values of what is frozen.
pub fn from_contents(
    contents: &CheckpointContents,
    run: &RunState,
    parts: &Parts,
) -> Result<(StepState, Vec<f32>), String> {
    let (model, frozen) = parts.split(&evaluated(contents, &parts.all)?);
    let part = |name: &str| -> Result<Vec<f32>, String> {
        let tensors = contents.train_state.get(name).ok_or_else(|| format!("train_state/{name} is missing"))?;
        flat(tensors, name, &parts.trained)
    };
    let (parameters, ema) = match run.config.optim.ema {
        Some(_) => (part("raw")?, Some(model)),
        None => (model, None),
    };
    let state = StepState {
        parameters,
        adam_m: part("adam_m")?,
        adam_v: part("adam_v")?,
        ema,
        exponents: run.exponents.clone(),
        global_step: run.global_step,
        optim_step: run.optim_step,
        skipped_in_a_row: run.skipped_in_a_row,
    };
    Ok((state, frozen))
}

fn flat(tensors: &[NamedTensor], file: &str, specs: &[ParamSpec]) -> Result<Vec<f32>, String> {
    let by_name: BTreeMap<&str, &NamedTensor> = tensors.iter().map(|t| (t.name.as_str(), t)).collect();
    let mut out = Vec::with_capacity(specs.iter().map(ParamSpec::len).sum());
    for spec in specs {
        let name = tensor_name(&spec.path);
        let tensor = by_name.get(name.as_str()).ok_or_else(|| format!("{file}: tensor {name} is missing"))?;
        if tensor.shape != spec.shape {
            return Err(format!("{file}: {name} has shape {:?}, the model needs {:?}", tensor.shape, spec.shape));
        }
        out.extend_from_slice(&tensor.values);
    }
    if tensors.len() != specs.len() {
        return Err(format!("{file} has {} tensors, the model {}", tensors.len(), specs.len()));
    }
    Ok(out)
}
