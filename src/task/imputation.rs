//! Imputation, SpotDiff's stage 2: what of a spot's or a cell's genes is noise (`spotdiff.md` §4, §5).
//!
//! Where genes are hidden (a fold), a cell joins every spot: the only place where a hidden gene has a truth. Its visible
//! entries are the fold's visible genes less a train mask, its loss is on all others. Spots hide a train mask of what is
//! visible and have no loss on the fold's genes, or, without any weight, no part in a step. Where entries are hidden, spots
//! are alone. What a test hides is nowhere in here.
//!
//! Draws (`docs/step.md` §3), keyed by (slot, global_step) with site 0 for spots and 1 for cells in training, by (record id,
//! assay) in validation, where every time is the last: masks, times, noise, and which cell joins.

mod readings;
mod rows;

use serde::{Deserialize, Serialize};
use syncytia_shards::draw::{self, DrawKey, Purpose};
use syncytia_shards::holdout::Protocol;
use syncytia_shards::manifest::Manifest;
use syncytia_shards::processed::Split;

pub use self::readings::{ROWS, Readings, smoothed};
pub use self::rows::{Rows, Text};
use super::paired::{Paired, Side};
use super::{DrawsAt, Terms};
use crate::model::layers::Training;
use crate::model::spotdiff::prompt::{Encoder, PromptConfig, Said, bucket, named};
use crate::model::spotdiff::psi::Known;
use crate::model::spotdiff::sampler::{Process, Readout, Solver};
use crate::model::spotdiff::schedule::{Parametrisation, Schedule};
use crate::model::spotdiff::{Spotdiff, SpotdiffConfig};
use crate::tensor::{Device, Tensor, Values};

/// `[task]` with `kind = "imputation"`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImputationConfig {
    /// T. Default 1000.
    pub steps: usize,
    /// What the network says. Default `preconditioned`.
    pub parametrisation: Parametrisation,
    /// Size of the values (root mean square) that preconditioning reckons with. Default 1/3, that of standardised values; with the scale
    /// `maximum` it is near 1, where most values are 0.
    pub signal: f64,
    /// Share of the visible genes that a step hides. Default .3. With 0 cells are asked for the fold's genes alone.
    pub train_mask: f64,
    /// Weight of spots beside cells, where cells join. Default .5. With 0 the cells are trained on alone.
    pub spot_share: f64,
    /// Share of the times that are the last, T − 1, which is all that `one_step` reads; the others are uniform on
    /// 1 … T − 1. Default .5.
    pub last_time_share: f64,
    /// What is read out. Default `{ one_step = 4 }`.
    pub readout: Readout,
    /// How samples are made. Default `{ ddim = 50 }`.
    pub solver: Solver,
}

impl Default for ImputationConfig {
    fn default() -> Self {
        Self {
            steps: 1000,
            parametrisation: Parametrisation::Preconditioned,
            signal: 1.0 / 3.0,
            train_mask: 0.3,
            spot_share: 0.5,
            last_time_share: 0.5,
            readout: Readout::OneStep(4),
            solver: Solver::Ddim(50),
        }
    }
}

const NO_CELLS: &str = "a fold hides genes of every spot, and there are no cells to learn them from: shard with --reference, or \
                        with --set data.holdout=entries";

/// Names of the terms.
const TERMS: [&str; 2] = ["spots", "cells"];

/// The task with what it knows of model and data.
#[derive(Debug, Clone)]
pub struct Imputation {
    config: ImputationConfig,
    process: Process,
    /// How prompts are made, where they condition.
    prompt: Option<PromptConfig>,
    joins: bool,
    /// Whether samples are drawn for the spread alone.
    spread: bool,
    seed: u64,
}

/// A micro-batch on the host.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Record ids in slot order.
    pub ids: Vec<u64>,
    /// Spots in slot order, then the cells that join them; cells alone where spots have no weight.
    pub rows: Rows,
    /// Rows that are spots.
    n_spots: usize,
    /// W_k: entries that are asked for.
    pub weights: Vec<f64>,
}

