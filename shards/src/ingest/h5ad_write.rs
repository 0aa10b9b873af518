//! Writes `.h5ad` as anndata 0.8 and later reads it: encodings anndata 0.1.0, data frame and arrays 0.2.0.
//!
//! Knows the format, not what is written. Text is variable-length UTF-8, booleans are h5py's enum, arrays of some size
//! lie in chunks with shuffle and gzip level 4. The file appears under its name only when it is whole.

use std::collections::BTreeMap;
use std::path::Path;

use hdf5_pure::{AttrValue, EnumTypeBuilder, FileBuilder, FinishedGroup, GroupBuilder};

pub use super::anndata::{AnnData, Raw, Uns, Values, X, slide};
use super::error::IngestError;
use crate::section::Csr;

/// Elements below which an array is stored plainly: a chunk index would cost more than it saves.
const MIN_CHUNKED: usize = 512;
/// Elements of a chunk: 128 KiB of f32, what one window read decodes at a time.
const CHUNK: u64 = 1 << 15;
/// Longest side of a chunk. From 2^16 to 2^24 hdf5-pure 0.47 writes the side in 4 bytes where the C library expects 3
/// and refuses to open the data set ("stored chunk dimension encoding length does not match").
const MAX_CHUNK_SIDE: u64 = u16::MAX as u64;
const GZIP_LEVEL: u32 = 4;

/// Writes `adata`; an existing file is replaced only when the new one is whole.
///
/// # Errors
/// [`IngestError::Length`] if lengths disagree, [`IngestError::Write`] if the file cannot be written.
pub fn write(path: &Path, adata: &AnnData) -> Result<(), IngestError> {
    check(path, adata)?;
    let fail = |fact: String| IngestError::Write { path: path.into(), fact };
    let mut file = FileBuilder::new();
    file.set_attr("encoding-type", text("anndata"));
    file.set_attr("encoding-version", text("0.1.0"));
    if let Some(x) = &adata.x {
        let shape = [x.shape().0 as u64, x.shape().1 as u64];
        match x {
            X::Sparse(m) => {
                let group = file.create_group("X");
                file.add_group(sparse(group, m));
            }
            X::Dense(m) => array(file.create_dataset("X").with_f32_data(&m.values), &shape),
            X::Mask(m) => bools(file.create_dataset("X"), &m.values, &shape),
        }
    }
    let (obs, var) = (file.create_group("obs"), file.create_group("var"));
    file.add_group(frame(obs, &adata.obs_names, &adata.obs));
    file.add_group(frame(var, &adata.var_names, &adata.var));
    let mut layers = dict(file.create_group("layers"));
    for (name, x) in &adata.layers {
        matrix(&mut layers, name, x);
    }
    file.add_group(layers.finish());
    let mut obsm = dict(file.create_group("obsm"));
    for (name, m) in &adata.obsm {
        array(obsm.create_dataset(name).with_f64_data(&m.values), &[m.n_rows() as u64, m.n_cols as u64]);
    }
    file.add_group(obsm.finish());
    for name in ["varm", "obsp", "varp"] {
        let empty = dict(file.create_group(name)).finish();
        file.add_group(empty);
    }
    let group = file.create_group("uns");
    file.add_group(uns(group, &adata.uns));
    if let Some(raw) = &adata.raw {
        let mut group = file.create_group("raw");
        encoding(&mut group, "raw", "0.1.0");
        let x = sparse(group.create_group("X"), &raw.x);
        group.add_group(x);
        let var = frame(group.create_group("var"), &raw.var_names, &raw.var);
        group.add_group(var);
        let varm = dict(group.create_group("varm")).finish();
        group.add_group(varm);
        file.add_group(group.finish());
    }
    let bytes = file.finish().map_err(|e| fail(e.to_string()))?;
    replace(path, &bytes).map_err(|e| fail(e.to_string()))
}

