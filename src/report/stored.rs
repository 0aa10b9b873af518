//! What an evaluation leaves beside its page so that the page can be made again: exact, and readable from Python.
//!
//! ```text
//! assays.csv     protocol, method, assay, metric, value, n_used, n_skipped
//! curves.csv     curve, global_step, value
//! scatter.csv    measured, predicted (lower edges of a cell), n      the cell's side is in report.json
//! sweep.csv      hidden, method, mse, pcc_gene                       no line where no sweep was asked for
//! maps.parquet   gene, section, x, y, measured, hidden, predicted    one row group per map
//! report.json    facts, genes, and the BLAKE3 of each of these
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use syncytia_shards::durable::FileError;

use super::curves::Curves;
use super::error::ReportError;
use super::evaluation::{Evaluation, Facts, MethodScores};
use super::scatter::Scatter;
use super::{NUMBERS, json, maps_parquet};
use crate::evaluate::completion::{Protocol, Scores};
use crate::evaluate::metrics::{Figure, Metrics};

const ASSAYS: &str = "assays.csv";
const CURVES: &str = "curves.csv";
const SCATTER: &str = "scatter.csv";
const SWEEP: &str = "sweep.csv";
const MAPS: &str = "maps.parquet";

#[derive(Serialize, Deserialize)]
struct AssayLine {
    protocol: Protocol,
    method: String,
    assay: usize,
    metric: String,
    value: f64,
    n_used: u64,
    n_skipped: u64,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Curve {
    TrainLoss,
    ValMse,
}

#[derive(Serialize, Deserialize)]
struct CurveLine {
    curve: Curve,
    global_step: u64,
    value: f64,
}

#[derive(Serialize, Deserialize)]
struct ScatterLine {
    measured: f64,
    predicted: f64,
    n: u64,
}

/// The stored files: name and bytes.
pub fn files(evaluation: &Evaluation) -> Vec<(&'static str, Vec<u8>)> {
    let cell = evaluation.scatter.cell;
    let counts = evaluation.scatter.counts.iter().map(|(&(measured, predicted), &n)| ScatterLine {
        measured: f64::from(measured) * cell,
        predicted: f64::from(predicted) * cell,
        n,
    });
    let curve = |curve, points: &[(u64, f64)]| -> Vec<CurveLine> {
        points.iter().map(|&(global_step, value)| CurveLine { curve, global_step, value }).collect()
    };
    let Curves { train_loss, val_mse } = &evaluation.curves;
    let curves = curve(Curve::TrainLoss, train_loss).into_iter().chain(curve(Curve::ValMse, val_mse));
    vec![
        (ASSAYS, csv_of(assay_lines(evaluation))),
        (CURVES, csv_of(curves)),
        (SCATTER, csv_of(counts)),
        (SWEEP, csv_of(evaluation.sweep.iter())),
        (MAPS, maps_parquet::encode(&evaluation.maps)),
    ]
}

fn assay_lines(evaluation: &Evaluation) -> impl Iterator<Item = AssayLine> {
    evaluation.protocols().flat_map(|(protocol, scores)| {
        scores.methods(&evaluation.facts.model).into_iter().flat_map(move |(method, scores)| {
            scores.assays.iter().enumerate().flat_map(move |(i, metrics)| {
                metrics.named().map(|(metric, Figure { value, n_used, n_skipped })| AssayLine {
                    protocol,
                    method: method.to_owned(),
                    assay: i + 1,
                    metric: metric.to_owned(),
                    value,
                    n_used,
                    n_skipped,
                })
            })
        })
    })
}

fn csv_of(lines: impl Iterator<Item = impl Serialize>) -> Vec<u8> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    lines.for_each(|line| writer.serialize(line).expect("a flat line is written to memory"));
    writer.into_inner().expect("memory takes what is flushed")
}

