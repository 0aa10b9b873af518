//! The table `reference`: single cells without places, over the genes they share with the records.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `cell_id` | uint64 | row as ingested, ascending |
//! | `obs_id` | string | name of the cell |
//! | `label` | string? | its type, where the file has one |
//! | `total` | double | sum over *all* genes of the reference, shared or not |
//! | `gene_idx`, `count` | list\<uint32\>, list\<float\> | values of the panel's genes, ascending, no zeros |

use std::sync::Arc;

use arrow_array::types::{Float32Type, Float64Type, UInt32Type, UInt64Type};
use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use super::{lists, properties};
use crate::encode::{EncodedFile, FileBuilder, GroupFacts};
use crate::error::StoreError;
use crate::manifest::TableKind;
use crate::processed::{Reference, Split};
use crate::reader::Shards;
use crate::schema::element;
use crate::section::Csr;

/// Cells of a row group.
const GROUP_CELLS: usize = 8192;

/// Columns of the table.
pub fn schema() -> SchemaRef {
    let list = |name: &str, t: DataType| Field::new(name, DataType::List(element(t)), false);
    Arc::new(Schema::new(vec![
        Field::new("cell_id", DataType::UInt64, false),
        Field::new("obs_id", DataType::Utf8, false),
        Field::new("label", DataType::Utf8, true),
        Field::new("total", DataType::Float64, false),
        list("gene_idx", DataType::UInt32),
        list("count", DataType::Float32),
    ]))
}

/// The one file of the table. Its row groups count as section 0 and split train: cells have neither.
///
/// # Errors
/// What the Parquet library refuses.
pub(crate) fn encode(reference: &Reference) -> Result<EncodedFile, StoreError> {
    let mut file = FileBuilder::new("reference.parquet", 0, schema(), properties())?;
    for start in (0..reference.n_cells()).step_by(GROUP_CELLS) {
        let batch = batch(reference, start..(start + GROUP_CELLS).min(reference.n_cells()));
        let decoded_bytes = batch.get_array_memory_size() as u64;
        let n_own = batch.num_rows() as u32;
        file.push(&batch, GroupFacts { section: 0, split: Split::Train, n_own, n_halo: 0, decoded_bytes })?;
    }
    file.finish()
}

fn batch(reference: &Reference, cells: std::ops::Range<usize>) -> RecordBatch {
    let rows = || cells.clone().map(|i| reference.counts.row(i));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt64Array::from(reference.ids[cells.clone()].to_vec())),
        Arc::new(StringArray::from_iter_values(&reference.names[cells.clone()])),
        Arc::new(StringArray::from_iter(reference.labels[cells.clone()].iter().map(Option::as_deref))),
        Arc::new(Float64Array::from(reference.totals[cells.clone()].to_vec())),
        lists::<UInt32Type>(rows().map(|r| r.0.len()), rows().flat_map(|r| r.0).copied().collect()),
        lists::<Float32Type>(rows().map(|r| r.1.len()), rows().flat_map(|r| r.1).copied().collect()),
    ];
    RecordBatch::try_new(schema(), columns).expect("columns are made in the order and types of the schema")
}

impl Shards {
    /// The reference; `None` where the shards have none.
    ///
    /// # Errors
    /// Damage; the system's errors.
    pub fn reference(&self) -> Result<Option<Reference>, StoreError> {
        let Some(table) = self.manifest().table(TableKind::Reference) else { return Ok(None) };
        let n_cols = self.manifest().panel.genes.len();
        let mut all = Reference { counts: Csr { n_cols, indptr: vec![0], ..Csr::default() }, ..Reference::default() };
        for entry in &table.row_groups {
            let (source, part) = self.read_checked_of(TableKind::Reference, entry)?;
            let names: Vec<String> = schema().fields().iter().map(|field| field.name().clone()).collect();
            let batch = source.batch(part, &names)?;
            let counts = source.counts(&batch)?;
            let totals = source.numbers::<Float64Type>(&batch, "total")?;
            all.ids.extend(source.numbers::<UInt64Type>(&batch, "cell_id")?);
            all.names.extend(source.strings(&batch, "obs_id")?.into_iter().map(Option::unwrap_or_default));
            all.labels.extend(source.strings(&batch, "label")?);
            all.totals.extend(totals);
            if counts.values.iter().any(|v| !v.is_finite()) || totals.iter().any(|v| !v.is_finite()) {
                return Err(source.damaged("a value of a cell is not finite"));
            }
            let entries = all.counts.indices.len();
            all.counts.indptr.extend(counts.indptr.iter().skip(1).map(|p| entries + p));
            all.counts.indices.extend(counts.indices);
            all.counts.values.extend(counts.values);
        }
        if let Some(pair) = all.ids.windows(2).find(|w| w[0] >= w[1]) {
            let file = &table.files[0].name;
            return Err(StoreError::damaged(file, None, format!("cell ids {pair:?} do not ascend")));
        }
        Ok(Some(all))
    }
}