fn check(path: &Path, adata: &AnnData) -> Result<(), IngestError> {
    let same = |node: String, found: usize, expected: usize| match found == expected {
        true => Ok(()),
        false => Err(IngestError::Length { path: path.into(), node, found, expected }),
    };
    let (n_obs, n_vars) = (adata.obs_names.len(), adata.var_names.len());
    for (group, columns, n) in [("obs", &adata.obs, n_obs), ("var", &adata.var, n_vars)] {
        for (name, values) in columns {
            same(format!("{group}/{name}"), values.len(), n)?;
        }
    }
    let layers = adata.layers.iter().map(|(name, x)| (format!("layers/{name}"), x));
    for (node, x) in adata.x.iter().map(|x| ("X".to_owned(), x)).chain(layers) {
        same(node.clone(), x.shape().0, n_obs)?;
        same(node, x.shape().1, n_vars)?;
    }
    for (name, m) in &adata.obsm {
        same(format!("obsm/{name}"), m.n_rows(), n_obs)?;
    }
    if let Some(raw) = &adata.raw {
        same("raw/X".into(), raw.x.n_rows(), n_obs)?;
        same("raw/var".into(), raw.x.n_cols, raw.var_names.len())?;
        for (name, values) in &raw.var {
            same(format!("raw/var/{name}"), values.len(), raw.var_names.len())?;
        }
    }
    Ok(())
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let name = path.file_name().ok_or(std::io::ErrorKind::InvalidInput)?.to_string_lossy();
    let temp = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = (|| {
        let mut file = std::fs::File::create(&temp)?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
        std::fs::rename(&temp, path)
    })();
    if written.is_err() {
        // The first error is the one to tell; a temporary file that cannot be removed changes nothing.
        let _ = std::fs::remove_file(&temp);
    }
    written
}

fn text(value: &str) -> AttrValue {
    AttrValue::VarLenString(value.into())
}

fn encoding(group: &mut GroupBuilder, kind: &str, version: &str) {
    group.set_attr("encoding-type", text(kind));
    group.set_attr("encoding-version", text(version));
}

fn dict(mut group: GroupBuilder) -> GroupBuilder {
    encoding(&mut group, "dict", "0.1.0");
    group
}

type Dataset = hdf5_pure::DatasetBuilder;

/// Shape, encoding and, if it is worth it, chunks of at most [`CHUNK`] elements.
fn array(dataset: &mut Dataset, shape: &[u64]) {
    stored(dataset, shape);
    dataset.set_attr("encoding-type", text("array")).set_attr("encoding-version", text("0.2.0"));
}

fn stored(dataset: &mut Dataset, shape: &[u64]) {
    dataset.with_shape(shape);
    let n: u64 = shape.iter().product();
    if n < MIN_CHUNKED as u64 {
        return;
    }
    let inner = shape[1..].iter().map(|&side| side.min(MAX_CHUNK_SIDE));
    let rows = (CHUNK / inner.clone().product::<u64>().max(1)).clamp(1, shape[0]);
    let chunk: Vec<u64> = std::iter::once(rows).chain(inner).collect();
    dataset.with_chunks(&chunk).with_shuffle().with_deflate(GZIP_LEVEL);
}

fn strings(dataset: &mut Dataset, values: &[String]) {
    let borrowed: Vec<&str> = values.iter().map(String::as_str).collect();
    stored(dataset.with_vlen_strings(&borrowed), &[values.len() as u64]);
    dataset.set_attr("encoding-type", text("string-array")).set_attr("encoding-version", text("0.2.0"));
}

fn bools(dataset: &mut Dataset, values: &[bool], shape: &[u64]) {
    let bytes: Vec<u8> = values.iter().map(|&b| u8::from(b)).collect();
    array(dataset.with_enum_u8_data(bool_type(), &bytes), shape);
}

/// h5py's boolean.
fn bool_type() -> hdf5_pure::Datatype {
    let kind = EnumTypeBuilder::with_base(hdf5_pure::make_i8_type()).value("FALSE", 0).value("TRUE", 1);
    kind.build().expect("two values of one byte")
}

fn matrix(group: &mut GroupBuilder, name: &str, x: &X) {
    match x {
        X::Sparse(m) => {
            let sparse = sparse(group.create_group(name), m);
            group.add_group(sparse);
        }
        X::Dense(m) => {
            array(group.create_dataset(name).with_f32_data(&m.values), &[m.n_rows() as u64, m.n_cols as u64]);
        }
        X::Mask(m) => bools(group.create_dataset(name), &m.values, &[m.n_rows() as u64, m.n_cols as u64]),
    }
}

