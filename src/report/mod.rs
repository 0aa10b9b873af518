//! What a reader sees of an evaluation: `report.html` (one file, no network), `report.json`, CSV.
//!
//! Needs no model: plain numbers in, files out.

mod chart;
mod csv;
mod json;
mod map;
mod page;
pub mod tensorboard;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use syncytia_shards::durable;
use syncytia_shards::processed::Matrix;

use crate::evaluate::block::Block;
use crate::evaluate::completion::Outcome;
use crate::evaluate::metrics::Figure;

/// Mean metrics by stable name.
pub type Row = BTreeMap<&'static str, Figure>;

/// Everything the report shows.
#[derive(Debug)]
pub struct PageData {
    /// What was evaluated on what.
    pub facts: Facts,
    /// The protocol as published.
    pub paper: MethodScores,
    /// Hidden in the raw counts.
    pub strict: MethodScores,
    /// Gene symbol and the model's Pearson's r (`paper`).
    pub genes: Vec<(String, Option<f64>)>,
    /// Maps of chosen genes.
    pub maps: Vec<GeneMap>,
    /// Lines of `metrics.jsonl`.
    pub metrics: Vec<serde_json::Value>,
}

/// What was evaluated on what.
#[derive(Debug, Clone, Serialize)]
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
    /// Resolved config, TOML.
    pub config: String,
    /// Source of the gene lengths.
    pub panel_annotation: Option<String>,
}

/// A model and its baselines under one protocol.
#[derive(Debug, Clone)]
pub struct MethodScores {
    /// The model's mean over assays.
    pub model: Row,
    /// Standard deviation of its MSE over assays.
    pub model_mse_sd: f64,
    /// The simple fills' means.
    pub baselines: BTreeMap<String, Row>,
    /// Standard deviations of their MSE.
    pub baseline_mse_sd: BTreeMap<String, f64>,
}

/// One gene on one section in the first assay.
#[derive(Debug, Clone)]
pub struct GeneMap {
    /// Symbol.
    pub gene: String,
    /// Section.
    pub section: String,
    /// Native coordinates.
    pub xy: Vec<[f64; 2]>,
    /// Measured value where measured.
    pub measured: Vec<Option<f32>>,
    /// Measured and visible: what the model was given.
    pub visible: Vec<Option<f32>>,
    /// Visible values and, where hidden, predictions.
    pub completed: Vec<Option<f32>>,
    /// Prediction less measurement where hidden.
    pub error: Vec<Option<f32>>,
}

impl GeneMap {
    /// The completed values as a PNG.
    pub fn completed_png(&self) -> Vec<u8> {
        map::png(&self.xy, &self.completed, self.value_scale())
    }

    /// One scale for measured, visible and completed values: the measured range.
    fn value_scale(&self) -> map::Scale {
        let values = || self.measured.iter().flatten().copied();
        map::Scale::Sequential(values().fold(f32::INFINITY, f32::min), values().fold(f32::NEG_INFINITY, f32::max))
    }
}

/// Where the report is and what it says.
#[derive(Debug)]
pub struct Written {
    /// The page.
    pub page: PathBuf,
    /// `report.json`.
    pub json: serde_json::Value,
    /// The table as text.
    pub table: String,
    /// One sentence.
    pub verdict: String,
}

/// Genes shown as maps: best, median and worst predicted.
const MAPS: usize = 3;

/// Maps of the best, the median and the worst predicted gene on the first block.
pub fn maps_of(blocks: &[Block], outcome: &Outcome, symbols: &[String]) -> Vec<GeneMap> {
    let (Some(block), Some(shown)) = (blocks.first(), outcome.first_assay.first()) else { return Vec::new() };
    let mut order: Vec<(usize, f64)> =
        outcome.pcc_per_gene.iter().enumerate().filter_map(|(g, r)| r.map(|r| (g, r))).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut chosen: Vec<usize> = match order.len() {
        0 => return Vec::new(),
        n => (0..MAPS.min(n)).map(|i| order[i * (n - 1) / (MAPS - 1)].0).collect(),
    };
    chosen.dedup();
    chosen.into_iter().map(|g| gene_map(block, &shown.hidden, &shown.predicted, g, &symbols[g])).collect()
}

