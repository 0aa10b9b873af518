//! Row groups to Parquet bytes: the only code that writes the columns of `schema`.
//!
//! A function of the plan, the processed data and the image files, so a file has the same bytes every time it is made.
//! Pictures are cut here, those of one row group at a time.

use std::sync::Arc;

use arrow_array::types::{Float32Type, Int32Type, UInt32Type};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, FixedSizeListArray, Float64Array, ListArray, PrimitiveArray, RecordBatch,
    StringArray, StructArray, UInt8Array, UInt32Array, UInt64Array,
};
use arrow_buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use crate::error::StoreError;
use crate::layout::{FilePlan, GroupPlan};
use crate::manifest::{FileEntry, RowGroupEntry};
use crate::pictures::{Cutter, PictureError, Window};
use crate::processed::{Crops, NO_NEIGHBOUR, Piece, Processed, Split};
use crate::schema::{NO_ROW, RecordShape, element, image_fields, record_schema, writer_properties};

/// A Parquet file in memory and what the manifest says about it.
#[derive(Debug)]
pub struct EncodedFile {
    /// The file.
    pub bytes: Vec<u8>,
    /// Its entry.
    pub file: FileEntry,
    /// Entries of its row groups.
    pub row_groups: Vec<RowGroupEntry>,
}

/// Encodes one file; `ordinal` is its position in the manifest.
///
/// # Errors
/// What the Parquet library refuses; [`StoreError::Picture`] where an image is not what it was.
pub fn encode_file(
    plan: &FilePlan,
    ordinal: u32,
    processed: &Processed,
    shape: &RecordShape,
) -> Result<EncodedFile, StoreError> {
    let schema = record_schema(shape);
    let mut file = FileBuilder::new(&plan.name, ordinal, schema.clone(), writer_properties(shape))?;
    let mut cutter: Option<(u32, Cutter)> = None; // of the section at hand
    for group in &plan.groups {
        let piece = &processed.pieces[group.piece];
        let mut batch = record_columns(group, piece, processed, shape);
        if let Some(crops) = &processed.sections[piece.section as usize].crops {
            if cutter.as_ref().is_none_or(|(section, _)| *section != piece.section) {
                cutter = Some((piece.section, Cutter::open(&crops.pictures)?));
            }
            let (_, cutter) = cutter.as_mut().expect("opened above");
            let windows: Vec<_> = group.own.iter().map(|&i| crops.windows[piece.rows[i as usize] as usize]).collect();
            batch.push(Arc::new(images(&windows, group.halo.len(), crops, cutter)?));
        }
        let batch =
            RecordBatch::try_new(schema.clone(), batch).expect("columns are in the order and types of the schema");
        let facts = GroupFacts {
            section: piece.section,
            split: piece.split,
            n_own: group.own.len() as u32,
            n_halo: group.halo.len() as u32,
            decoded_bytes: decoded_bytes(group, piece, processed, shape),
        };
        file.push(&batch, facts)?;
    }
    file.finish()
}

/// What the manifest says of a row group beside where it lies.
pub(crate) struct GroupFacts {
    pub section: u32,
    pub split: Split,
    pub n_own: u32,
    pub n_halo: u32,
    pub decoded_bytes: u64,
}

/// A Parquet file in the making; one batch is one row group.
pub(crate) struct FileBuilder {
    name: String,
    ordinal: u32,
    writer: ArrowWriter<Vec<u8>>,
    facts: Vec<GroupFacts>,
}

impl FileBuilder {
    pub(crate) fn new(
        name: &str,
        ordinal: u32,
        schema: SchemaRef,
        properties: WriterProperties,
    ) -> Result<FileBuilder, StoreError> {
        let writer =
            ArrowWriter::try_new(Vec::new(), schema, Some(properties)).map_err(StoreError::parquet(name, None))?;
        Ok(FileBuilder { name: name.to_owned(), ordinal, writer, facts: Vec::new() })
    }

