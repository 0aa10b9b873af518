//! Frozen vectors of records: a folder of its own beside the shards, so that the identity of the data stays what it was.
//!
//! `vectors.json` (written last) says whose vectors they are (records, niches or tissues), how wide, which checkpoint made
//! them and of which data; `part-00000.parquet`, … hold `id` uint64 and `vector` fixed-size list\<float\>. A row group of a
//! later stage reads them by id. Knows no model.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, UInt64Type};
use arrow_array::{Array, FixedSizeListArray, PrimitiveArray, RecordBatch, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use serde::{Deserialize, Serialize};

use super::properties;
use crate::durable::{FileError, write_atomic};
use crate::error::StoreError;
use crate::matrix::Matrix;
use crate::schema::element;

/// Name of the manifest of a folder of vectors.
pub const VECTORS_FILE: &str = "vectors.json";
/// Version of the folder's format.
pub const VECTORS_VERSION: u32 = 1;
/// Values of one part: 256 MiB of f32, what is encoded in memory.
const PART_VALUES: usize = 1 << 26;

/// What the ids of a folder of vectors name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VectorsOf {
    /// Records.
    Obs,
    /// Niches.
    Niche,
    /// Tissues.
    Tissue,
    /// Pictures of niches' regions, by niche.
    Region,
    /// Spots: the mean of the reference's cells that each is paired with.
    Pair,
    /// Cells of a reference, as a network moved them.
    Moved,
    /// Cells of a reference: the mean of the others, moved, that each is paired with.
    MovedPair,
}

/// What of its records was read to make them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    /// Genes and picture: all that the model reads.
    #[default]
    Both,
    /// Genes alone.
    Genes,
    /// The picture alone.
    Image,
}

impl Modality {
    /// Whether genes are read.
    pub fn genes(self) -> bool {
        self != Modality::Image
    }

    /// Whether the picture is read.
    pub fn image(self) -> bool {
        self != Modality::Genes
    }

    /// Whether all is read that the model reads.
    pub fn both(&self) -> bool {
        *self == Modality::Both
    }
}

/// What a folder of vectors says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorsFacts {
    /// [`VECTORS_VERSION`] of the writer.
    pub version: u32,
    /// What the ids name.
    pub of: VectorsOf,
    /// Values per vector.
    pub width: u32,
    /// Hash of the checkpoint that made them.
    pub producer: String,
    /// What was read, where it was not all.
    #[serde(default, skip_serializing_if = "Modality::both")]
    pub modality: Modality,
    /// Digest of the folder of their members' vectors, if they were made of vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<String>,
    /// `Manifest::data_hash` of the shards they were made of.
    pub data_hash: String,
    /// Number of vectors.
    pub n: u64,
    /// Files, in order.
    pub parts: Vec<VectorsPart>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorsPart {
    /// `part-00000.parquet`.
    pub name: String,
    /// BLAKE3 of the file, hex.
    pub blake3: String,
}

impl VectorsFacts {
    /// What the folder `dir` says about itself.
    ///
    /// # Errors
    /// [`StoreError::NotVectors`]; a format of a later version; the system's errors.
    pub fn read(dir: &Path) -> Result<VectorsFacts, StoreError> {
        let path = dir.join(VECTORS_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(StoreError::NotVectors { path: dir.into() });
            }
            Err(e) => return Err(FileError::at("read", &path)(e).into()),
        };
        let facts: VectorsFacts =
            serde_json::from_slice(&bytes).map_err(|source| StoreError::Manifest { path: path.clone(), source })?;
        if facts.version != VECTORS_VERSION {
            let (found, supported) = (facts.version, VECTORS_VERSION);
            return Err(StoreError::NewerSchema { path, found, supported });
        }
        Ok(facts)
    }

    /// What keeps a later stage from learning on them, in words: they are of one modality alone, or fused of levels.
    pub fn no_members(&self) -> Option<&'static str> {
        match (self.modality, self.of, &self.members) {
            (Modality::Genes, ..) => Some("vectors of genes alone (--modality genes)"),
            (Modality::Image, ..) => Some("vectors of pictures alone (--modality image)"),
            (Modality::Both, VectorsOf::Obs, Some(_)) => Some("fused vectors (--level fused)"),
            (Modality::Both, ..) => None,
        }
    }

    /// Which vectors they are: a digest of everything said here, the hashes of the files included.
    pub fn digest(&self) -> String {
        let json = serde_json::to_vec(self).expect("strings and numbers always serialise");
        blake3::hash(&json).to_hex().to_string()
    }
}

impl std::fmt::Display for VectorsFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "vectors    {} of {}, {} values each, {} files",
            self.n,
            self.of.plural(),
            self.width,
            self.parts.len()
        )?;
        writeln!(f, "made by    {}", self.producer)?;
        if let Some(members) = &self.members {
            writeln!(f, "made of    vectors {members}")?;
        }
        writeln!(f, "data       {}", self.data_hash)?;
        write!(f, "digest     {}", self.digest())
    }
}

