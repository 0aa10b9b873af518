//! Places of a micro-batch with the vectors of their members, on the host: what niche and tissue transformers read
//! (`spatia.md` §5). Knows no loss.

use syncytia_shards::draw::{DrawKey, Purpose};
use syncytia_shards::tables::places::Places;
use syncytia_shards::tables::vectors::{Vectors, VectorsOf};

use crate::model::Model;
use crate::model::layers::Training;
use crate::model::spatia::config::SpatiaConfig;
use crate::model::spatia::context::{ContextInput, ContextOutput, RegionInput};
use crate::model::spatia::gene_list::gene_list;
use crate::tensor::{Bool, Device, Padding, Tensor, TensorData, Values};

/// Some of a table's places, as a task is given them.
#[derive(Debug, Clone)]
pub struct PlaceRows<'a> {
    /// The places of a split.
    pub places: &'a Places,
    /// A vector of every member of them.
    pub vectors: &'a Vectors,
    /// Of niches: a vector of the picture of each region that has one, if they are read.
    pub regions: Option<&'a Vectors>,
    /// Which, in slot order.
    pub rows: Vec<usize>,
}

/// Members of `b` places, padded to the most, `n`.
#[derive(Debug, Clone, PartialEq)]
pub struct Gathered {
    /// `[b]`: ids of the places.
    pub ids: Vec<u64>,
    /// Members of the place that has most of them, at least 1.
    pub n: usize,
    /// Values of a vector.
    pub width: usize,
    /// `[b]`: members that are read.
    pub lengths: Vec<usize>,
    /// `[b, n, width]`: 0 where padded.
    pub vectors: Values<f32>,
    /// `[b, n, 2]`: µm from the place's centre; 0 where padded.
    pub offsets_um: Values<f32>,
    /// The pictures of their regions, if they are read.
    pub regions: Option<GatheredRegions>,
}

/// Pictures of the regions of `b` places.
#[derive(Debug, Clone, PartialEq)]
pub struct GatheredRegions {
    /// `[b, e]`: 0 where there is none.
    vectors: Values<f32>,
    /// `[b]`.
    absent: Vec<bool>,
}

impl GatheredRegions {
    /// Of these places; `None`: there is no place.
    pub fn of(ids: impl Iterator<Item = Option<u64>>, regions: &Vectors) -> GatheredRegions {
        let mut out = GatheredRegions { vectors: Values::default(), absent: Vec::new() };
        for id in ids {
            let vector = id.and_then(|id| regions.get(id));
            out.absent.push(vector.is_none());
            match vector {
                Some(vector) => out.vectors.extend_from_slice(vector),
                None => out.vectors.extend(std::iter::repeat_n(0.0, regions.values.n_cols)),
            }
        }
        out
    }

    fn input(&self, device: &Device) -> RegionInput {
        let b = self.absent.len();
        let vectors = self.vectors.tensor([b, self.vectors.len() / b], device);
        RegionInput { vectors, absent: Padding::of(self.absent.clone(), [b, 1]) }
    }
}

impl Gathered {
    /// The members of each place that are read ([`members_read`]). `streams`: of each place.
    ///
    /// # Panics
    /// If a member has no vector: [`lacking`] was to be asked.
    pub fn of(from: &PlaceRows<'_>, most: usize, seed: u64, streams: &[[u32; 3]]) -> Gathered {
        let key = DrawKey::new(seed, Purpose::MemberSubset);
        let rows = from.rows.iter().zip(streams);
        let members: Vec<Vec<Member>> =
            rows.map(|(&row, &stream)| members_read(from.places, row, most, key, stream)).collect();
        let ids: Vec<u64> = from.rows.iter().map(|&row| from.places.ids[row]).collect();
        let regions = from.regions.map(|regions| GatheredRegions::of(ids.iter().map(|&id| Some(id)), regions));
        Gathered { regions, ..Self::of_members(ids, &members, from.vectors) }
    }

