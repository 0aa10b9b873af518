//! The table `niche`: cells near each other, with their counts added up.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `niche_id` | uint64 | section ordinal ≪ 32 \| number; of the nearest: the record id of the central cell |
//! | `section`, `split` | uint32, string | of all its cells |
//! | `tissue_id` | uint64 | the tissue it lies in |
//! | `x_um`, `y_um` | double | its centre |
//! | `members` | list\<uint64\> | record ids, nearest to the centre first |
//! | `dx_um`, `dy_um` | list\<float\> | each member's offset from the centre |
//! | `gene_idx`, `count` | list\<uint32\>, list\<float\> | counts summed over the members, ascending, no zeros |

use std::sync::Arc;

use arrow_array::types::{Float32Type, Float64Type, UInt32Type, UInt64Type};
use arrow_array::{Float64Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use super::lists;
use crate::decode::{FilePart, Source};
use crate::error::StoreError;
use crate::manifest::{RowGroupEntry, TableKind};
use crate::processed::{Piece, Split};
use crate::reader::Shards;
use crate::schema::element;
use crate::section::Csr;

/// Columns of the table.
pub fn schema() -> SchemaRef {
    let list = |name: &str, t: DataType| Field::new(name, DataType::List(element(t)), false);
    Arc::new(Schema::new(vec![
        Field::new("niche_id", DataType::UInt64, false),
        Field::new("section", DataType::UInt32, false),
        Field::new("split", DataType::Utf8, false),
        Field::new("tissue_id", DataType::UInt64, false),
        Field::new("x_um", DataType::Float64, false),
        Field::new("y_um", DataType::Float64, false),
        list("members", DataType::UInt64),
        list("dx_um", DataType::Float32),
        list("dy_um", DataType::Float32),
        list("gene_idx", DataType::UInt32),
        list("count", DataType::Float32),
    ]))
}

/// The niches of a piece.
pub(crate) fn batch(piece: &Piece) -> RecordBatch {
    let niches = &piece.niches.niches;
    let um = piece.um_per_unit.expect("niches are made where there is a scale");
    let n = niches.len();
    let members = || niches.iter().flat_map(|niche| niche.members.iter().map(move |&i| (niche, i as usize)));
    let sizes = || niches.iter().map(|niche| niche.members.len());
    let offset =
        |axis: usize| members().map(|(niche, i)| (piece.xy[i][axis] * um - niche.centre_um[axis]) as f32).collect();
    let summed: Vec<Vec<(u32, f32)>> = niches.iter().map(|niche| summed(&piece.counts, &niche.members)).collect();
    let columns: Vec<arrow_array::ArrayRef> = vec![
        Arc::new(UInt64Array::from_iter_values(niches.iter().map(|niche| niche.niche_id))),
        Arc::new(UInt32Array::from_value(piece.section, n)),
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(piece.split.as_str(), n))),
        Arc::new(UInt64Array::from_iter_values(niches.iter().map(|niche| niche.tissue_id))),
        Arc::new(Float64Array::from_iter_values(niches.iter().map(|niche| niche.centre_um[0]))),
        Arc::new(Float64Array::from_iter_values(niches.iter().map(|niche| niche.centre_um[1]))),
        lists::<UInt64Type>(sizes(), members().map(|(_, i)| piece.record_id(i)).collect()),
        lists::<Float32Type>(sizes(), offset(0)),
        lists::<Float32Type>(sizes(), offset(1)),
        lists::<UInt32Type>(summed.iter().map(Vec::len), summed.iter().flatten().map(|e| e.0).collect()),
        lists::<Float32Type>(summed.iter().map(Vec::len), summed.iter().flatten().map(|e| e.1).collect()),
    ];
    RecordBatch::try_new(schema(), columns).expect("columns are made in the order and types of the schema")
}

/// Counts of some rows added up gene by gene, in f64; rows ascending, so that an order of members changes no bit.
fn summed(counts: &Csr, members: &[u32]) -> Vec<(u32, f32)> {
    let mut rows = members.to_vec();
    rows.sort_unstable();
    let mut sums = std::collections::BTreeMap::<u32, f64>::new();
    for row in rows {
        let (genes, values) = counts.row(row as usize);
        genes.iter().zip(values).for_each(|(&gene, &value)| *sums.entry(gene).or_default() += f64::from(value));
    }
    sums.into_iter().map(|(gene, sum)| (gene, sum as f32)).collect()
}

