//! AnnData `.h5ad` files, anndata 0.7 and later, read as a section.
//!
//! Knows where AnnData keeps things; what a Visium slide means is in `visium`, what may be a count in `checks`.

mod coordinates;
mod slide;

use std::path::Path;

use self::coordinates::{coordinates, coordinates_in_obs};
use self::slide::{Slide, choose_library};
pub(super) use self::slide::{libraries, name_from_stem};
use super::beside;
use super::checks::{self, Named};
use super::counts_window::CountsWindow;
use super::data_frame::{Column, DataFrame};
use super::error::IngestError;
use super::h5::{H5File, Node};
use super::options::{CountsFrom, Images, IngestOptions};
use super::visium;
use crate::matrix::Matrix;
use crate::section::{Cells, Csr, Features, Gene, ObsLabels, Section};

const GENE_IDS: [&str; 4] = ["gene_ids", "gene_id", "ensembl_id", "feature_id"];
const SYMBOLS: [&str; 6] = ["gene_symbols", "gene_symbol", "gene_name", "gene_names", "feature_name", "symbol"];
const DONORS: [&str; 2] = ["donor_id", "donor"];
/// Columns of `obs` with the type of a cell.
const CELL_TYPES: [&str; 7] = ["cell_type", "celltype", "subclass_label", "subclass", "class", "label", "Cell_class"];
/// Rows looked at in one read when a matrix is tried for whole numbers.
const PROBE_ROWS: usize = 4096;

/// Reads an `.h5ad` file.
pub(super) fn read(path: &Path, options: &IngestOptions) -> Result<Section, IngestError> {
    let h5 = H5File::open(path)?;
    let obs = DataFrame::open(&h5, "obs")?;
    let mut notes = Vec::new();
    let source = choose_counts(&h5, &obs, options)?;
    let var = DataFrame::open(&h5, source.var_group)?;
    let genes = genes(&h5, &var, options)?;
    let obs_ids = obs.index.clone();
    checks::unique(path, "observation", obs_ids.iter().map(String::as_str))?;
    checks::unique(path, "gene", genes.iter().map(|g| g.id.as_str()))?;

    let (xy, z) = match &options.xy_columns {
        Some(columns) => (coordinates_in_obs(&h5, &obs, columns)?, None),
        None => coordinates(&h5, &options.spatial_key, obs_ids.len())?,
    };
    checks::finite(path, &obs_ids, &xy, z.as_deref())?;
    let features = features(&h5, &options.features, xy.len())?;
    let (genes, counts) = counts(&h5, &source, genes, &obs_ids, options, &mut notes)?;

    let (labels, array_row_col) = obs_columns(&h5, &obs, &mut notes)?;
    let donor_names: Vec<&str> = options.donor_column.as_deref().map_or(DONORS.to_vec(), |name| vec![name]);
    let donor_id = single_label(&labels, &donor_names);
    let libraries = libraries(&h5)?;
    let choice = choose_library(path, options, &libraries, &labels)?;
    let slide = match &choice.slide {
        Some(name) => Slide::read(&h5, name, &mut notes)?,
        None => Slide::default(),
    };
    let um_per_unit = options.um_per_unit.or_else(|| visium::um_per_unit(&slide.scale, array_row_col.as_deref(), &xy));
    let pictures = match options.images {
        Images::None => None,
        Images::Auto => Some(beside::pictures(path, options.image_scale)?),
    };
    let section = Section {
        library_id: choice.library_id,
        donor_id,
        source: path.into(),
        format: "h5ad",
        obs_ids,
        genes,
        counts,
        xy,
        z,
        um_per_unit,
        array_row_col,
        labels,
        features,
        image: slide.image,
        pictures,
        boxes: None,
        notes,
    };
    Ok(match choice.rows {
        Some(rows) => cut(section, &rows),
        None => section,
    })
}

/// Reads single cells: counts, names and their type; places are passed over.
pub(super) fn read_cells(path: &Path, options: &IngestOptions) -> Result<Cells, IngestError> {
    let h5 = H5File::open(path)?;
    let obs = DataFrame::open(&h5, "obs")?;
    let mut notes = Vec::new();
    let source = choose_counts(&h5, &obs, options)?;
    let genes = genes(&h5, &DataFrame::open(&h5, source.var_group)?, options)?;
    checks::unique(path, "observation", obs.index.iter().map(String::as_str))?;
    checks::unique(path, "gene", genes.iter().map(|g| g.id.as_str()))?;
    let (genes, counts) = counts(&h5, &source, genes, &obs.index, options, &mut notes)?;
    let label = match &options.label_column {
        Some(name) => match obs.first_text(&h5, &[name])? {
            Some((_, values)) => Some(ObsLabels {
                name: name.clone(),
                values: values.into_iter().map(|v| Some(v).filter(|v| !v.is_empty())).collect(),
            }),
            None => {
                let advice =
                    format!("reference.label_column names a column of obs; it has [{}]", obs.columns.join(", "));
                return Err(IngestError::Absent { path: path.into(), node: format!("obs/{name}"), advice });
            }
        },
        None => obs_columns(&h5, &obs, &mut Vec::new())?.0.into_iter().find(|l| CELL_TYPES.contains(&l.name.as_str())),
    };
    Ok(Cells { source: path.into(), format: "h5ad", obs_ids: obs.index.clone(), genes, counts, label, notes })
}

