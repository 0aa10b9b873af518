//! The methods of a comparison: every model and every fill over the data sets it was judged on.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{DataSet, Judged};
use crate::evaluate::completion::{Protocol, Scores};

/// Trained or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Trained.
    Model,
    /// A simple fill.
    Fill,
}

/// A method over data sets.
#[derive(Debug, Serialize)]
pub struct Method {
    /// Name.
    pub method: String,
    /// Trained or not.
    pub kind: Kind,
    /// Where it was judged, in the order of the data sets.
    pub on: Vec<OnDataSet>,
    /// Mean over data sets.
    pub mean_mse: f64,
    /// Mean over its data sets of MSE ÷ lowest MSE of any method there; 1 is best everywhere.
    pub relative_mse: f64,
    /// Lowest `relative_mse` of all.
    pub best: bool,
}

/// A method on one data set.
#[derive(Debug, Serialize)]
pub struct OnDataSet {
    /// Name of the data set.
    pub data_set: String,
    /// Mean over assays.
    pub mse: f64,
    /// Each assay's MSE.
    pub assays: Vec<f64>,
    /// Lowest of all methods there.
    pub best: bool,
}

/// A method's scores by position of the data set.
type Pooled<'a> = BTreeMap<usize, &'a Scores>;

/// All methods under a protocol: models, then fills, each best first.
pub fn of(judged: &[Judged], data_sets: &[DataSet], of_run: &[usize], protocol: Protocol) -> Vec<Method> {
    let mut pooled: Vec<(String, Kind, Pooled<'_>)> = Vec::new();
    for (name, members) in models(judged, of_run) {
        let scores = members.into_iter().map(|i| (of_run[i], &judged[i].evaluation.under(protocol).model));
        pooled.push((name, Kind::Model, scores.collect()));
    }
    let mut fills: BTreeMap<&str, Pooled<'_>> = BTreeMap::new();
    for (one, &set) in judged.iter().zip(of_run) {
        for (name, scores) in &one.evaluation.under(protocol).baselines {
            // The fills of a data set are those of its first run.
            fills.entry(name).or_default().entry(set).or_insert(scores);
        }
    }
    pooled.extend(fills.into_iter().map(|(name, scores)| (name.to_owned(), Kind::Fill, scores)));
    let lowest: Vec<f64> = (0..data_sets.len())
        .map(|set| pooled.iter().filter_map(|p| p.2.get(&set)).map(|s| s.mse()).fold(f64::INFINITY, f64::min))
        .collect();
    let mut methods: Vec<Method> =
        pooled.into_iter().map(|(name, kind, scores)| method(name, kind, &scores, data_sets, &lowest)).collect();
    methods.sort_by(|a, b| {
        let order = a.kind.cmp(&b.kind).then(a.relative_mse.total_cmp(&b.relative_mse));
        order.then_with(|| a.method.cmp(&b.method))
    });
    let lowest = methods.iter().map(|m| m.relative_mse).fold(f64::INFINITY, f64::min);
    methods.iter_mut().for_each(|m| m.best = m.relative_mse == lowest);
    methods
}

fn method(method: String, kind: Kind, scores: &Pooled<'_>, data_sets: &[DataSet], lowest: &[f64]) -> Method {
    let n = scores.len().max(1) as f64;
    let on = scores.iter().map(|(&set, scores)| OnDataSet {
        data_set: data_sets[set].name.clone(),
        mse: scores.mse(),
        assays: scores.assays.iter().map(|a| a.mse.value).collect(),
        best: scores.mse() == lowest[set],
    });
    Method {
        method,
        kind,
        on: on.collect(),
        mean_mse: scores.values().map(|s| s.mse()).sum::<f64>() / n,
        relative_mse: scores.iter().map(|(&set, s)| s.mse() / lowest[set]).sum::<f64>() / n,
        best: false,
    }
}

/// Which runs are one model: all of a name when no data set occurs twice among them; else those of one config; else each
/// run is its own.
fn models(judged: &[Judged], of_run: &[usize]) -> Vec<(String, Vec<usize>)> {
    let once_per_data_set = |members: &[usize]| {
        members.iter().enumerate().all(|(n, i)| members[..n].iter().all(|earlier| of_run[*earlier] != of_run[*i]))
    };
    let mut models = Vec::new();
    for (name, members) in grouped(0..judged.len(), |i| &judged[i].evaluation.facts.model) {
        if once_per_data_set(&members) {
            models.push((name.clone(), members));
            continue;
        }
        for (_, members) in grouped(members.into_iter(), |i| &judged[i].evaluation.facts.config) {
            let groups =
                if once_per_data_set(&members) { vec![members] } else { members.iter().map(|i| vec![*i]).collect() };
            for group in groups {
                let more = if group.len() > 1 { format!(" and {} more", group.len() - 1) } else { String::new() };
                models.push((format!("{name} ({}{more})", judged[group[0]].run), group));
            }
        }
    }
    models
}

/// Runs by what `key` says of them, in the order of their first.
fn grouped<'a>(runs: impl Iterator<Item = usize>, key: impl Fn(usize) -> &'a String) -> Vec<(&'a String, Vec<usize>)> {
    let mut groups: Vec<(&String, Vec<usize>)> = Vec::new();
    for i in runs {
        match groups.iter_mut().find(|g| g.0 == key(i)) {
            Some(group) => group.1.push(i),
            None => groups.push((key(i), vec![i])),
        }
    }
    groups
}