impl ImputationConfig {
    /// What is wrong with it, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !(2..=1 << 15).contains(&self.steps) {
            problems.push(format!("task.steps = {}: must be 2 to 32768", self.steps));
        }
        let shares = [
            ("train_mask", self.train_mask),
            ("spot_share", self.spot_share),
            ("last_time_share", self.last_time_share),
        ];
        for (key, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                problems.push(format!("task.{key} = {share}: must be in [0, 1]"));
            }
        }
        if !(self.signal > 0.0 && self.signal.is_finite()) {
            problems.push(format!("task.signal = {}: must be above 0", self.signal));
        }
        if self.train_mask == 0.0 && self.spot_share > 0.0 {
            problems.push(format!(
                "task.train_mask = 0 asks spots for nothing, and task.spot_share = {} gives them a weight: set it to 0",
                self.spot_share
            ));
        }
        let named = [self.readout.problem(), self.solver.problem(self.steps)];
        problems.extend(named.into_iter().flatten().map(|p| format!("task.{p}")));
        problems
    }

    /// The noise process, draws keyed by `seed`.
    pub fn process(&self, seed: u64) -> Process {
        Process { schedule: Schedule::cosine(self.steps, self.signal), parametrisation: self.parametrisation, seed }
    }
}

impl Imputation {
    /// For this model; `joins`: whether cells join, as where a fold hides genes and there is a reference.
    pub fn new(config: ImputationConfig, model: &SpotdiffConfig, joins: bool, seed: u64) -> Self {
        let prompt = model.psi.use_text.then_some(model.prompt);
        Self { config, process: config.process(seed), prompt, joins, spread: true, seed }
    }

    /// Without the samples that only the spread is made of: what it reads out has spread 0 then.
    #[must_use]
    pub fn without_spread(self) -> Self {
        Self { spread: false, ..self }
    }

    /// For this model on these shards: cells join where genes are hidden.
    ///
    /// # Errors
    /// In words: genes are hidden and there are no cells to learn them from; nothing would be asked for.
    pub fn of_shards(
        config: ImputationConfig,
        model: &SpotdiffConfig,
        manifest: &Manifest,
        seed: u64,
    ) -> Result<Self, String> {
        let folds = manifest.protocol() == Protocol::GeneFolds;
        let has_cells = manifest.holdout.as_ref().is_some_and(|holdout| holdout.reference.is_some());
        if folds && !has_cells {
            return Err(NO_CELLS.to_owned());
        }
        if config.train_mask == 0.0 && !folds {
            return Err(
                "task.train_mask = 0 learns from the genes that a fold hides, and these shards hide none: shard with \
                        --set data.holdout=gene_folds, or set a share"
                    .to_owned(),
            );
        }
        if config.train_mask == 0.0 && manifest.n_records(Split::Val) > 0 {
            return Err(
                "task.train_mask = 0 asks spots for nothing, so the shards' val split can select no checkpoint: shard \
                        without one, or set a share"
                    .to_owned(),
            );
        }
        if !has_cells && model.psi.use_rna {
            return Err(
                "the shards have no reference, and model.spotdiff.psi reads one: shard with --reference, or set \
                        model.spotdiff.psi.use_rna = false"
                    .to_owned(),
            );
        }
        Ok(Self::new(config, model, folds, seed))
    }

    /// For this model on these spots and cells.
    ///
    /// # Errors
    /// In words: genes are hidden and there are no cells to learn them from; prompts that no encoder has read.
    pub fn of_paired(
        config: ImputationConfig,
        model: &SpotdiffConfig,
        paired: &Paired,
        seed: u64,
    ) -> Result<Self, String> {
        if paired.is_fold() && paired.cells.is_none() {
            return Err(NO_CELLS.to_owned());
        }
        if model.psi.neighbours && paired.spots.around.is_none() {
            return Err(
                "model.spotdiff.psi.neighbours = true reads what neighbours show, and the spots come without it"
                    .to_owned(),
            );
        }
        let read = |side: &Side| side.text.as_ref().map(|text| text.n_cols);
        let cells = paired.cells.as_ref().filter(|_| paired.is_fold());
        if model.psi.use_text && model.prompt.encoder == Encoder::T5 {
            let widths = [read(&paired.spots), paired.gene_text.as_ref().map(|text| text.n_cols)];
            let widths = widths.into_iter().chain(cells.map(read));
            let width = model.prompt.width;
            if let Some(found) = widths.into_iter().find(|w| *w != Some(width)) {
                let found = found.map_or("none are there".to_owned(), |found| format!("those there have {found}"));
                return Err(format!(
                    "model.spotdiff.prompt.encoder = \"t5\" needs vectors of {width} values of every prompt and of every \
                     gene's name, {found}: give the folder of a T5, or set encoder = \"hash\""
                ));
            }
        }
        Ok(Self::new(config, model, cells.is_some(), seed))
    }

