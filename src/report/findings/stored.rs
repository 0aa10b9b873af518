//! `report.json` and `table.csv` of findings, and back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::super::stored::read_stored;
use super::super::{NUMBERS, ReportError};
use super::{Findings, Score};

/// Version of what is stored; another one is not read.
const FORMAT: u64 = 1;

/// The whole report; `files` are the digests of the pictures beside it.
pub fn json(findings: &Findings, files: &BTreeMap<String, String>) -> Value {
    let columns = || findings.tables.iter().flat_map(|table| &table.columns).map(|column| &column.metric);
    let names: BTreeSet<&String> = columns().collect();
    assert_eq!(names.len(), columns().count(), "a metric is in one table only");
    let of = |method: &str| -> Value {
        let scores = findings.of_method(method).map(|(column, score)| (column.metric.clone(), json!(score)));
        scores.collect::<serde_json::Map<String, Value>>().into()
    };
    let baselines = findings.baselines().into_iter().map(|name| (name.to_owned(), of(name)));
    json!({
        "findings_format": FORMAT,
        "task": findings.task,
        "split": findings.split,
        "protocol": findings.protocol,
        "model": of(&findings.model),
        "baselines": baselines.collect::<serde_json::Map<String, Value>>(),
        "provenance": findings.provenance,
        "page": findings,
        "files": files,
    })
}

#[derive(Serialize)]
struct Line<'a> {
    table: &'a str,
    method: &'a str,
    metric: &'a str,
    value: f64,
    sd: Option<f64>,
    se: Option<f64>,
    n_used: u64,
    n_skipped: u64,
}

/// One line per table, method and metric.
pub fn csv(findings: &Findings) -> Vec<u8> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    for table in &findings.tables {
        for row in &table.rows {
            for (column, score) in table.columns.iter().zip(&row.scores) {
                let Some(Score { figure, sd, se }) = *score else { continue };
                let line = Line {
                    table: &table.title,
                    method: &row.method,
                    metric: &column.metric,
                    value: figure.value,
                    sd,
                    se,
                    n_used: figure.n_used,
                    n_skipped: figure.n_skipped,
                };
                writer.serialize(line).expect("a flat line is written to memory");
            }
        }
    }
    writer.into_inner().expect("memory takes what is flushed")
}

/// Reads back what was written; `None` where `folder` has no `report.json`, or one of completion.
///
/// # Errors
/// A file that is missing, that another evaluation wrote, or that does not say what it should.
pub fn load(folder: &Path) -> Result<Option<Findings>, ReportError> {
    let path = folder.join(NUMBERS);
    let Ok(bytes) = fs::read(&path) else { return Ok(None) };
    let wrong = |what: String| ReportError::Stored { path: path.clone(), what };
    let mut value: Value = serde_json::from_slice(&bytes).map_err(|e| wrong(format!("no JSON ({e})")))?;
    if value["findings_format"].is_null() {
        return Ok(None);
    }
    if value["findings_format"] != FORMAT {
        return Err(wrong("written by another version of syncytia, which stored less or otherwise".to_owned()));
    }
    let files: BTreeMap<String, String> =
        serde_json::from_value(value["files"].take()).map_err(|e| wrong(e.to_string()))?;
    let mut findings: Findings = serde_json::from_value(value["page"].take()).map_err(|e| wrong(e.to_string()))?;
    for picture in findings.galleries.iter_mut().flat_map(|gallery| &mut gallery.pictures) {
        if picture.file.contains(['/', '\\']) || picture.file.starts_with('.') {
            return Err(wrong(format!("{:?} is no file of the report", picture.file)));
        }
        picture.bytes = read_stored(folder, &picture.file, &files)?;
    }
    Ok(Some(findings))
}
