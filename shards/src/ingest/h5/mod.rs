//! HDF5 behind one small trait, with every extent checked against the file before it is read.
//!
//! Knows no AnnData and no 10x. `pure` reads nearly everything; `netcdf` (the reader crate of the netcdf-rust
//! workspace) takes over for filters the first lacks (zstd, LZ4, szip); `guard` holds the limits and catches what
//! nonetheless panics. Unguarded, one damaged shape makes the reader ask for 10^18 bytes, which aborts the process.

mod guard;
mod netcdf;
mod pure;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::error::IngestError;
use guard::{caught, check_extent};

/// What kind of object a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A group.
    Group,
    /// A data set.
    Dataset,
}

/// An attribute, as far as AnnData and 10x use them.
#[derive(Debug, Clone, PartialEq)]
pub enum Attr {
    /// Text.
    Text(Vec<String>),
    /// Whole numbers.
    Ints(Vec<i64>),
    /// Floating-point numbers.
    Floats(Vec<f64>),
    /// A kind we do not use.
    Other,
}

/// What one element of a data set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// IEEE float of that many bytes (4 or 8).
    Float(u8),
    /// Signed integer of that many bytes.
    Int(u8),
    /// Unsigned integer of that many bytes.
    UInt(u8),
    /// h5py's boolean: an enum of one byte.
    Bool,
    /// Text, fixed or variable length.
    Text {
        /// Variable length: the elements are references into a heap.
        variable: bool,
    },
    /// Rows of fields (anndata up to 0.6 wrote data frames so).
    Compound,
    /// Anything else, named.
    Other(String),
}

impl Element {
    /// numpy's name, e.g. `float32`.
    pub fn name(&self) -> String {
        match self {
            Element::Float(n) => format!("float{}", 8 * n),
            Element::Int(n) => format!("int{}", 8 * n),
            Element::UInt(n) => format!("uint{}", 8 * n),
            Element::Bool => "bool".into(),
            Element::Text { .. } => "string".into(),
            Element::Compound => "compound".into(),
            Element::Other(name) => name.clone(),
        }
    }

    /// Whether it reads as a number.
    pub fn is_number(&self) -> bool {
        matches!(self, Element::Float(_) | Element::Int(_) | Element::UInt(_) | Element::Bool)
    }
}

/// Shape and storage of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Extent {
    /// Dimensions; empty for a scalar.
    pub shape: Vec<u64>,
    /// Type of an element.
    pub element: Element,
    /// Bytes of an element as stored.
    pub element_size: u64,
    /// Chunk dimensions, if chunked.
    pub chunk: Option<Vec<u64>>,
    /// HDF5 filter numbers in order (1 deflate, 2 shuffle, 3 fletcher32, 32000 lzf, 32015 zstd).
    pub filters: Vec<u16>,
}

impl Extent {
    /// Rows: the first dimension, 1 for a scalar.
    pub fn n_rows(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
    }
}

/// A reader of values. Errors are the reader's own words.
///
/// Implementations need not be defensive: [`H5File`] checks extents and catches panics around every call. Structure
/// (groups, attributes, extents) always comes from the primary reader; only values differ by filter.
trait H5Source {
    /// Rows `start..start + n` along the first dimension, as f64 (exact for integers up to 2^53).
    fn read_f64(&self, path: &str, extent: &Extent, start: u64, n: u64) -> Result<Vec<f64>, String>;
    /// The same, as i64.
    fn read_i64(&self, path: &str, extent: &Extent, start: u64, n: u64) -> Result<Vec<i64>, String>;
    /// All strings, of at most `max_bytes` of text together.
    fn read_strings(&self, path: &str, max_bytes: u64) -> Result<Vec<String>, String>;
}

/// An open HDF5 file.
pub struct H5File {
    path: PathBuf,
    file_bytes: u64,
    pure: pure::PureSource,
    netcdf: OnceLock<Result<netcdf::NetcdfSource, String>>,
}

impl H5File {
    /// Opens a file; reads nothing but its first structures.
    pub fn open(path: &Path) -> Result<H5File, IngestError> {
        let meta = match std::fs::metadata(path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(IngestError::Missing { path: path.into() });
            }
            Err(source) => return Err(IngestError::Io { path: path.into(), source }),
        };
        match hdf5_pure::is_hdf5(path) {
            Ok(true) => {}
            Ok(false) => return Err(IngestError::NotHdf5 { path: path.into() }),
            Err(source) => return Err(IngestError::Io { path: path.into(), source }),
        }
        let pure = caught(|| pure::PureSource::open(path)).map_err(|fact| IngestError::Damaged {
            path: path.into(),
            node: "/".into(),
            fact,
        })?;
        Ok(H5File { path: path.into(), file_bytes: meta.len(), pure, netcdf: OnceLock::new() })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Children of a group, by name.
    pub fn list(&self, group: &str) -> Result<BTreeMap<String, Node>, IngestError> {
        caught(|| self.pure.list(group)).map(|c| c.into_iter().collect()).map_err(|fact| self.damaged(group, fact))
    }

