//! `comparison.html`: one file, no network.

use askama::Template;

use super::super::page::what;
use super::super::verdict::{PAPER_CHANGE_TO_MEDIAN_PERCENT, percent};
use super::super::violin::{Violin, violins};
use super::{Comparison, Kind, Method, RunFigures, UnderProtocol, Verdict};
use crate::evaluate::completion::Protocol;

#[derive(Template)]
#[template(path = "comparison.html")]
struct Page<'a> {
    comparison: &'a Comparison,
    paper_reports: String,
    sections: Vec<Section<'a>>,
}

/// One protocol.
struct Section<'a> {
    name: &'static str,
    what: &'static str,
    sentence: &'a str,
    runs: Vec<RunRow<'a>>,
    violins: String,
    n_values: usize,
    methods: &'a [Method],
    data_sets: Vec<DataSetRow<'a>>,
}

struct RunRow<'a> {
    figures: &'a RunFigures,
    mse: String,
    pcc: String,
    to_median: String,
    fill_mse: String,
    to_fill: String,
    verdict: &'static str,
}

struct DataSetRow<'a> {
    name: &'a str,
    /// In the order of the methods; empty where one was not judged.
    cells: Vec<(String, bool)>,
}

/// The page.
pub fn render(comparison: &Comparison) -> String {
    let sections = comparison.protocols().map(|(protocol, under)| section(comparison, protocol, under)).into();
    let page = Page { comparison, paper_reports: percent(PAPER_CHANGE_TO_MEDIAN_PERCENT), sections };
    page.render().expect("a template of plain fields is written to memory")
}

fn section<'a>(comparison: &'a Comparison, protocol: Protocol, under: &'a UnderProtocol) -> Section<'a> {
    let rows: Vec<Violin> = under.methods.iter().map(|m| violin(m, comparison.data_sets.len())).collect();
    let on =
        |method: &Method, data_set: &str| method.on.iter().find(|o| o.data_set == data_set).map(|o| (o.mse, o.best));
    let cell =
        |found: Option<(f64, bool)>| found.map_or_else(Default::default, |(mse, best)| (format!("{mse:.3}"), best));
    let data_set =
        |name: &'a str| DataSetRow { name, cells: under.methods.iter().map(|m| cell(on(m, name))).collect() };
    Section {
        name: protocol.name(),
        what: what(protocol),
        sentence: &under.sentence,
        runs: under.runs.iter().map(run_row).collect(),
        n_values: rows.iter().map(|r| r.values.len()).max().unwrap_or(0),
        violins: violins(&rows, "MSE (logarithmic)", "MSE ÷ best"),
        methods: &under.methods,
        data_sets: comparison.data_sets.iter().map(|d| data_set(&d.name)).collect(),
    }
}

fn run_row(figures: &RunFigures) -> RunRow<'_> {
    RunRow {
        figures,
        mse: format!("{:.3} ± {:.3}", figures.mse, figures.mse_sd),
        pcc: format!("{:.3}", figures.pcc_gene),
        to_median: figures.change_to_median_percent.map_or_else(String::new, percent),
        fill_mse: format!("{:.3}", figures.best_fill_mse),
        to_fill: percent(figures.change_to_best_fill_percent),
        verdict: match figures.verdict {
            Verdict::BeatsEveryFill => "beats every fill",
            Verdict::DoesNot => "does not",
        },
    }
}

fn violin(method: &Method, n_data_sets: usize) -> Violin {
    let judged_on = method.on.len();
    let part = if judged_on == n_data_sets { String::new() } else { format!(" ({judged_on} of {n_data_sets})") };
    Violin {
        name: method.method.clone(),
        figure: format!("{:.2} ×{part}", method.relative_mse),
        is_model: method.kind == Kind::Model,
        best: method.best,
        values: method.on.iter().flat_map(|o| o.assays.iter().copied()).collect(),
        dots: method.on.iter().map(|o| o.mse).collect(),
    }
}
