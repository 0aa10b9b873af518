//! The tables as CSV.

use super::{PageData, methods};

/// One line per protocol, method and metric.
pub fn table(data: &PageData) -> String {
    let mut out = String::from("protocol,method,metric,value,n_used,n_skipped\n");
    for (protocol, scores) in [("paper", &data.paper), ("strict", &data.strict)] {
        for (name, row, _) in methods(data, scores) {
            for (metric, f) in row {
                out += &format!("{protocol},{name},{metric},{},{},{}\n", f.value, f.n_used, f.n_skipped);
            }
        }
    }
    out
}

/// One line per gene.
pub fn genes(data: &PageData) -> String {
    let mut out = String::from("gene,pcc\n");
    for (gene, r) in &data.genes {
        out += &format!("\"{}\",{}\n", gene.replace('"', "\"\""), r.map_or(String::new(), |r| r.to_string()));
    }
    out
}
