//! 10x Genomics `.h5` matrices: Cell Ranger 3+ and Space Ranger (`/matrix`), and Cell Ranger 1–2 (a group per genome).
//!
//! Knows counts, barcodes and features, no places. The file stores features × barcodes by column, which is barcodes ×
//! features by row, so it is read as CSR.

use std::collections::BTreeMap;
use std::path::Path;

use super::checks::{self, Named};
use super::counts_window::{CountsWindow, Storage};
use super::error::IngestError;
use super::h5::{Attr, H5File, Node};
use super::options::IngestOptions;
use crate::section::{Cells, Gene};

const GENE_EXPRESSION: &str = "Gene Expression";

/// A 10x matrix, open: names read, counts not yet.
pub(super) struct TenxMatrix<'a> {
    pub(super) counts: CountsWindow<'a>,
    pub(super) barcodes: Vec<String>,
    pub(super) features: Vec<Gene>,
    /// Columns that are genes.
    pub(super) gene_columns: Vec<u32>,
    /// Other feature types, each with its number.
    pub(super) other_types: BTreeMap<String, usize>,
}

/// Whether the file holds a 10x matrix.
pub(super) fn is_matrix(h5: &H5File) -> Result<bool, IngestError> {
    Ok(!matrix_groups(h5)?.is_empty())
}

/// The first library named in the file, without the pipeline's suffix.
pub(super) fn library_id(h5: &H5File) -> Result<Option<String>, IngestError> {
    let name = match h5.attrs("")?.remove("library_ids") {
        Some(Attr::Text(names)) if names.len() == 1 => names.into_iter().next(),
        _ => None,
    };
    Ok(name.map(|n| n.trim_end_matches("_spaceranger_count").to_owned()).filter(|n| !n.is_empty()))
}

/// Opens the matrix; the name of the genome does not matter, but there must be one genome group.
pub(super) fn open(h5: &H5File) -> Result<TenxMatrix<'_>, IngestError> {
    let groups = matrix_groups(h5)?;
    let [group] = groups.as_slice() else {
        return Err(h5.unsupported(
            "/",
            format!("holds {} matrices [{}], expected one; split it by genome", groups.len(), groups.join(", ")),
        ));
    };
    let at = |name: &str| format!("{group}/{name}");
    let barcodes = h5.read_strings(&at("barcodes"))?;
    let modern = h5.node(&at("features"))? == Some(Node::Group);
    let (ids, names) = if modern {
        (h5.read_strings(&at("features/id"))?, h5.read_strings(&at("features/name"))?)
    } else {
        (h5.read_strings(&at("genes"))?, h5.read_strings(&at("gene_names"))?)
    };
    let same = |node: String, found: usize| match found == ids.len() {
        true => Ok(()),
        false => Err(IngestError::Length { path: h5.path().into(), node, found, expected: ids.len() }),
    };
    same(at("names of features"), names.len())?;
    let mut gene_columns: Vec<u32> = (0..ids.len() as u32).collect();
    let mut other_types = BTreeMap::new();
    if modern && h5.node(&at("features/feature_type"))?.is_some() {
        let types = h5.read_strings(&at("features/feature_type"))?;
        same(at("features/feature_type"), types.len())?;
        gene_columns.retain(|&i| types[i as usize] == GENE_EXPRESSION);
        for other in types.into_iter().filter(|t| t != GENE_EXPRESSION) {
            *other_types.entry(other).or_default() += 1;
        }
    }
    let shape = h5.read_i64(&at("shape"), 0, u64::MAX)?;
    if shape != [ids.len() as i64, barcodes.len() as i64] {
        let fact = format!("{shape:?} with {} features and {} barcodes", ids.len(), barcodes.len());
        return Err(h5.damaged(&at("shape"), fact));
    }
    let counts = CountsWindow::sparse(h5, group, Storage::Csr, barcodes.len() as u64, ids.len() as u64)?;
    let features = ids.into_iter().zip(names).map(|(id, symbol)| Gene { id, symbol }).collect();
    Ok(TenxMatrix { counts, barcodes, features, gene_columns, other_types })
}

/// Single cells of a matrix: its genes alone.
pub(super) fn read_cells(path: &Path, options: &IngestOptions) -> Result<Cells, IngestError> {
    let h5 = H5File::open(path)?;
    let matrix = open(&h5)?;
    let mut notes = Vec::new();
    let named = Named { path, node: &matrix.counts.node, obs: &matrix.barcodes, genes: &matrix.features };
    let counts = checks::counts(matrix.counts.all()?, options.declared_counts, &named, &mut notes)?;
    for (kind, n) in &matrix.other_types {
        notes.push(format!("{n} features of type `{kind}` left out"));
    }
    let genes: Vec<Gene> = matrix.gene_columns.iter().map(|&i| matrix.features[i as usize].clone()).collect();
    checks::unique(path, "observation", matrix.barcodes.iter().map(String::as_str))?;
    checks::unique(path, "gene", genes.iter().map(|g| g.id.as_str()))?;
    Ok(Cells {
        source: path.into(),
        format: "tenx_matrix",
        counts: counts.select_columns(&matrix.gene_columns),
        obs_ids: matrix.barcodes,
        genes,
        label: None,
        notes,
    })
}

fn matrix_groups(h5: &H5File) -> Result<Vec<String>, IngestError> {
    let mut groups = Vec::new();
    for (name, node) in h5.list("")? {
        if node == Node::Group {
            let parts = h5.list(&name)?;
            if ["barcodes", "data", "indices", "indptr", "shape"].iter().all(|p| parts.contains_key(*p)) {
                groups.push(name);
            }
        }
    }
    Ok(groups)
}
