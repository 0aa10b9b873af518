//! `[task]`: which task, and what is wrong with it or keeps it from a model.

use serde::{Deserialize, Serialize};
use syncytia_shards::tables::vectors::VectorsOf;

use super::fusion::UpTo;
use super::{alignment, cells, completion, fusion, generate, imputation, members};
use crate::model::ModelConfig;

/// `[task]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TaskConfig {
    /// Completion of hidden entries from the spot and its neighbours.
    Completion(completion::CompletionConfig),
    /// SPATIA's first stage.
    Cells(cells::CellsConfig),
    /// SPATIA's second stage, on vectors of cells.
    Niches(members::MembersConfig),
    /// SPATIA's third stage, on vectors of niches.
    Tissues(members::MembersConfig),
    /// SPATIA's last step, on cells and on vectors of those and of niches.
    Fusion(fusion::FusionConfig),
    /// Pictures from genes.
    Generate(generate::GenerateConfig),
    /// SpotDiff's first stage: cells as the spatial domain would show them.
    Alignment(alignment::AlignmentConfig),
    /// SpotDiff's second stage: hidden genes of spots.
    Imputation(imputation::ImputationConfig),
}

impl TaskConfig {
    /// What is wrong with it, each with its key.
    pub fn problems(&self) -> Vec<String> {
        match self {
            TaskConfig::Completion(config) => config.problems(),
            TaskConfig::Cells(config) => config.problems(),
            TaskConfig::Niches(config) | TaskConfig::Tissues(config) => config.problems(),
            TaskConfig::Fusion(config) => config.problems(),
            TaskConfig::Generate(_) => Vec::new(),
            TaskConfig::Alignment(config) => config.problems(),
            TaskConfig::Imputation(config) => config.problems(),
        }
    }

    /// The layer of the shards that it learns; none where it learns counts.
    pub fn layer(&self) -> Option<&str> {
        match self {
            TaskConfig::Completion(config) => Some(&config.layer),
            _ => None,
        }
    }

    /// What validation measures: lower is better.
    pub fn metric(&self) -> &'static str {
        match self {
            TaskConfig::Completion(_) => "mse",
            _ => "loss",
        }
    }

    /// `kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            TaskConfig::Completion(_) => "completion",
            TaskConfig::Cells(_) => "cells",
            TaskConfig::Niches(_) => "niches",
            TaskConfig::Tissues(_) => "tissues",
            TaskConfig::Fusion(_) => "fusion",
            TaskConfig::Generate(_) => "generate",
            TaskConfig::Alignment(_) => "alignment",
            TaskConfig::Imputation(_) => "imputation",
        }
    }

    /// Which table its records are of.
    pub fn table(&self) -> VectorsOf {
        match self {
            TaskConfig::Niches(_) => VectorsOf::Niche,
            TaskConfig::Tissues(_) => VectorsOf::Tissue,
            _ => VectorsOf::Obs,
        }
    }

    /// Whose vectors it reads, from below.
    pub fn reads(&self) -> Vec<VectorsOf> {
        match self {
            TaskConfig::Fusion(config) => config.up_to.reads(),
            _ => self.table().members().into_iter().collect(),
        }
    }

    /// The highest of SPATIA's levels that a checkpoint of this task has learned, if its stages were begun one with the
    /// other.
    pub fn learned(&self) -> Option<UpTo> {
        match self {
            TaskConfig::Cells(_) => Some(UpTo::Cell),
            TaskConfig::Niches(_) => Some(UpTo::Niche),
            TaskConfig::Tissues(_) => Some(UpTo::Tissue),
            TaskConfig::Fusion(config) => Some(config.up_to),
            TaskConfig::Completion(_)
            | TaskConfig::Generate(_)
            | TaskConfig::Alignment(_)
            | TaskConfig::Imputation(_) => None,
        }
    }

    /// Whether it learns from spots beside cells of a reference.
    pub fn is_paired(&self) -> bool {
        matches!(self, TaskConfig::Alignment(_) | TaskConfig::Imputation(_))
    }

    /// Whether it learns one vector of several levels.
    pub fn fuses(&self) -> bool {
        matches!(self, TaskConfig::Fusion(_))
    }

    /// The table of the highest of SPATIA's levels that it has learned, or of its records.
    pub fn highest(&self) -> VectorsOf {
        match self {
            TaskConfig::Fusion(config) => *config.up_to.fuses().last().expect("cells are always fused"),
            _ => self.table(),
        }
    }

    /// What keeps it from beginning with the weights of `parent`, in words: a level that it uses frozen and that the parent
    /// has not learned.
    pub fn unlearned(&self, parent: &TaskConfig) -> Option<String> {
        let kind = parent.kind();
        let below = |level: UpTo| {
            let (kind_of_this, level) = (self.kind(), level.as_str());
            format!(
                "its task is \"{kind}\", so it has not learned the {level} level, which task.kind = \"{kind_of_this}\" uses \
                 frozen: begin with a checkpoint of the stage of that level"
            )
        };
        match self {
            TaskConfig::Niches(_) => (parent.learned() < Some(UpTo::Cell)).then(|| below(UpTo::Cell)),
            TaskConfig::Tissues(_) => (parent.learned() < Some(UpTo::Niche)).then(|| below(UpTo::Niche)),
            TaskConfig::Fusion(config) => (parent.learned() < Some(config.up_to)).then(|| {
                let up_to = config.up_to.as_str();
                format!(
                    "its task is \"{kind}\", so it has not learned all that task.up_to = \"{up_to}\" fuses: begin with a \
                     checkpoint of the stage of that level, or lower task.up_to"
                )
            }),
            TaskConfig::Imputation(_) => match parent {
                TaskConfig::Alignment(_) | TaskConfig::Imputation(_) => None,
                _ => Some(format!(
                    "its task is \"{kind}\", so it has not learned omega, which task.kind = \"imputation\" uses frozen: begin \
                     with a checkpoint of an alignment"
                )),
            },
            TaskConfig::Completion(_) | TaskConfig::Cells(_) | TaskConfig::Generate(_) | TaskConfig::Alignment(_) => None,
        }
    }

    /// What keeps it from this model, in words.
    pub fn misfit(&self, model: &ModelConfig) -> Option<String> {
        match (self, model) {
            (TaskConfig::Completion(_), ModelConfig::Spackle(_))
            | (TaskConfig::Generate(_), ModelConfig::Generator(_))
            | (TaskConfig::Alignment(_) | TaskConfig::Imputation(_), ModelConfig::Spotdiff(_)) => None,
            (TaskConfig::Cells(config), ModelConfig::Spatia(model)) => config.misfit(model),
            (TaskConfig::Niches(_) | TaskConfig::Tissues(_), ModelConfig::Spatia(model)) => {
                (!model.masked_token).then(|| {
                    "model.spatia.masked_token is missing: the task hides members of a place under that token; set it to true"
                        .to_owned()
                })
            }
            (TaskConfig::Fusion(_), ModelConfig::Spatia(_)) => None,
            (task, _) => Some(task.of_another_model()),
        }
    }

    pub(super) fn of_another_model(&self) -> String {
        let model = match self {
            TaskConfig::Completion(_) => "spackle",
            TaskConfig::Generate(_) => "generator",
            TaskConfig::Alignment(_) | TaskConfig::Imputation(_) => "spotdiff",
            _ => "spatia",
        };
        format!("task.kind = \"{}\" is asked of [model.{model}]", self.kind())
    }
}
