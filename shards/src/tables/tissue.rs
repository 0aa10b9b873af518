//! The table `tissue`: niches near each other.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `tissue_id` | uint64 | section ordinal ≪ 32 \| number |
//! | `section`, `split` | uint32, string | of all its niches |
//! | `x_um`, `y_um` | double | centre of its square |
//! | `niches` | list\<uint64\> | niche ids, in stored order |
//! | `dx_um`, `dy_um` | list\<float\> | offset of each niche's centre from the tissue's |

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::types::{Float32Type, Float64Type, UInt32Type, UInt64Type};
use arrow_array::{Float64Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use super::lists;
use crate::error::StoreError;
use crate::manifest::TableKind;
use crate::processed::{Piece, Split};
use crate::reader::Shards;
use crate::schema::element;

/// Columns of the table.
pub fn schema() -> SchemaRef {
    let list = |name: &str, t: DataType| Field::new(name, DataType::List(element(t)), false);
    Arc::new(Schema::new(vec![
        Field::new("tissue_id", DataType::UInt64, false),
        Field::new("section", DataType::UInt32, false),
        Field::new("split", DataType::Utf8, false),
        Field::new("x_um", DataType::Float64, false),
        Field::new("y_um", DataType::Float64, false),
        list("niches", DataType::UInt64),
        list("dx_um", DataType::Float32),
        list("dy_um", DataType::Float32),
    ]))
}

/// The tissues of a piece.
pub(crate) fn batch(piece: &Piece) -> RecordBatch {
    let tissues = &piece.niches.tissues;
    let centres: BTreeMap<u64, [f64; 2]> = piece.niches.niches.iter().map(|n| (n.niche_id, n.centre_um)).collect();
    let n = tissues.len();
    let sizes = || tissues.iter().map(|tissue| tissue.niches.len());
    let niches = || tissues.iter().flat_map(|tissue| tissue.niches.iter().map(move |&id| (tissue, id)));
    let offset =
        |axis: usize| niches().map(|(tissue, id)| (centres[&id][axis] - tissue.centre_um[axis]) as f32).collect();
    let columns: Vec<arrow_array::ArrayRef> = vec![
        Arc::new(UInt64Array::from_iter_values(tissues.iter().map(|tissue| tissue.tissue_id))),
        Arc::new(UInt32Array::from_value(piece.section, n)),
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(piece.split.as_str(), n))),
        Arc::new(Float64Array::from_iter_values(tissues.iter().map(|tissue| tissue.centre_um[0]))),
        Arc::new(Float64Array::from_iter_values(tissues.iter().map(|tissue| tissue.centre_um[1]))),
        lists::<UInt64Type>(sizes(), niches().map(|(_, id)| id).collect()),
        lists::<Float32Type>(sizes(), offset(0)),
        lists::<Float32Type>(sizes(), offset(1)),
    ];
    RecordBatch::try_new(schema(), columns).expect("columns are made in the order and types of the schema")
}

/// Tissues of one split, in stored order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TissueTable {
    /// `[n]`.
    pub tissue_ids: Vec<u64>,
    /// Section of each `[n]`.
    pub sections: Vec<u32>,
    /// Centres `[n]`, µm.
    pub centre_um: Vec<[f64; 2]>,
    /// Tissue `i` owns the niches `indptr[i]..indptr[i + 1]`.
    pub indptr: Vec<usize>,
    /// Niche ids.
    pub niches: Vec<u64>,
    /// Each niche's offset from its tissue's centre, µm.
    pub offset_um: Vec<[f32; 2]>,
}

impl TissueTable {
    /// Number of tissues.
    pub fn n_tissues(&self) -> usize {
        self.tissue_ids.len()
    }

    /// Ids and offsets (µm) of the niches of tissue `i`.
    pub fn niches(&self, i: usize) -> (&[u64], &[[f32; 2]]) {
        let span = self.indptr[i]..self.indptr[i + 1];
        (&self.niches[span.clone()], &self.offset_um[span])
    }
}

impl Shards {
    /// The tissues of a split, in stored order.
    ///
    /// # Errors
    /// [`StoreError::NoNiches`]; damage; the system's errors.
    pub fn tissues(&self, split: Split) -> Result<TissueTable, StoreError> {
        let names: Vec<String> = schema().fields().iter().map(|field| field.name().clone()).collect();
        let mut table = TissueTable { indptr: vec![0], ..TissueTable::default() };
        for entry in self.table_groups(TableKind::Tissue, split)? {
            let (source, part) = self.read_checked_of(TableKind::Tissue, entry)?;
            let batch = source.batch(part, &names)?;
            let (indptr, niches) = source.list::<UInt64Type>(&batch, "niches")?;
            let (of_x, dx) = source.list::<Float32Type>(&batch, "dx_um")?;
            let (of_y, dy) = source.list::<Float32Type>(&batch, "dy_um")?;
            if of_x != indptr || of_y != indptr {
                return Err(source.damaged("niches, dx_um and dy_um have different lengths"));
            }
            let axis = |name: &str| source.numbers::<Float64Type>(&batch, name);
            let first = table.niches.len();
            table.tissue_ids.extend(source.numbers::<UInt64Type>(&batch, "tissue_id")?);
            table.sections.extend(source.numbers::<UInt32Type>(&batch, "section")?);
            table.centre_um.extend(axis("x_um")?.iter().zip(axis("y_um")?).map(|(&x, &y)| [x, y]));
            table.indptr.extend(indptr.iter().skip(1).map(|p| first + p));
            table.niches.extend(niches);
            table.offset_um.extend(dx.into_iter().zip(dy).map(|(x, y)| [x, y]));
        }
        Ok(table)
    }
}