    /// Names of the loss terms, in order.
    pub fn terms(&self) -> &'static [&'static str] {
        &TERMS
    }

    /// λ_k of the loss terms, in order.
    pub fn lambdas(&self) -> Vec<f64> {
        let share = if self.joins { self.config.spot_share } else { 1.0 };
        vec![share, 1.0 - share]
    }

    /// Gathers spots, draws the cells that join them, hides, and adds noise.
    pub fn prepare(&self, paired: &Paired, rows: &[usize], at: DrawsAt) -> Prepared {
        let spots = &paired.spots;
        let ids: Vec<u64> = rows.iter().map(|&row| spots.ids[row]).collect();
        let mut out = Rows { genes: paired.genes(), ..Rows::default() };
        let masked = |stream| self.masked(paired.genes(), stream, at);
        let cells = paired.cells.as_ref().filter(|_| self.joins && matches!(at, DrawsAt::Step { .. }));
        let take_part = cells.is_none() || self.config.spot_share > 0.0;
        for (i, (&row, &id)) in rows.iter().zip(&ids).enumerate().filter(|_| take_part) {
            let stream = at.stream(i, id);
            let masked = masked(stream);
            let visible: Vec<bool> = spots.bits.row(row).iter().zip(&masked).map(|(&bit, &m)| bit && !m).collect();
            let asked: Vec<bool> = spots.bits.row(row).iter().zip(&masked).map(|(&bit, &m)| bit && m).collect();
            self.push(&mut out, paired, (spots, row), (&visible, &asked), self.time(stream, at), stream);
        }
        let (n_spots, of_spots) = (out.n, out.n_asked());
        if let Some(cells) = cells {
            for (i, &id) in ids.iter().enumerate() {
                let [slot, step, _] = at.stream(i, id);
                let stream = [slot, step, 1];
                let word = DrawKey::new(self.seed, Purpose::JoiningCell).word(0, stream);
                let cell = ((u64::from(word) * cells.n() as u64) >> 32) as usize;
                let masked = masked(stream);
                let visible: Vec<bool> = paired.folded.iter().zip(&masked).map(|(&folded, &m)| !folded && !m).collect();
                let asked: Vec<bool> = visible.iter().map(|v| !v).collect();
                self.push(&mut out, paired, (cells, cell), (&visible, &asked), self.time(stream, at), stream);
            }
        }
        if let Some(text) = paired.gene_text.as_ref().filter(|_| self.reads_text()) {
            out.text.of_genes = text.values.clone().into();
        }
        let weights = vec![of_spots, out.n_asked() - of_spots];
        Prepared { ids, rows: out, n_spots, weights }
    }

    /// Which genes the train mask takes, visible or not.
    fn masked(&self, genes: usize, stream: [u32; 3], at: DrawsAt) -> Vec<bool> {
        let purpose = match at {
            DrawsAt::Step { .. } => Purpose::TrainMask,
            DrawsAt::Assay(_) => Purpose::AssayMask,
        };
        let mut out = vec![false; genes];
        let p = self.config.train_mask;
        DrawKey::new(self.seed, purpose).for_each(genes, stream, |gene, word| out[gene] = draw::bernoulli(word, p));
        out
    }

    fn time(&self, stream: [u32; 3], at: DrawsAt) -> usize {
        let last = self.config.steps - 1;
        let [which, is_last, ..] =
            DrawKey::new(self.seed, Purpose::Timestep).block([0, stream[0], stream[1], stream[2]]);
        match at {
            DrawsAt::Assay(_) => last,
            DrawsAt::Step { .. } if draw::bernoulli(is_last, self.config.last_time_share) => last,
            DrawsAt::Step { .. } => 1 + ((u64::from(which) * last as u64) >> 32) as usize,
        }
    }

    /// A row that shows `visible` and is asked for `asked` at time `t`.
    fn push(
        &self,
        out: &mut Rows,
        paired: &Paired,
        (side, row): (&Side, usize),
        (visible, asked): (&[bool], &[bool]),
        t: usize,
        stream: [u32; 3],
    ) {
        let values = side.values.row(row);
        let mut noise = vec![0.0; values.len()];
        draw::normals(DrawKey::new(self.seed, Purpose::Noise), stream, &mut noise);
        let reads = self.process.schedule.reads(self.process.parametrisation, t);
        let (noisy, target) =
            (self.process.schedule.noisy(t), self.process.schedule.target(self.process.parametrisation, t));
        for gene in 0..values.len() {
            let (x0, eps) = (f64::from(values[gene]), f64::from(noise[gene]));
            let shown = if visible[gene] { values[gene] } else { 0.0 };
            out.visible.push(shown);
            out.bits.push(f32::from(u8::from(visible[gene])));
            out.asked.push(f32::from(u8::from(asked[gene])));
            out.noisy.push(if asked[gene] { (reads * noisy.of(x0, eps)) as f32 } else { shown });
            out.target.push(if asked[gene] { target.of(x0, eps) as f32 } else { 0.0 });
        }
        out.pair.extend_from_slice(side.pair.row(row));
        if let Some(around) = &side.around {
            out.around.extend_from_slice(around.row(row));
        }
        out.times.push(t);
        out.n += 1;
        self.push_text(&mut out.text, side, row, visible);
        debug_assert_eq!(paired.genes(), values.len());
    }

    fn reads_text(&self) -> bool {
        self.prompt.is_some_and(|prompt| prompt.encoder == Encoder::T5)
    }

    fn push_text(&self, out: &mut Text, side: &Side, row: usize, visible: &[bool]) {
        let Some(prompt) = &self.prompt else { return };
        if prompt.encoder == Encoder::T5 {
            out.encoded.extend_from_slice(side.text.as_ref().expect("checked when the task was made").row(row));
            return;
        }
        let (most, least) = named(side.expression.row(row), visible, prompt.most, prompt.least);
        let genes: Vec<u32> = most.into_iter().chain(least).collect();
        let missing = prompt.most + prompt.least - genes.len();
        out.buckets.extend(genes.iter().map(|&g| bucket(side.values.row(row)[g as usize])));
        out.absent.extend(genes.iter().map(|_| false));
        out.genes.extend(genes);
        out.genes.extend(std::iter::repeat_n(0, missing));
        out.buckets.extend(std::iter::repeat_n(0, missing));
        out.absent.extend(std::iter::repeat_n(true, missing));
    }

    /// What is known of the rows, on the device.
    fn known(&self, model: &Spotdiff, rows: &Rows, training: Option<&Training>, device: &Device) -> Known {
        let tensor = |values: &Values<f32>| values.tensor([rows.n, rows.genes], device);
        let said = self.prompt.map(|prompt| match prompt.encoder {
            Encoder::Hash => Said::Named {
                genes: rows.text.genes.clone(),
                buckets: rows.text.buckets.clone(),
                absent: rows.text.absent.clone(),
                n: prompt.most + prompt.least,
            },
            Encoder::T5 => {
                let of = |values: &Values<f32>| values.tensor([values.len() / prompt.width, prompt.width], device);
                Said::Encoded { spots: of(&rows.text.encoded), genes: of(&rows.text.of_genes) }
            }
        });
        let text = said.zip(model.prompt.as_ref()).map(|(said, prompt)| prompt.forward(&said, training));
        let around =
            (!rows.around.is_empty()).then(|| rows.around.tensor([rows.n, rows.around.len() / rows.n], device));
        Known { visible: tensor(&rows.visible), bits: tensor(&rows.bits), pair: tensor(&rows.pair), around, text }
    }

    /// `[n]`: squared errors of each row, summed over what is asked for.
    fn errors(&self, model: &Spotdiff, rows: &Rows, training: Option<&Training>, device: &Device) -> Tensor<1> {
        let known = self.known(model, rows, training, device);
        let shape = [rows.n, rows.genes];
        let noisy = rows.noisy.tensor(shape, device);
        let times = self.process.times(&rows.times);
        let said = model.psi.forward(noisy, &known, &times, training);
        let off = (said - rows.target.tensor(shape, device)) * rows.asked.tensor(shape, device);
        (off.clone() * off).sum_dim(1).squeeze_dim(1)
    }

    /// The loss terms of a lane.
    pub fn loss(&self, model: &Spotdiff, batch: &Prepared, training: &Training, device: &Device) -> Terms {
        let b = batch.ids.len();
        let errors = self.errors(model, &batch.rows, Some(&training.with_rows_per_slot(2)), device);
        let part = |from: usize, to: usize| match to - from {
            0 => Tensor::zeros([b], device),
            n => errors.clone().narrow(0, from, n),
        };
        let mut terms = Terms::default();
        terms.push(part(0, batch.n_spots), &batch.ids);
        terms.push(part(batch.n_spots, batch.rows.n), &batch.ids);
        terms
    }

    /// Squared errors of what an assay hides of the visible entries, at the last time, and their number.
    pub fn validate(&self, model: &Spotdiff, batch: &Prepared, device: &Device) -> (f64, f64) {
        let errors: Vec<f32> = self.errors(model, &batch.rows, None, device).into_data().try_to_vec().expect("f32");
        (errors.iter().map(|&e| f64::from(e)).sum(), batch.weights[0])
    }
}

#[cfg(test)]
mod tests;