fn schema(width: usize) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::UInt64, false),
        Field::new("vector", DataType::FixedSizeList(element(DataType::Float32), width as i32), false),
    ]))
}

/// Writes a folder of vectors piece by piece.
#[derive(Debug)]
pub struct VectorsWriter {
    dir: PathBuf,
    facts: VectorsFacts,
    ids: Vec<u64>,
    values: Vec<f32>,
}

impl VectorsWriter {
    /// Begins the folder `dir`, which must be absent or empty.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`]; the system's errors.
    pub fn create(
        dir: &Path,
        of: VectorsOf,
        width: usize,
        producer: &str,
        data_hash: &str,
    ) -> Result<VectorsWriter, StoreError> {
        assert!(width > 0, "a vector has values");
        fs::create_dir_all(dir).map_err(FileError::at("create the folder", dir))?;
        if let Some(found) = fs::read_dir(dir).map_err(FileError::at("list", dir))?.next() {
            let found = found.map_err(FileError::at("list", dir))?.file_name().to_string_lossy().into_owned();
            return Err(StoreError::NotEmpty { path: dir.into(), found });
        }
        Ok(VectorsWriter::go_on(dir, of, width, producer, data_hash))
    }

    /// Goes on in a folder that was begun: [`VectorsWriter::keep_part`] keeps what is whole of it.
    pub(crate) fn go_on(dir: &Path, of: VectorsOf, width: usize, producer: &str, data_hash: &str) -> VectorsWriter {
        let facts = VectorsFacts {
            version: VECTORS_VERSION,
            of,
            width: width as u32,
            producer: producer.to_owned(),
            modality: Modality::Both,
            members: None,
            data_hash: data_hash.to_owned(),
            n: 0,
            parts: Vec::new(),
        };
        VectorsWriter { dir: dir.into(), facts, ids: Vec::new(), values: Vec::new() }
    }

    /// They are made of the vectors with this digest.
    pub fn made_of(&mut self, members: &VectorsFacts) {
        self.facts.members = Some(members.digest());
    }

    /// They are made of this of their records.
    pub fn made_with(&mut self, modality: Modality) {
        self.facts.modality = modality;
    }

    /// Adds vectors: `values` is `[ids.len(), width]`, row-major.
    ///
    /// # Errors
    /// A value that is not finite; the system's errors.
    pub fn push(&mut self, ids: &[u64], values: &[f32]) -> Result<(), StoreError> {
        let width = self.facts.width as usize;
        assert_eq!(values.len(), ids.len() * width, "one vector per id");
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            let what = format!("the vector of id {} is not finite", ids[at / width]);
            return Err(StoreError::damaged(&self.dir.display().to_string(), None, what));
        }
        self.ids.extend_from_slice(ids);
        self.values.extend_from_slice(values);
        if self.values.len() >= PART_VALUES { self.write_part() } else { Ok(()) }
    }

    /// Takes the next part as it lies in the folder, if it holds the vectors of these ids.
    ///
    /// # Errors
    /// The system's errors; a part that is absent or damaged is none.
    pub(crate) fn keep_part(&mut self, ids: &[u64]) -> Result<bool, StoreError> {
        let name = format!("part-{:05}.parquet", self.facts.parts.len());
        let path = self.dir.join(&name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(FileError::at("read", &path)(e).into()),
        };
        let part = VectorsPart { name, blake3: blake3::hash(&bytes).to_hex().to_string() };
        let (mut found, mut values) = (Vec::new(), Vec::new());
        let whole = read_part(&self.dir, &part, self.facts.width as usize, &mut found, &mut values).is_ok();
        let keeps = whole && found == ids && values.iter().all(|v| v.is_finite());
        if keeps {
            self.facts.n += ids.len() as u64;
            self.facts.parts.push(part);
        }
        Ok(keeps)
    }

    /// Writes what was added since the last part as one.
    ///
    /// # Errors
    /// The system's errors.
    pub(crate) fn end_part(&mut self) -> Result<(), StoreError> {
        if self.ids.is_empty() { Ok(()) } else { self.write_part() }
    }

    /// Writes what is left and, last, `vectors.json`.
    ///
    /// # Errors
    /// The system's errors.
    pub fn finish(mut self) -> Result<VectorsFacts, StoreError> {
        if !self.ids.is_empty() || self.facts.parts.is_empty() {
            self.write_part()?;
        }
        let json = serde_json::to_vec_pretty(&self.facts).expect("strings and numbers always serialise");
        write_atomic(&self.dir.join(VECTORS_FILE), &json)?;
        Ok(self.facts)
    }

    fn write_part(&mut self) -> Result<(), StoreError> {
        let name = format!("part-{:05}.parquet", self.facts.parts.len());
        let width = self.facts.width as usize;
        let values = PrimitiveArray::<Float32Type>::from_iter_values(self.values.drain(..));
        let vectors = FixedSizeListArray::new(element(DataType::Float32), width as i32, Arc::new(values), None);
        self.facts.n += self.ids.len() as u64;
        let ids = UInt64Array::from(std::mem::take(&mut self.ids));
        let batch = RecordBatch::try_new(schema(width), vec![Arc::new(ids), Arc::new(vectors)]).expect("as the schema");
        let failed = || StoreError::parquet(&name, None);
        let mut writer = ArrowWriter::try_new(Vec::new(), schema(width), Some(properties())).map_err(failed())?;
        writer.write(&batch).map_err(failed())?;
        let bytes = writer.into_inner().map_err(failed())?;
        write_atomic(&self.dir.join(&name), &bytes)?;
        self.facts.parts.push(VectorsPart { name, blake3: blake3::hash(&bytes).to_hex().to_string() });
        Ok(())
    }
}

