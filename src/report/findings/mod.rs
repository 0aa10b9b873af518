//! What an evaluation of another task than completion found: tables of methods and metrics, pictures, words. Its page is
//! `findings.html` for all of them; the files are those of [`super::write()`], so that `report RUN` makes the page again.
//!
//! ```text
//! report.json    numbers by method and metric, the words and tables of the page, BLAKE3 of each picture
//! table.csv      table, method, metric, value, sd, se, n_used, n_skipped
//! *.png, *.svg   the pictures
//! report.html    all of it in one file
//! ```

mod page;
mod stored;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::stored::load;
use super::{NUMBERS, PAGE, ReportError, Written, digests, make, pretty, put};
use crate::evaluate::metrics::Figure;

/// Everything the report shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Findings {
    /// Kind of the task.
    pub task: String,
    /// Evaluated split.
    pub split: String,
    /// How it was judged, one stable word.
    pub protocol: String,
    /// Headline.
    pub title: String,
    /// First paragraph: what was judged, on what, how.
    pub lead: String,
    /// Sentences: does the model beat what is simple?
    pub verdict: String,
    /// What a reader must know beside it: what is missing, what was left out.
    pub notes: Vec<String>,
    /// The method of the tables that is the model.
    pub model: String,
    /// In the order of the page. A metric's name is in one table only.
    pub tables: Vec<Table>,
    /// In the order of the page, after the tables.
    pub galleries: Vec<Gallery>,
    /// What makes the numbers again; `config` is shown as text.
    pub provenance: BTreeMap<String, String>,
}

/// Methods × metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Headline.
    pub title: String,
    /// Under it: what the columns are, what floor they have.
    pub note: String,
    /// Columns.
    pub columns: Vec<Column>,
    /// Rows; the model's first.
    pub rows: Vec<Row>,
}

/// A metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Stable name, of `report.json`.
    pub metric: String,
    /// Name on the page.
    pub title: String,
    /// Which values are good.
    pub better: Better,
    /// Decimals on the page.
    pub decimals: usize,
}

/// Which values are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// High ones.
    Higher,
    /// Low ones.
    Lower,
    /// None is marked as best.
    Neither,
}

/// A method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Stable name.
    pub method: String,
    /// What it is, in words; may be empty.
    pub what: String,
    /// One per column; none where the metric is not defined for the method.
    pub scores: Vec<Option<Score>>,
}

/// A metric's value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Value, and what it was made from.
    #[serde(flatten)]
    pub figure: Figure,
    /// Standard deviation over seeds, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sd: Option<f64>,
    /// Standard error over the judged records, where it was estimated; on the page it stands in place of `sd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub se: Option<f64>,
}

/// Pictures with one headline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gallery {
    /// Headline.
    pub title: String,
    /// Under it.
    pub note: String,
    /// Names of colours (`#rrggbb`), where colours mean something.
    pub legend: Vec<Key>,
    /// Least width of a picture on the page, CSS pixels.
    pub width_px: u32,
    /// In order.
    pub pictures: Vec<Picture>,
}

/// A colour and what it stands for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// `#rrggbb`.
    pub colour: String,
    /// In words.
    pub name: String,
}

/// A picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Picture {
    /// File of the report's folder: a plain name that ends in `.png` or `.svg`; no other picture has it.
    pub file: String,
    /// Under it.
    pub caption: String,
    /// The file's.
    #[serde(skip)]
    pub bytes: Vec<u8>,
}

impl Findings {
    /// Every picture, in order.
    fn pictures(&self) -> impl Iterator<Item = &Picture> {
        self.galleries.iter().flat_map(|gallery| &gallery.pictures)
    }

    /// Metric by metric, what a method was given in any table.
    fn of_method<'a>(&'a self, method: &'a str) -> impl Iterator<Item = (&'a Column, Score)> {
        self.tables.iter().flat_map(move |table| {
            let row = table.rows.iter().find(|row| row.method == method);
            let scores = row.map_or(&[][..], |row| &row.scores);
            table.columns.iter().zip(scores).filter_map(|(column, score)| Some((column, (*score)?)))
        })
    }

    /// The methods but the model, in the order in which the tables name them first.
    fn baselines(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for row in self.tables.iter().flat_map(|table| &table.rows) {
            if row.method != self.model && !names.contains(&row.method.as_str()) {
                names.push(&row.method);
            }
        }
        names
    }

    /// The value of a metric; none where the method was not given one.
    pub fn value(&self, method: &str, metric: &str) -> Option<f64> {
        self.of_method(method).find(|(column, _)| column.metric == metric).map(|(_, score)| score.figure.value)
    }

    /// The tables as text, for a terminal.
    pub fn text_tables(&self) -> String {
        let mut out = String::new();
        for table in &self.tables {
            let wide = table.rows.iter().map(|row| row.method.chars().count()).max().unwrap_or(0).max(20);
            out += &format!("{}\n  {:wide$}", table.title, "");
            for column in &table.columns {
                out += &format!(" {:>15}", column.title);
            }
            out += "\n";
            for row in &table.rows {
                out += &format!("  {:wide$}", row.method);
                for (column, score) in table.columns.iter().zip(&row.scores) {
                    out += &format!(" {:>15}", column.text(*score));
                }
                out += "\n";
            }
        }
        out
    }
}

impl Column {
    /// A value as printed.
    fn text(&self, score: Option<Score>) -> String {
        let decimals = self.decimals;
        match score {
            None => "–".to_owned(),
            Some(Score { figure, sd, se }) => match se.or(sd) {
                None => format!("{:.decimals$}", figure.value),
                Some(spread) => format!("{:.decimals$} ± {spread:.decimals$}", figure.value),
            },
        }
    }
}

/// Writes pictures, `table.csv`, `report.json` and the page into `folder`.
///
/// # Errors
/// The system's. `report.json` comes after the files whose digests it holds, the page last.
///
/// # Panics
/// If two tables have a metric of one name, or two pictures a file.
pub fn write(findings: &Findings, folder: &Path) -> Result<Written, ReportError> {
    make(folder)?;
    for picture in findings.pictures() {
        put(folder, &picture.file, &picture.bytes)?;
    }
    put(folder, "table.csv", &stored::csv(findings))?;
    let json = numbers(findings);
    put(folder, NUMBERS, &pretty(&json))?;
    let page = write_page(findings, folder)?;
    Ok(Written { page, json })
}

/// Writes only the page into `folder`; returns its path.
///
/// # Errors
/// The system's.
pub fn write_page(findings: &Findings, folder: &Path) -> Result<std::path::PathBuf, ReportError> {
    make(folder)?;
    put(folder, PAGE, page::render(findings).as_bytes())?;
    Ok(folder.join(PAGE))
}

/// `report.json`.
pub fn numbers(findings: &Findings) -> serde_json::Value {
    let files: Vec<(&str, &[u8])> = findings.pictures().map(|p| (p.file.as_str(), p.bytes.as_slice())).collect();
    let of_files = digests(&files);
    assert_eq!(of_files.len(), files.len(), "every picture has a file of its own");
    stored::json(findings, &of_files)
}
