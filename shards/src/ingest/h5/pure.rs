//! The primary reader: crate `hdf5-pure`. Streams windows; lacks zstd, LZ4 and szip.

use std::collections::BTreeMap;
use std::path::Path;

use hdf5_pure::{AttrValue, DType, Dataset, File, Group, VlenStringReadOptions};

use super::{Attr, Element, Extent, H5Source, Node};

/// Filters it decodes: deflate, shuffle, fletcher32, lzf.
pub(super) const FILTERS: &[u16] = &[1, 2, 3, 32000];

/// A file open in `hdf5-pure`.
pub(super) struct PureSource {
    file: File,
}

impl PureSource {
    pub(super) fn open(path: &Path) -> Result<PureSource, String> {
        Ok(PureSource { file: File::open_streaming(path).map_err(words)? })
    }

    fn group(&self, path: &str) -> Result<Group, String> {
        if path.is_empty() { Ok(self.file.root()) } else { self.file.group(path).map_err(words) }
    }

    fn dataset(&self, path: &str) -> Result<Dataset, String> {
        self.file.dataset(path).map_err(words)
    }

    /// Children of a group.
    pub(super) fn list(&self, group: &str) -> Result<Vec<(String, Node)>, String> {
        let group = self.group(group)?;
        let groups = group.groups().map_err(words)?.into_iter().map(|name| (name, Node::Group));
        let datasets = group.datasets().map_err(words)?.into_iter().map(|name| (name, Node::Dataset));
        Ok(groups.chain(datasets).collect())
    }

    /// Attributes of a group or data set.
    pub(super) fn attrs(&self, path: &str, node: Node) -> Result<BTreeMap<String, Attr>, String> {
        let attrs = match node {
            Node::Group => self.group(path)?.attrs(),
            Node::Dataset => self.dataset(path)?.attrs(),
        };
        Ok(attrs.map_err(words)?.into_iter().map(|(name, value)| (name, attr(&value))).collect())
    }

    /// Shape, type and storage.
    pub(super) fn extent(&self, path: &str) -> Result<Extent, String> {
        let dataset = self.dataset(path)?;
        Ok(Extent {
            shape: dataset.shape().map_err(words)?,
            element: element(&dataset.dtype().map_err(words)?),
            element_size: dataset.element_size().map_err(words)?,
            chunk: dataset.chunk_shape().map_err(words)?,
            filters: dataset.filters(),
        })
    }
}

impl H5Source for PureSource {
    fn read_f64(&self, path: &str, extent: &Extent, start: u64, n: u64) -> Result<Vec<f64>, String> {
        if extent.element == Element::Bool {
            return Ok(self.read_i64(path, extent, start, n)?.into_iter().map(|v| v as f64).collect());
        }
        let dataset = self.dataset(path)?;
        if extent.shape.is_empty() {
            return dataset.read_f64().map_err(words);
        }
        dataset.read_f64_rows(start, clamp(extent, start, n)).map_err(words)
    }

    fn read_i64(&self, path: &str, extent: &Extent, start: u64, n: u64) -> Result<Vec<i64>, String> {
        let dataset = self.dataset(path)?;
        let scalar = extent.shape.is_empty();
        let rows = clamp(extent, start, n);
        if extent.element == Element::Bool {
            let bytes = if scalar { dataset.read_raw() } else { dataset.read_raw_rows(start, rows) };
            return Ok(bytes.map_err(words)?.into_iter().map(i64::from).collect());
        }
        if scalar { dataset.read_i64().map_err(words) } else { dataset.read_i64_rows(start, rows).map_err(words) }
    }

    fn read_strings(&self, path: &str, max_bytes: u64) -> Result<Vec<String>, String> {
        let dataset = self.dataset(path)?;
        if dataset.dtype().map_err(words)? != DType::VariableLengthString {
            return dataset.read_string().map_err(words);
        }
        let max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        let limits =
            VlenStringReadOptions::new().with_max_elements(max_bytes / 16 + 1).with_max_payload_bytes(max_bytes);
        dataset.read_vlen_strings(limits).map_err(words)
    }
}

fn clamp(extent: &Extent, start: u64, n: u64) -> u64 {
    n.min(extent.n_rows().saturating_sub(start))
}

fn words(e: hdf5_pure::Error) -> String {
    e.to_string()
}

fn element(dtype: &DType) -> Element {
    match dtype {
        DType::F32 => Element::Float(4),
        DType::F64 => Element::Float(8),
        DType::I8 => Element::Int(1),
        DType::I16 => Element::Int(2),
        DType::I32 => Element::Int(4),
        DType::I64 => Element::Int(8),
        DType::U8 => Element::UInt(1),
        DType::U16 => Element::UInt(2),
        DType::U32 => Element::UInt(4),
        DType::U64 => Element::UInt(8),
        DType::String => Element::Text { variable: false },
        DType::VariableLengthString => Element::Text { variable: true },
        DType::Enum(names) if names.iter().any(|n| n == "TRUE") && names.len() == 2 => Element::Bool,
        DType::Compound(_) => Element::Compound,
        other => Element::Other(other.to_string()),
    }
}

fn attr(value: &AttrValue) -> Attr {
    if let Some(text) = value.as_str() {
        return Attr::Text(vec![text.to_owned()]);
    }
    if let Some(texts) = value.as_strings() {
        return Attr::Text(texts.to_vec());
    }
    if let Some(ints) = value.to_i64s() {
        return Attr::Ints(ints);
    }
    value.to_f64s().map_or(Attr::Other, Attr::Floats)
}
