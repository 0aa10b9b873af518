//! Parquet bytes that passed their checksum → a decoded row group: the only code that reads the columns of `schema`.
//!
//! Knows the schema, not the folder: which bytes to decode is `reader`'s business.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Float32Type, Float64Type, Int32Type, UInt8Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, FixedSizeListArray, RecordBatch};
use bytes::{Buf, Bytes};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use crate::error::StoreError;
use crate::manifest::RowGroupEntry;
use crate::matrix::Matrix;
use crate::row_group::{Columns, Images, RowGroup};
use crate::schema::{COVARIATES, HIDDEN, IMAGE, NICHE, NO_ROW, RecordShape, label_column, layer_column};
use crate::section::{Csr, ObsLabels};

/// Part of a file in memory, addressed by offsets in the file.
#[derive(Debug, Clone)]
pub(crate) struct FilePart {
    /// Length of the whole file.
    pub file_length: u64,
    /// Where the part begins.
    pub offset: u64,
    /// The part.
    pub bytes: Bytes,
}

impl Length for FilePart {
    fn len(&self) -> u64 {
        self.file_length
    }
}

impl ChunkReader for FilePart {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let skip = start.checked_sub(self.offset).filter(|&s| s <= self.bytes.len() as u64);
        let skip = skip.ok_or_else(|| ParquetError::EOF(format!("offset {start} lies outside of the row group")))?;
        Ok(self.bytes.slice(skip as usize..).reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let rest = self.get_read(start)?.into_inner();
        if rest.len() < length {
            return Err(ParquetError::EOF(format!("{length} bytes at offset {start} reach out of the row group")));
        }
        Ok(rest.slice(..length))
    }
}

/// What every decoding needs to know.
pub(crate) struct Source<'a> {
    pub file: &'a str,
    pub footer: &'a ArrowReaderMetadata,
    pub entry: &'a RowGroupEntry,
    pub shape: &'a RecordShape,
    pub n_genes: usize,
}

