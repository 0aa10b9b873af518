//! AnnData's data frames in HDF5: `obs` and `var`, encodings 0.1 (pre-0.8 `__categories`) and 0.2.
//!
//! Knows columns and names; what they mean is the business of `h5ad`.

use std::collections::BTreeMap;

use super::error::IngestError;
use super::h5::{Attr, Element, H5File, Node};

/// A data frame: where it lies and what its rows are called.
#[derive(Debug, Clone)]
pub struct DataFrame {
    /// Group in the file.
    pub group: String,
    /// Row names.
    pub index: Vec<String>,
    /// Columns in the order of the file.
    pub columns: Vec<String>,
    legacy_categories: BTreeMap<String, Node>,
}

/// A column as read.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Categories, text or nullable text.
    Labels(Vec<Option<String>>),
    /// Booleans, plain or nullable.
    Bools(Vec<Option<bool>>),
    /// Integers, plain or nullable.
    Ints(Vec<Option<i64>>),
    /// Floats.
    Floats(Vec<f64>),
    /// An encoding that is left out, named.
    Unknown(String),
}

impl Column {
    /// Labels of a categorical, text or boolean column; `None` for the others.
    pub fn into_labels(self) -> Option<Vec<Option<String>>> {
        match self {
            Column::Labels(labels) => Some(labels),
            Column::Bools(values) => Some(values.into_iter().map(|v| v.map(|b| b.to_string())).collect()),
            _ => None,
        }
    }

    /// Every value as text; `None` for an unknown encoding.
    pub fn into_text(self) -> Option<Vec<Option<String>>> {
        match self {
            Column::Ints(values) => Some(values.into_iter().map(|v| v.map(|i| i.to_string())).collect()),
            Column::Floats(values) => Some(values.into_iter().map(|v| Some(v.to_string())).collect()),
            other => other.into_labels(),
        }
    }

    /// Number of values; `None` for an unknown encoding.
    pub fn n_rows(&self) -> Option<usize> {
        match self {
            Column::Labels(v) => Some(v.len()),
            Column::Bools(v) => Some(v.len()),
            Column::Ints(v) => Some(v.len()),
            Column::Floats(v) => Some(v.len()),
            Column::Unknown(_) => None,
        }
    }
}

impl DataFrame {
    /// Opens the data frame at `group`: names now, columns when asked for.
    pub fn open(h5: &H5File, group: &str) -> Result<DataFrame, IngestError> {
        match h5.node(group)? {
            Some(Node::Group) => {}
            Some(Node::Dataset) if h5.extent(group)?.element == Element::Compound => {
                return Err(h5.unsupported(
                    group,
                    "is a compound data frame as anndata up to 0.6 wrote; open the file with anndata 0.7 to 0.12 \
                     (`anndata.read_h5ad`) and write it again",
                ));
            }
            Some(Node::Dataset) => return Err(h5.unsupported(group, "is a data set where a data frame was expected")),
            None => {
                return Err(IngestError::Absent {
                    path: h5.path().into(),
                    node: group.into(),
                    advice: "an AnnData file has obs and var; is this one?".into(),
                });
            }
        }
        let children = h5.list(group)?;
        let attrs = h5.attrs(group)?;
        let index_name = match attrs.get("_index") {
            Some(Attr::Text(name)) if name.len() == 1 => name[0].clone(),
            _ if children.contains_key("_index") => "_index".into(),
            _ => "index".into(),
        };
        let index = text(h5, &format!("{group}/{index_name}"))?;
        // An empty column-order is written as an empty float array.
        let columns = match attrs.get("column-order") {
            Some(Attr::Text(names)) => names.clone(),
            Some(_) => Vec::new(),
            None => {
                let named = |name: &&String| **name != index_name && **name != "__categories";
                children.keys().filter(named).cloned().collect()
            }
        };
        let categories = format!("{group}/__categories");
        let legacy_categories =
            if children.contains_key("__categories") { h5.list(&categories)? } else { BTreeMap::new() };
        Ok(DataFrame { group: group.into(), index, columns, legacy_categories })
    }