fn gene_map(block: &Block, hidden: &Matrix<bool>, predicted: &Matrix<f32>, g: usize, symbol: &str) -> GeneMap {
    let spots = 0..block.n_obs();
    let measured: Vec<Option<f32>> =
        spots.clone().map(|i| block.piece.measured.row(i)[g].then(|| block.target.row(i)[g])).collect();
    let is_hidden = |i: usize| hidden.row(i)[g];
    let visible: Vec<Option<f32>> = spots.clone().map(|i| if is_hidden(i) { None } else { measured[i] }).collect();
    let completed = spots.clone().map(|i| if is_hidden(i) { Some(predicted.row(i)[g]) } else { measured[i] }).collect();
    let error = spots.map(|i| measured[i].filter(|_| is_hidden(i)).map(|m| predicted.row(i)[g] - m)).collect();
    GeneMap {
        gene: symbol.to_owned(),
        section: block.piece.library_id.clone(),
        xy: block.piece.xy.clone(),
        measured,
        visible,
        completed,
        error,
    }
}

/// Writes `report.html`, `report.json`, `table.csv` and `genes.csv` into `folder`.
pub fn write(data: &PageData, folder: &Path) -> io::Result<Written> {
    std::fs::create_dir_all(folder)?;
    let put = |name: &str, bytes: &[u8]| durable::write_atomic(&folder.join(name), bytes).map_err(|e| e.source);
    let json = json::report(data);
    let verdict = verdict(data);
    put("table.csv", csv::table(data).as_bytes())?;
    put("genes.csv", csv::genes(data).as_bytes())?;
    put("report.json", &serde_json::to_vec_pretty(&json)?)?;
    let page = folder.join("report.html");
    put("report.html", page::render(data, &verdict)?.as_bytes())?;
    Ok(Written { page, json, table: text_table(data), verdict })
}

/// Whether the model beats every simple fill, under both protocols, in a sentence each.
pub fn verdict(data: &PageData) -> String {
    let one = |protocol: &str, scores: &MethodScores| {
        let model = scores.model["mse"].value;
        let Some((name, best)) = best_baseline(scores) else {
            return format!("Under the {protocol} protocol nothing was compared.");
        };
        let change = 100.0 * (model - best) / best;
        if model < best {
            format!(
                "Under the {protocol} protocol the model beats every simple fill: MSE {model:.3} against {best:.3} of {name} ({change:+.1} %)."
            )
        } else {
            format!(
                "Under the {protocol} protocol the model does not beat {name}: MSE {model:.3} against {best:.3} ({change:+.1} %)."
            )
        }
    };
    format!("{} {}", one("paper", &data.paper), one("strict", &data.strict))
}

/// The simple fill of lowest MSE.
pub fn best_baseline(scores: &MethodScores) -> Option<(&str, f64)> {
    scores.baselines.iter().map(|(name, row)| (name.as_str(), row["mse"].value)).min_by(|a, b| a.1.total_cmp(&b.1))
}

/// Methods of a protocol, the model first, then the fills by MSE.
fn methods<'a>(data: &'a PageData, scores: &'a MethodScores) -> Vec<(&'a str, &'a Row, f64)> {
    let mut fills: Vec<(&str, &Row, f64)> =
        scores.baselines.iter().map(|(n, r)| (n.as_str(), r, scores.baseline_mse_sd[n])).collect();
    fills.sort_by(|a, b| a.1["mse"].value.total_cmp(&b.1["mse"].value));
    let mut all = vec![(data.facts.model.as_str(), &scores.model, scores.model_mse_sd)];
    all.extend(fills);
    all
}

fn text_table(data: &PageData) -> String {
    let mut out = String::new();
    for (protocol, scores) in [("paper", &data.paper), ("strict", &data.strict)] {
        out += &format!("{protocol:<18}{:>8} {:>8} {:>8} {:>8} {:>8}\n", "MSE", "MAE", "PCCgene", "PCCspot", "R2gene");
        for (name, row, _) in methods(data, scores) {
            let cell = |m: &str| row[m].value;
            out += &format!(
                "  {name:<16}{:>8.4} {:>8.4} {:>8.4} {:>8.4} {:>8.4}\n",
                cell("mse"),
                cell("mae"),
                cell("pcc_gene"),
                cell("pcc_spot"),
                cell("r2_gene")
            );
        }
    }
    out
}