impl Source<'_> {
    pub(crate) fn damaged(&self, what: impl Into<String>) -> StoreError {
        StoreError::damaged(self.file, Some(self.entry.index), what)
    }

    /// The columns named, as one batch of exactly the rows that the manifest promises.
    pub(crate) fn batch(&self, part: FilePart, names: &[String]) -> Result<RecordBatch, StoreError> {
        let index = self.entry.index as usize;
        let n_rows = self.entry.n_rows();
        let stored = self.footer.metadata().row_groups().get(index).map(|g| g.num_rows());
        if stored != Some(n_rows as i64) {
            return Err(self.damaged(format!("{n_rows} rows in the manifest, {stored:?} in the file")));
        }
        let fields = self.footer.schema().fields();
        let mut roots = Vec::new();
        for name in names {
            let root = fields.iter().position(|f| f.name() == name);
            roots.push(root.ok_or_else(|| self.damaged(format!("column {name:?} is missing")))?);
        }
        let failed = || StoreError::parquet(self.file, Some(self.entry.index));
        let mask = ProjectionMask::roots(self.footer.parquet_schema(), roots);
        let mut batches = ParquetRecordBatchReaderBuilder::new_with_metadata(part, self.footer.clone())
            .with_row_groups(vec![index])
            .with_projection(mask)
            .with_batch_size(n_rows)
            .build()
            .map_err(failed())?;
        let batch = match batches.next() {
            Some(batch) => batch.map_err(|e| failed()(e.into()))?,
            None => return Err(self.damaged("it has no rows")),
        };
        if batch.num_rows() != n_rows {
            return Err(self.damaged(format!("{} rows decoded, {n_rows} expected", batch.num_rows())));
        }
        Ok(batch)
    }

    /// Decodes the row group.
    pub(crate) fn decode(&self, part: FilePart, columns: &Columns) -> Result<RowGroup, StoreError> {
        let shape = self.shape;
        let mut names: Vec<String> = ["record_id", "x", "y"].map(str::to_owned).to_vec();
        if shape.n_selected > 0 {
            names.push("measured".to_owned());
        }
        if shape.n_neighbours > 0 {
            names.push("neighbours".to_owned());
        }
        if shape.z {
            names.push("z".to_owned());
        }
        let hidden = columns.hidden && shape.n_hidden > 0;
        if hidden {
            names.push(HIDDEN.to_owned());
        }
        if shape.niches {
            names.push(NICHE.to_owned());
        }
        if columns.images {
            if !shape.images {
                return Err(StoreError::NoImages);
            }
            names.push(IMAGE.to_owned());
        }
        if columns.counts {
            names.extend(["gene_idx", "count"].map(str::to_owned));
        }
        let labelled = if columns.names { &shape.labels } else { &columns.labels };
        names.extend(labelled.iter().map(|l| label_column(l)));
        if columns.names {
            names.push("obs_id".to_owned());
        }
        let covariates = columns.covariates && shape.n_covariates > 0;
        if covariates {
            names.push(COVARIATES.to_owned());
        }
        for layer in &columns.layers {
            if !shape.layers.contains(layer) {
                return Err(StoreError::NoLayer { name: layer.clone(), have: shape.layers.clone() });
            }
            names.push(layer_column(layer));
        }
        let batch = self.batch(part, &names)?;

        let n_own = self.entry.n_own as usize;
        let (x, y) = (self.numbers::<Float64Type>(&batch, "x")?, self.numbers::<Float64Type>(&batch, "y")?);
        let mut layers = BTreeMap::new();
        for layer in &columns.layers {
            let values = self.fixed_numbers::<Float32Type>(&batch, &layer_column(layer), shape.n_selected)?;
            layers.insert(layer.clone(), Matrix { n_cols: shape.n_selected, values: values.to_vec() });
        }
        let mut of_rows = Matrix::default();
        if covariates {
            let values = self.fixed_numbers::<Float32Type>(&batch, COVARIATES, shape.n_covariates)?;
            of_rows = Matrix { n_cols: shape.n_covariates, values: values.to_vec() };
        }
        let mut neighbours = Vec::new();
        if shape.n_neighbours > 0 {
            let of_rows = self.fixed_numbers::<Int32Type>(&batch, "neighbours", shape.n_neighbours)?;
            neighbours = of_rows[..n_own * shape.n_neighbours].to_vec();
        }
        let is_a_row = |row: i32| usize::try_from(row).is_ok_and(|row| row < self.entry.n_rows());
        if let Some(bad) = neighbours.iter().find(|&&row| row != NO_ROW && !is_a_row(row)) {
            return Err(self.damaged(format!("neighbour {bad} is no row of {} rows", self.entry.n_rows())));
        }
        let (mut obs_ids, mut labels) = (Vec::new(), Vec::new());
        if columns.names {
            obs_ids = self.strings(&batch, "obs_id")?.into_iter().map(Option::unwrap_or_default).collect();
        }
        for name in labelled {
            let values = self.strings(&batch, &label_column(name))?;
            labels.push(ObsLabels { name: name.clone(), values });
        }
        Ok(RowGroup {
            section: self.entry.section,
            split: self.entry.split,
            n_own,
            record_ids: self.numbers::<UInt64Type>(&batch, "record_id")?.to_vec(),
            obs_ids,
            xy: x.iter().zip(y).map(|(&x, &y)| [x, y]).collect(),
            z: if shape.z {
                self.optional::<Float64Type>(&batch, "z")?.into_iter().map(Option::unwrap_or_default).collect()
            } else {
                Vec::new()
            },
            hidden: if hidden { self.fixed_bits(&batch, HIDDEN, shape.n_hidden)? } else { Matrix::default() },
            counts: if columns.counts { Some(self.counts(&batch)?) } else { None },
            layers,
            covariates: of_rows,
            measured: if shape.n_selected > 0 {
                self.fixed_bits(&batch, "measured", shape.n_selected)?
            } else {
                Matrix::default()
            },
            neighbours: Matrix { n_cols: shape.n_neighbours, values: neighbours },
            labels,
            niches: if shape.niches { self.optional::<UInt64Type>(&batch, NICHE)? } else { Vec::new() },
            images: if columns.images { Some(self.images(&batch, n_own)?) } else { None },
        })
    }

    pub(crate) fn numbers<'b, T: ArrowPrimitiveType>(
        &self,
        batch: &'b RecordBatch,
        name: &str,
    ) -> Result<&'b [T::Native], StoreError> {
        let array = self.column(batch, name)?.as_primitive_opt::<T>();
        array.map(|a| a.values().as_ref()).ok_or_else(|| self.wrong_type(batch, name))
    }

    fn optional<T: ArrowPrimitiveType>(
        &self,
        batch: &RecordBatch,
        name: &str,
    ) -> Result<Vec<Option<T::Native>>, StoreError> {
        let array = self.column(batch, name)?.as_primitive_opt::<T>().ok_or_else(|| self.wrong_type(batch, name))?;
        Ok(array.iter().collect())
    }

    pub(crate) fn images(&self, batch: &RecordBatch, n_own: usize) -> Result<Images, StoreError> {
        let wrong = || self.wrong_type(batch, IMAGE);
        let parts = self.column(batch, IMAGE)?.as_struct_opt().ok_or_else(wrong)?;
        let part = |name: &str| parts.column_by_name(name).ok_or_else(wrong);
        let bytes = part("bytes")?.as_binary_opt::<i32>().ok_or_else(wrong)?.clone();
        let channels = part("channels")?.as_primitive_opt::<UInt8Type>().ok_or_else(wrong)?.values().to_vec();
        let sides = |name: &str| part(name)?.as_primitive_opt::<UInt32Type>().ok_or_else(wrong);
        let sizes = sides("height")?.values().iter().zip(sides("width")?.values()).map(|(&h, &w)| [h, w]).collect();
        let scale = part("um_per_pixel")?.as_primitive_opt::<Float64Type>().ok_or_else(wrong)?.iter().collect();
        let images = Images { bytes, channels, sizes, um_per_pixel: scale };
        for row in 0..n_own {
            let image = images.get(row);
            let expected = u64::from(image.height) * u64::from(image.width) * u64::from(image.channels);
            if parts.is_null(row) || expected == 0 || image.bytes.len() as u64 != expected {
                let (found, h, w, c) = (image.bytes.len(), image.height, image.width, image.channels);
                return Err(self.damaged(format!("picture of row {row} has {found} bytes for {h} × {w} × {c}")));
            }
        }
        Ok(images)
    }

    /// Where each row's entries begin and end, and the entries of a list column.
    pub(crate) fn list<T: ArrowPrimitiveType>(
        &self,
        batch: &RecordBatch,
        name: &str,
    ) -> Result<(Vec<usize>, Vec<T::Native>), StoreError> {
        let wrong = || self.wrong_type(batch, name);
        let list = self.column(batch, name)?.as_list_opt::<i32>().ok_or_else(wrong)?;
        let values = list.values().as_primitive_opt::<T>().ok_or_else(wrong)?.values();
        let first = list.value_offsets()[0] as usize;
        let indptr: Vec<usize> = list.value_offsets().iter().map(|&p| p as usize - first).collect();
        let values = values[first..first + indptr[indptr.len() - 1]].to_vec();
        Ok((indptr, values))
    }

    pub(crate) fn strings(&self, batch: &RecordBatch, name: &str) -> Result<Vec<Option<String>>, StoreError> {
        let array = self.column(batch, name)?.as_string_opt::<i32>().ok_or_else(|| self.wrong_type(batch, name))?;
        Ok(array.iter().map(|v| v.map(str::to_owned)).collect())
    }

    pub(crate) fn booleans(&self, batch: &RecordBatch, name: &str) -> Result<Vec<bool>, StoreError> {
        let array = self.column(batch, name)?.as_boolean_opt().ok_or_else(|| self.wrong_type(batch, name))?;
        Ok(array.values().iter().collect())
    }

    /// All entries of a fixed-size list column, row-major `[n_rows, width]`.
    pub(crate) fn fixed_numbers<'b, T: ArrowPrimitiveType>(
        &self,
        batch: &'b RecordBatch,
        name: &str,
        width: usize,
    ) -> Result<&'b [T::Native], StoreError> {
        let list = self.fixed(batch, name, width)?;
        let values = list.values().as_primitive_opt::<T>().ok_or_else(|| self.wrong_type(batch, name))?;
        let start = list.offset() * width;
        Ok(&values.values()[start..start + list.len() * width])
    }

    fn fixed_bits(&self, batch: &RecordBatch, name: &str, width: usize) -> Result<Matrix<bool>, StoreError> {
        let list = self.fixed(batch, name, width)?;
        let values = list.values().as_boolean_opt().ok_or_else(|| self.wrong_type(batch, name))?;
        let bits = values.values().slice(list.offset() * width, list.len() * width);
        Ok(Matrix { n_cols: width, values: bits.iter().collect() })
    }

    pub(crate) fn counts(&self, batch: &RecordBatch) -> Result<Csr, StoreError> {
        let (indptr, indices) = self.list::<UInt32Type>(batch, "gene_idx")?;
        let (of_counts, values) = self.list::<Float32Type>(batch, "count")?;
        if indptr != of_counts {
            return Err(self.damaged("gene_idx and count have different lengths"));
        }
        let csr = Csr { n_cols: self.n_genes, indptr, indices, values };
        for i in 0..csr.n_rows() {
            let row = csr.row(i).0;
            let in_range = row.last().is_none_or(|&last| (last as usize) < self.n_genes);
            if !in_range || row.windows(2).any(|w| w[0] >= w[1]) {
                return Err(self.damaged(format!("gene_idx of row {i} does not ascend below {}", self.n_genes)));
            }
        }
        Ok(csr)
    }

    fn column<'b>(&self, batch: &'b RecordBatch, name: &str) -> Result<&'b ArrayRef, StoreError> {
        batch.column_by_name(name).ok_or_else(|| self.damaged(format!("column {name:?} is missing")))
    }

    fn fixed<'b>(
        &self,
        batch: &'b RecordBatch,
        name: &str,
        width: usize,
    ) -> Result<&'b FixedSizeListArray, StoreError> {
        let list = self.column(batch, name)?.as_fixed_size_list_opt().ok_or_else(|| self.wrong_type(batch, name))?;
        if list.value_length() as usize != width {
            let found = list.value_length();
            return Err(self.damaged(format!("column {name:?} has lists of {found}, {width} expected")));
        }
        Ok(list)
    }

    fn wrong_type(&self, batch: &RecordBatch, name: &str) -> StoreError {
        let found = batch.column_by_name(name).map(|c| c.data_type().to_string()).unwrap_or_default();
        self.damaged(format!("column {name:?} has type {found}, which is not the schema's"))
    }
}