/// Vectors in memory, by id.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    /// What the folder says.
    pub facts: VectorsFacts,
    /// Ids in stored order.
    pub ids: Vec<u64>,
    /// `[n, width]`.
    pub values: Matrix<f32>,
    row_of: BTreeMap<u64, usize>,
}

impl Vectors {
    /// Vectors that were just made, of no folder: `values` is `[ids.len(), width]`.
    pub fn in_memory(of: VectorsOf, ids: Vec<u64>, values: Matrix<f32>) -> Vectors {
        assert_eq!(values.n_rows(), ids.len(), "one vector per id");
        let facts = VectorsFacts {
            version: VECTORS_VERSION,
            of,
            width: values.n_cols as u32,
            producer: String::new(),
            modality: Modality::Both,
            members: None,
            data_hash: String::new(),
            n: ids.len() as u64,
            parts: Vec::new(),
        };
        let row_of = ids.iter().enumerate().map(|(row, &id)| (id, row)).collect();
        Vectors { facts, ids, values, row_of }
    }

    /// Reads a folder of vectors of the shards with this `data_hash`.
    ///
    /// # Errors
    /// [`StoreError::NotVectors`], [`StoreError::OtherVectors`]; damage; the system's errors.
    pub fn read(dir: &Path, of: VectorsOf, data_hash: &str) -> Result<Vectors, StoreError> {
        let facts = VectorsFacts::read(dir)?;
        let mut differs = None;
        if facts.of != of {
            differs = Some(format!("vectors of {}, those of {} are wanted", facts.of.plural(), of.plural()));
        } else if facts.data_hash != data_hash {
            differs = Some("vectors of other shards".to_owned());
        }
        if let Some(what) = differs {
            return Err(StoreError::OtherVectors { path: dir.into(), what });
        }
        let width = facts.width as usize;
        let (mut ids, mut values) = (Vec::new(), Vec::new());
        for part in &facts.parts {
            read_part(dir, part, width, &mut ids, &mut values)?;
        }
        let row_of: BTreeMap<u64, usize> = ids.iter().enumerate().map(|(row, &id)| (id, row)).collect();
        if ids.len() as u64 != facts.n || row_of.len() != ids.len() {
            let what = format!("{} vectors of {} ids, {} expected", ids.len(), row_of.len(), facts.n);
            return Err(StoreError::DamagedVectors { path: dir.into(), what });
        }
        Ok(Vectors { facts, ids, values: Matrix { n_cols: width, values }, row_of })
    }

    /// The vector of an id `[width]`.
    pub fn get(&self, id: u64) -> Option<&[f32]> {
        self.row_of.get(&id).map(|&row| self.values.row(row))
    }
}

fn read_part(
    dir: &Path,
    part: &VectorsPart,
    width: usize,
    ids: &mut Vec<u64>,
    values: &mut Vec<f32>,
) -> Result<(), StoreError> {
    let damaged = |what: String| StoreError::DamagedVectors { path: dir.into(), what: format!("{} {what}", part.name) };
    if part.name.contains(['/', '\\']) || part.name.starts_with('.') {
        return Err(damaged("is no file of the folder".to_owned()));
    }
    let path = dir.join(&part.name);
    let bytes = fs::read(&path).map_err(FileError::at("read", &path))?;
    if blake3::hash(&bytes).to_hex().as_str() != part.blake3 {
        return Err(damaged("does not match its BLAKE3".to_owned()));
    }
    let failed = |error: ParquetError| damaged(format!("cannot be read: {error}"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).map_err(failed)?;
    for batch in reader.build().map_err(failed)? {
        let batch = batch.map_err(|e| failed(e.into()))?;
        let of_ids = batch.column_by_name("id").and_then(|c| c.as_primitive_opt::<UInt64Type>());
        let vectors = batch.column_by_name("vector").and_then(|c| c.as_fixed_size_list_opt());
        let (Some(of_ids), Some(vectors)) = (of_ids, vectors.filter(|v| v.value_length() as usize == width)) else {
            return Err(damaged(format!("has other columns than id and vectors of {width}")));
        };
        let Some(numbers) = vectors.values().as_primitive_opt::<Float32Type>() else {
            return Err(damaged("has vectors that are no f32".to_owned()));
        };
        ids.extend(of_ids.values());
        values.extend(&numbers.values()[vectors.offset() * width..(vectors.offset() + vectors.len()) * width]);
    }
    Ok(())
}
