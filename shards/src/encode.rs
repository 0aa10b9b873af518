//! Row groups to Parquet bytes: the only code that writes the columns of `schema`.
//!
//! A pure function of the plan and the processed data, so a file has the same bytes every time it is made.

use std::sync::Arc;

use arrow_array::types::{Float32Type, Int32Type, UInt32Type};
use arrow_array::{
    ArrayRef, BooleanArray, FixedSizeListArray, Float64Array, ListArray, PrimitiveArray, RecordBatch, StringArray,
    UInt32Array, UInt64Array,
};
use arrow_buffer::{BooleanBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, SchemaRef};
use parquet::arrow::ArrowWriter;

use crate::error::StoreError;
use crate::layout::{FilePlan, GroupPlan};
use crate::manifest::{FileEntry, RowGroupEntry};
use crate::processed::{NO_NEIGHBOUR, Piece, Processed};
use crate::schema::{NO_ROW, RecordShape, element, record_schema, writer_properties};

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
/// What the Parquet library refuses.
pub fn encode_file(
    plan: &FilePlan,
    ordinal: u32,
    processed: &Processed,
    shape: &RecordShape,
) -> Result<EncodedFile, StoreError> {
    let schema = record_schema(shape);
    let failed = || StoreError::parquet(&plan.name, None);
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, schema.clone(), Some(writer_properties(shape))).map_err(failed())?;
    for group in &plan.groups {
        let batch = record_batch(group, &processed.pieces[group.piece], processed, shape, &schema);
        writer.write(&batch).map_err(failed())?;
        writer.flush().map_err(failed())?;
    }
    let metadata = writer.close().map_err(failed())?;

    let mut row_groups = Vec::new();
    for ((group, written), index) in plan.groups.iter().zip(metadata.row_groups()).zip(0u32..) {
        let ranges: Vec<(u64, u64)> = written.columns().iter().map(|c| c.byte_range()).collect();
        let offset = ranges.iter().map(|r| r.0).min().expect("a record has columns");
        let end = ranges.iter().map(|r| r.0 + r.1).max().expect("a record has columns");
        let piece = &processed.pieces[group.piece];
        row_groups.push(RowGroupEntry {
            file: ordinal,
            index,
            section: piece.section,
            split: piece.split,
            n_own: group.own.len() as u32,
            n_halo: group.halo.len() as u32,
            decoded_bytes: decoded_bytes(group, piece, shape),
            offset,
            length: end - offset,
            crc32c: crc32c::crc32c(&bytes[offset as usize..end as usize]),
        });
    }
    assert_eq!(row_groups.len(), metadata.num_row_groups(), "one batch is one row group");
    let footer_offset = row_groups.last().map_or(0, |g| g.offset + g.length);
    let file = FileEntry {
        name: plan.name.clone(),
        bytes: bytes.len() as u64,
        blake3: blake3::hash(&bytes).to_hex().to_string(),
        footer_offset,
        footer_crc32c: crc32c::crc32c(&bytes[footer_offset as usize..]),
    };
    Ok(EncodedFile { bytes, file, row_groups })
}

fn rows_of(group: &GroupPlan) -> Vec<u32> {
    group.own.iter().chain(&group.halo).copied().collect()
}

fn decoded_bytes(group: &GroupPlan, piece: &Piece, shape: &RecordShape) -> u64 {
    let rows = rows_of(group);
    let nnz: usize = rows.iter().map(|&i| piece.counts.row(i as usize).0.len()).sum();
    let names: usize = rows.iter().map(|&i| piece.obs_ids[i as usize].len()).sum();
    let label = |l: &crate::section::ObsLabels| -> usize {
        rows.iter().map(|&i| l.values[i as usize].as_ref().map_or(0, String::len)).sum()
    };
    shape.decoded_bytes(rows.len(), nnz, names + piece.labels.iter().map(label).sum::<usize>())
}

fn record_batch(
    group: &GroupPlan,
    piece: &Piece,
    processed: &Processed,
    shape: &RecordShape,
    schema: &SchemaRef,
) -> RecordBatch {
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
    let measured: BooleanBuffer = rows.iter().flat_map(|i| piece.measured.row(at(i))).copied().collect();
    columns.push(fixed(DataType::Boolean, shape.n_selected, Arc::new(BooleanArray::new(measured, None))));
    let neighbours = PrimitiveArray::<Int32Type>::from_iter_values(neighbour_rows(group, piece, shape.n_neighbours));
    columns.push(fixed(DataType::Int32, shape.n_neighbours, Arc::new(neighbours)));
    for name in &shape.labels {
        let label = piece.labels.iter().find(|l| &l.name == name);
        let values = rows.iter().map(|i| label.and_then(|l| l.values[at(i)].as_deref()));
        columns.push(Arc::new(StringArray::from_iter(values)));
    }
    RecordBatch::try_new(schema.clone(), columns).expect("columns are made in the order and types of the schema")
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