/// Genes that were measured, and the counts, checked.
fn counts(
    h5: &H5File,
    source: &CountsSource,
    genes: Vec<Gene>,
    obs_ids: &[String],
    options: &IngestOptions,
    notes: &mut Vec<String>,
) -> Result<(Vec<Gene>, Csr), IngestError> {
    let matrix = CountsWindow::open(h5, &source.node, obs_ids.len(), genes.len())?;
    let (window, genes) = checks::measured(matrix.all()?, genes, notes);
    let named = Named { path: h5.path(), node: &source.node, obs: obs_ids, genes: &genes };
    let counts = checks::counts(window, options.declared_counts, &named, notes)?;
    if source.node != "X" {
        notes.push(format!("counts taken from `{}`", source.node));
    }
    Ok((genes, counts))
}

/// Which matrix holds the counts.
struct CountsSource {
    node: String,
    var_group: &'static str,
}

fn choose_counts(h5: &H5File, obs: &DataFrame, options: &IngestOptions) -> Result<CountsSource, IngestError> {
    let absent = |node: &str| IngestError::Absent {
        path: h5.path().into(),
        node: node.into(),
        advice: "name another matrix with `input.counts` (\"X\", \"raw\" or \"layers/NAME\")".into(),
    };
    let has = |node: &str| h5.node(node).map(|n| n.is_some());
    let source = |node: &str| CountsSource {
        node: node.into(),
        var_group: if node.starts_with("raw") { "raw/var" } else { "var" },
    };
    let named = match &options.counts {
        CountsFrom::X => Some("X".to_owned()),
        CountsFrom::Raw => Some("raw/X".to_owned()),
        CountsFrom::Layer(name) => Some(format!("layers/{name}")),
        CountsFrom::Auto if has("layers/counts")? => Some("layers/counts".to_owned()),
        CountsFrom::Auto if !options.declared_counts => Some("X".to_owned()),
        CountsFrom::Auto => None,
    };
    if let Some(node) = named {
        return if has(&node)? { Ok(source(&node)) } else { Err(absent(&node)) };
    }
    let mut looked_at = Vec::new();
    for node in ["X", "raw/X"] {
        if !has(node)? {
            looked_at.push(format!("{node}: absent"));
            continue;
        }
        let candidate = source(node);
        let n_vars = DataFrame::open(h5, candidate.var_group)?.index.len();
        let matrix = CountsWindow::open(h5, node, obs.index.len(), n_vars)?;
        match first_non_count(&matrix)? {
            None => return Ok(candidate),
            // A damaged count is told as such, not hidden by a search for another matrix.
            Some(value) if !value.is_finite() || (value < 0.0 && value.fract() == 0.0) => return Ok(candidate),
            Some(value) => looked_at.push(format!("{node}: {} with values like {value}", matrix.dtype)),
        }
    }
    Err(IngestError::NoCounts { path: h5.path().into(), looked_at: looked_at.join("; ") })
}

