//! The tables as CSV, for readers of the report; nothing reads them back.

use super::Evaluation;

/// One line per protocol, method and metric.
pub fn table(evaluation: &Evaluation) -> String {
    let mut out = String::from("protocol,method,metric,value,n_used,n_skipped\n");
    for (protocol, scores) in evaluation.protocols() {
        for (name, method) in scores.methods(&evaluation.facts.model) {
            for (metric, f) in method.mean() {
                out += &format!("{},{name},{metric},{},{},{}\n", protocol.name(), f.value, f.n_used, f.n_skipped);
            }
        }
    }
    out
}

/// One line per gene.
pub fn genes(evaluation: &Evaluation) -> String {
    let mut out = String::from("gene,pcc\n");
    for (gene, r) in &evaluation.genes {
        out += &format!("\"{}\",{}\n", gene.replace('"', "\"\""), r.map_or(String::new(), |r| r.to_string()));
    }
    out
}
