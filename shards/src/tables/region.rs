//! The table `region`: the picture of a niche's region, the square of `process.niche_um` around its centre.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `niche_id` | uint64 | as in the table `niche` |
//! | `section`, `split` | uint32, string | of the niche |
//! | `image` | struct | as a record's: native pixels `[height, width, channels]`, 0 beyond the border |
//!
//! A niche whose region the picture does not show, or where a tile does not decode, has no row. A table of its own, so that
//! reading niches reads no pixels.

use std::sync::Arc;

use arrow_array::types::UInt64Type;
use arrow_array::{ArrayRef, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use super::properties;
use crate::encode::{EncodedFile, FileBuilder, GroupFacts, images};
use crate::error::StoreError;
use crate::manifest::{RowGroupEntry, TableKind};
use crate::pictures::{Cutter, Window};
use crate::processed::{Processed, Split};
use crate::reader::Shards;
use crate::row_group::Images;
use crate::schema::{IMAGE, image_fields};

/// Bytes of pixels of one row group, about: what is in memory at once when they are read.
const GROUP_BYTES: usize = 32 << 20;
/// Bytes of pixels of one file, about.
const FILE_BYTES: usize = 256 << 20;

/// Columns of the table.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("niche_id", DataType::UInt64, false),
        Field::new("section", DataType::UInt32, false),
        Field::new("split", DataType::Utf8, false),
        Field::new(IMAGE, DataType::Struct(image_fields()), false),
    ]))
}

/// Cuts the regions and gives the files one by one, at least one of each split that has some; a row group holds those of one
/// section.
///
/// # Errors
/// What the Parquet library refuses; [`StoreError::Picture`]; those of `push`.
pub(crate) fn encode(
    processed: &Processed,
    mut push: impl FnMut(EncodedFile) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut ordinal = 0;
    for split in [Split::Train, Split::Val, Split::Test] {
        let mut pieces: Vec<_> = processed.pieces.iter().filter(|p| p.split == split).collect();
        pieces.sort_by_key(|piece| piece.section);
        let mut file: Option<(FileBuilder, usize)> = None;
        for piece in pieces {
            let Some(crops) = &processed.sections[piece.section as usize].crops else { continue };
            let regions: Vec<(u64, Window)> = crops.regions(piece).collect();
            if regions.is_empty() {
                continue;
            }
            let side = regions[0].1.side as usize;
            let each = side * side * crops.pictures.channels().len();
            let mut cutter = Cutter::open(&crops.pictures)?;
            for some in regions.chunks((GROUP_BYTES / each).max(1)) {
                let (builder, bytes) = match &mut file {
                    Some(file) => file,
                    none => {
                        let name = format!("region-{}-{ordinal:05}.parquet", split.as_str());
                        none.insert((FileBuilder::new(&name, ordinal, schema(), properties())?, 0))
                    }
                };
                let windows: Vec<Window> = some.iter().map(|region| region.1).collect();
                let columns: Vec<ArrayRef> = vec![
                    Arc::new(UInt64Array::from_iter_values(some.iter().map(|region| region.0))),
                    Arc::new(UInt32Array::from_value(piece.section, some.len())),
                    Arc::new(StringArray::from_iter_values(std::iter::repeat_n(split.as_str(), some.len()))),
                    Arc::new(images(&windows, 0, crops, &mut cutter)?),
                ];
                let batch = RecordBatch::try_new(schema(), columns).expect("columns are of the schema");
                let decoded_bytes = batch.get_array_memory_size() as u64;
                let n_own = some.len() as u32;
                builder.push(&batch, GroupFacts { section: piece.section, split, n_own, n_halo: 0, decoded_bytes })?;
                *bytes += some.len() * each;
                if *bytes >= FILE_BYTES {
                    push(file.take().expect("pushed to above").0.finish()?)?;
                    ordinal += 1;
                }
            }
        }
        if let Some((file, _)) = file {
            push(file.finish()?)?;
            ordinal += 1;
        }
    }
    Ok(())
}

/// Regions of a row group.
#[derive(Debug, Clone, PartialEq)]
pub struct Regions {
    /// `[n]`.
    pub niche_ids: Vec<u64>,
    /// Of each.
    pub images: Images,
}

impl Shards {
    /// Row groups of regions of a split, in stored order; empty where regions were not cut.
    pub fn region_groups(&self, split: Split) -> &[RowGroupEntry] {
        self.manifest().table(TableKind::Region).map_or(&[], |table| table.row_groups(split))
    }

    /// The regions of one of [`Shards::region_groups`].
    ///
    /// # Errors
    /// Damage; the system's errors.
    pub fn regions(&self, entry: &RowGroupEntry) -> Result<Regions, StoreError> {
        let (source, part) = self.read_checked_of(TableKind::Region, entry)?;
        let batch = source.batch(part, &["niche_id".to_owned(), IMAGE.to_owned()])?;
        let niche_ids = source.numbers::<UInt64Type>(&batch, "niche_id")?.to_vec();
        let images = source.images(&batch, niche_ids.len())?;
        Ok(Regions { niche_ids, images })
    }
}