    pub(crate) fn push(&mut self, batch: &RecordBatch, facts: GroupFacts) -> Result<(), StoreError> {
        let failed = || StoreError::parquet(&self.name, None);
        self.writer.write(batch).map_err(failed())?;
        self.writer.flush().map_err(failed())?;
        self.facts.push(facts);
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<EncodedFile, StoreError> {
        let stored = self.writer.flushed_row_groups().to_vec();
        let bytes = self.writer.into_inner().map_err(StoreError::parquet(&self.name, None))?;
        let mut row_groups = Vec::new();
        for ((facts, written), index) in self.facts.iter().zip(&stored).zip(0u32..) {
            let ranges: Vec<(u64, u64)> = written.columns().iter().map(|c| c.byte_range()).collect();
            let offset = ranges.iter().map(|r| r.0).min().expect("a table has columns");
            let end = ranges.iter().map(|r| r.0 + r.1).max().expect("a table has columns");
            row_groups.push(RowGroupEntry {
                file: self.ordinal,
                index,
                section: facts.section,
                split: facts.split,
                n_own: facts.n_own,
                n_halo: facts.n_halo,
                decoded_bytes: facts.decoded_bytes,
                offset,
                length: end - offset,
                crc32c: crc32c::crc32c(&bytes[offset as usize..end as usize]),
            });
        }
        assert_eq!(stored.len(), self.facts.len(), "one batch is one row group");
        let footer_offset = row_groups.last().map_or(0, |g| g.offset + g.length);
        let file = FileEntry {
            name: self.name,
            bytes: bytes.len() as u64,
            blake3: blake3::hash(&bytes).to_hex().to_string(),
            footer_offset,
            footer_crc32c: crc32c::crc32c(&bytes[footer_offset as usize..]),
        };
        Ok(EncodedFile { bytes, file, row_groups })
    }
}

fn rows_of(group: &GroupPlan) -> Vec<u32> {
    group.own.iter().chain(&group.halo).copied().collect()
}

fn decoded_bytes(group: &GroupPlan, piece: &Piece, processed: &Processed, shape: &RecordShape) -> u64 {
    let rows = rows_of(group);
    let nnz: usize = rows.iter().map(|&i| piece.counts.row(i as usize).0.len()).sum();
    let names: usize = rows.iter().map(|&i| piece.obs_ids[i as usize].len()).sum();
    let label = |l: &crate::section::ObsLabels| -> usize {
        rows.iter().map(|&i| l.values[i as usize].as_ref().map_or(0, String::len)).sum()
    };
    let pixels = processed.sections[piece.section as usize].crops.as_ref().map_or(0, |crops| {
        let channels = crops.pictures.channels().len() as u64;
        let side = |&i: &u32| u64::from(crops.windows[piece.rows[i as usize] as usize].side);
        group.own.iter().map(|i| side(i) * side(i) * channels).sum()
    });
    shape.decoded_bytes(rows.len(), nnz, names + piece.labels.iter().map(label).sum::<usize>(), pixels)
}

/// All columns of the schema but the pictures.
fn record_columns(group: &GroupPlan, piece: &Piece, processed: &Processed, shape: &RecordShape) -> Vec<ArrayRef> {
    let rows = rows_of(group);
    let n = rows.len();
    let at = |i: &u32| *i as usize;
    let words = |word: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(std::iter::repeat_n(word, n))) };
    let axis = |a: usize| Float64Array::from_iter_values(rows.iter().map(|i| piece.xy[at(i)][a]));
    let axis_um =
        |a: usize| Float64Array::from_iter(rows.iter().map(|i| piece.um_per_unit.map(|s| piece.xy[at(i)][a] * s)));

    let donor = piece.donor_id.as_deref();
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|i| piece.record_id(at(i))))),
        Arc::new(UInt32Array::from_value(piece.section, n)),
        words(&processed.sections[piece.section as usize].library_id),
        Arc::new(StringArray::from_iter(std::iter::repeat_n(donor, n))),
        words(piece.split.as_str()),
        Arc::new(BooleanArray::from_iter((0..n).map(|k| Some(k >= group.own.len())))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|i| &piece.obs_ids[at(i)]))),
        Arc::new(axis(0)),
        Arc::new(axis(1)),
        Arc::new(axis_um(0)),
        Arc::new(axis_um(1)),
    ];
    let counts = piece.counts.select_rows(&rows);
    let offsets: ScalarBuffer<i32> =
        counts.indptr.iter().map(|&p| i32::try_from(p).expect("a row group has fewer than 2^31 counts")).collect();
    let offsets = OffsetBuffer::new(offsets);
    let genes = PrimitiveArray::<UInt32Type>::from_iter_values(counts.indices);
    let values = PrimitiveArray::<Float32Type>::from_iter_values(counts.values);
    columns.push(Arc::new(ListArray::new(element(DataType::UInt32), offsets.clone(), Arc::new(genes), None)));
    columns.push(Arc::new(ListArray::new(element(DataType::Float32), offsets, Arc::new(values), None)));

    let fixed = |t: DataType, width: usize, values: ArrayRef| -> ArrayRef {
        Arc::new(FixedSizeListArray::new(element(t), width as i32, values, None))
    };
    if shape.z {
        let z = |scale: Option<f64>| {
            let of_row = |i: &u32| Some(piece.z.get(at(i))? * scale?);
            Arc::new(Float64Array::from_iter(rows.iter().map(of_row)))
        };
        columns.push(z(Some(1.0)));
        columns.push(z(piece.um_per_unit));
    }
    if shape.n_hidden > 0 {
        let hidden: BooleanBuffer = rows.iter().flat_map(|i| piece.hidden.row(at(i))).copied().collect();
        columns.push(fixed(DataType::Boolean, shape.n_hidden, Arc::new(BooleanArray::new(hidden, None))));
    }
    for layer in piece.layers.values() {
        let values: Vec<f32> = rows.iter().flat_map(|i| layer.row(at(i))).copied().collect();
        let values = PrimitiveArray::<Float32Type>::from_iter_values(values);
        columns.push(fixed(DataType::Float32, shape.n_selected, Arc::new(values)));
    }
    if shape.n_covariates > 0 {
        let values: Vec<f32> = rows.iter().flat_map(|i| piece.covariates.row(at(i))).copied().collect();
        let values = PrimitiveArray::<Float32Type>::from_iter_values(values);
        columns.push(fixed(DataType::Float32, shape.n_covariates, Arc::new(values)));
    }
    if shape.n_selected > 0 {
        let measured: BooleanBuffer = rows.iter().flat_map(|i| piece.measured.row(at(i))).copied().collect();
        columns.push(fixed(DataType::Boolean, shape.n_selected, Arc::new(BooleanArray::new(measured, None))));
    }
    if shape.n_neighbours > 0 {
        let neighbours = neighbour_rows(group, piece, shape.n_neighbours);
        let neighbours = PrimitiveArray::<Int32Type>::from_iter_values(neighbours);
        columns.push(fixed(DataType::Int32, shape.n_neighbours, Arc::new(neighbours)));
    }
    for name in &shape.labels {
        let label = piece.labels.iter().find(|l| &l.name == name);
        let values = rows.iter().map(|i| label.and_then(|l| l.values[at(i)].as_deref()));
        columns.push(Arc::new(StringArray::from_iter(values)));
    }
    if shape.niches {
        columns.push(Arc::new(UInt64Array::from_iter(rows.iter().map(|i| piece.niches.niche_of[at(i)]))));
    }
    columns
}

