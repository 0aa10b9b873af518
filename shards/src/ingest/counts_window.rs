//! A matrix in an HDF5 file, read as CSR rows `a..b` without loading the rest.
//!
//! CSR and dense matrices read only what the window touches (CSR keeps its row pointers, 8 bytes per row). CSC has no
//! rows to seek to: a window of it needs one pass over all entries, in blocks, so ask for few and large windows.

use super::error::IngestError;
use super::h5::{Attr, H5File, Node};
use crate::section::Csr;

/// Entries of a CSC matrix read at a time.
const CSC_BLOCK: u64 = 1 << 20;

/// How a matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// Compressed rows.
    Csr,
    /// Compressed columns.
    Csc,
    /// Dense, row-major.
    Dense,
}

impl Storage {
    /// anndata's encoding name.
    pub fn encoding(self) -> &'static str {
        match self {
            Storage::Csr => "csr_matrix",
            Storage::Csc => "csc_matrix",
            Storage::Dense => "array",
        }
    }
}

/// An open matrix, observations × variables.
pub struct CountsWindow<'a> {
    h5: &'a H5File,
    /// Group or data set.
    pub node: String,
    /// How it is stored.
    pub storage: Storage,
    /// numpy's name of the value type.
    pub dtype: String,
    /// Rows.
    pub n_obs: usize,
    /// Columns.
    pub n_vars: usize,
    /// Row pointers of CSR, column pointers of CSC.
    indptr: Vec<u64>,
}

