//! Final fusion: counts made fewer are predicted as they were from one vector of the cell, its niche and its tissue
//! (`spatia.md` §5, objective (iii)). The last step of SPATIA's schedule.
//!
//! All but `final_fusion` (and the head `mvc`) is frozen, and reads without dropout and with whole pictures, as `embed` does.
//! z_cell is made in the step of the thinned counts; z_niche and z_tissue are made in the step too, of that and of the frozen
//! vectors of the *other* cells and niches: precomputed, they would hold the counts that are to be predicted.

use serde::{Deserialize, Serialize};
use syncytia_shards::loader::Slot;
use syncytia_shards::manifest::Manifest;
use syncytia_shards::row_group::Columns;
use syncytia_shards::tables::vectors::VectorsOf;

use super::cells::{self, Cells, CellsConfig};
use super::losses::positive_or_zero;
use super::surroundings::{OwnPlaces, Placed, Surroundings};
use super::{DrawsAt, Terms};
use crate::model::layers::Training;
use crate::model::spatia::image_encoder::ImageInput;
use crate::model::spatia::{CellInput, Spatia, SpatiaConfig};
use crate::tensor::{Device, Tensor};

/// `[task]` with `kind = "fusion"`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FusionConfig {
    /// The levels that are fused: those up to this one, the others contribute zeros. Default `tissue`.
    pub up_to: UpTo,
    /// d: how much is thinned away. Default .6.
    pub thinning: f64,
    /// Genes without a count that are read, for each with one. Default 1.
    pub zeros_per_gene: f64,
}

/// A level of SPATIA, each with those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpTo {
    /// The cell alone.
    Cell,
    /// With its niche.
    Niche,
    /// With the tissue of that.
    #[default]
    Tissue,
}

impl UpTo {
    /// The vectors that are read, from below.
    pub fn reads(self) -> Vec<VectorsOf> {
        match self {
            UpTo::Cell => Vec::new(),
            UpTo::Niche => vec![VectorsOf::Obs],
            UpTo::Tissue => vec![VectorsOf::Obs, VectorsOf::Niche],
        }
    }

    /// The vectors that are fused, from below.
    pub fn fuses(self) -> Vec<VectorsOf> {
        let all = [(UpTo::Cell, VectorsOf::Obs), (UpTo::Niche, VectorsOf::Niche), (UpTo::Tissue, VectorsOf::Tissue)];
        all.into_iter().filter(|&(level, _)| level <= self).map(|(_, of)| of).collect()
    }

    /// As a config says it.
    pub fn as_str(self) -> &'static str {
        match self {
            UpTo::Cell => "cell",
            UpTo::Niche => "niche",
            UpTo::Tissue => "tissue",
        }
    }
}

impl Default for FusionConfig {
    fn default() -> Self {
        let CellsConfig { thinning, zeros_per_gene, .. } = CellsConfig::default();
        Self { up_to: UpTo::Tissue, thinning, zeros_per_gene }
    }
}

impl FusionConfig {
    /// What is wrong with it, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = positive_or_zero("zeros_per_gene", self.zeros_per_gene).into_iter().collect();
        if !(0.0..=1.0).contains(&self.thinning) {
            problems.push(format!("task.thinning = {}: must be in [0, 1]", self.thinning));
        }
        problems
    }
}

/// Names of the terms.
const TERMS: [&str; 1] = ["mvc"];

/// The task with what it knows of model and data.
#[derive(Debug, Clone)]
pub struct Fusion {
    up_to: UpTo,
    cells: Cells,
    /// Most cells of a niche, most niches of a tissue.
    most: [usize; 2],
    seed: u64,
}

/// A micro-batch on the host.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The cells.
    pub cells: cells::Prepared,
    /// Where they stand, if niches are fused.
    pub niches: Option<OwnPlaces>,
    /// Where those stand, if tissues are fused.
    pub tissues: Option<OwnPlaces>,
    /// W_k.
    pub weights: Vec<f64>,
}

