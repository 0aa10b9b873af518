//! A trained checkpoint as the commands that use one open it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::anyhow;
use syncytia_shards::panel::Panel;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::vectors::VectorsOf;

use super::exit::UsageError;
use crate::model::generator::GeneratorConfig;
use crate::model::spatia::SpatiaConfig;
use crate::model::{DataShape, Model, ModelConfig};
use crate::task::TaskConfig;
use crate::task::completion::CompletionConfig;
use crate::task::fusion::UpTo;
use crate::task::generate::GenerateConfig;
use crate::tensor::cpu;
use crate::train::checkpoint::{self, Checkpoint, Which};
use crate::train::error::TrainError;
use crate::train::state::{self, RunState};

/// Genes of another panel that are named, at most.
const NAMED: usize = 5;

/// A checkpoint and what it says of itself.
pub struct Trained {
    /// As read.
    pub checkpoint: Checkpoint,
    /// Its state.
    pub run: RunState,
}

impl Trained {
    /// The checkpoint of a run or folder; damaged ones that were passed over are named on stderr.
    pub fn open(path: &Path, which: Which) -> anyhow::Result<Trained> {
        let (checkpoint, damaged) = checkpoint::resolve(path, which)?;
        for error in &damaged {
            eprintln!("warning: {error}");
        }
        let run = state::run_state(&checkpoint.contents).map_err(|e| anyhow!("{}: {e}", checkpoint.dir.display()))?;
        Ok(Trained { checkpoint, run })
    }

    /// The network with the weights that evaluation uses.
    pub fn model(&self) -> anyhow::Result<Model> {
        let model = self.run.config.model.build(self.run.shape, self.run.config.train.seed, &cpu());
        let flat = state::evaluated(&self.checkpoint.contents, &model.specs()).map_err(|e| anyhow!("{e}"))?;
        Ok(model.from_flat(&flat, &cpu()))
    }

    /// Its task, which `command` needs to be completion.
    pub fn completion(&self, command: &str) -> Result<&CompletionConfig, UsageError> {
        match &self.run.config.task {
            TaskConfig::Completion(task) => Ok(task),
            _ => Err(UsageError(format!(
                "{} is a checkpoint of {}, and `{command}` is for those of spackle",
                self.checkpoint.dir.display(),
                self.run.config.model.name()
            ))),
        }
    }

    /// Refuses shards of another panel or shape.
    pub fn check_shards(&self, shards: &Shards) -> anyhow::Result<()> {
        let panel = &shards.manifest().panel;
        let aligned = match &self.run.config.model {
            ModelConfig::Spackle(_) | ModelConfig::Spotdiff(_) => "`syncytia impute`",
            ModelConfig::Spatia(_) => "`syncytia embed --input`",
            ModelConfig::Generator(_) => "`syncytia generate --input`",
        };
        let adopt = |what| {
            format!(
                "{what}; train on with the genes of these shards by `syncytia train --from`, or give files to {aligned}, which \
                 looks genes up by id"
            )
        };
        let shape = self.run.config.model.shape(shards.manifest());
        match self.other_genes(panel).map(adopt).or_else(|| self.other_shape(panel, shape)) {
            None => Ok(()),
            Some(what) => Err(TrainError::Misfit { shards: shards.dir().display().to_string(), what }.into()),
        }
    }

    /// Its generator and task, which `generate` needs.
    pub fn generator(&self) -> Result<(&GeneratorConfig, &GenerateConfig), UsageError> {
        match (&self.run.config.model, &self.run.config.task) {
            (ModelConfig::Generator(model), TaskConfig::Generate(task)) => Ok((model, task)),
            _ => Err(UsageError(format!(
                "{} is a checkpoint of {}, and `generate` is for those of a generator: configs/spatia/g1-tiny.toml",
                self.checkpoint.dir.display(),
                self.run.config.model.name()
            ))),
        }
    }

    /// Its encoder, if it has learned this level, which `embed` needs.
    pub fn encoder(&self, of: VectorsOf) -> Result<&SpatiaConfig, UsageError> {
        let dir = self.checkpoint.dir.display();
        let ModelConfig::Spatia(config) = &self.run.config.model else {
            let name = self.run.config.model.name();
            return Err(UsageError(format!("{dir} is a checkpoint of {name}, and `embed` is for those of spatia")));
        };
        let wanted = Some(match of {
            VectorsOf::Niche => UpTo::Niche,
            VectorsOf::Tissue => UpTo::Tissue,
            _ => UpTo::Cell,
        });
        let (task, learned) = (&self.run.config.task, self.run.config.task.learned());
        let unlearned = learned < wanted;
        if unlearned || ((learned > wanted || task.fuses()) && self.run.parent.is_none()) {
            let why = if unlearned { "has not come to them yet" } else { "began without `train --from`" };
            return Err(UsageError(format!(
                "{dir} has not learned {}: its task is \"{}\", which {why}",
                of.plural(),
                task.kind()
            )));
        }
        Ok(config)
    }

    /// What keeps it from data of this panel and shape, in words; none where it fits.
    pub fn misfit(&self, panel: &Panel, shape: DataShape) -> Option<String> {
        self.other_genes(panel).or_else(|| self.other_shape(panel, shape))
    }

    /// How the genes of a panel differ from those it was trained on, in words.
    fn other_genes(&self, panel: &Panel) -> Option<String> {
        let theirs: Vec<&str> = self.run.config.model.genes(panel).into_iter().map(|g| g.id.as_str()).collect();
        let ours: Vec<&str> = self.run.genes.iter().map(String::as_str).collect();
        if theirs == ours {
            return None;
        }
        let beyond = |these: &[&str], those: &[&str]| {
            let known: BTreeSet<&str> = those.iter().copied().collect();
            let others: Vec<&str> = these.iter().copied().filter(|gene| !known.contains(gene)).collect();
            let first = others.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
            if others.is_empty() { "none".to_owned() } else { format!("{} (first {first})", others.len()) }
        };
        let how = match (beyond(&ours, &theirs), beyond(&theirs, &ours)) {
            (lacking, new) if lacking == "none" && new == "none" => "the same in another order".to_owned(),
            (lacking, new) => format!("of those the data lack {lacking}, new to the model are {new}"),
        };
        Some(format!("the data have {} genes, the model was trained on {}: {how}", theirs.len(), ours.len()))
    }

    /// What of neighbours, covariates and context genes differs from what it was trained with, in words.
    fn other_shape(&self, panel: &Panel, shape: DataShape) -> Option<String> {
        let context =
            |panel: &Panel| panel.context.iter().map(|&g| panel.genes[g as usize].id.clone()).collect::<Vec<_>>();
        if shape != self.run.shape || context(panel) != context(&self.run.panel) {
            let said = |s: DataShape| format!("{} neighbours and {} covariates", s.spots - 1, s.covariates);
            return Some(format!(
                "the data have {}, the model was trained with {}, or with other context genes",
                said(shape),
                said(self.run.shape)
            ));
        }
        None
    }
}