impl<'a> CountsWindow<'a> {
    /// Opens an AnnData matrix: a dense data set, or a group with `data`, `indices`, `indptr` and its shape as an
    /// attribute (`shape`, or `h5sparse_shape` before 0.7). The names of rows and columns are read first: a shape that
    /// does not agree with their number is refused before it can ask for memory.
    pub fn open(h5: &'a H5File, node: &str, n_obs: usize, n_vars: usize) -> Result<CountsWindow<'a>, IngestError> {
        let window = CountsWindow::open_any(h5, node)?;
        for (found, expected) in [(window.n_obs, n_obs), (window.n_vars, n_vars)] {
            if found != expected {
                return Err(IngestError::Length { path: h5.path().into(), node: node.into(), found, expected });
            }
        }
        Ok(window)
    }

    fn open_any(h5: &'a H5File, node: &str) -> Result<CountsWindow<'a>, IngestError> {
        if h5.node(node)? == Some(Node::Dataset) {
            let extent = h5.extent(node)?;
            let &[n_obs, n_vars] = extent.shape.as_slice() else {
                return Err(h5.unsupported(node, format!("has shape {:?} where a matrix was expected", extent.shape)));
            };
            let (n_obs, n_vars) = (n_obs as usize, n_vars as usize);
            let (node, dtype) = (node.into(), extent.element.name());
            return Ok(CountsWindow { h5, node, storage: Storage::Dense, dtype, n_obs, n_vars, indptr: Vec::new() });
        }
        let attrs = h5.attrs(node)?;
        let text = |names: [&str; 2]| match names.iter().find_map(|n| attrs.get(*n)) {
            Some(Attr::Text(t)) => t.first().cloned().unwrap_or_default(),
            _ => String::new(),
        };
        let storage = match text(["encoding-type", "h5sparse_format"]).as_str() {
            "csr_matrix" | "csr" => Storage::Csr,
            "csc_matrix" | "csc" => Storage::Csc,
            other => return Err(h5.unsupported(node, format!("has encoding `{other}`, not a matrix we read"))),
        };
        match attrs.get("shape").or_else(|| attrs.get("h5sparse_shape")) {
            Some(Attr::Ints(shape)) if shape.len() == 2 && shape.iter().all(|&n| n >= 0) => {
                CountsWindow::sparse(h5, node, storage, shape[0] as u64, shape[1] as u64)
            }
            other => Err(h5.damaged(node, format!("sparse matrix with shape {other:?}"))),
        }
    }

    /// Opens `data`, `indices`, `indptr` under `node` as a sparse matrix of a shape known from elsewhere.
    pub fn sparse(
        h5: &'a H5File,
        node: &str,
        storage: Storage,
        n_obs: u64,
        n_vars: u64,
    ) -> Result<CountsWindow<'a>, IngestError> {
        let raw = h5.read_i64(&format!("{node}/indptr"), 0, u64::MAX)?;
        let n_lines = if storage == Storage::Csr { n_obs } else { n_vars };
        let data = h5.extent(&format!("{node}/data"))?;
        let indices = h5.extent(&format!("{node}/indices"))?;
        let nnz = data.n_rows();
        let bad = |fact: String| Err(h5.damaged(&format!("{node}/indptr"), fact));
        // Columns may be empty in any number, so the other extent is bounded by what a u32 index can name.
        if n_obs.max(n_vars) > u64::from(u32::MAX) {
            return bad(format!("shape {n_obs} × {n_vars} is beyond 2^32"));
        }
        if raw.len() as u64 != n_lines + 1 {
            return bad(format!("{} pointers for {n_lines} rows or columns", raw.len()));
        }
        if indices.n_rows() != nnz || raw.first() != Some(&0) || raw.last() != Some(&(nnz as i64)) {
            return bad(format!("{nnz} values, {} indices, pointers to {:?}", indices.n_rows(), raw.last()));
        }
        if raw.windows(2).any(|w| w[0] > w[1]) {
            return bad("pointers do not ascend".into());
        }
        let indptr = raw.into_iter().map(|p| p as u64).collect();
        let (n_obs, n_vars) = (n_obs as usize, n_vars as usize);
        Ok(CountsWindow { h5, node: node.into(), storage, dtype: data.element.name(), n_obs, n_vars, indptr })
    }

    /// Rows `start..start + n` (clamped), in the file's precision.
    pub fn rows(&self, start: usize, n: usize) -> Result<Window, IngestError> {
        let start = start.min(self.n_obs);
        let n = n.min(self.n_obs - start);
        let mut entries = match self.storage {
            Storage::Csr => self.csr_rows(start, n)?,
            Storage::Csc => self.csc_rows(start, n)?,
            Storage::Dense => self.dense_rows(start, n)?,
        };
        let mut window =
            Window { n_vars: self.n_vars, indptr: vec![0], indices: Vec::new(), values: Vec::new(), n_summed: 0 };
        for row in &mut entries {
            row.sort_by_key(|e| e.0);
            let from = window.indices.len();
            for &(column, value) in row.iter() {
                // Duplicate entries of a row add up, as scipy reads them.
                if window.indices.len() > from && window.indices.last() == Some(&column) {
                    *window.values.last_mut().expect("as many values as indices") += value;
                    window.n_summed += 1;
                } else {
                    window.indices.push(column);
                    window.values.push(value);
                }
            }
            window.indptr.push(window.indices.len());
        }
        Ok(window)
    }

    /// The whole matrix.
    pub fn all(&self) -> Result<Window, IngestError> {
        self.rows(0, self.n_obs)
    }

    fn csr_rows(&self, start: usize, n: usize) -> Result<Vec<Vec<(u32, f64)>>, IngestError> {
        let (from, to) = (self.indptr[start], self.indptr[start + n]);
        let columns = self.indices(from, to - from, self.n_vars)?;
        let values = self.h5.read_f64(&format!("{}/data", self.node), from, to - from)?;
        let rows = self.indptr[start..=start + n].windows(2).map(|w| {
            let span = (w[0] - from) as usize..(w[1] - from) as usize;
            columns[span.clone()].iter().copied().zip(values[span].iter().copied()).collect()
        });
        Ok(rows.collect())
    }

    fn csc_rows(&self, start: usize, n: usize) -> Result<Vec<Vec<(u32, f64)>>, IngestError> {
        let mut rows = vec![Vec::new(); n];
        let nnz = *self.indptr.last().expect("pointers are never empty");
        let mut column = 0;
        let mut from = 0;
        while from < nnz {
            let len = CSC_BLOCK.min(nnz - from);
            let indices = self.indices(from, len, self.n_obs)?;
            let values = self.h5.read_f64(&format!("{}/data", self.node), from, len)?;
            for (k, (&row, &value)) in indices.iter().zip(&values).enumerate() {
                while self.indptr[column + 1] <= from + k as u64 {
                    column += 1;
                }
                if (start..start + n).contains(&(row as usize)) {
                    rows[row as usize - start].push((column as u32, value));
                }
            }
            from += len;
        }
        Ok(rows)
    }

    fn dense_rows(&self, start: usize, n: usize) -> Result<Vec<Vec<(u32, f64)>>, IngestError> {
        if self.n_vars == 0 {
            return Ok(vec![Vec::new(); n]);
        }
        let values = self.h5.read_f64(&self.node, start as u64, n as u64)?;
        let row = |r: &[f64]| r.iter().enumerate().filter(|e| *e.1 != 0.0).map(|(c, &v)| (c as u32, v)).collect();
        Ok(values.chunks(self.n_vars).map(row).collect())
    }

    fn indices(&self, from: u64, len: u64, limit: usize) -> Result<Vec<u32>, IngestError> {
        let node = format!("{}/indices", self.node);
        let read = self.h5.read_i64(&node, from, len)?;
        match read.iter().find(|&&i| i < 0 || i >= limit as i64) {
            Some(i) => Err(self.h5.damaged(&node, format!("index {i} of {limit}"))),
            None => Ok(read.into_iter().map(|i| i as u32).collect()),
        }
    }
}

/// Rows of a matrix in f64, columns ascending; explicit zeros still present.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Columns.
    pub n_vars: usize,
    /// Row pointers.
    pub indptr: Vec<usize>,
    /// Columns of the entries.
    pub indices: Vec<u32>,
    /// Values of the entries.
    pub values: Vec<f64>,
    /// Entries that were stored more than once and added up.
    pub n_summed: usize,
}

impl Window {
    /// Whether every value is a whole number.
    pub fn is_integral(&self) -> bool {
        self.values.iter().all(|v| v.fract() == 0.0)
    }

    /// Row of entry `k`.
    pub fn row_of(&self, k: usize) -> usize {
        self.indptr.partition_point(|&p| p <= k) - 1
    }

    /// As the section's matrix: f32, without stored zeros.
    pub fn into_csr(self) -> Csr {
        let mut csr = Csr { n_cols: self.n_vars, indptr: vec![0], ..Csr::default() };
        for row in self.indptr.windows(2) {
            for k in row[0]..row[1] {
                if self.values[k] != 0.0 {
                    csr.indices.push(self.indices[k]);
                    csr.values.push(self.values[k] as f32);
                }
            }
            csr.indptr.push(csr.indices.len());
        }
        csr
    }
}
