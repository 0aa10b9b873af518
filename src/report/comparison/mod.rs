//! Several evaluations beside one another: which model, on which data, against which fill. Plain numbers in, plain numbers
//! out; `page` and `files` write them.

mod data_set;
mod files;
mod methods;
mod page;
mod sentence;

use std::path::Path;

use serde::Serialize;

pub use self::data_set::DataSet;
use self::data_set::all_differ;
pub use self::files::write;
pub use self::methods::{Kind, Method, OnDataSet};
use super::evaluation::Evaluation;
use super::verdict::{self, change_percent};
use crate::evaluate::completion::Protocol;

/// An evaluation under the name its run has among those compared.
#[derive(Debug)]
pub struct Judged {
    /// Unique among those compared.
    pub run: String,
    /// What was found.
    pub evaluation: Evaluation,
}

/// Everything the page shows; `comparison.json` as it is.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Version of `comparison.json`.
    pub format: u32,
    /// What was judged on, each once.
    pub data_sets: Vec<DataSet>,
    /// The runs as given.
    pub runs: Vec<RunFacts>,
    /// The protocol as published.
    pub paper: UnderProtocol,
    /// Hidden in the raw counts.
    pub strict: UnderProtocol,
    /// What the SpaCKLE paper reports for the change to median completion.
    pub paper_reports_percent: f64,
    /// What a reader must know before comparing.
    pub notes: Vec<String>,
}

/// One run.
#[derive(Debug, Serialize)]
pub struct RunFacts {
    /// Name.
    pub run: String,
    /// Model.
    pub model: String,
    /// Name of its data set.
    pub data_set: String,
    /// Name of the checkpoint.
    pub checkpoint: String,
    /// Batches consumed.
    pub global_step: u64,
}

/// The runs and the methods under one protocol.
#[derive(Debug, Serialize)]
pub struct UnderProtocol {
    /// What the numbers say.
    pub sentence: String,
    /// One per run, in the order given.
    pub runs: Vec<RunFigures>,
    /// Models, then fills, each best first.
    pub methods: Vec<Method>,
}

/// A run's figures under one protocol.
#[derive(Debug, Serialize)]
pub struct RunFigures {
    /// Name of the run.
    pub run: String,
    /// Name of the data set.
    pub data_set: String,
    /// Mean over assays.
    pub mse: f64,
    /// Standard deviation over assays.
    pub mse_sd: f64,
    /// Mean over genes and assays.
    pub pcc_gene: f64,
    /// Of the MSE, in percent.
    pub change_to_median_percent: Option<f64>,
    /// The simple fill of lowest MSE.
    pub best_fill: String,
    /// Its MSE.
    pub best_fill_mse: f64,
    /// Of the MSE, in percent.
    pub change_to_best_fill_percent: f64,
    /// Against the fills.
    pub verdict: Verdict,
    /// Lowest MSE of all runs and fills on this data set.
    pub best_on_data_set: bool,
    /// The fill has the lowest MSE of all on this data set.
    pub fill_is_best_on_data_set: bool,
}

/// A run against the simple fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Lower MSE than every fill.
    BeatsEveryFill,
    /// A fill is as good or better.
    DoesNot,
}

impl Comparison {
    /// Both protocols, in the order of the report.
    pub fn protocols(&self) -> [(Protocol, &UnderProtocol); 2] {
        Protocol::ALL.map(|protocol| match protocol {
            Protocol::Paper => (protocol, &self.paper),
            Protocol::Strict => (protocol, &self.strict),
        })
    }
}

/// Names for the runs: the last parts of their paths, as few as tell them apart.
pub fn names(runs: &[&Path]) -> Vec<String> {
    let parts: Vec<Vec<String>> = runs
        .iter()
        .map(|run| run.components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect())
        .collect();
    let last = |n: usize| -> Vec<String> { parts.iter().map(|p| p[p.len().saturating_sub(n)..].join("/")).collect() };
    let longest = parts.iter().map(Vec::len).max().unwrap_or(0);
    (1..longest).map(last).find(|names| all_differ(names)).unwrap_or_else(|| last(longest))
}

/// Compares runs, each evaluated once.
pub fn compare(judged: &[Judged]) -> Comparison {
    let (data_sets, of_run) = data_set::of(judged);
    let facts = |(one, &set): (&Judged, &usize)| RunFacts {
        run: one.run.clone(),
        model: one.evaluation.facts.model.clone(),
        data_set: data_sets[set].name.clone(),
        checkpoint: one.evaluation.facts.checkpoint.clone(),
        global_step: one.evaluation.facts.global_step,
    };
    Comparison {
        format: 1,
        runs: judged.iter().zip(&of_run).map(facts).collect(),
        paper: under(judged, &data_sets, &of_run, Protocol::Paper),
        strict: under(judged, &data_sets, &of_run, Protocol::Strict),
        paper_reports_percent: verdict::PAPER_CHANGE_TO_MEDIAN_PERCENT,
        notes: sentence::notes(judged, &data_sets, &of_run),
        data_sets,
    }
}

fn under(judged: &[Judged], data_sets: &[DataSet], of_run: &[usize], protocol: Protocol) -> UnderProtocol {
    let methods = methods::of(judged, data_sets, of_run, protocol);
    let lowest = |set: usize| {
        let here = judged.iter().zip(of_run).filter(|(_, s)| **s == set).map(|(one, _)| one.evaluation.under(protocol));
        here.flat_map(|s| s.best_baseline().map(|b| b.1).into_iter().chain([s.model.mse()]))
            .fold(f64::INFINITY, f64::min)
    };
    let figures = |(one, &set): (&Judged, &usize)| {
        let scores = one.evaluation.under(protocol);
        let mse = scores.model.mse();
        // An evaluation runs every fill, so there is one.
        let (best_fill, best_fill_mse) = scores.best_baseline().unwrap_or(("none", f64::INFINITY));
        RunFigures {
            run: one.run.clone(),
            data_set: data_sets[set].name.clone(),
            mse,
            mse_sd: scores.model.mse_sd(),
            pcc_gene: scores.model.mean().get("pcc_gene").map_or(0.0, |f| f.value),
            change_to_median_percent: verdict::change_to_median(scores),
            best_fill: best_fill.to_owned(),
            best_fill_mse,
            change_to_best_fill_percent: change_percent(mse, best_fill_mse),
            verdict: if mse < best_fill_mse { Verdict::BeatsEveryFill } else { Verdict::DoesNot },
            best_on_data_set: mse == lowest(set),
            fill_is_best_on_data_set: best_fill_mse == lowest(set),
        }
    };
    let runs: Vec<RunFigures> = judged.iter().zip(of_run).map(figures).collect();
    UnderProtocol { sentence: sentence::of(&runs, &methods, data_sets.len(), protocol), runs, methods }
}

#[cfg(test)]
mod tests;
