//! What an evaluation found: all that its page shows, as plain numbers. Needs no model and no shards.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::curves::Curves;
use super::gene_map::GeneMap;
use super::scatter::Scatter;
use crate::evaluate::completion::{Outcome, Protocol, Scores};
use crate::evaluate::metrics::Figure;
use crate::evaluate::sweep::Point;

/// Mean metrics by stable name.
pub type Row = BTreeMap<&'static str, Figure>;

/// Everything the report shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// What was evaluated on what.
    pub facts: Facts,
    /// The protocol as published.
    pub paper: MethodScores,
    /// Hidden in the raw counts.
    pub strict: MethodScores,
    /// Gene symbol and the model's Pearson's r (`paper`).
    pub genes: Vec<(String, Option<f64>)>,
    /// Predicted against measured in the first assay (`paper`).
    pub scatter: Scatter,
    /// Maps of chosen genes.
    pub maps: Vec<GeneMap>,
    /// How the model was trained, thinned to what is drawn.
    pub curves: Curves,
    /// Scores where other fractions are hidden; empty where not asked for.
    pub sweep: Vec<Point>,
}

impl Evaluation {
    /// The scores under a protocol.
    pub fn under(&self, protocol: Protocol) -> &MethodScores {
        match protocol {
            Protocol::Paper => &self.paper,
            Protocol::Strict => &self.strict,
        }
    }

    /// Both protocols with their scores, in the order of the report.
    pub fn protocols(&self) -> impl Iterator<Item = (Protocol, &MethodScores)> {
        Protocol::ALL.into_iter().map(|protocol| (protocol, self.under(protocol)))
    }
}

/// What was evaluated on what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Model name.
    pub model: String,
    /// Evaluated split.
    pub split: String,
    /// The rule that made the splits.
    pub split_rule: String,
    /// Evaluated sections.
    pub sections: Vec<String>,
    /// Evaluated spots.
    pub n_spots: u64,
    /// Spots the model was trained on.
    pub n_train_spots: u64,
    /// Genes.
    pub n_genes: u64,
    /// Batches consumed by the checkpoint.
    pub global_step: u64,
    /// Step and value of the best validation.
    pub best: Option<(u64, f64)>,
    /// Name of the checkpoint.
    pub checkpoint: String,
    /// Identity of the shards.
    pub data_hash: String,
    /// Version of syncytia.
    pub version: String,
    /// The precision in which gradients were summed.
    pub sums: String,
    /// Resolved config, TOML.
    pub config: String,
    /// Source of the gene lengths.
    pub panel_annotation: Option<String>,
}

/// A model and its baselines under one protocol, assay by assay.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodScores {
    /// The model.
    pub model: Scores,
    /// The simple fills by stable name.
    pub baselines: BTreeMap<String, Scores>,
}

impl MethodScores {
    /// What an evaluation under one protocol gave.
    pub fn of(outcome: &Outcome) -> MethodScores {
        let baselines = outcome.baselines.iter().map(|(name, scores)| ((*name).to_owned(), scores.clone()));
        MethodScores { model: outcome.model.clone(), baselines: baselines.collect() }
    }

    /// The simple fill of lowest mean MSE.
    pub fn best_baseline(&self) -> Option<(&str, f64)> {
        let fills = self.baselines.iter().map(|(name, scores)| (name.as_str(), scores.mse()));
        fills.min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The methods, the model under `model` first, then the fills by MSE.
    pub fn methods<'a>(&'a self, model: &'a str) -> Vec<(&'a str, &'a Scores)> {
        let mut fills: Vec<(&str, &Scores)> = self.baselines.iter().map(|(name, s)| (name.as_str(), s)).collect();
        fills.sort_by(|a, b| a.1.mse().total_cmp(&b.1.mse()));
        let mut all = vec![(model, &self.model)];
        all.extend(fills);
        all
    }
}
