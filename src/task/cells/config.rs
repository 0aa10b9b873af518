//! `[task]` with `kind = "cells"`.

use serde::{Deserialize, Serialize};

use crate::model::spatia::SpatiaConfig;
use crate::task::losses::positive_or_zero;

/// `[task]` with `kind = "cells"`: the weights λ of its terms, and how counts are thinned.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CellsConfig {
    /// Counts from gene tokens. Default 1.
    pub denoise: f64,
    /// Counts from z_cell. Default 1.
    pub mvc: f64,
    /// |cosine| between a cell's extra tokens. Default .2.
    pub dissimilarity: f64,
    /// Hidden patches. Default 1.
    pub reconstruction: f64,
    /// Hidden patches from z_cell alone, as MVC is for the counts. Default 0: it needs `vector_painter`.
    pub picture: f64,
    /// Genes against picture, before fusion. Default .5.
    pub contrast: f64,
    /// Among which cells. Default `lane`.
    pub contrast_scope: ContrastScope,
    /// Class families of labelled cells, each from its token; without classes in the model there is no such term. Default .4.
    pub classes: f64,
    /// d: how much is thinned away. Default .6.
    pub thinning: f64,
    /// Genes without a count that are read, for each with one. Default 1.
    pub zeros_per_gene: f64,
}

/// Among which cells a cell's partner is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContrastScope {
    /// Those of its micro-batch.
    #[default]
    Lane,
    /// All of the step: one forward more.
    Step,
}

impl Default for CellsConfig {
    fn default() -> Self {
        Self {
            denoise: 1.0,
            mvc: 1.0,
            dissimilarity: 0.2,
            reconstruction: 1.0,
            picture: 0.0,
            contrast: 0.5,
            contrast_scope: ContrastScope::Lane,
            classes: 0.4,
            thinning: 0.6,
            zeros_per_gene: 1.0,
        }
    }
}

impl CellsConfig {
    pub(super) fn lambdas(&self) -> [f64; 7] {
        [self.denoise, self.mvc, self.dissimilarity, self.reconstruction, self.picture, self.classes, self.contrast]
    }

    /// What keeps it from this model, in words.
    pub(in crate::task) fn misfit(&self, model: &SpatiaConfig) -> Option<String> {
        if model.contrast_width.is_none() {
            let what = "the task holds genes against pictures in a space of that width";
            return Some(format!("model.spatia.contrast_width is missing: {what}"));
        }
        if self.picture > 0.0 && !model.vector_painter {
            let what = "set model.spatia.vector_painter = true, or task.picture = 0";
            return Some(format!("task.picture paints from z_cell, which the model cannot: {what}"));
        }
        let others = TERMS.iter().zip(self.lambdas()).filter(|(name, _)| **name != CLASSES);
        let needs_classes = others.map(|(_, lambda)| lambda).all(|lambda| lambda == 0.0);
        (needs_classes && model.gene.families.iter().all(|family| family.n_leaves() == 0)).then(|| {
            "task: every weight but that of classes is 0 and model.spatia.gene.families has none, so nothing is learned"
                .to_owned()
        })
    }

    /// What is wrong with it, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let named = TERMS.iter().zip(self.lambdas()).chain([(&"zeros_per_gene", self.zeros_per_gene)]);
        let mut problems: Vec<String> = named.filter_map(|(name, value)| positive_or_zero(name, value)).collect();
        if self.lambdas().iter().all(|&l| l == 0.0) {
            problems.push("task: every weight is 0, so nothing is learned".to_owned());
        }
        if !(0.0..=1.0).contains(&self.thinning) {
            problems.push(format!("task.thinning = {}: must be in [0, 1]", self.thinning));
        }
        problems
    }
}

/// Names of the terms; one over all lanes is the last.
pub(super) const TERMS: [&str; 7] = ["denoise", "mvc", "dissimilarity", "reconstruction", PICTURE, CLASSES, "contrast"];
/// The term that is there where it has a weight.
pub(super) const PICTURE: &str = "picture";
/// The term that needs labels.
pub(super) const CLASSES: &str = "classes";