    /// Reads a column; its length is checked against the index.
    pub fn column(&self, h5: &H5File, name: &str) -> Result<Column, IngestError> {
        let path = format!("{}/{name}", self.group);
        let column = if self.legacy_categories.contains_key(name) {
            let categories = text(h5, &format!("{}/__categories/{name}", self.group))?;
            Column::Labels(decode(h5, &path, &h5.read_i64(&path, 0, u64::MAX)?, &categories)?)
        } else if h5.node(&path)? == Some(Node::Group) {
            encoded(h5, &path)?
        } else {
            plain(h5, &path)?
        };
        match column.n_rows() {
            Some(n) if n != self.index.len() => {
                let path = h5.path().into();
                let node = format!("{}/{name}", self.group);
                Err(IngestError::Length { path, node, found: n, expected: self.index.len() })
            }
            _ => Ok(column),
        }
    }

    /// Reads the first of `names` that is a column, as text.
    pub fn first_text(&self, h5: &H5File, names: &[&str]) -> Result<Option<(String, Vec<String>)>, IngestError> {
        for &name in names {
            if !self.columns.iter().any(|c| c == name) {
                continue;
            }
            if let Some(values) = self.column(h5, name)?.into_text() {
                return Ok(Some((name.into(), values.into_iter().map(Option::unwrap_or_default).collect())));
            }
        }
        Ok(None)
    }
}

/// Column written as a group: categorical 0.2 or one of the nullable kinds.
fn encoded(h5: &H5File, path: &str) -> Result<Column, IngestError> {
    let kind = h5.text_attr(path, "encoding-type")?.unwrap_or_default();
    match kind.as_str() {
        "categorical" => {
            let categories = text(h5, &format!("{path}/categories"))?;
            Ok(Column::Labels(decode(h5, path, &h5.read_i64(&format!("{path}/codes"), 0, u64::MAX)?, &categories)?))
        }
        "nullable-integer" | "nullable-boolean" | "nullable-string-array" | "nullable-string" => {
            let mask = h5.read_i64(&format!("{path}/mask"), 0, u64::MAX)?;
            let column = plain(h5, &format!("{path}/values"))?;
            if column.n_rows() != Some(mask.len()) {
                return Err(h5.damaged(path, "mask and values differ in length"));
            }
            let kept = |i: usize| mask[i] == 0;
            Ok(match column {
                Column::Labels(v) => Column::Labels(masked(v, kept)),
                Column::Bools(v) => Column::Bools(masked(v, kept)),
                Column::Ints(v) => Column::Ints(masked(v, kept)),
                other => other,
            })
        }
        _ => Ok(Column::Unknown(if kind.is_empty() { "group without encoding-type".into() } else { kind })),
    }
}

fn masked<T>(values: Vec<Option<T>>, kept: impl Fn(usize) -> bool) -> Vec<Option<T>> {
    values.into_iter().enumerate().map(|(i, v)| v.filter(|_| kept(i))).collect()
}

/// Column written as a data set.
fn plain(h5: &H5File, path: &str) -> Result<Column, IngestError> {
    let extent = h5.extent(path)?;
    Ok(match extent.element {
        _ if extent.shape.len() != 1 => Column::Unknown(format!("array of shape {:?}", extent.shape)),
        Element::Text { .. } => Column::Labels(h5.read_strings(path)?.into_iter().map(Some).collect()),
        Element::Bool => Column::Bools(h5.read_i64(path, 0, u64::MAX)?.into_iter().map(|v| Some(v != 0)).collect()),
        Element::Int(_) | Element::UInt(_) => {
            Column::Ints(h5.read_i64(path, 0, u64::MAX)?.into_iter().map(Some).collect())
        }
        Element::Float(_) => Column::Floats(h5.read_f64(path, 0, u64::MAX)?),
        other => Column::Unknown(other.name()),
    })
}

/// A text or number data set (or group of nullable strings) as text: row names and categories.
fn text(h5: &H5File, path: &str) -> Result<Vec<String>, IngestError> {
    let column = if h5.node(path)? == Some(Node::Group) { encoded(h5, path)? } else { plain(h5, path)? };
    match column.into_text() {
        Some(values) => Ok(values.into_iter().map(Option::unwrap_or_default).collect()),
        None => Err(h5.unsupported(path, "cannot be read as names; write the file again with a current anndata")),
    }
}

/// Codes to labels; -1 is a missing value.
fn decode(h5: &H5File, path: &str, codes: &[i64], categories: &[String]) -> Result<Vec<Option<String>>, IngestError> {
    let label = |&code: &i64| match usize::try_from(code) {
        Err(_) => Ok(None),
        Ok(code) => match categories.get(code) {
            Some(label) => Ok(Some(label.clone())),
            None => Err(h5.damaged(path, format!("code {code} with {} categories", categories.len()))),
        },
    };
    codes.iter().map(label).collect()
}
