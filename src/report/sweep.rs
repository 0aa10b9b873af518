//! The part of the page on hidden fractions: a table of all methods, a chart of those near the model.

use super::chart::{self, Legend, Line};
use super::evaluation::Evaluation;
use super::table::{Cell, TableRow};
use crate::evaluate::sweep::Point;

/// What the page shows; no rows where no sweep was asked for.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Heads of the columns.
    pub hidden: Vec<String>,
    /// A method each, the model first, then by MSE at the smallest fraction.
    pub rows: Vec<TableRow>,
    /// SVG.
    pub chart: String,
}

/// The model's colour, then the fills'.
const COLOURS: [&str; 5] = ["#0b6", "#25c", "#c60", "#a3a", "#777"];

/// The table and the chart of an evaluation.
pub fn of(evaluation: &Evaluation) -> Sweep {
    let points = &evaluation.sweep;
    let mut fractions: Vec<f64> = points.iter().map(|p| p.hidden).collect();
    fractions.sort_by(f64::total_cmp);
    fractions.dedup();
    let Some(&least) = fractions.first() else { return Sweep::default() };
    let model = evaluation.facts.model.as_str();
    let mut methods: Vec<&Point> = points.iter().filter(|p| p.hidden == least).collect();
    methods.sort_by(|a, b| (a.method != model).cmp(&(b.method != model)).then(a.mse.total_cmp(&b.mse)));
    let at =
        |method: &str, hidden: f64| points.iter().find(|p| p.method == method && p.hidden == hidden).map(|p| p.mse);
    let best_at =
        |hidden: f64| points.iter().filter(|p| p.hidden == hidden).map(|p| p.mse).fold(f64::INFINITY, f64::min);
    let cell = |method: &str, hidden: f64| {
        let mse = at(method, hidden);
        Cell { text: mse.map_or(String::new(), |v| format!("{v:.3}")), best: mse == Some(best_at(hidden)) }
    };
    let rows = methods.iter().map(|p| TableRow {
        name: p.method.clone(),
        is_model: p.method == model,
        cells: fractions.iter().map(|&hidden| cell(&p.method, hidden)).collect(),
    });
    let mut lines = Vec::new();
    for (p, colour) in methods.iter().zip(COLOURS) {
        let points = fractions.iter().filter_map(|&hidden| Some((100.0 * hidden, at(&p.method, hidden)?)));
        lines.push(Line { name: &p.method, colour, points: points.collect() });
    }
    Sweep {
        hidden: fractions.iter().map(|hidden| format!("{:.0} %", 100.0 * hidden)).collect(),
        rows: rows.collect(),
        chart: chart::lines(&lines, "% of measured values hidden", Legend::Left),
    }
}
