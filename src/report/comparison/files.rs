//! `comparison.html`, `comparison.csv`, `comparison.json`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::super::error::ReportError;
use super::super::{make, pretty, put};
use super::{Comparison, RunFigures, Verdict, page};

/// One run under one protocol.
#[derive(Serialize)]
struct Line<'a> {
    protocol: &'static str,
    run: &'a str,
    data_set: &'a str,
    mse: f64,
    mse_sd: f64,
    pcc_gene: f64,
    change_to_median_percent: Option<f64>,
    best_fill: &'a str,
    best_fill_mse: f64,
    change_to_best_fill_percent: f64,
    verdict: Verdict,
    best_on_data_set: bool,
}

/// Writes the three files into `folder`; returns the page's path.
///
/// # Errors
/// The system's.
pub fn write(comparison: &Comparison, folder: &Path) -> Result<PathBuf, ReportError> {
    make(folder)?;
    put(folder, "comparison.csv", &csv(comparison))?;
    put(folder, "comparison.json", &pretty(comparison))?;
    put(folder, "comparison.html", page::render(comparison).as_bytes())?;
    Ok(folder.join("comparison.html"))
}

fn csv(comparison: &Comparison) -> Vec<u8> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    for (protocol, under) in comparison.protocols() {
        for run in &under.runs {
            writer.serialize(line(protocol.name(), run)).expect("a flat line is written to memory");
        }
    }
    writer.into_inner().expect("memory takes what is flushed")
}

fn line<'a>(protocol: &'static str, run: &'a RunFigures) -> Line<'a> {
    Line {
        protocol,
        run: &run.run,
        data_set: &run.data_set,
        mse: run.mse,
        mse_sd: run.mse_sd,
        pcc_gene: run.pcc_gene,
        change_to_median_percent: run.change_to_median_percent,
        best_fill: &run.best_fill,
        best_fill_mse: run.best_fill_mse,
        change_to_best_fill_percent: run.change_to_best_fill_percent,
        verdict: run.verdict,
        best_on_data_set: run.best_on_data_set,
    }
}
