//! One tissue section as its instrument files describe it, before any processing.
//!
//! Knows no file format (that is `ingest/`), no filter or layer (that is `process/`) and no tensor.

use std::path::PathBuf;

use crate::matrix::Matrix;
use crate::pictures::Pictures;

/// A compressed sparse row matrix, `[n_rows, n_cols]`; column indices ascend inside a row and no stored value is zero.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Csr {
    /// Number of columns.
    pub n_cols: usize,
    /// Row `i` owns the entries `indptr[i]..indptr[i + 1]`.
    pub indptr: Vec<usize>,
    /// Column of every stored entry.
    pub indices: Vec<u32>,
    /// Value of every stored entry.
    pub values: Vec<f32>,
}

impl Csr {
    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.indptr.len().saturating_sub(1)
    }

    /// Columns and values of row `i`.
    pub fn row(&self, i: usize) -> (&[u32], &[f32]) {
        let span = self.indptr[i]..self.indptr[i + 1];
        (&self.indices[span.clone()], &self.values[span])
    }

    /// The sum of each row, in f64.
    pub fn row_sums(&self) -> Vec<f64> {
        (0..self.n_rows()).map(|i| self.row(i).1.iter().map(|&v| f64::from(v)).sum()).collect()
    }

    /// The rows named, in that order.
    pub fn select_rows(&self, rows: &[u32]) -> Csr {
        let mut out = Csr { n_cols: self.n_cols, indptr: vec![0], ..Csr::default() };
        for &row in rows {
            let (columns, values) = self.row(row as usize);
            out.indices.extend_from_slice(columns);
            out.values.extend_from_slice(values);
            out.indptr.push(out.indices.len());
        }
        out
    }

    /// The columns named, renumbered `0..columns.len()` in that order.
    pub fn select_columns(&self, columns: &[u32]) -> Csr {
        let mut new_of = vec![u32::MAX; self.n_cols];
        for (new, &old) in columns.iter().enumerate() {
            new_of[old as usize] = new as u32;
        }
        let mut out = Csr { n_cols: columns.len(), indptr: vec![0], ..Csr::default() };
        let mut entries: Vec<(u32, f32)> = Vec::new();
        for row in 0..self.n_rows() {
            let (old, values) = self.row(row);
            entries.clear();
            entries.extend(
                old.iter()
                    .zip(values)
                    .filter(|(c, _)| new_of[**c as usize] != u32::MAX)
                    .map(|(c, v)| (new_of[*c as usize], *v)),
            );
            entries.sort_unstable_by_key(|e| e.0);
            out.indices.extend(entries.iter().map(|e| e.0));
            out.values.extend(entries.iter().map(|e| e.1));
            out.indptr.push(out.indices.len());
        }
        out
    }
}

/// A gene as the instrument names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gene {
    /// Stable identifier (Ensembl id where there is one), version suffix kept as read.
    pub id: String,
    /// Symbol; equal to `id` where the file gives none.
    pub symbol: String,
}

/// An array with a row per observation, carried along as read: an embedding, morphology.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// Key in `obsm`.
    pub name: String,
    /// `[n_obs, width]`.
    pub values: Matrix<f32>,
}

/// A per-observation label column carried along as read (cell type, layer annotation, ...).
#[derive(Debug, Clone, PartialEq)]
pub struct ObsLabels {
    /// Column name.
    pub name: String,
    /// One label per observation; `None` where the file has a missing value.
    pub values: Vec<Option<String>>,
}

/// A low-resolution picture of the tissue and how native coordinates map to its pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct TissueImage {
    /// Encoded PNG or JPEG bytes.
    pub encoded: Vec<u8>,
    /// Image pixel = native coordinate × `scale`.
    pub scale: f64,
}

/// One tissue section (`library_id`): observations × genes, with places.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// Name of the section, unique in a data set.
    pub library_id: String,
    /// Donor, where the file or the user tells it.
    pub donor_id: Option<String>,
    /// Where it was read from.
    pub source: PathBuf,
    /// Format it was read as: `h5ad`, `space_ranger`, `merscope`, `synthetic`.
    pub format: &'static str,
    /// Names of the observations (barcodes), unique.
    pub obs_ids: Vec<String>,
    /// Genes, ids unique.
    pub genes: Vec<Gene>,
    /// Counts, `[n_obs, n_genes]`.
    pub counts: Csr,
    /// Native coordinates (full-resolution pixels for Visium): x = column, y = row.
    pub xy: Vec<[f64; 2]>,
    /// Third coordinate in native units, where there is one.
    pub z: Option<Vec<f64>>,
    /// µm per native unit, where known.
    pub um_per_unit: Option<f64>,
    /// Lattice row and column, where the instrument has one.
    pub array_row_col: Option<Vec<[i32; 2]>>,
    /// Label columns.
    pub labels: Vec<ObsLabels>,
    /// Numbers per observation carried along as read (`obsm`), where asked for.
    pub features: Vec<Features>,
    /// Low-resolution picture, if the input has one.
    pub image: Option<TissueImage>,
    /// Where pictures of single cells can be cut from, where asked for.
    pub pictures: Option<Pictures>,
    /// Box around each cell's boundary in native units: least x, least y, greatest x, greatest y.
    pub boxes: Option<Vec<[f64; 4]>>,
    /// Things the reader left out or corrected, each with its number, for the ledger.
    pub notes: Vec<String>,
}

/// Single cells without places: what a spatial section is paired with.
#[derive(Debug, Clone, PartialEq)]
pub struct Cells {
    /// Where they were read from.
    pub source: PathBuf,
    /// Format they were read as: `h5ad`, `tenx_matrix`, `table`.
    pub format: &'static str,
    /// Names of the cells, unique.
    pub obs_ids: Vec<String>,
    /// Genes, ids unique.
    pub genes: Vec<Gene>,
    /// Counts, `[n_cells, n_genes]`.
    pub counts: Csr,
    /// Their type, where the file has one.
    pub label: Option<ObsLabels>,
    /// Things the reader left out or corrected, each with its number, for the ledger.
    pub notes: Vec<String>,
}

impl Section {
    /// Number of observations.
    pub fn n_obs(&self) -> usize {
        self.obs_ids.len()
    }
}
