//! Members of a place: some are hidden and predicted from the others and from where they stood (`spatia.md` §5). SPATIA's
//! second stage on the cells of niches, its third on the niches of tissues.
//!
//! A hidden vector is 0 in the model's input and the model replaces it by the learned token: it is a target only.
//!
//! `summary` is ours: without it no loss reads the place's own vector. Of 64 niches of a drawn cohort, with made-up vectors
//! that hold the cell type, it takes the niche type read from the 5 nearest z_niche from .64 to .88 (one seed; by one cell's
//! vector .40).

use serde::{Deserialize, Serialize};
use syncytia_shards::draw::{DrawKey, Purpose};
use syncytia_shards::tables::vectors::VectorsOf;

use super::losses::cosine::distance;
use super::losses::positive_or_zero;
use super::places::{self, Gathered, PlaceRows};
use super::{DrawsAt, Terms};
use crate::model::Model;
use crate::model::layers::Training;
use crate::model::spatia::SpatiaConfig;
use crate::model::spatia::context::{ContextOutput, hidden_members};
use crate::tensor::{Device, Tensor, TensorData, Values};

/// `[task]` with `kind = "niches"` or `"tissues"`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MembersConfig {
    /// λ of the hidden members, each from its own place. Default .5.
    pub members: f64,
    /// λ of the mean of the hidden members from the place's vector; 0: the specification alone. Default .5.
    pub summary: f64,
    /// Share of the members that is hidden. Default .15.
    pub hidden: f64,
}

impl Default for MembersConfig {
    fn default() -> Self {
        Self { members: 0.5, summary: 0.5, hidden: 0.15 }
    }
}

impl MembersConfig {
    fn lambdas(&self) -> [f64; 2] {
        [self.members, self.summary]
    }

    /// What is wrong with it, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let named = TERMS.iter().zip(self.lambdas());
        let mut problems: Vec<String> = named.filter_map(|(name, value)| positive_or_zero(name, value)).collect();
        if self.lambdas().iter().all(|&l| l == 0.0) {
            problems.push("task: every weight is 0, so nothing is learned".to_owned());
        }
        if !(self.hidden > 0.0 && self.hidden < 1.0) {
            problems.push(format!("task.hidden = {}: must be between 0 and 1", self.hidden));
        }
        problems
    }
}

/// Names of the terms.
const TERMS: [&str; 2] = ["members", "summary"];

/// The task with what it knows of the model.
#[derive(Debug, Clone)]
pub struct Members {
    config: MembersConfig,
    of: VectorsOf,
    most: usize,
    seed: u64,
}

/// A micro-batch on the host.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What the model reads; hidden members are 0.
    pub seen: Gathered,
    /// `[b, n]`: the members that are hidden.
    pub hidden: Vec<bool>,
    /// `[b, n, h]`: their vectors, 0 for all others.
    pub targets: Values<f32>,
    /// `[b, h]`: the mean of them.
    pub means: Values<f32>,
    /// `[b]`: 1 where a member is hidden, else 0.
    pub hides: Values<f32>,
    /// W_k.
    pub weights: Vec<f64>,
}

impl Prepared {
    /// Sends what a step reads to `device`, ahead of it; gives how many values.
    pub fn send(&mut self, device: &Device) -> usize {
        let told = [&mut self.targets, &mut self.means, &mut self.hides];
        self.seen.send(device) + told.into_iter().map(|values| values.send(device)).sum::<usize>()
    }
}

impl Members {
    /// Of niches or tissues, for this model.
    pub fn new(config: MembersConfig, of: VectorsOf, model: &SpatiaConfig, seed: u64) -> Members {
        Members { config, of, most: places::most_members(model, of), seed }
    }

    /// Niches or tissues.
    pub fn of(&self) -> VectorsOf {
        self.of
    }