/// Reads back what `files` and `report.json` hold; `None` where `folder` has no `report.json`.
///
/// # Errors
/// A stored file that is missing, that another evaluation wrote, or that does not say what it should.
pub fn load(folder: &Path) -> Result<Option<Evaluation>, ReportError> {
    let path = folder.join(NUMBERS);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::at("read", &path)(error).into()),
    };
    let wrong = |what: String| ReportError::Stored { path: path.clone(), what };
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| wrong(format!("no JSON ({e})")))?;
    if value["format"] != json::FORMAT {
        return Err(wrong("written by another version of syncytia, which stored less or otherwise".to_owned()));
    }
    let stored: json::Stored = serde_json::from_value(value).map_err(|e| wrong(e.to_string()))?;
    let read = |name: &str| read_stored(folder, name, &stored.files);
    let assay_lines = lines(folder, ASSAYS, &read(ASSAYS)?)?;
    let scores = |protocol| {
        scores_of(&assay_lines, protocol, &stored.provenance)
            .map_err(|what| ReportError::Stored { path: folder.join(ASSAYS), what })
    };
    let (paper, strict) = (scores(Protocol::Paper)?, scores(Protocol::Strict)?);
    let curve_lines: Vec<CurveLine> = lines(folder, CURVES, &read(CURVES)?)?;
    let curve = |curve| curve_lines.iter().filter(|l| l.curve == curve).map(|l| (l.global_step, l.value)).collect();
    let curves = Curves { train_loss: curve(Curve::TrainLoss), val_mse: curve(Curve::ValMse) };
    let cell = stored.scatter.cell;
    let index = |edge: f64| (edge / cell).round() as i32;
    let count = |line: ScatterLine| ((index(line.measured), index(line.predicted)), line.n);
    let counts = lines(folder, SCATTER, &read(SCATTER)?)?.into_iter().map(count).collect();
    let maps = maps_parquet::decode(read(MAPS)?)
        .map_err(|e| ReportError::Stored { path: folder.join(MAPS), what: e.to_string() })?;
    Ok(Some(Evaluation {
        facts: stored.provenance,
        paper,
        strict,
        genes: stored.pcc_per_gene.into_iter().map(|g| (g.gene, g.pcc)).collect(),
        scatter: Scatter { cell, counts },
        maps,
        curves,
        sweep: lines(folder, SWEEP, &read(SWEEP)?)?,
    }))
}

/// The bytes of a stored file, which must be those that `report.json` names.
pub(super) fn read_stored(
    folder: &Path,
    name: &str,
    digests: &BTreeMap<String, String>,
) -> Result<Vec<u8>, ReportError> {
    let path = folder.join(name);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(ReportError::Stored { path, what: "missing".to_owned() });
        }
        Err(error) => return Err(FileError::at("read", &path)(error).into()),
    };
    if digests.get(name).map(String::as_str) == Some(digest(&bytes).as_str()) {
        return Ok(bytes);
    }
    Err(ReportError::Stored { path, what: format!("not what {NUMBERS} beside it names") })
}

/// BLAKE3, hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn lines<T: DeserializeOwned>(folder: &Path, name: &str, bytes: &[u8]) -> Result<Vec<T>, ReportError> {
    let lines: Result<Vec<T>, _> = ::csv::Reader::from_reader(bytes).deserialize().collect();
    lines.map_err(|e| ReportError::Stored { path: folder.join(name), what: e.to_string() })
}

/// The scores under a protocol; words where lines are missing.
fn scores_of(lines: &[AssayLine], protocol: Protocol, facts: &Facts) -> Result<MethodScores, String> {
    let mut baselines = methods_of(lines, protocol)?;
    let model = baselines.remove(&facts.model).ok_or_else(|| format!("no lines of the model {}", facts.model))?;
    Ok(MethodScores { model, baselines })
}

fn methods_of(lines: &[AssayLine], protocol: Protocol) -> Result<BTreeMap<String, Scores>, String> {
    let mut figures: BTreeMap<(&str, usize), BTreeMap<&str, Figure>> = BTreeMap::new();
    for line in lines.iter().filter(|l| l.protocol == protocol) {
        let figure = Figure { value: line.value, n_used: line.n_used, n_skipped: line.n_skipped };
        figures.entry((&line.method, line.assay)).or_default().insert(&line.metric, figure);
    }
    let mut methods: BTreeMap<String, Scores> = BTreeMap::new();
    for ((method, assay), named) in figures {
        let metrics = Metrics::from_named(|name| named.get(name).copied())
            .ok_or_else(|| format!("{method} lacks a metric in assay {assay}"))?;
        methods.entry(method.to_owned()).or_insert_with(|| Scores { assays: Vec::new() }).assays.push(metrics);
    }
    Ok(methods)
}