/// Niches of one split, in stored order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NicheTable {
    /// `[n]`.
    pub niche_ids: Vec<u64>,
    /// Section of each `[n]`.
    pub sections: Vec<u32>,
    /// `[n]`.
    pub tissue_ids: Vec<u64>,
    /// Centres `[n]`, µm.
    pub centre_um: Vec<[f64; 2]>,
    /// Niche `i` owns the members `indptr[i]..indptr[i + 1]`.
    pub indptr: Vec<usize>,
    /// Record ids of the members, nearest to the centre first.
    pub members: Vec<u64>,
    /// Each member's offset from its niche's centre, µm.
    pub offset_um: Vec<[f32; 2]>,
    /// Counts summed over the members `[n, n_genes]`.
    pub counts: Csr,
}

impl NicheTable {
    /// Number of niches.
    pub fn n_niches(&self) -> usize {
        self.niche_ids.len()
    }

    /// Record ids and offsets (µm) of the members of niche `i`.
    pub fn members(&self, i: usize) -> (&[u64], &[[f32; 2]]) {
        let span = self.indptr[i]..self.indptr[i + 1];
        (&self.members[span.clone()], &self.offset_um[span])
    }

    fn append(&mut self, other: NicheTable) {
        let first = self.members.len();
        self.niche_ids.extend(other.niche_ids);
        self.sections.extend(other.sections);
        self.tissue_ids.extend(other.tissue_ids);
        self.centre_um.extend(other.centre_um);
        self.indptr.extend(other.indptr.iter().skip(1).map(|p| first + p));
        self.members.extend(other.members);
        self.offset_um.extend(other.offset_um);
        let entries = self.counts.indices.len();
        self.counts.indptr.extend(other.counts.indptr.iter().skip(1).map(|p| entries + p));
        self.counts.indices.extend(other.counts.indices);
        self.counts.values.extend(other.counts.values);
    }
}

impl Shards {
    /// The niches of a split, in stored order.
    ///
    /// # Errors
    /// [`StoreError::NoNiches`]; damage; the system's errors.
    pub fn niches(&self, split: Split) -> Result<NicheTable, StoreError> {
        let n_cols = self.manifest().panel.genes.len();
        let counts = Csr { n_cols, indptr: vec![0], ..Csr::default() };
        let mut table = NicheTable { indptr: vec![0], counts, ..NicheTable::default() };
        for entry in self.table_groups(TableKind::Niche, split)? {
            let (source, part) = self.read_checked_of(TableKind::Niche, entry)?;
            table.append(decode(&source, part, entry)?);
        }
        Ok(table)
    }
}

fn decode(source: &Source<'_>, part: FilePart, entry: &RowGroupEntry) -> Result<NicheTable, StoreError> {
    let names: Vec<String> = schema().fields().iter().map(|field| field.name().clone()).collect();
    let batch = source.batch(part, &names)?;
    let (indptr, members) = source.list::<UInt64Type>(&batch, "members")?;
    let (of_x, dx) = source.list::<Float32Type>(&batch, "dx_um")?;
    let (of_y, dy) = source.list::<Float32Type>(&batch, "dy_um")?;
    if of_x != indptr || of_y != indptr {
        return Err(source.damaged("members, dx_um and dy_um have different lengths"));
    }
    if source.numbers::<UInt32Type>(&batch, "section")?.iter().any(|&s| s != entry.section) {
        return Err(source.damaged(format!("niches are not all of section {}", entry.section)));
    }
    let (x, y) = (source.numbers::<Float64Type>(&batch, "x_um")?, source.numbers::<Float64Type>(&batch, "y_um")?);
    Ok(NicheTable {
        niche_ids: source.numbers::<UInt64Type>(&batch, "niche_id")?.to_vec(),
        sections: vec![entry.section; entry.n_rows()],
        tissue_ids: source.numbers::<UInt64Type>(&batch, "tissue_id")?.to_vec(),
        centre_um: x.iter().zip(y).map(|(&x, &y)| [x, y]).collect(),
        indptr,
        members,
        offset_um: dx.into_iter().zip(dy).map(|(x, y)| [x, y]).collect(),
        counts: source.counts(&batch)?,
    })
}
