//! Several evaluations beside one another: which model, on which data, against which fill. Plain numbers in, plain numbers
//! out; `page` and `files` write them.

mod files;
mod methods;
mod page;

use std::path::Path;

use serde::Serialize;

pub use self::files::write;
pub use self::methods::{Kind, Method, OnDataSet};
use super::evaluation::Evaluation;
use super::verdict::{self, change_percent, percent};
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

/// One split of one shard folder.
#[derive(Debug, Clone, Serialize)]
pub struct DataSet {
    /// Its sections, and as much more as tells it from the others.
    pub name: String,
    /// Evaluated split.
    pub split: String,
    /// Identity of the shards.
    pub data_hash: String,
    /// Evaluated spots.
    pub n_spots: u64,
    /// Genes.
    pub n_genes: u64,
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
    let (data_sets, of_run) = data_sets(judged);
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
        notes: notes(judged, &data_sets, &of_run),
        data_sets,
    }
}

/// The data sets in the order of their first run, and each run's.
fn data_sets(judged: &[Judged]) -> (Vec<DataSet>, Vec<usize>) {
    let mut sets: Vec<(DataSet, &[String])> = Vec::new();
    let mut of_run = Vec::new();
    for one in judged {
        let facts = &one.evaluation.facts;
        let known = sets.iter().position(|(s, _)| s.data_hash == facts.data_hash && s.split == facts.split);
        of_run.push(known.unwrap_or(sets.len()));
        if known.is_none() {
            let set = DataSet {
                name: String::new(),
                split: facts.split.clone(),
                data_hash: facts.data_hash.clone(),
                n_spots: facts.n_spots,
                n_genes: facts.n_genes,
            };
            sets.push((set, &facts.sections));
        }
    }
    let short = |sections: &[String]| match sections {
        [a, b, c, more @ ..] if !more.is_empty() => format!("{a}, {b}, {c} and {} more", more.len()),
        few => few.join(", "),
    };
    let ways: [&dyn Fn(&DataSet, &[String]) -> String; 3] = [
        &|_, sections| short(sections),
        &|s, sections| format!("{} ({}, {} genes)", short(sections), s.split, s.n_genes),
        &|s, sections| format!("{} ({}, shards {:.12})", short(sections), s.split, s.data_hash),
    ];
    let names = |way: &dyn Fn(&DataSet, &[String]) -> String| sets.iter().map(|(s, x)| way(s, x)).collect::<Vec<_>>();
    let chosen = ways.iter().map(|way| names(way)).find(|n| all_differ(n)).unwrap_or_else(|| names(ways[2]));
    (sets.into_iter().zip(chosen).map(|((set, _), name)| DataSet { name, ..set }).collect(), of_run)
}

fn all_differ(names: &[String]) -> bool {
    names.iter().enumerate().all(|(i, name)| !names[..i].contains(name))
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
    UnderProtocol { sentence: sentence(&runs, &methods, data_sets.len(), protocol), runs, methods }
}

fn sentence(runs: &[RunFigures], methods: &[Method], n_data_sets: usize, protocol: Protocol) -> String {
    let n_won = runs.iter().filter(|r| r.verdict == Verdict::BeatsEveryFill).count();
    let beat = if n_won == 1 { "beats" } else { "beat" };
    let mut said =
        format!("Under the {} protocol {n_won} of {} runs {beat} every simple fill.", protocol.name(), runs.len());
    said += &winners(methods, n_data_sets);
    if n_data_sets > 1 {
        said += &relative(methods);
    }
    let changes: Vec<f64> = runs.iter().filter_map(|r| r.change_to_median_percent).collect();
    if !changes.is_empty() {
        said += &format!(
            " Against median completion the MSE changes by {}, mean over {} runs; the SpaCKLE paper reports {} as a mean over 26 data sets.",
            percent(changes.iter().sum::<f64>() / changes.len() as f64),
            changes.len(),
            percent(verdict::PAPER_CHANGE_TO_MEDIAN_PERCENT)
        );
    }
    said
}

/// Who has the lowest MSE: by name of the data set where there are few, counted where there are many.
fn winners(methods: &[Method], n_data_sets: usize) -> String {
    let won = |m: &Method| -> Vec<String> { m.on.iter().filter(|o| o.best).map(|o| o.data_set.clone()).collect() };
    let mut won: Vec<(&str, Vec<String>)> =
        methods.iter().map(|m| (m.method.as_str(), won(m))).filter(|(_, sets)| !sets.is_empty()).collect();
    won.sort_by_key(|(_, sets)| std::cmp::Reverse(sets.len()));
    let in_words = |(method, sets): &(&str, Vec<String>)| match n_data_sets {
        1 => (*method).to_owned(),
        2 | 3 => format!("{method} on {}", sets.join(" and ")),
        n => format!("{method} on {} of {n} data sets", sets.len()),
    };
    format!(" Lowest MSE: {}.", won.iter().map(in_words).collect::<Vec<_>>().join(", "))
}

/// The best model and the best fill, each relative to the lowest MSE on its data sets; the better one first.
fn relative(methods: &[Method]) -> String {
    let mut best: Vec<&Method> =
        [Kind::Model, Kind::Fill].iter().filter_map(|kind| methods.iter().find(|m| m.kind == *kind)).collect();
    best.sort_by(|a, b| a.relative_mse.total_cmp(&b.relative_mse));
    let in_words = |m: &&Method| {
        let kind = if m.kind == Kind::Model { "model" } else { "simple fill" };
        format!("the best {kind}, {}, is at {:.2} ×", m.method, m.relative_mse)
    };
    let words: Vec<String> = best.iter().map(in_words).collect();
    format!(" Relative to the lowest MSE on each data set, on average, {}.", words.join(" and "))
}

/// Runs on one data set that were not asked the same question: the fills, which see only the visible values, tell.
fn notes(judged: &[Judged], data_sets: &[DataSet], of_run: &[usize]) -> Vec<String> {
    let fills = |i: usize| &judged[i].evaluation.paper.baselines;
    let differs = |i: usize| {
        let first = of_run.iter().position(|s| *s == of_run[i])?;
        (fills(first) != fills(i)).then(|| {
            format!(
                "{} and {} were judged on {} with different hidden entries (another seed, hidden fraction or mask rule, or another version): their MSE do not answer the same question. Fills of this data set are those of {}.",
                judged[first].run, judged[i].run, data_sets[of_run[i]].name, judged[first].run
            )
        })
    };
    (0..judged.len()).filter_map(differs).collect()
}

#[cfg(test)]
mod tests;
