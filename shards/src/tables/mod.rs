//! Tables beside the records: niches, tissues, pictures of regions, hidden values and a reference, written with the shards, and
//! vectors, written later by `embed`.
//!
//! Each file here owns one table: its columns, how it is written, how it is read.

pub mod held;
pub mod niche;
pub mod paired;
pub mod places;
pub mod reference;
pub mod region;
pub mod tissue;
pub mod vectors;

use std::sync::Arc;

use arrow_array::types::ArrowPrimitiveType;
use arrow_array::{ArrayRef, ListArray, PrimitiveArray};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::encode::{EncodedFile, FileBuilder, GroupFacts};
use crate::error::StoreError;
use crate::manifest::TableKind;
use crate::processed::{Piece, Processed, Split};
use crate::schema::element;

/// The files of niches, tissues and hidden values, one of each per split that has some, a row group holding those of one section;
/// and the reference.
///
/// # Errors
/// What the Parquet library refuses.
pub(crate) fn encode(processed: &Processed) -> Result<Vec<(TableKind, Vec<EncodedFile>)>, StoreError> {
    let mut tables = Vec::new();
    for kind in [TableKind::Niche, TableKind::Tissue, TableKind::Held] {
        let mut files: Vec<EncodedFile> = Vec::new();
        for split in [Split::Train, Split::Val, Split::Test] {
            let has_some = |p: &&Piece| match kind {
                TableKind::Held => p.hidden.n_cols > 0,
                _ => !p.niches.niches.is_empty(),
            };
            let mut pieces: Vec<&Piece> =
                processed.pieces.iter().filter(|p| p.split == split).filter(has_some).collect();
            pieces.sort_by_key(|piece| piece.section);
            if pieces.is_empty() {
                continue;
            }
            let (name, schema) = match kind {
                TableKind::Niche => ("niche", niche::schema()),
                TableKind::Held => ("held", held::schema()),
                _ => ("tissue", tissue::schema()),
            };
            let name = format!("{name}-{}.parquet", split.as_str());
            let mut file = FileBuilder::new(&name, files.len() as u32, schema, properties())?;
            for piece in pieces {
                let batch = match kind {
                    TableKind::Niche => niche::batch(piece),
                    TableKind::Held => held::batch(piece),
                    _ => tissue::batch(piece),
                };
                let decoded_bytes = batch.get_array_memory_size() as u64;
                let n_own = batch.num_rows() as u32;
                file.push(&batch, GroupFacts { section: piece.section, split, n_own, n_halo: 0, decoded_bytes })?;
            }
            files.push(file.finish()?);
        }
        if !files.is_empty() {
            tables.push((kind, files));
        }
    }
    if let Some(reference) = &processed.reference {
        tables.push((TableKind::Reference, vec![reference::encode(reference)?]));
    }
    Ok(tables)
}

/// zstd-1, no dictionaries, no statistics.
pub(crate) fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_created_by("syncytia-shards".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("zstd has a level 1")))
        .set_max_row_group_row_count(None)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .build()
}

/// A list column: `lengths[i]` of `values` for row `i`.
fn lists<T: ArrowPrimitiveType>(lengths: impl Iterator<Item = usize>, values: Vec<T::Native>) -> ArrayRef {
    let mut offsets = vec![0i32];
    for length in lengths {
        let end = offsets[offsets.len() - 1] as usize + length;
        offsets.push(i32::try_from(end).expect("a row group has fewer than 2^31 entries"));
    }
    let values = PrimitiveArray::<T>::from_iter_values(values);
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    Arc::new(ListArray::new(element(T::DATA_TYPE), offsets, Arc::new(values), None))
}
