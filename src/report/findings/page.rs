//! `report.html` of findings: one file, no network.

use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::table::{Cell, TableRow};
use super::{Better, Column, Findings, Gallery, Picture, Row, Score, Table};

#[derive(Template)]
#[template(path = "findings.html")]
struct Page<'a> {
    data: &'a Findings,
    tables: Vec<Shown<'a>>,
    galleries: Vec<Hung<'a>>,
}

struct Shown<'a> {
    table: &'a Table,
    heads: Vec<String>,
    rows: Vec<(TableRow, &'a str)>,
}

struct Hung<'a> {
    gallery: &'a Gallery,
    pictures: Vec<Framed<'a>>,
}

struct Framed<'a> {
    caption: &'a str,
    /// Base64 of a PNG.
    png: Option<String>,
    svg: Option<String>,
}

/// The page.
pub fn render(data: &Findings) -> String {
    let page = Page {
        data,
        tables: data.tables.iter().map(|table| shown(table, &data.model)).collect(),
        galleries: data.galleries.iter().map(hung).collect(),
    };
    page.render().expect("a template of plain fields is written to memory")
}

fn shown<'a>(table: &'a Table, model: &str) -> Shown<'a> {
    let best: Vec<Option<f64>> = (0..table.columns.len()).map(|at| best(table, at)).collect();
    let arrow = |column: &Column| match column.better {
        Better::Higher => " ↑",
        Better::Lower => " ↓",
        Better::Neither => "",
    };
    let row = |row: &'a Row| {
        let cell = |((column, score), best): ((&Column, _), &Option<f64>)| {
            let score: Option<Score> = score;
            Cell { text: column.text(score), best: best.is_some() && score.map(|s| s.figure.value) == *best }
        };
        let cells = table.columns.iter().zip(row.scores.iter().copied()).zip(&best).map(cell).collect();
        (TableRow { name: row.method.clone(), is_model: row.method == model, cells }, row.what.as_str())
    };
    Shown {
        table,
        heads: table.columns.iter().map(|column| format!("{}{}", column.title, arrow(column))).collect(),
        rows: table.rows.iter().map(row).collect(),
    }
}

/// The best value of a column.
fn best(table: &Table, at: usize) -> Option<f64> {
    let values = table.rows.iter().filter_map(|row| row.scores[at].map(|score| score.figure.value));
    match table.columns[at].better {
        Better::Higher => values.max_by(f64::total_cmp),
        Better::Lower => values.min_by(f64::total_cmp),
        Better::Neither => None,
    }
}

fn hung(gallery: &Gallery) -> Hung<'_> {
    let framed = |picture: &'_ Picture| {
        let svg = picture.file.ends_with(".svg").then(|| String::from_utf8_lossy(&picture.bytes).into_owned());
        let png = svg.is_none().then(|| STANDARD.encode(&picture.bytes));
        (png, svg)
    };
    let pictures = gallery.pictures.iter().map(|picture| {
        let (png, svg) = framed(picture);
        Framed { caption: &picture.caption, png, svg }
    });
    Hung { gallery, pictures: pictures.collect() }
}
