//! `report.html`: one file, no network.

use askama::Template;
use base64::Engine;

use super::evaluation::{Evaluation, MethodScores};
use super::gene_map::GeneMap;
use super::map::{self, Scale};
use super::sweep::{self, Sweep};
use super::table::{Cell, TableRow};
use super::verdict;
use crate::evaluate::completion::Protocol;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    data: &'a Evaluation,
    verdict: String,
    ratio: Option<String>,
    protocols: Vec<Table>,
    curves: String,
    scatter: String,
    scatter_bar: Bar,
    n_scattered: u64,
    sweep: Sweep,
    maps: Vec<MapRow>,
    sections: String,
}

struct Table {
    name: &'static str,
    what: &'static str,
    rows: Vec<TableRow>,
}

struct MapRow {
    gene: String,
    section: String,
    pictures: Vec<Picture>,
}

struct Picture {
    title: &'static str,
    src: String,
    bar: Bar,
}

struct Bar {
    gradient: String,
    low: String,
    high: String,
}

/// Metrics of the table and whether lower is better.
const COLUMNS: [(&str, bool); 5] =
    [("mse", true), ("mae", true), ("pcc_gene", false), ("pcc_spot", false), ("r2_gene", false)];

/// The page.
pub fn render(data: &Evaluation) -> String {
    let page = Page {
        data,
        verdict: verdict::verdict(data),
        ratio: verdict::ratio_to_median(data),
        protocols: data.protocols().map(|(protocol, scores)| table(data, protocol, scores)).collect(),
        curves: data.curves.svg(),
        scatter: data.scatter.svg(),
        scatter_bar: bar(data.scatter.scale(), 0),
        n_scattered: data.scatter.n_entries(),
        sweep: sweep::of(data),
        maps: data.maps.iter().map(map_row).collect(),
        sections: data.facts.sections.join(", "),
    };
    page.render().expect("a template of plain fields is written to memory")
}

/// What a protocol does, for the note above its table.
pub fn what(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Paper => "Values normalised and completed before hiding, as published",
        Protocol::Strict => "Hidden in the raw counts, then normalised and completed from what is visible",
    }
}

fn table(data: &Evaluation, protocol: Protocol, scores: &MethodScores) -> Table {
    let methods = scores.methods(&data.facts.model);
    let means: Vec<_> = methods.iter().map(|(_, scores)| scores.mean()).collect();
    let best = |metric: &str, lower: bool| {
        let values = means.iter().map(|row| row[metric].value);
        if lower { values.fold(f64::INFINITY, f64::min) } else { values.fold(f64::NEG_INFINITY, f64::max) }
    };
    let rows = methods
        .iter()
        .zip(&means)
        .enumerate()
        .map(|(i, ((name, scores), row))| TableRow {
            name: (*name).to_owned(),
            is_model: i == 0,
            cells: COLUMNS
                .iter()
                .map(|&(metric, lower)| {
                    let value = row[metric].value;
                    let text = if metric == "mse" {
                        format!("{value:.3} ± {:.3}", scores.mse_sd())
                    } else {
                        format!("{value:.3}")
                    };
                    Cell { text, best: value == best(metric, lower) }
                })
                .collect(),
        })
        .collect();
    Table { name: protocol.name(), what: what(protocol), rows }
}

fn bar(scale: Scale, decimals: usize) -> Bar {
    let [low, high] = scale.ends();
    Bar { gradient: scale.gradient(), low: format!("{low:.decimals$}"), high: format!("{high:.decimals$}") }
}

fn map_row(map: &GeneMap) -> MapRow {
    let same = map.value_scale();
    let error = map.error();
    let limit = error.iter().flatten().fold(0.0f32, |m, e| m.max(e.abs()));
    let picture = |title, values: &[Option<f32>], scale: Scale| {
        let png = map::png(&map.xy, values, scale);
        Picture { title, src: base64::engine::general_purpose::STANDARD.encode(png), bar: bar(scale, 1) }
    };
    MapRow {
        gene: map.gene.clone(),
        section: map.section.clone(),
        pictures: vec![
            picture("measured", &map.measured, same),
            picture("visible to the model", &map.visible(), same),
            picture("completed", &map.completed(), same),
            picture("error where hidden", &error, Scale::Diverging(limit)),
        ],
    }
}