/// The first value that is no whole number ≥ 0.
pub(super) fn first_non_count(matrix: &CountsWindow) -> Result<Option<f64>, IngestError> {
    // CSC has no rows to seek to, so it is read at once.
    let step = if matrix.storage == super::Storage::Csc { matrix.n_obs.max(1) } else { PROBE_ROWS };
    for start in (0..matrix.n_obs).step_by(step) {
        let window = matrix.rows(start, step)?;
        if let Some(&value) = window.values.iter().find(|v| !(v.fract() == 0.0 && **v >= 0.0)) {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn genes(h5: &H5File, var: &DataFrame, options: &IngestOptions) -> Result<Vec<Gene>, IngestError> {
    let chosen = |name: &Option<String>, defaults: &[&str]| match name {
        None => var.first_text(h5, defaults),
        Some(name) => match var.first_text(h5, &[name])? {
            Some(found) => Ok(Some(found)),
            None => Err(IngestError::Absent {
                path: h5.path().into(),
                node: format!("{}/{name}", var.group),
                advice: format!("its columns are [{}]", var.columns.join(", ")),
            }),
        },
    };
    let ids = chosen(&options.gene_id_column, &GENE_IDS)?;
    let symbols = match chosen(&options.gene_symbol_column, &SYMBOLS)? {
        // Where ids have a column of their own, the index is what scanpy shows: the symbols.
        Some((_, symbols)) if options.gene_symbol_column.is_some() || ids.is_none() => symbols,
        _ => var.index.clone(),
    };
    let ids = ids.map_or_else(|| var.index.clone(), |(_, ids)| ids);
    Ok(ids.into_iter().zip(symbols).map(|(id, symbol)| Gene { id, symbol }).collect())
}

/// The arrays `obsm[name]` asked for, `[n_obs, width]`; finite numbers only.
fn features(h5: &H5File, names: &[String], n_obs: usize) -> Result<Vec<Features>, IngestError> {
    let one = |name: &String| {
        let node = format!("obsm/{name}");
        if !matches!(h5.node(&node)?, Some(Node::Dataset)) {
            let there = if h5.node("obsm")?.is_some() { h5.list("obsm")?.into_keys().collect() } else { Vec::new() };
            return Err(h5.unsupported(&node, format!("is no array; obsm has {there:?} (input.features)")));
        }
        let extent = h5.extent(&node)?;
        let &[rows, width] = extent.shape.as_slice() else {
            return Err(h5.unsupported(&node, format!("has shape {:?}, expected [n_obs, width]", extent.shape)));
        };
        if rows != n_obs as u64 {
            let (found, expected) = (rows as usize, n_obs);
            return Err(IngestError::Length { path: h5.path().into(), node, found, expected });
        }
        let values: Vec<f32> = h5.read_f64(&node, 0, u64::MAX)?.into_iter().map(|v| v as f32).collect();
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(h5.unsupported(&node, format!("row {} is not finite", at / (width as usize).max(1))));
        }
        Ok(Features { name: name.clone(), values: Matrix { n_cols: width as usize, values } })
    };
    names.iter().map(one).collect()
}

type Lattice = Option<Vec<[i32; 2]>>;

/// Label columns and the lattice; numbers and unknown encodings are left out, with a note.
fn obs_columns(
    h5: &H5File,
    obs: &DataFrame,
    notes: &mut Vec<String>,
) -> Result<(Vec<ObsLabels>, Lattice), IngestError> {
    let mut labels = Vec::new();
    let mut array = [None, None];
    for name in &obs.columns {
        match obs.column(h5, name)? {
            Column::Ints(values) if name == "array_row" => array[0] = Some(values),
            Column::Ints(values) if name == "array_col" => array[1] = Some(values),
            Column::Unknown(kind) => notes.push(format!("obs column `{name}` left out: encoding `{kind}`")),
            column @ (Column::Ints(_) | Column::Floats(_)) => {
                let n = column.n_rows().unwrap_or(0);
                notes.push(format!("obs column `{name}` left out: {n} numbers, not labels"));
            }
            column => {
                if let Some(values) = column.into_labels() {
                    labels.push(ObsLabels { name: name.clone(), values });
                }
            }
        }
    }
    let whole = |values: Vec<Option<i64>>| -> Option<Vec<i32>> {
        values.into_iter().map(|v| v.and_then(|v| i32::try_from(v).ok())).collect()
    };
    let [rows, columns] = array.map(|values| values.and_then(whole));
    let lattice = rows.zip(columns).map(|(r, c)| r.into_iter().zip(c).map(|(r, c)| [r, c]).collect());
    Ok((labels, lattice))
}

fn single_label(labels: &[ObsLabels], names: &[&str]) -> Option<String> {
    let column = labels.iter().find(|l| names.contains(&l.name.as_str()))?;
    let first = column.values.first()?.clone()?;
    column.values.iter().all(|v| v.as_ref() == Some(&first)).then_some(first)
}

/// The section cut to some of its rows.
fn cut(section: Section, rows: &[u32]) -> Section {
    fn take<T: Clone>(values: &[T], rows: &[u32]) -> Vec<T> {
        rows.iter().map(|&r| values[r as usize].clone()).collect()
    }
    let mut notes = section.notes;
    notes.push(format!("{} of {} observations belong to other sections", section.obs_ids.len() - rows.len(), {
        section.obs_ids.len()
    }));
    let label = |l: &ObsLabels| ObsLabels { name: l.name.clone(), values: take(&l.values, rows) };
    let features = |f: &Features| Features { name: f.name.clone(), values: f.values.select_rows(rows) };
    Section {
        obs_ids: take(&section.obs_ids, rows),
        counts: section.counts.select_rows(rows),
        xy: take(&section.xy, rows),
        z: section.z.as_ref().map(|z| take(z, rows)),
        array_row_col: section.array_row_col.as_ref().map(|a| take(a, rows)),
        labels: section.labels.iter().map(label).collect(),
        features: section.features.iter().map(features).collect(),
        boxes: section.boxes.as_ref().map(|b| take(b, rows)),
        notes,
        ..section
    }
}
