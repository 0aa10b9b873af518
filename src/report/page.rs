//! `report.html`: one file, no network.

use askama::Template;
use base64::Engine;

use super::chart::{self, Line};
use super::map::{self, Scale};
use super::{GeneMap, MethodScores, PageData, methods};

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    data: &'a PageData,
    verdict: &'a str,
    protocols: Vec<Table>,
    curves: String,
    maps: Vec<MapRow>,
    sections: String,
    first_loss: bool,
}

struct Table {
    name: &'static str,
    what: &'static str,
    rows: Vec<TableRow>,
}

struct TableRow {
    name: String,
    is_model: bool,
    cells: Vec<Cell>,
}

struct Cell {
    text: String,
    best: bool,
}

struct MapRow {
    gene: String,
    section: String,
    pictures: Vec<Picture>,
}

struct Picture {
    title: &'static str,
    src: String,
    gradient: String,
    low: String,
    high: String,
}

/// Metrics of the table and whether lower is better.
const COLUMNS: [(&str, bool); 5] =
    [("mse", true), ("mae", true), ("pcc_gene", false), ("pcc_spot", false), ("r2_gene", false)];

/// The page.
pub fn render(data: &PageData, verdict: &str) -> std::io::Result<String> {
    let curves = curves(data);
    let page = Page {
        data,
        verdict,
        protocols: vec![
            table(data, "paper", "values normalised and completed before hiding, as published", &data.paper),
            table(
                data,
                "strict",
                "hidden in the raw counts, then normalised and completed from what is visible",
                &data.strict,
            ),
        ],
        first_loss: !curves.is_empty(),
        curves,
        maps: data.maps.iter().map(map_row).collect(),
        sections: data.facts.sections.join(", "),
    };
    page.render().map_err(std::io::Error::other)
}

fn table(data: &PageData, name: &'static str, what: &'static str, scores: &MethodScores) -> Table {
    let methods = methods(data, scores);
    let best = |metric: &str, lower: bool| {
        let values = methods.iter().map(|m| m.1[metric].value);
        if lower { values.fold(f64::INFINITY, f64::min) } else { values.fold(f64::NEG_INFINITY, f64::max) }
    };
    let rows = methods
        .iter()
        .enumerate()
        .map(|(i, (name, row, sd))| TableRow {
            name: (*name).to_owned(),
            is_model: i == 0,
            cells: COLUMNS
                .iter()
                .map(|&(metric, lower)| {
                    let value = row[metric].value;
                    let text = if metric == "mse" { format!("{value:.3} ± {sd:.3}") } else { format!("{value:.3}") };
                    Cell { text, best: value == best(metric, lower) }
                })
                .collect(),
        })
        .collect();
    Table { name, what, rows }
}

fn curves(data: &PageData) -> String {
    let points = |kind: &str, key: &str| -> Vec<(f64, f64)> {
        let of_kind = data.metrics.iter().filter(|line| line["kind"] == kind);
        of_kind.filter_map(|line| Some((line["global_step"].as_f64()?, line[key].as_f64()?))).collect()
    };
    let train = smoothed(points("train", "loss"));
    chart::lines(
        &[
            Line { name: "training loss", colour: "#777", points: train },
            Line { name: "validation MSE (hidden entries)", colour: "#0b6", points: points("val", "mse") },
        ],
        "step",
    )
}

/// Means of consecutive points, so that at most 300 are drawn.
fn smoothed(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let per = points.len().div_ceil(300).max(1);
    points.chunks(per).map(|c| (c[c.len() - 1].0, c.iter().map(|p| p.1).sum::<f64>() / c.len() as f64)).collect()
}

fn map_row(map: &GeneMap) -> MapRow {
    let same = map.value_scale();
    let limit = map.error.iter().flatten().fold(0.0f32, |m, e| m.max(e.abs()));
    let picture = |title, values: &[Option<f32>], scale: Scale| {
        let (low, high) = match scale {
            Scale::Sequential(low, high) => (low, high),
            Scale::Diverging(limit) => (-limit, limit),
        };
        let png = map::png(&map.xy, values, scale);
        Picture {
            title,
            src: base64::engine::general_purpose::STANDARD.encode(png),
            gradient: scale.gradient(),
            low: format!("{low:.1}"),
            high: format!("{high:.1}"),
        }
    };
    MapRow {
        gene: map.gene.clone(),
        section: map.section.clone(),
        pictures: vec![
            picture("measured", &map.measured, same),
            picture("visible to the model", &map.visible, same),
            picture("completed", &map.completed, same),
            picture("error where hidden", &map.error, Scale::Diverging(limit)),
        ],
    }
}
