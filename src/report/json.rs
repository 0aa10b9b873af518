//! `report.json`: every number of the page, in the shape other programs rely on. Read back by `stored`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::evaluation::{Evaluation, Facts, MethodScores, Row};
use super::verdict;
use crate::evaluate::completion::Protocol;

/// Version of what an evaluation stores; another one is not read.
pub const FORMAT: u64 = 1;

/// What a page needs of `report.json`; the other stored files have the rest.
#[derive(Debug, Deserialize)]
pub struct Stored {
    /// What was evaluated on what.
    pub provenance: Facts,
    /// Per gene of the layers.
    pub pcc_per_gene: Vec<GenePcc>,
    /// How `scatter.csv` counts.
    pub scatter: ScatterFacts,
    /// BLAKE3 of the stored files by name.
    pub files: BTreeMap<String, String>,
}

/// A gene's Pearson's r.
#[derive(Debug, Serialize, Deserialize)]
pub struct GenePcc {
    /// Symbol.
    pub gene: String,
    /// Mean over assays; none where no assay scored the gene.
    pub pcc: Option<f64>,
}

/// How `scatter.csv` counts.
#[derive(Debug, Serialize, Deserialize)]
pub struct ScatterFacts {
    /// Side of a cell.
    pub cell: f64,
    /// Entries in all cells.
    pub n: u64,
}

/// The whole report; `files` are the digests of what is stored beside it.
pub fn report(evaluation: &Evaluation, files: &BTreeMap<String, String>) -> Value {
    let (paper, strict) = (&evaluation.paper, &evaluation.strict);
    let per_protocol = |number: &dyn Fn(&MethodScores) -> Value| -> Value {
        evaluation.protocols().map(|(p, scores)| (p.name().to_owned(), number(scores))).collect::<Object>().into()
    };
    let genes = evaluation.genes.iter().map(|(gene, pcc)| GenePcc { gene: gene.clone(), pcc: *pcc });
    json!({
        "format": FORMAT,
        "task": "completion",
        "split": evaluation.facts.split,
        "protocol": Protocol::Paper.name(),
        "model": metrics(&paper.model.mean()),
        "baselines": baselines(paper),
        "strict": {"model": metrics(&strict.model.mean()), "baselines": baselines(strict)},
        "mse_sd_over_assays": per_protocol(&|scores| scores.model.mse_sd().into()),
        "baseline_mse_sd_over_assays": per_protocol(&|scores| {
            scores.baselines.iter().map(|(name, s)| (name.clone(), s.mse_sd().into())).collect::<Object>().into()
        }),
        "change_to_median_percent": per_protocol(&|scores| verdict::change_to_median(scores).into()),
        "sweep": evaluation.sweep,
        "pcc_per_gene": genes.collect::<Vec<_>>(),
        "scatter": ScatterFacts { cell: evaluation.scatter.cell, n: evaluation.scatter.n_entries() },
        "provenance": evaluation.facts,
        "files": files,
    })
}

type Object = serde_json::Map<String, Value>;

fn baselines(scores: &MethodScores) -> Value {
    scores.baselines.iter().map(|(name, s)| (name.clone(), metrics(&s.mean()))).collect::<Object>().into()
}

fn metrics(row: &Row) -> Value {
    row.iter().map(|(name, figure)| ((*name).to_owned(), json!(figure))).collect::<Object>().into()
}