fn sparse(mut group: GroupBuilder, m: &Csr) -> FinishedGroup {
    encoding(&mut group, "csr_matrix", "0.1.0");
    group.set_attr("shape", AttrValue::I64Array(vec![m.n_rows() as i64, m.n_cols as i64]));
    let nnz = m.values.len() as u64;
    stored(group.create_dataset("data").with_f32_data(&m.values), &[nnz]);
    // scipy takes 32-bit indices while they suffice, and wants both index arrays of one type.
    if m.indices.len() <= i32::MAX as usize && m.n_cols <= i32::MAX as usize {
        let indices: Vec<i32> = m.indices.iter().map(|&i| i as i32).collect();
        let indptr: Vec<i32> = m.indptr.iter().map(|&p| p as i32).collect();
        stored(group.create_dataset("indices").with_i32_data(&indices), &[nnz]);
        stored(group.create_dataset("indptr").with_i32_data(&indptr), &[indptr.len() as u64]);
    } else {
        let indices: Vec<i64> = m.indices.iter().map(|&i| i64::from(i)).collect();
        let indptr: Vec<i64> = m.indptr.iter().map(|&p| p as i64).collect();
        stored(group.create_dataset("indices").with_i64_data(&indices), &[nnz]);
        stored(group.create_dataset("indptr").with_i64_data(&indptr), &[indptr.len() as u64]);
    }
    group.finish()
}

fn frame(mut group: GroupBuilder, names: &[String], columns: &[(String, Values)]) -> FinishedGroup {
    encoding(&mut group, "dataframe", "0.2.0");
    group.set_attr("_index", text("_index"));
    // h5py writes an empty order as an empty float array, and anndata expects to find it.
    let order: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
    let order = if order.is_empty() { AttrValue::F64Array(Vec::new()) } else { AttrValue::VarLenStringArray(order) };
    group.set_attr("column-order", order);
    strings(group.create_dataset("_index"), names);
    for (name, values) in columns {
        column(&mut group, name, values);
    }
    group.finish()
}

fn column(group: &mut GroupBuilder, name: &str, values: &Values) {
    let n = values.len() as u64;
    match values {
        Values::Text(v) => strings(group.create_dataset(name), v),
        Values::F64(v) => array(group.create_dataset(name).with_f64_data(v), &[n]),
        Values::I64(v) => array(group.create_dataset(name).with_i64_data(v), &[n]),
        Values::Bool(v) => bools(group.create_dataset(name), v, &[n]),
        Values::Categorical(v) => {
            let mut categories: Vec<String> = v.iter().flatten().cloned().collect();
            categories.sort();
            categories.dedup();
            let code = |label: &Option<String>| match label {
                Some(label) => categories.binary_search(label).expect("every label is a category") as i32,
                None => -1,
            };
            let codes: Vec<i32> = v.iter().map(code).collect();
            let mut categorical = group.create_group(name);
            encoding(&mut categorical, "categorical", "0.2.0");
            categorical.set_attr("ordered", AttrValue::U8(0));
            strings(categorical.create_dataset("categories"), &categories);
            array(categorical.create_dataset("codes").with_i32_data(&codes), &[n]);
            group.add_group(categorical.finish());
        }
    }
}

fn uns(group: GroupBuilder, values: &BTreeMap<String, Uns>) -> FinishedGroup {
    let mut group = dict(group);
    for (name, value) in values {
        match value {
            Uns::Dict(inner) => {
                let inner = uns(group.create_group(name), inner);
                group.add_group(inner);
            }
            Uns::Text(v) => {
                let dataset = group.create_dataset(name);
                dataset.with_vlen_strings(&[v]).with_shape(&[]);
                dataset.set_attr("encoding-type", text("string")).set_attr("encoding-version", text("0.2.0"));
            }
            Uns::F64(v) => scalar(group.create_dataset(name).with_f64_data(&[*v])),
            Uns::I64(v) => scalar(group.create_dataset(name).with_i64_data(&[*v])),
            Uns::Bool(v) => scalar(group.create_dataset(name).with_enum_u8_data(bool_type(), &[u8::from(*v)])),
            Uns::Column(Values::Categorical(v)) => {
                let labels: Vec<String> = v.iter().map(|l| l.clone().unwrap_or_default()).collect();
                strings(group.create_dataset(name), &labels);
            }
            Uns::Column(v) => column(&mut group, name, v),
            Uns::Bytes { shape, values } => array(group.create_dataset(name).with_u8_data(values), shape),
        }
    }
    group.finish()
}

fn scalar(dataset: &mut Dataset) {
    dataset.with_shape(&[]);
    dataset.set_attr("encoding-type", text("numeric-scalar")).set_attr("encoding-version", text("0.2.0"));
}