    /// These members of the places `ids`, without pictures of their regions.
    ///
    /// # Panics
    /// If a member has no vector: [`lacking`] was to be asked.
    pub fn of_members(ids: Vec<u64>, members: &[Vec<Member>], vectors: &Vectors) -> Gathered {
        let width = vectors.values.n_cols;
        let n = members.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let mut out = Gathered {
            n,
            width,
            lengths: members.iter().map(Vec::len).collect(),
            vectors: Vec::with_capacity(ids.len() * n * width).into(),
            offsets_um: Vec::with_capacity(ids.len() * n * 2).into(),
            regions: None,
            ids,
        };
        for (i, members) in members.iter().enumerate() {
            for member in members {
                out.vectors.extend_from_slice(vectors.get(member.id).expect("every member was looked for"));
                out.offsets_um.extend(member.offset_um);
            }
            out.vectors.resize((i + 1) * n * width, 0.0);
            out.offsets_um.resize((i + 1) * n * 2, 0.0);
        }
        out
    }

    /// The vector of member `at` of place `i`.
    pub fn vector(&self, i: usize, at: usize) -> &[f32] {
        &self.vectors[(i * self.n + at) * self.width..][..self.width]
    }

    /// `[b, n]`: true where padded.
    pub fn padding(&self) -> Vec<bool> {
        self.lengths.iter().flat_map(|&length| (0..self.n).map(move |at| at >= length)).collect()
    }

    /// Sends the vectors to `device`, ahead of their use; gives how many values.
    pub fn send(&mut self, device: &Device) -> usize {
        let regions: usize = self.regions.iter_mut().map(|regions| regions.vectors.send(device)).sum();
        regions + self.vectors.send(device) + self.offsets_um.send(device)
    }

    /// The model's input on `device`; `hidden`: `[b, n]`, the members under the learned token.
    pub fn input(&self, hidden: Option<&[bool]>, device: &Device) -> ContextInput {
        let (b, n) = (self.ids.len(), self.n);
        let mask = |of: &[bool]| Tensor::<2, Bool>::from_data(TensorData::new(of.to_vec(), [b, n]), device);
        ContextInput {
            members: self.vectors.tensor([b, n, self.width], device),
            offsets_um: self.offsets_um.tensor([b, n, 2], device),
            padding: Padding::of(self.padding(), [b, n]),
            hidden: hidden.map(mask),
            region: self.regions.as_ref().map(|regions| regions.input(device)),
        }
    }
}

/// A member of a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Member {
    /// Record or niche.
    pub id: u64,
    /// µm from the place's centre.
    pub offset_um: [f32; 2],
}

/// At most `most` members of the place in `row`: the cells of a niche that are nearest, a random subset of the niches of a
/// tissue (`MemberSubset`, element = place in the stored list).
pub fn members_read(places: &Places, row: usize, most: usize, key: DrawKey, stream: [u32; 3]) -> Vec<Member> {
    let (ids, offsets) = places.members(row);
    let member = |at: usize| Member { id: ids[at], offset_um: offsets[at] };
    if places.of == VectorsOf::Tissue && ids.len() > most {
        let everyone: Vec<u32> = (0..ids.len() as u32).collect();
        let some = gene_list(key, stream, &everyone, ids.len(), 0, most);
        return some.into_iter().map(|at| member(at as usize)).collect();
    }
    (0..ids.len().min(most)).map(member).collect()
}

/// A place and a member of it that has no vector, if there is any.
pub fn lacking(places: &Places, vectors: &Vectors) -> Option<(u64, u64)> {
    let absent = |i: usize| places.members(i).0.iter().find(|&&member| vectors.get(member).is_none());
    (0..places.n()).find_map(|i| Some((places.ids[i], *absent(i)?)))
}

/// Most members that the transformer of this level reads.
pub fn most_members(model: &SpatiaConfig, of: VectorsOf) -> usize {
    match of {
        VectorsOf::Tissue => model.tissue.members,
        _ => model.niche.members,
    }
}

/// What the transformer of this level makes of its input.
///
/// # Panics
/// If the model is no [`Model::Spatia`].
pub fn forward(model: &Model, of: VectorsOf, input: &ContextInput, training: Option<&Training>) -> ContextOutput {
    let Model::Spatia(model) = model else { unreachable!("places are SPATIA's") };
    match of {
        VectorsOf::Tissue => model.tissue(input, training),
        _ => model.niche(input, training),
    }
}