    /// Names of the loss terms, in order.
    pub fn terms(&self) -> &'static [&'static str] {
        &TERMS
    }

    /// λ_k of the loss terms, in order.
    pub fn lambdas(&self) -> Vec<f64> {
        self.config.lambdas().to_vec()
    }

    /// Gathers, draws and hides.
    pub fn prepare(&self, from: &PlaceRows<'_>, at: DrawsAt) -> Prepared {
        let ids = from.rows.iter().map(|&row| from.places.ids[row]);
        let streams: Vec<[u32; 3]> = ids.enumerate().map(|(i, id)| at.stream(i, id)).collect();
        let mut seen = Gathered::of(from, self.most, self.seed, &streams);
        let (b, n, h) = (seen.ids.len(), seen.n, seen.width);
        let key = DrawKey::new(self.seed, Purpose::MemberMask);
        let mut hidden = Vec::with_capacity(b * n);
        for (&length, &stream) in seen.lengths.iter().zip(&streams) {
            hidden.extend(hidden_members(key, stream, length, self.config.hidden));
            hidden.resize(hidden.len() + n - length, false);
        }
        let (mut targets, mut means, mut hides) = (vec![0.0; b * n * h], Vec::with_capacity(b * h), Vec::new());
        for (i, hidden) in hidden.chunks(n).enumerate() {
            let which: Vec<usize> = (0..n).filter(|&at| hidden[at]).collect();
            let mean = |k| which.iter().map(|&at| f64::from(seen.vector(i, at)[k])).sum::<f64>() / which.len() as f64;
            match which.is_empty() {
                true => means.resize(means.len() + h, 0.0),
                false => means.extend((0..h).map(|k| mean(k) as f32)),
            }
            hides.push(f32::from(u8::from(!which.is_empty())));
            for at in which {
                let place = (i * n + at) * h..(i * n + at + 1) * h;
                targets[place.clone()].copy_from_slice(&seen.vectors[place.clone()]);
                seen.vectors[place].fill(0.0);
            }
        }
        let weights = vec![
            hidden.iter().filter(|h| **h).count() as f64,
            hides.iter().map(|&hides| f64::from(hides)).sum::<f64>(),
        ];
        Prepared { seen, hidden, targets: targets.into(), means: means.into(), hides: hides.into(), weights }
    }

    /// What the model makes of a micro-batch.
    pub fn forward(
        &self,
        model: &Model,
        batch: &Prepared,
        training: Option<&Training>,
        device: &Device,
    ) -> ContextOutput {
        places::forward(model, self.of, &batch.seen.input(Some(&batch.hidden), device), training)
    }

    /// The loss terms of a lane.
    pub fn loss(&self, model: &Model, batch: &Prepared, training: &Training, device: &Device) -> Terms {
        let mut terms = Terms::default();
        for values in self.per_place(model, batch, Some(training), device) {
            terms.push(values, &batch.seen.ids);
        }
        terms
    }

    /// The value of each place, `[b]`, of every term: Σ over its hidden members of 1 − cosine, and the same of their mean.
    fn per_place(
        &self,
        model: &Model,
        batch: &Prepared,
        training: Option<&Training>,
        device: &Device,
    ) -> [Tensor<1>; 2] {
        let (b, n, h) = (batch.seen.ids.len(), batch.seen.n, batch.seen.width);
        let out = self.forward(model, batch, training, device);
        let hidden: Vec<f32> = batch.hidden.iter().map(|&hidden| f32::from(u8::from(hidden))).collect();
        let hidden = Tensor::<2>::from_data(TensorData::new(hidden, [b, n]), device);
        let members = distance(out.members, batch.targets.tensor([b, n, h], device)) * hidden;
        let means = batch.means.tensor([b, 1, h], device);
        let summary = distance(out.z.unsqueeze_dim(1), means) * batch.hides.tensor([b, 1], device);
        [members.sum_dim(1).squeeze_dim(1), summary.squeeze_dim(1)]
    }

    /// The weighted terms, each a mean over a place's hidden members, summed over the places that have one; their number.
    pub fn validate(&self, model: &Model, batch: &Prepared, device: &Device) -> (f64, f64) {
        let [members, summary] = self.per_place(model, batch, None, device);
        let values = |of: Tensor<1>| -> Vec<f32> { of.into_data().try_to_vec().expect("losses are f32") };
        let n_hidden = batch.hidden.chunks(batch.seen.n).map(|of| of.iter().filter(|h| **h).count().max(1));
        let each = values(members).into_iter().zip(values(summary)).zip(n_hidden);
        let [of_members, of_summary] = self.config.lambdas();
        let sum = each.map(|((m, s), n)| of_members * f64::from(m) / n as f64 + of_summary * f64::from(s)).sum();
        (sum, batch.weights[1])
    }
}
