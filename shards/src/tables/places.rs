//! Places of one split as a later stage reads them: niches with their cells, or tissues with their niches, sorted by id.
//!
//! A split's places are held in memory, without the summed counts. Knows no vectors and no model.

use std::collections::BTreeMap;

use super::vectors::VectorsOf;
use crate::error::StoreError;
use crate::processed::{Niche, Piece, Split, Tissue};
use crate::reader::Shards;

/// Niches or tissues with their members.
#[derive(Debug, Clone, PartialEq)]
pub struct Places {
    /// Niches or tissues.
    pub of: VectorsOf,
    /// `[n]`, ascending.
    pub ids: Vec<u64>,
    /// Place `i` owns the members `indptr[i]..indptr[i + 1]`.
    indptr: Vec<usize>,
    members: Vec<u64>,
    offset_um: Vec<[f32; 2]>,
}

impl VectorsOf {
    /// What its members are; records have none.
    pub fn members(self) -> Option<VectorsOf> {
        match self {
            VectorsOf::Niche => Some(VectorsOf::Obs),
            VectorsOf::Tissue => Some(VectorsOf::Niche),
            _ => None,
        }
    }

    /// In words, of several.
    pub fn plural(self) -> &'static str {
        match self {
            VectorsOf::Obs => "records",
            VectorsOf::Niche => "niches",
            VectorsOf::Tissue => "tissues",
            VectorsOf::Region => "regions",
            VectorsOf::Pair => "spots' pairs",
            VectorsOf::Moved => "moved cells",
            VectorsOf::MovedPair => "moved cells' pairs",
        }
    }

    /// The level of `syncytia embed` that makes its vectors.
    pub fn level(self) -> &'static str {
        match self {
            VectorsOf::Obs => "cell",
            VectorsOf::Niche => "niche",
            VectorsOf::Tissue => "tissue",
            VectorsOf::Region => "region",
            VectorsOf::Pair | VectorsOf::Moved | VectorsOf::MovedPair => "pair",
        }
    }
}

impl Places {
    /// Rows `(id, member ids, offsets)` in any order.
    fn sorted<'a>(of: VectorsOf, rows: impl Iterator<Item = (u64, (&'a [u64], &'a [[f32; 2]]))>) -> Places {
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by_key(|row| row.0);
        let mut places = Places { of, ids: Vec::new(), indptr: vec![0], members: Vec::new(), offset_um: Vec::new() };
        for (id, (members, offsets)) in rows {
            places.ids.push(id);
            places.members.extend_from_slice(members);
            places.offset_um.extend_from_slice(offsets);
            places.indptr.push(places.members.len());
        }
        places
    }

    /// The niches or tissues of a piece.
    ///
    /// # Panics
    /// If records are asked for: they are no places.
    pub fn of_piece(of: VectorsOf, piece: &Piece) -> Places {
        let um = piece.um_per_unit.unwrap_or(1.0);
        let less = |at: [f64; 2], centre: [f64; 2]| [0, 1].map(|axis| (at[axis] - centre[axis]) as f32);
        let rows: Vec<(u64, Vec<u64>, Vec<[f32; 2]>)> = match of {
            VectorsOf::Niche => {
                let niche = |niche: &Niche| {
                    let members = || niche.members.iter().map(|&i| i as usize);
                    let offset = |i: usize| less(piece.xy[i].map(|v| v * um), niche.centre_um);
                    (niche.niche_id, members().map(|i| piece.record_id(i)).collect(), members().map(offset).collect())
                };
                piece.niches.niches.iter().map(niche).collect()
            }
            VectorsOf::Tissue => {
                let centres: BTreeMap<u64, [f64; 2]> =
                    piece.niches.niches.iter().map(|n| (n.niche_id, n.centre_um)).collect();
                let tissue = |tissue: &Tissue| {
                    let offset = |id: &u64| less(centres[id], tissue.centre_um);
                    (tissue.tissue_id, tissue.niches.clone(), tissue.niches.iter().map(offset).collect())
                };
                piece.niches.tissues.iter().map(tissue).collect()
            }
            _ => panic!("{of:?} are no places"),
        };
        Places::sorted(of, rows.iter().map(|(id, members, offsets)| (*id, (&members[..], &offsets[..]))))
    }

    /// Number of places.
    pub fn n(&self) -> usize {
        self.ids.len()
    }

    /// Ids and offsets (µm, from the place's centre) of the members of place `i`, in stored order: the cells of a niche
    /// nearest to the centre first.
    pub fn members(&self, i: usize) -> (&[u64], &[[f32; 2]]) {
        let span = self.indptr[i]..self.indptr[i + 1];
        (&self.members[span.clone()], &self.offset_um[span])
    }
}

impl Shards {
    /// The niches or tissues of a split.
    ///
    /// # Errors
    /// [`StoreError::NoNiches`]; damage; the system's errors.
    ///
    /// # Panics
    /// If records are asked for: they are no places.
    pub fn places(&self, of: VectorsOf, split: Split) -> Result<Places, StoreError> {
        Ok(match of {
            VectorsOf::Niche => {
                let table = self.niches(split)?;
                Places::sorted(of, (0..table.n_niches()).map(|i| (table.niche_ids[i], table.members(i))))
            }
            VectorsOf::Tissue => {
                let table = self.tissues(split)?;
                Places::sorted(of, (0..table.n_tissues()).map(|i| (table.tissue_ids[i], table.niches(i))))
            }
            _ => panic!("{of:?} are no places"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_sorted_by_id_and_keep_their_members_order() {
        let (a, b) = ([7u64, 3], [5u64]);
        let (at_a, at_b) = ([[1.0f32, 0.0], [2.0, 0.0]], [[0.0f32, 3.0]]);
        let places = Places::sorted(VectorsOf::Niche, [(9, (&a[..], &at_a[..])), (4, (&b[..], &at_b[..]))].into_iter());
        assert_eq!((places.n(), &places.ids[..]), (2, &[4, 9][..]));
        assert_eq!(places.members(0), (&b[..], &at_b[..]));
        assert_eq!(places.members(1), (&a[..], &at_a[..]));
    }
}
