//! The fallback reader: crate `hdf5-reader`, for filters the primary lacks. It has byte limits of its own.

use std::io::Read;
use std::path::Path;

use hdf5_reader::{Dataset, FilterRegistry, Hdf5File, OpenOptions, SliceInfo, SliceInfoElem};

use super::{Element, Extent, H5Source, guard};

/// Filters it decodes: deflate, shuffle, fletcher32, szip, n-bit, scale-offset, LZ4, zstd.
pub(super) const FILTERS: &[u16] = &[1, 2, 3, 4, 5, 6, 32004, ZSTD];
const ZSTD: u16 = 32015;

/// A file open in `hdf5-reader`.
pub(super) struct NetcdfSource {
    file: Hdf5File,
}

impl NetcdfSource {
    pub(super) fn open(path: &Path, file_bytes: u64) -> Result<NetcdfSource, String> {
        let limit = usize::try_from(guard::max_bytes(&[ZSTD], file_bytes)).unwrap_or(usize::MAX);
        let mut filters = FilterRegistry::new();
        filters.register(
            ZSTD,
            Box::new(move |_, data, _| {
                let mut out = Vec::new();
                let decoder = zstd::stream::read::Decoder::new(data)?;
                decoder.take(limit as u64).read_to_end(&mut out)?;
                Ok(out)
            }),
        );
        let options = OpenOptions::default().with_filter_registry(filters).with_max_read_bytes(limit);
        Ok(NetcdfSource { file: Hdf5File::open_with_options(path, options).map_err(words)? })
    }

    fn dataset(&self, path: &str) -> Result<Dataset, String> {
        self.file.dataset(path).map_err(words)
    }
}

impl H5Source for NetcdfSource {
    fn read_f64(&self, path: &str, extent: &Extent, start: u64, n: u64) -> Result<Vec<f64>, String> {
        let dataset = self.dataset(path)?;
        let rows = window(extent, start, n);
        macro_rules! read {
            ($t:ty) => {
                Ok(dataset.read_slice::<$t>(&rows).map_err(words)?.iter().map(|&v| v as f64).collect())
            };
        }
        match extent.element {
            Element::Float(4) => read!(f32),
            Element::Float(_) => read!(f64),
            _ => Ok(self.read_i64(path, extent, start, n)?.into_iter().map(|v| v as f64).collect()),
        }
    }

    fn read_i64(&self, path: &str, extent: &Extent, start: u64, n: u64) -> Result<Vec<i64>, String> {
        let dataset = self.dataset(path)?;
        let rows = window(extent, start, n);
        macro_rules! read {
            ($t:ty) => {
                Ok(dataset.read_slice::<$t>(&rows).map_err(words)?.iter().map(|&v| v as i64).collect())
            };
        }
        match extent.element {
            Element::Int(1) => read!(i8),
            Element::Int(2) => read!(i16),
            Element::Int(4) => read!(i32),
            Element::Int(_) => read!(i64),
            Element::UInt(1) => read!(u8),
            Element::UInt(2) => read!(u16),
            Element::UInt(4) => read!(u32),
            Element::UInt(_) => read!(u64),
            Element::Bool => {
                let bytes = dataset.read_raw_bytes().map_err(words)?;
                let from = usize::try_from(start).map_err(|e| e.to_string())?.min(bytes.len());
                let to = from.saturating_add(usize::try_from(n).unwrap_or(usize::MAX)).min(bytes.len());
                Ok(bytes[from..to].iter().map(|&b| i64::from(b)).collect())
            }
            _ => Err(format!("{} is not an integer type", extent.element.name())),
        }
    }

    fn read_strings(&self, path: &str, _max_bytes: u64) -> Result<Vec<String>, String> {
        self.dataset(path)?.read_strings().map_err(words)
    }
}

fn window(extent: &Extent, start: u64, n: u64) -> SliceInfo {
    let mut rows = SliceInfo::all(extent.shape.len());
    if let Some(first) = rows.selections.first_mut() {
        let end = start.saturating_add(n).min(extent.n_rows());
        *first = SliceInfoElem::Slice { start: start.min(end), end, step: 1 };
    }
    rows
}

fn words(e: hdf5_reader::error::Error) -> String {
    e.to_string()
}
