//! `report.json`: every number of the page, in the shape other programs rely on.

use serde_json::{Value, json};

use super::{MethodScores, PageData, Row};

/// The whole report.
pub fn report(data: &PageData) -> Value {
    let baselines = |scores: &MethodScores| -> Value {
        scores
            .baselines
            .iter()
            .map(|(name, row)| (name.clone(), metrics(row)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    json!({
        "task": "completion",
        "split": data.facts.split,
        "protocol": "paper",
        "model": metrics(&data.paper.model),
        "baselines": baselines(&data.paper),
        "strict": {"model": metrics(&data.strict.model), "baselines": baselines(&data.strict)},
        "mse_sd_over_assays": {"paper": data.paper.model_mse_sd, "strict": data.strict.model_mse_sd},
        "pcc_per_gene": data.genes.iter().map(|(gene, r)| json!({"gene": gene, "pcc": r})).collect::<Vec<_>>(),
        "provenance": data.facts,
    })
}

fn metrics(row: &Row) -> Value {
    row.iter().map(|(name, figure)| ((*name).to_owned(), json!(figure))).collect::<serde_json::Map<_, _>>().into()
}
