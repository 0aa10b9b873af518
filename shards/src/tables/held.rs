//! The table `held`: values that training must not see. **Only what judges may use this module**; a test of the house holds it.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `record_id` | uint64 | the record, ascending |
//! | `gene_idx`, `count` | list\<uint32\>, list\<float\> | its hidden values, ascending, no zeros |
//!
//! Which entries are hidden is in the records (`hidden`); a hidden entry without a value here is a zero. Under `gene_folds` the
//! table is empty and [`read`] gives the fold's genes from the records.

use std::sync::Arc;

use arrow_array::types::{Float32Type, UInt32Type, UInt64Type};
use arrow_array::{ArrayRef, RecordBatch, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use super::lists;
use crate::error::StoreError;
use crate::holdout::Protocol;
use crate::manifest::TableKind;
use crate::matrix::Matrix;
use crate::processed::{Piece, Split};
use crate::reader::Shards;
use crate::row_group::Columns;
use crate::schema::element;
use crate::section::Csr;

/// Columns of the table.
pub fn schema() -> SchemaRef {
    let list = |name: &str, t: DataType| Field::new(name, DataType::List(element(t)), false);
    Arc::new(Schema::new(vec![
        Field::new("record_id", DataType::UInt64, false),
        list("gene_idx", DataType::UInt32),
        list("count", DataType::Float32),
    ]))
}

/// The hidden values of a piece.
pub(crate) fn batch(piece: &Piece) -> RecordBatch {
    let rows = || (0..piece.n_obs()).map(|i| piece.held.row(i));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt64Array::from_iter_values((0..piece.n_obs()).map(|i| piece.record_id(i)))),
        lists::<UInt32Type>(rows().map(|r| r.0.len()), rows().flat_map(|r| r.0).copied().collect()),
        lists::<Float32Type>(rows().map(|r| r.1.len()), rows().flat_map(|r| r.1).copied().collect()),
    ];
    RecordBatch::try_new(schema(), columns).expect("columns are made in the order and types of the schema")
}

/// The truth of a split: values as ingested where they are hidden, 0 elsewhere.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Held {
    /// Record ids `[n]`, ascending.
    pub ids: Vec<u64>,
    /// `[n, n_genes]`, as ingested; [`crate::visible::Scale::level`] brings them to where a model's values are.
    pub values: Matrix<f32>,
    /// Which entries are hidden `[n, n_genes]`.
    pub hidden: Matrix<bool>,
}

impl Held {
    /// The records named, in that order; `None` where one is not of the split.
    pub fn of(&self, ids: &[u64]) -> Option<Held> {
        let row = |id: &u64| self.ids.binary_search(id).ok().map(|row| row as u32);
        let rows: Vec<u32> = ids.iter().map(row).collect::<Option<_>>()?;
        let (values, hidden) = (self.values.select_rows(&rows), self.hidden.select_rows(&rows));
        Some(Held { ids: ids.to_vec(), values, hidden })
    }
}

/// What is hidden of a split: of all of it under `entries` (`fold` is `None`), of a fold's genes under `gene_folds`.
///
/// # Errors
/// [`StoreError::Fold`]; damage; the system's errors.
pub fn read(shards: &Shards, split: Split, fold: Option<u32>) -> Result<Held, StoreError> {
    let hides = shards.manifest().hidden_genes(fold)?;
    let n_genes = hides.len();
    let mut rows: Vec<(u64, Vec<f32>, Vec<bool>)> = Vec::new();
    let columns = Columns { counts: true, hidden: true, ..Columns::default() };
    let entries = shards.manifest().protocol() == Protocol::Entries;
    for entry in shards.row_groups(split) {
        let group = shards.decode(entry, &columns)?;
        let counts = group.counts.as_ref().expect("asked for");
        for row in 0..group.n_own {
            let hidden = if entries { group.hidden.row(row).to_vec() } else { hides.clone() };
            let mut values = vec![0.0; n_genes];
            let (genes, of_row) = counts.row(row);
            for (&gene, &value) in genes.iter().zip(of_row).filter(|(gene, _)| hidden[**gene as usize]) {
                values[gene as usize] = value;
            }
            rows.push((group.record_ids[row], values, hidden));
        }
    }
    rows.sort_by_key(|row| row.0);
    let mut held = Held {
        ids: rows.iter().map(|row| row.0).collect(),
        values: Matrix { n_cols: n_genes, values: rows.iter().flat_map(|row| &row.1).copied().collect() },
        hidden: Matrix { n_cols: n_genes, values: rows.into_iter().flat_map(|row| row.2).collect() },
    };
    if entries {
        fill(shards, split, &mut held)?;
    }
    Ok(held)
}

/// Puts the table's values where they belong.
fn fill(shards: &Shards, split: Split, held: &mut Held) -> Result<(), StoreError> {
    let n_genes = held.values.n_cols;
    let table = shards.manifest().table(TableKind::Held).expect("checked when the manifest was read");
    for entry in table.row_groups(split) {
        let (source, part) = shards.read_checked_of(TableKind::Held, entry)?;
        let names: Vec<String> = schema().fields().iter().map(|field| field.name().clone()).collect();
        let batch = source.batch(part, &names)?;
        let counts: Csr = source.counts(&batch)?;
        for (i, id) in source.numbers::<UInt64Type>(&batch, "record_id")?.iter().enumerate() {
            let Ok(row) = held.ids.binary_search(id) else {
                return Err(source.damaged(format!("record {id} is not of split {}", split.as_str())));
            };
            let (genes, values) = counts.row(i);
            for (&gene, &value) in genes.iter().zip(values) {
                let at = row * n_genes + gene as usize;
                if !held.hidden.values[at] || !value.is_finite() {
                    return Err(source.damaged(format!("gene {gene} of record {id} is not hidden, or not finite")));
                }
                held.values.values[at] = value;
            }
        }
    }
    Ok(())
}
