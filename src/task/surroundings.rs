//! Where a cell stands: its niche and the tissue of that, with frozen vectors of the other members (`spatia.md` §5, final
//! fusion). Knows no loss.
//!
//! **No leak.** What is to be predicted of a cell must not come back through what surrounds it, and frozen vectors were made
//! of whole counts. So the own member of a place is marked and empty: whoever learns puts there what it made of what may be
//! seen. Of a tissue's niches those that hold the cell as well (niches of the nearest overlap) are left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use syncytia_shards::draw::{DrawKey, Purpose};
use syncytia_shards::tables::places::Places;
use syncytia_shards::tables::vectors::Vectors;

use super::DrawsAt;
use super::places::{Gathered, GatheredRegions, Member, members_read};
use crate::model::spatia::context::ContextInput;
use crate::tensor::{Bool, Device, Tensor, TensorData};

/// Places of a split with a vector of every member.
#[derive(Debug, Clone)]
pub struct Level {
    /// Niches or tissues.
    pub places: Places,
    /// Of their members.
    pub vectors: Arc<Vectors>,
    /// Of niches: of the pictures of their regions, if they are read.
    pub regions: Option<Arc<Vectors>>,
}

/// The niches and tissues of a split.
#[derive(Debug, Clone)]
pub struct Surroundings {
    niches: Level,
    tissues: Option<Level>,
    /// Row of the tissue of each niche.
    tissue_of: BTreeMap<u64, usize>,
}

/// A cell and the niche it is in, if it is in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Record id.
    pub cell: u64,
    /// Niche id.
    pub niche: Option<u64>,
}

/// A place of each cell.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnPlaces {
    /// Its members; the own one is 0. No members where there is no place.
    pub seen: Gathered,
    /// `[b, n]`: the member that is the cell, or its niche.
    pub own: Vec<bool>,
    /// `[b]`: 1 where there is a place, else 0.
    pub there: Vec<f32>,
}

impl Surroundings {
    /// Of niches, and of tissues where these are read.
    pub fn new(niches: Level, tissues: Option<Level>) -> Surroundings {
        let mut tissue_of = BTreeMap::new();
        for (places, row) in tissues.iter().flat_map(|level| (0..level.places.n()).map(|row| (&level.places, row))) {
            tissue_of.extend(places.members(row).0.iter().map(|&niche| (niche, row)));
        }
        Surroundings { niches, tissues, tissue_of }
    }

    /// The niche of each cell: at most `most` cells, the nearest to its centre.
    pub fn niches(&self, cells: &[Placed], most: usize, seed: u64, at: DrawsAt) -> OwnPlaces {
        let row = |placed: &Placed| self.niches.places.ids.binary_search(&placed.niche?).ok();
        let every_cell = |_: &Placed, _: &Member| true;
        OwnPlaces::gather(&self.niches, cells, most, (seed, at), row, every_cell, |placed| Some(placed.cell))
    }

    /// The tissue of each cell's niche: at most `most` niches (`MemberSubset`), less those others that hold the cell.
    /// `cells_read`: of a niche.
    ///
    /// # Panics
    /// If there are no tissues.
    pub fn tissues(&self, cells: &[Placed], most: usize, cells_read: usize, seed: u64, at: DrawsAt) -> OwnPlaces {
        let level = self.tissues.as_ref().expect("tissues were asked for");
        let row = |placed: &Placed| self.tissue_of.get(&placed.niche?).copied();
        let knows_nothing_of_it = |placed: &Placed, niche: &Member| {
            placed.niche == Some(niche.id) || !self.holds(niche.id, cells_read, placed.cell)
        };
        OwnPlaces::gather(level, cells, most, (seed, at), row, knows_nothing_of_it, |placed| placed.niche)
    }

    /// Whether the vector of a niche is made of a cell, among others.
    fn holds(&self, niche: u64, cells_read: usize, cell: u64) -> bool {
        let row = self.niches.places.ids.binary_search(&niche);
        row.is_ok_and(|row| self.niches.places.members(row).0.iter().take(cells_read).any(|&member| member == cell))
    }
}

impl OwnPlaces {
    fn gather(
        level: &Level,
        cells: &[Placed],
        most: usize,
        (seed, at): (u64, DrawsAt),
        row: impl Fn(&Placed) -> Option<usize>,
        is_read: impl Fn(&Placed, &Member) -> bool,
        own: impl Fn(&Placed) -> Option<u64>,
    ) -> OwnPlaces {
        let key = DrawKey::new(seed, Purpose::MemberSubset);
        let rows: Vec<Option<usize>> = cells.iter().map(row).collect();
        let members = |(i, (placed, row)): (usize, (&Placed, &Option<usize>))| -> Vec<Member> {
            let Some(row) = *row else { return Vec::new() };
            let stream = at.stream(i, level.places.ids[row]);
            let mut members = members_read(&level.places, row, most, key, stream);
            members.retain(|member| is_read(placed, member));
            members
        };
        let members: Vec<Vec<Member>> = cells.iter().zip(&rows).enumerate().map(members).collect();
        let ids = cells.iter().map(|placed| placed.cell).collect();
        let mut seen = Gathered::of_members(ids, &members, &level.vectors);
        let (n, width) = (seen.n, seen.width);
        let mut is_own = vec![false; cells.len() * n];
        for (i, (placed, members)) in cells.iter().zip(&members).enumerate() {
            if let Some(at) = members.iter().position(|member| Some(member.id) == own(placed)) {
                is_own[i * n + at] = true;
                seen.vectors[(i * n + at) * width..][..width].fill(0.0);
            }
        }
        let place = |row: &Option<usize>| row.map(|row| level.places.ids[row]);
        seen.regions = level.regions.as_ref().map(|regions| GatheredRegions::of(rows.iter().map(place), regions));
        let there = rows.iter().map(|row| f32::from(u8::from(row.is_some()))).collect();
        OwnPlaces { seen, own: is_own, there }
    }

    /// The model's input on `device`, with `z` as the own members' vectors, `[b, h]`.
    pub fn input(&self, z: Tensor<2>, device: &Device) -> ContextInput {
        let input = self.seen.input(None, device);
        let [b, n, h] = input.members.dims();
        let own = Tensor::<2, Bool>::from_data(TensorData::new(self.own.clone(), [b, n]), device);
        let own = own.unsqueeze_dim::<3>(2).expand([b, n, h]);
        let z: Tensor<3> = z.unsqueeze_dim::<3>(1).expand([b, n, h]);
        ContextInput { members: input.members.mask_where(own, z), ..input }
    }

    /// `z` of the places, `[b, h]`; zeros where there is none.
    pub fn where_there(&self, z: Tensor<2>) -> Tensor<2> {
        let there = TensorData::new(self.there.clone(), [self.there.len(), 1]);
        let there = Tensor::<2>::from_data(there, &z.device());
        z * there
    }
}