    /// What `path` is; `None` when there is nothing of that name.
    pub fn node(&self, path: &str) -> Result<Option<Node>, IngestError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if !parent.is_empty() && self.node(parent)? != Some(Node::Group) {
            return Ok(None);
        }
        Ok(self.list(parent)?.get(name).copied())
    }

    /// Attributes of `path` (`""` is the root).
    pub fn attrs(&self, path: &str) -> Result<BTreeMap<String, Attr>, IngestError> {
        let node = if path.is_empty() { Node::Group } else { self.must_exist(path)? };
        caught(|| self.pure.attrs(path, node)).map_err(|fact| self.damaged(path, fact))
    }

    /// The first text of an attribute.
    pub fn text_attr(&self, path: &str, name: &str) -> Result<Option<String>, IngestError> {
        Ok(match self.attrs(path)?.remove(name) {
            Some(Attr::Text(mut texts)) if !texts.is_empty() => Some(texts.swap_remove(0)),
            _ => None,
        })
    }

    /// Shape, type and storage of a data set, checked against the size of the file.
    pub fn extent(&self, path: &str) -> Result<Extent, IngestError> {
        if self.must_exist(path)? != Node::Dataset {
            return Err(self.unsupported(path, "is a group where a data set was expected"));
        }
        let extent = caught(|| self.pure.extent(path)).map_err(|fact| self.damaged(path, fact))?;
        check_extent(&extent, self.file_bytes).map_err(|fact| self.damaged(path, fact))?;
        Ok(extent)
    }

    /// Rows `start..start + n` along the first dimension as f64; the window is clamped to the data set.
    pub fn read_f64(&self, path: &str, start: u64, n: u64) -> Result<Vec<f64>, IngestError> {
        let extent = self.numeric(path)?;
        let source = self.source_for(path, &extent)?;
        let values = caught(|| source.read_f64(path, &extent, start, n)).map_err(|fact| self.damaged(path, fact))?;
        self.check_window(path, &extent, start, n, values.len())?;
        Ok(values)
    }

    /// Rows `start..start + n` along the first dimension as i64; floats are refused.
    pub fn read_i64(&self, path: &str, start: u64, n: u64) -> Result<Vec<i64>, IngestError> {
        let extent = self.numeric(path)?;
        if matches!(extent.element, Element::Float(_)) {
            return Err(self.unsupported(path, "holds floats where integers were expected"));
        }
        let source = self.source_for(path, &extent)?;
        let values = caught(|| source.read_i64(path, &extent, start, n)).map_err(|fact| self.damaged(path, fact))?;
        self.check_window(path, &extent, start, n, values.len())?;
        Ok(values)
    }

    /// The single number of a scalar (or one-element) data set.
    pub fn read_scalar(&self, path: &str) -> Result<f64, IngestError> {
        let values = self.read_f64(path, 0, u64::MAX)?;
        values.first().copied().ok_or_else(|| self.unsupported(path, "is empty where a number was expected"))
    }

    /// All strings of a text data set.
    pub fn read_strings(&self, path: &str) -> Result<Vec<String>, IngestError> {
        let extent = self.extent(path)?;
        if !matches!(extent.element, Element::Text { .. }) {
            let fact = format!("holds {} where text was expected", extent.element.name());
            return Err(self.unsupported(path, fact));
        }
        let source = self.source_for(path, &extent)?;
        // Heap text is stored as it is; fixed text may be compressed. Both stay below the guard's bound.
        let limit = guard::max_bytes(&extent.filters, self.file_bytes);
        let strings = caught(|| source.read_strings(path, limit)).map_err(|fact| self.damaged(path, fact))?;
        let expected = extent.shape.iter().product::<u64>() as usize;
        if strings.len() != expected {
            return Err(self.damaged(path, format!("{} strings read, {expected} announced", strings.len())));
        }
        Ok(strings)
    }

    /// An error about a sound object that we cannot use.
    pub(crate) fn unsupported(&self, node: &str, fact: impl Into<String>) -> IngestError {
        IngestError::Unsupported { path: self.path.clone(), node: node.into(), fact: fact.into() }
    }

    /// An error about an object that contradicts itself.
    pub(crate) fn damaged(&self, node: &str, fact: impl Into<String>) -> IngestError {
        let node = if node.is_empty() { "/" } else { node };
        IngestError::Damaged { path: self.path.clone(), node: node.into(), fact: fact.into() }
    }

    fn must_exist(&self, path: &str) -> Result<Node, IngestError> {
        self.node(path)?.ok_or_else(|| IngestError::Absent {
            path: self.path.clone(),
            node: path.into(),
            advice: "the file lacks a part that its format demands; write it again with a current anndata".into(),
        })
    }

    fn numeric(&self, path: &str) -> Result<Extent, IngestError> {
        let extent = self.extent(path)?;
        if !extent.element.is_number() {
            let fact = format!("holds {} where numbers were expected", extent.element.name());
            return Err(self.unsupported(path, fact));
        }
        Ok(extent)
    }

    fn source_for(&self, path: &str, extent: &Extent) -> Result<&dyn H5Source, IngestError> {
        if extent.filters.iter().all(|f| pure::FILTERS.contains(f)) {
            return Ok(&self.pure);
        }
        if let Some(unknown) = extent.filters.iter().find(|f| !netcdf::FILTERS.contains(f)) {
            let fact = format!(
                "is compressed with HDF5 filter {unknown}, which this reader lacks; write the file again with \
                 compression=\"gzip\""
            );
            return Err(self.unsupported(path, fact));
        }
        let opened = self.netcdf.get_or_init(|| caught(|| netcdf::NetcdfSource::open(&self.path, self.file_bytes)));
        match opened {
            Ok(source) => Ok(source),
            Err(fact) => Err(self.damaged(path, fact.clone())),
        }
    }

    fn check_window(&self, path: &str, extent: &Extent, start: u64, n: u64, read: usize) -> Result<(), IngestError> {
        let rows = n.min(extent.n_rows().saturating_sub(start));
        let per_row: u64 = extent.shape.iter().skip(1).product();
        if read as u64 == rows * per_row {
            return Ok(());
        }
        Err(self.damaged(path, format!("{read} values read, {} announced", rows * per_row)))
    }
}
