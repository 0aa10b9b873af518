//! What a reader sees of evaluations: `report.html` (one file, no network), `report.json`, CSV; a page that compares runs.
//!
//! Needs no model: plain numbers in, files out. What [`write()`] stores, [`load`] reads, and the page is the same again.
//! Completion has a page of its own, all other tasks are [`findings`].

mod chart;
pub mod comparison;
pub mod contact_sheet;
mod csv;
pub mod curves;
pub mod error;
pub mod evaluation;
pub mod findings;
pub mod gene_map;
pub mod generated_sheet;
pub mod generation;
mod histogram;
pub mod imputation;
mod json;
pub mod map;
mod maps_parquet;
mod page;
pub mod scatter;
mod stored;
mod sweep;
mod table;
pub mod tensorboard;
pub mod verdict;
mod violin;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use syncytia_shards::durable::{self, FileError};

pub use self::error::ReportError;
pub use self::evaluation::Evaluation;
pub use self::findings::{Findings, write as write_findings};
pub use self::stored::load;

/// Every number of the page; written after the files it names.
const NUMBERS: &str = "report.json";
/// File of the page.
const PAGE: &str = "report.html";

/// Where the report is and what it says.
#[derive(Debug)]
pub struct Written {
    /// The page.
    pub page: PathBuf,
    /// `report.json`.
    pub json: serde_json::Value,
}

/// Writes the stored files, the tables, `report.json` and the page into `folder`.
///
/// # Errors
/// The system's. `report.json` comes after the files whose digests it holds, the page last.
pub fn write(evaluation: &Evaluation, folder: &Path) -> Result<Written, ReportError> {
    make(folder)?;
    let stored = stored::files(evaluation);
    for (name, bytes) in &stored {
        put(folder, name, bytes)?;
    }
    put(folder, "table.csv", csv::table(evaluation).as_bytes())?;
    put(folder, "genes.csv", csv::genes(evaluation).as_bytes())?;
    let json = json::report(evaluation, &digests(&stored));
    put(folder, NUMBERS, &pretty(&json))?;
    let page = write_page(evaluation, folder)?;
    Ok(Written { page, json })
}

/// Writes only the page into `folder`; returns its path.
///
/// # Errors
/// The system's.
pub fn write_page(evaluation: &Evaluation, folder: &Path) -> Result<PathBuf, ReportError> {
    make(folder)?;
    put(folder, PAGE, page::render(evaluation).as_bytes())?;
    Ok(folder.join(PAGE))
}

/// `report.json` of an evaluation.
pub fn numbers(evaluation: &Evaluation) -> serde_json::Value {
    json::report(evaluation, &digests(&stored::files(evaluation)))
}

fn digests<B: AsRef<[u8]>>(stored: &[(&str, B)]) -> BTreeMap<String, String> {
    stored.iter().map(|(name, bytes)| ((*name).to_owned(), stored::digest(bytes.as_ref()))).collect()
}

fn make(folder: &Path) -> Result<(), ReportError> {
    fs::create_dir_all(folder).map_err(FileError::at("create", folder))?;
    Ok(())
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), ReportError> {
    Ok(durable::write_atomic(&folder.join(name), bytes)?)
}

fn pretty(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("maps with text keys are written to memory")
}

/// The tables as text, for a terminal.
pub fn text_table(evaluation: &Evaluation) -> String {
    let mut out = String::new();
    for (protocol, scores) in evaluation.protocols() {
        out += &format!(
            "{:<22}{:>8} {:>8} {:>8} {:>8} {:>8}\n",
            protocol.name(),
            "MSE",
            "MAE",
            "PCCgene",
            "PCCspot",
            "R2gene"
        );
        for (name, method) in scores.methods(&evaluation.facts.model) {
            let row = method.mean();
            let cell = |m: &str| row[m].value;
            out += &format!(
                "  {name:<20}{:>8.4} {:>8.4} {:>8.4} {:>8.4} {:>8.4}\n",
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
