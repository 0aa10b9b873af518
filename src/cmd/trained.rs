//! A trained checkpoint as the commands that use one open it.

use std::path::Path;

use anyhow::anyhow;
use syncytia_shards::error::StoreError;
use syncytia_shards::manifest::MANIFEST_FILE;
use syncytia_shards::panel::Panel;
use syncytia_shards::reader::Shards;

use super::exit::UsageError;
use crate::model::generator::GeneratorConfig;
use crate::model::{DataShape, Model, ModelConfig};
use crate::task::TaskConfig;
use crate::task::completion::CompletionConfig;
use crate::task::generate::GenerateConfig;
use crate::tensor::cpu;
use crate::train::checkpoint::{self, Checkpoint, Which};
use crate::train::state::{self, RunState};

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
        match self.misfit(&shards.manifest().panel, self.run.config.model.shape(shards.manifest())) {
            None => Ok(()),
            Some(what) => Err(StoreError::ManifestContent { path: shards.dir().join(MANIFEST_FILE), what }.into()),
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

    /// What keeps it from data of this panel and shape, in words; none where it fits.
    pub fn misfit(&self, panel: &Panel, shape: DataShape) -> Option<String> {
        let ours: Vec<&str> = self.run.config.model.genes(panel).into_iter().map(|g| g.id.as_str()).collect();
        if ours != self.run.genes.iter().map(String::as_str).collect::<Vec<_>>() {
            let missing: Vec<&String> = self.run.genes.iter().filter(|g| !ours.contains(&g.as_str())).take(5).collect();
            return Some(format!(
                "the data have {} genes, the model was trained on {} others or in another order (first missing: {missing:?})",
                ours.len(),
                self.run.genes.len()
            ));
        }
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