/// The pictures of `windows`, then as many nulls as the row group has `halo` records. Windows are cut from the top of the image
/// down, so that those on one tile come together.
pub(crate) fn images(
    windows: &[Window],
    halo: usize,
    crops: &Crops,
    cutter: &mut Cutter,
) -> Result<StructArray, PictureError> {
    const BAND: i64 = 512;
    let mut order: Vec<usize> = (0..windows.len()).collect();
    order.sort_by_key(|&k| (windows[k].row.div_euclid(BAND), windows[k].column, k));
    let mut cut = vec![Vec::new(); windows.len()];
    for k in order {
        cut[k] = cutter.cut(&windows[k])?;
    }
    let (n_own, n) = (windows.len(), windows.len() + halo);
    let none: &[u8] = &[];
    let bytes = cut.iter().map(Vec::as_slice).chain(std::iter::repeat_n(none, n - n_own));
    let sides: Vec<u32> = windows.iter().map(|w| w.side).chain(std::iter::repeat_n(0, n - n_own)).collect();
    let scale = (0..n).map(|k| crops.um_per_pixel.filter(|_| k < n_own));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BinaryArray::from_iter_values(bytes)),
        Arc::new(UInt8Array::from_value(crops.pictures.channels().len() as u8, n)),
        Arc::new(UInt32Array::from(sides.clone())),
        Arc::new(UInt32Array::from(sides)),
        Arc::new(Float64Array::from_iter(scale)),
    ];
    let has_one = NullBuffer::from_iter((0..n).map(|k| k < n_own));
    Ok(StructArray::new(image_fields(), columns, Some(has_one)))
}

/// Neighbours as rows of the row group: a position among the own rows, or behind them among the halo rows, or padding.
fn neighbour_rows(group: &GroupPlan, piece: &Piece, n_neighbours: usize) -> Vec<i32> {
    let row_of = |position: &u32| -> i32 {
        match group.own.binary_search(position) {
            Ok(row) => row as i32,
            Err(_) if *position == NO_NEIGHBOUR => NO_ROW,
            Err(_) => {
                let row = group.halo.binary_search(position).expect("the halo holds every neighbour that is not own");
                (group.own.len() + row) as i32
            }
        }
    };
    let own = group.own.iter().flat_map(|&i| piece.neighbours.row(i as usize)).map(row_of);
    own.chain(std::iter::repeat_n(NO_ROW, group.halo.len() * n_neighbours)).collect()
}
