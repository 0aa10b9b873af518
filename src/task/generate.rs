//! Generation: a cell's picture made noisy is to be told apart from its noise, given its genes (`spatia.md` §6).
//!
//! Draws: noise, time and lost conditions by (slot, global_step) in training, by (record id, assay) in validation, where no
//! condition is lost and tokens are merged into the top-left of their cells; destinations of a step's merging are shared
//! by all lanes.

use serde::{Deserialize, Serialize};
use syncytia_shards::loader::Slot;
use syncytia_shards::manifest::Manifest;
use syncytia_shards::row_group::Columns;

use super::{DrawsAt, Terms};
use crate::model::dit::noising::{self, Objective, TimeDraw, squared_errors};
use crate::model::dit::{Destinations, DitInput};
use crate::model::generator::{Counts, GeneLists, GeneReader, Generator, GeneratorConfig};
use crate::model::layers::Training;
use crate::model::spatia::pixels;
use crate::tensor::{Device, Tensor, Values};

/// `[task]` with `kind = "generate"`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateConfig {
    /// What the network is to say of a noisy picture. Default `{ flow = "logit_normal" }`.
    pub objective: Objective,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self { objective: Objective::Flow(TimeDraw::LogitNormal) }
    }
}

/// Names of the terms.
const TERMS: [&str; 1] = ["flow"];

/// The task with what it knows of model and data.
#[derive(Debug, Clone)]
pub struct Generate {
    config: GenerateConfig,
    reader: GeneReader,
    /// Side and channels of the pictures.
    picture: [usize; 2],
    dropout: f64,
    seed: u64,
}

/// A micro-batch on the host.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Record ids in slot order.
    pub ids: Vec<u64>,
    /// What is read of the counts.
    pub genes: GeneLists,
    /// `[b, image, image, channels]`, in [−1, 1].
    pub pixels: Values<f32>,
    /// `[b, image, image, channels]`: standard normals.
    pub noise: Values<f32>,
    /// `[b]`: where between noise and picture.
    pub times: Vec<f64>,
    /// `[b]`: whether the condition is lost.
    pub dropped: Vec<bool>,
    /// Where tokens are merged.
    pub destinations: Destinations,
    /// W_k.
    pub weights: Vec<f64>,
    picture: [usize; 2],
}

impl Prepared {
    /// Sends what a step reads to `device`, ahead of it; gives how many values.
    pub fn send(&mut self, device: &Device) -> usize {
        self.genes.send(device) + self.pixels.send(device) + self.noise.send(device)
    }
}

impl Generate {
    /// For this model on these shards.
    ///
    /// # Errors
    /// In words: no pictures; channels that the model does not paint.
    pub fn new(
        config: GenerateConfig,
        model: &GeneratorConfig,
        manifest: &Manifest,
        seed: u64,
    ) -> Result<Generate, String> {
        let Some(crops) = &manifest.crops else {
            return Err("the shards have no pictures: shard with input.images, see configs/spatia/shard.toml".into());
        };
        let (found, wanted) = (crops.channels.len(), model.dit.channels);
        if found != 1 && found != wanted {
            return Err(format!(
                "the pictures have {found} channels ({}), model.generator.dit.channels is {wanted}: make it {found}",
                crops.channels.join(", ")
            ));
        }
        let reader = GeneReader::new(seed, manifest.panel.genes.len(), model.encoder.gene.context);
        let picture = [model.dit.image, wanted];
        Ok(Generate { config, reader, picture, dropout: model.dit.condition_dropout, seed })
    }

    /// What it reads of records.
    pub fn columns(&self) -> Columns {
        Columns { counts: true, images: true, ..Columns::default() }
    }

    /// Names of the loss terms, in order.
    pub fn terms(&self) -> &'static [&'static str] {
        &TERMS
    }

    /// λ_k of the loss terms, in order.
    pub fn lambdas(&self) -> Vec<f64> {
        vec![1.0]
    }

    /// Reads genes and pictures, draws noise, times and lost conditions.
    pub fn prepare(&self, slots: &[Slot], at: DrawsAt) -> Prepared {
        let ids: Vec<u64> = slots.iter().map(Slot::record_id).collect();
        let streams: Vec<[u32; 3]> = ids.iter().enumerate().map(|(i, &id)| at.stream(i, id)).collect();
        let counts: Vec<Counts<'_>> =
            slots.iter().map(|slot| slot.group.counts.as_ref().expect("counts were asked for").row(slot.row)).collect();
        let [size, channels] = self.picture;
        let values = size * size * channels;
        let mut pixels = Vec::with_capacity(slots.len() * values);
        for slot in slots {
            let picture = slot.group.image(slot.row).expect("pictures were asked for");
            let shape = [picture.height as usize, picture.width as usize, usize::from(picture.channels)];
            pixels::push_signed(&mut pixels, picture.bytes, shape, channels, size)
                .expect("the manifest's channels fit");
        }
        let (destinations, dropout) = match at {
            DrawsAt::Step { global_step, .. } => (Destinations::drawn(self.seed, global_step as u32), self.dropout),
            DrawsAt::Assay(_) => (Destinations::TopLeft, 0.0),
        };
        Prepared {
            genes: self.reader.read(&counts, &streams),
            pixels: pixels.into(),
            noise: noising::noise(self.seed, &streams, values).into(),
            times: self.config.objective.times(self.seed, &streams),
            dropped: noising::dropped(self.seed, &streams, dropout),
            destinations,
            weights: vec![ids.len() as f64],
            picture: self.picture,
            ids,
        }
    }

    /// The loss terms of a lane.
    pub fn loss(&self, model: &Generator, batch: &Prepared, training: &Training, device: &Device) -> Terms {
        let mut terms = Terms::default();
        terms.push(self.errors(model, batch, Some(training), device), &batch.ids);
        terms
    }

    /// The squared errors summed over records, and the number of records.
    pub fn validate(&self, model: &Generator, batch: &Prepared, device: &Device) -> (f64, f64) {
        let values: Vec<f32> = self.errors(model, batch, None, device).into_data().try_to_vec().expect("f32");
        (values.iter().map(|&v| f64::from(v)).sum(), batch.ids.len() as f64)
    }

    /// `[b]`: each record's mean squared error over its pixels.
    fn errors(&self, model: &Generator, batch: &Prepared, training: Option<&Training>, device: &Device) -> Tensor<1> {
        let (b, [size, channels]) = (batch.ids.len(), batch.picture);
        let images = |values: &Values<f32>| values.tensor([b, size, size, channels], device);
        let noisy = self.config.objective.noisy(images(&batch.pixels), images(&batch.noise), &batch.times);
        let input = DitInput {
            images: noisy.images,
            times: batch.times.clone(),
            condition: model.condition(&batch.genes, batch.dropped.clone(), training, device),
            destinations: batch.destinations,
        };
        squared_errors(model.dit.forward(&input, training), noisy.target)
    }
}