impl Prepared {
    /// Sends what a step reads to `device`, ahead of it; gives how many values.
    pub fn send(&mut self, device: &Device) -> usize {
        let places = self.niches.iter_mut().chain(&mut self.tissues);
        self.cells.send(device) + places.map(|places| places.seen.send(device)).sum::<usize>()
    }
}

impl Fusion {
    /// For this model on these shards.
    ///
    /// # Errors
    /// As [`Cells::new`].
    pub fn new(config: FusionConfig, model: &SpatiaConfig, manifest: &Manifest, seed: u64) -> Result<Fusion, String> {
        let FusionConfig { up_to, thinning, zeros_per_gene } = config;
        let of_cells = CellsConfig { thinning, zeros_per_gene, classes: 0.0, ..CellsConfig::default() };
        let cells = Cells::new(of_cells, model, manifest, seed)?;
        Ok(Fusion { up_to, cells, most: [model.niche.members, model.tissue.members], seed })
    }

    /// What it reads of records.
    pub fn columns(&self) -> Columns {
        self.cells.columns()
    }

    /// Names of the loss terms, in order.
    pub fn terms(&self) -> &'static [&'static str] {
        &TERMS
    }

    /// λ_k of the loss terms, in order.
    pub fn lambdas(&self) -> Vec<f64> {
        vec![1.0]
    }

    /// Thins, chooses genes, gathers what surrounds the cells. `surroundings`: where a niche or a tissue is fused.
    pub fn prepare(&self, slots: &[Slot], surroundings: Option<&Surroundings>, at: DrawsAt) -> Prepared {
        let cells = self.cells.prepare(slots, at);
        let niche = |slot: &Slot| slot.group.niches.get(slot.row).copied().flatten();
        let placed: Vec<Placed> =
            slots.iter().map(|slot| Placed { cell: slot.record_id(), niche: niche(slot) }).collect();
        let around = |level: UpTo| surroundings.filter(|_| self.up_to >= level);
        let [of_niche, of_tissue] = self.most;
        Prepared {
            niches: around(UpTo::Niche).map(|around| around.niches(&placed, of_niche, self.seed, at)),
            tissues: around(UpTo::Tissue).map(|around| around.tissues(&placed, of_tissue, of_niche, self.seed, at)),
            weights: vec![cells.n_entries()],
            cells,
        }
    }

    /// z of the three levels, `[b, h]`, and what the cell's own counts are predicted with: [`Fusion::loss`]'s forward.
    pub fn unlikely(
        &self,
        model: &Spatia,
        batch: &Prepared,
        training: Option<&Training>,
        device: &Device,
    ) -> Tensor<1> {
        let CellInput { genes, image } = batch.cells.input(device);
        let whole = image.map(|image| ImageInput { kept: None, ..image });
        let cells = model.forward(&CellInput { genes, image: whole }, None);
        let niche = batch.niches.as_ref().map(|at| {
            let z = model.niche(&at.input(cells.z_cell.clone(), device), None).z;
            at.where_there(z)
        });
        let tissue = batch.tissues.as_ref().map(|at| {
            let own = niche.clone().expect("a tissue is one of niches");
            at.where_there(model.tissue(&at.input(own, device), None).z)
        });
        let z = model.fuse_levels(cells.z_cell, niche, tissue, training);
        let genes = cells.genes.expect("cells have genes");
        batch.cells.unlikely(model.expression_of_vector(z, &genes, batch.cells.listed(device), training), device)
    }

    /// The loss terms of a lane.
    pub fn loss(&self, model: &Spatia, batch: &Prepared, training: &Training, device: &Device) -> Terms {
        let mut terms = Terms::default();
        terms.push(self.unlikely(model, batch, Some(training), device), &batch.cells.ids);
        terms
    }

    /// The term as a mean over a record's entries, summed over records; and the number of records.
    pub fn validate(&self, model: &Spatia, batch: &Prepared, device: &Device) -> (f64, f64) {
        let values: Vec<f32> = self.unlikely(model, batch, None, device).into_data().try_to_vec().expect("f32");
        let mean = |(i, &value): (usize, &f32)| f64::from(value) / batch.cells.n_listed(i).max(1) as f64;
        (values.iter().enumerate().map(mean).sum(), values.len() as f64)
    }
}
