//! Completion: hide measured values, predict them from the spot and its neighbours (`spackle.md` §4, §6).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use syncytia_shards::draw::{self, DrawKey, Purpose};
use syncytia_shards::loader::Slot;
use syncytia_shards::manifest::Manifest;
use syncytia_shards::row_group::Columns;

use super::{DrawsAt, Terms};
use crate::model::layers::Training;
use crate::model::spackle::{Spackle, SpackleInput};
use crate::tensor::{Device, Padding, Tensor, TensorData, Values};

mod gene_means;

pub use gene_means::GeneMeans;

/// `[task]` with `kind = "completion"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompletionConfig {
    /// Layer of the shards that is completed: `d_log1p`.
    pub layer: String,
    /// Which measured values are hidden.
    pub mask_rule: MaskRule,
    /// ρ: expected fraction hidden.
    pub rho: f64,
    /// Which entries the loss is taken over.
    pub loss: LossOn,
    /// λ of a second term, the squared error over the centre's visible entries (`loss = "centre_hidden"` only). Default 0: no
    /// such term.
    #[serde(default)]
    pub visible_weight: f64,
    /// Missing entries enter training as 0 instead of their completed value (paper: false).
    pub zero_missing_in_training: bool,
    /// `fixed`: the same mask at every validation; `afresh`: another each time (release).
    pub validation_mask: ValidationMask,
}

/// Which measured values are hidden, per gene with expressed fraction f (`spackle.md` §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskRule {
    /// p = min(1, ρ/f).
    Release,
    /// p = min(1, (1 − f)/f).
    ProbMedian,
    /// p = min(1, 0.8 (1 − f)/f).
    ScaleFactor,
    /// p = ρ, whatever the gene.
    Uniform,
}

/// Which entries the loss is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossOn {
    /// All elements of `[B, n + 1, G]`: hidden and visible, all rows, completed values included (paper).
    All,
    /// The centre's hidden entries.
    CentreHidden,
}

/// Mask of validation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValidationMask {
    /// Assay 0 every time.
    Fixed,
    /// Keyed by the step of the validation.
    Afresh,
}

impl CompletionConfig {
    /// What is wrong with it, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut must = |holds: bool, problem: String| {
            if !holds {
                problems.push(format!("task.{problem}"));
            }
        };
        must(
            ["d_log1p", "c_d_log1p"].contains(&self.layer.as_str()),
            format!("layer = \"{}\": completion learns completed layers, \"d_log1p\" or \"c_d_log1p\"", self.layer),
        );
        must(
            self.rho > 0.0 && self.rho <= 1.0,
            format!("rho = {}: must be above 0 and at most 1, or nothing is hidden", self.rho),
        );
        let (weight, positive) = (self.visible_weight, self.visible_weight > 0.0 && self.visible_weight.is_finite());
        must(
            weight == 0.0 || self.loss == LossOn::CentreHidden && positive,
            format!(
                "visible_weight = {weight}: must be 0, or positive with task.loss = \"centre_hidden\" (\"all\" has the visible \
                 entries already)"
            ),
        );
        problems
    }
}

impl MaskRule {
    /// The probability that a measured value of a gene with expressed fraction `f` is hidden.
    pub fn probability(self, rho: f64, f: f64) -> f64 {
        let p = match self {
            MaskRule::Release => rho / f,
            MaskRule::ProbMedian => (1.0 - f) / f,
            MaskRule::ScaleFactor => 0.8 * (1.0 - f) / f,
            MaskRule::Uniform => rho,
        };
        if p.is_finite() { p.clamp(0.0, 1.0) } else { 1.0 }
    }
}

/// The task with what it learned of the data.
#[derive(Debug, Clone)]
pub struct Completion {
    config: CompletionConfig,
    /// Per gene of the layer.
    probability: Arc<[f64]>,
    seed: u64,
}

/// A micro-batch on the host, ready for the device.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Record ids in slot order.
    pub ids: Vec<u64>,
    /// Spots per neighbourhood.
    pub spots: usize,
    /// Genes.
    pub genes: usize,
    /// `[b, s, G]`, hidden entries 0.
    pub values: Values<f32>,
    /// `[b, s, G]`, 1 where measured and not hidden.
    pub visible: Values<f32>,
    /// `[b, s, G]`.
    pub target: Values<f32>,
    /// `[b, G]`, 1 where the centre's entry is hidden.
    pub scored: Values<f32>,
    /// `[b, G]`: mean of visible values of the record's section.
    pub gene_mean: Values<f32>,
    /// Covariates per spot, E.
    pub n_covariates: usize,
    /// `[b, s, E]`.
    pub covariates: Values<f32>,
    /// `[b, E]`: mean over the record's section.
    pub covariate_mean: Values<f32>,
    /// `[b, s]`, true where a neighbour is padding; `None` when there is no padding.
    pub absent: Option<Padding>,
    /// W_k.
    pub weights: Vec<f64>,
}

impl Completion {
    /// `fractions`: the panel's `glob_exp_frac` per gene of the layer.
    pub fn new(config: CompletionConfig, fractions: &[f64], seed: u64) -> Self {
        let probability = fractions.iter().map(|&f| config.mask_rule.probability(config.rho, f)).collect();
        Self { config, probability, seed }
    }

    /// For the layer's genes of these shards.
    ///
    /// # Errors
    /// In words: there is no such layer.
    pub fn of_shards(config: CompletionConfig, manifest: &Manifest, seed: u64) -> Result<Self, String> {
        if !manifest.layers.contains(&config.layer) {
            return Err(format!(
                "the shards have no layer `{}` (they have {:?}): set task.layer, or shard again",
                config.layer, manifest.layers
            ));
        }
        let fractions: Vec<f64> = manifest.panel.selected_genes().map(|g| g.glob_exp_frac).collect();
        Ok(Self::new(config, &fractions, seed))
    }

    /// What it reads of records.
    pub fn columns(&self) -> Columns {
        Columns { layers: vec![self.config.layer.clone()], covariates: true, ..Columns::default() }
    }

    /// The layer it needs.
    pub fn layer(&self) -> &str {
        &self.config.layer
    }

    /// Assay 0 every time, or one of its own per validation (far above the report's 1–10).
    pub fn validation_assay(&self, global_step: u64) -> u32 {
        match self.config.validation_mask {
            ValidationMask::Fixed => 0,
            ValidationMask::Afresh => 1_000_000 + global_step as u32,
        }
    }

    /// Names of the loss terms, in order.
    pub fn terms(&self) -> &'static [&'static str] {
        if self.has_visible_term() { &["hidden", "visible"] } else { &["mse"] }
    }

    /// λ_k of the loss terms, in order.
    pub fn lambdas(&self) -> Vec<f64> {
        if self.has_visible_term() { vec![1.0, self.config.visible_weight] } else { vec![1.0] }
    }

    fn has_visible_term(&self) -> bool {
        self.config.visible_weight > 0.0
    }

    /// Which genes assay `assay` would hide in record `record_id`, were they measured.
    pub fn assay_mask(&self, assay: u32, record_id: u64, hidden: &mut [bool]) {
        let key = DrawKey::new(self.seed, Purpose::AssayMask);
        draw::assay_bernoulli(key, assay, record_id, &self.probability, hidden);
    }

    /// Gathers neighbourhoods, draws the mask and hides.
    pub fn prepare(&self, slots: &[Slot], at: DrawsAt, means: &GeneMeans) -> Prepared {
        let genes = self.probability.len();
        let spots = 1 + slots[0].group.neighbours.n_cols;
        let n = slots.len() * spots * genes;
        let n_covariates = slots[0].group.covariates.n_cols;
        let mut out = Prepared {
            ids: slots.iter().map(|s| s.group.record_ids[s.row]).collect(),
            spots,
            genes,
            values: Vec::with_capacity(n).into(),
            visible: Vec::with_capacity(n).into(),
            target: Vec::with_capacity(n).into(),
            scored: Vec::with_capacity(slots.len() * genes).into(),
            gene_mean: Vec::with_capacity(slots.len() * genes).into(),
            n_covariates,
            covariates: Vec::with_capacity(slots.len() * spots * n_covariates).into(),
            covariate_mean: Vec::with_capacity(slots.len() * n_covariates).into(),
            absent: None,
            weights: Vec::new(),
        };
        let mut absent = vec![false; slots.len() * spots];
        let mut drawn = vec![false; spots * genes];
        for (i, slot) in slots.iter().enumerate() {
            let group = &slot.group;
            let (layer, neighbours) = (&group.layers[&self.config.layer], group.neighbours.row(slot.row));
            let rows = std::iter::once(slot.row as i32).chain(neighbours.iter().copied());
            if let DrawsAt::Step { global_step, first_slot } = at {
                let key = DrawKey::new(self.seed, Purpose::TrainMask);
                draw::step_bernoulli(key, global_step as u32, (first_slot + i) as u32, &self.probability, &mut drawn);
            }
            for (r, row) in rows.enumerate() {
                if row < 0 {
                    absent[i * spots + r] = true;
                    for buffer in [&mut out.values, &mut out.visible, &mut out.target] {
                        buffer.extend(std::iter::repeat_n(0.0, genes));
                    }
                    out.covariates.extend(std::iter::repeat_n(0.0, n_covariates));
                    continue;
                }
                let row = row as usize;
                let hides = &mut drawn[r * genes..(r + 1) * genes];
                if let DrawsAt::Assay(assay) = at {
                    self.assay_mask(assay, group.record_ids[row], hides);
                }
                let (values, measured) = (layer.row(row), group.measured.row(row));
                out.target.extend_from_slice(values);
                out.covariates.extend_from_slice(group.covariates.row(row));
                for g in 0..genes {
                    let hidden = measured[g] && hides[g];
                    let zeroed = hidden || (self.config.zero_missing_in_training && !measured[g]);
                    out.values.push(if zeroed { 0.0 } else { values[g] });
                    out.visible.push(if measured[g] && !hidden { 1.0 } else { 0.0 });
                    if r == 0 {
                        out.scored.push(if hidden { 1.0 } else { 0.0 });
                    }
                }
            }
            match means.of(group.section) {
                Some(means) => {
                    out.gene_mean.extend_from_slice(&means.genes);
                    out.covariate_mean.extend_from_slice(&means.covariates);
                }
                None => {
                    out.gene_mean.extend(std::iter::repeat_n(0.0, genes));
                    out.covariate_mean.extend(std::iter::repeat_n(0.0, n_covariates));
                }
            }
        }
        let n_absent = absent.iter().filter(|a| **a).count();
        out.weights = vec![match self.config.loss {
            LossOn::All => (n - n_absent * genes) as f64,
            LossOn::CentreHidden => out.scored.iter().map(|&s| f64::from(s)).sum(),
        }];
        if self.has_visible_term() {
            out.weights.push(out.visible_at_centre().map(f64::from).sum());
        }
        out.absent = Padding::of(absent, [slots.len(), spots]);
        out
    }

    /// The loss terms of a lane.
    pub fn loss(&self, model: &Spackle, batch: &Prepared, training: &Training, device: &Device) -> Terms {
        let (b, s, g) = (batch.ids.len(), batch.spots, batch.genes);
        let prediction = model.forward(&batch.input(device), Some(training));
        let rows = prediction.dims()[1];
        let tensor = |values: Vec<f32>, shape| Tensor::<3>::from_data(TensorData::new(values, shape), device);
        let target = match rows == s {
            true => batch.target.tensor([b, s, g], device),
            false => tensor(take_rows(&batch.target, s * g, rows * g), [b, rows, g]),
        };
        let weight = match (self.config.loss, &batch.absent) {
            (LossOn::All, None) => None,
            (LossOn::All, Some(absent)) => {
                let present =
                    absent.flags().chunks(s).flat_map(|a| a[..rows].iter()).map(|&a| f32::from(u8::from(!a))).collect();
                Some(tensor(present, [b, rows, 1]))
            }
            (LossOn::CentreHidden, _) => Some(batch.scored.tensor([b, 1, g], device)),
        };
        let prediction = match self.config.loss {
            LossOn::All => prediction,
            LossOn::CentreHidden => prediction.narrow(1, 0, 1),
        };
        let target = match self.config.loss {
            LossOn::All => target,
            LossOn::CentreHidden => target.narrow(1, 0, 1),
        };
        let error = prediction - target;
        let squared = error.clone() * error;
        let mut over = vec![match weight {
            Some(weight) => squared.clone() * weight,
            None => squared.clone(),
        }];
        if self.has_visible_term() {
            over.push(squared * tensor(batch.visible_at_centre().collect(), [b, 1, g]));
        }
        let mut terms = Terms::default();
        for squared in over {
            // Per row, then per record: a full sum over ≥ 4 Mi elements would depend on the kernel threads.
            let per_record = squared.sum_dim(2).sum_dim(1).reshape([b]);
            terms.push(per_record, &batch.ids);
        }
        terms
    }

    /// Squared error over the centre's hidden entries, and their number: what selects the model.
    pub fn validate(&self, model: &Spackle, batch: &Prepared, device: &Device) -> (f64, f64) {
        let (s, g) = (batch.spots, batch.genes);
        let prediction = centre(model.forward(&batch.input(device), None));
        let (mut sum, mut n) = (0.0, 0.0);
        for (i, row) in prediction.chunks(g).enumerate() {
            let target = &batch.target[i * s * g..][..g];
            for (k, &scored) in batch.scored[i * g..(i + 1) * g].iter().enumerate() {
                if scored != 0.0 {
                    sum += (f64::from(row[k]) - f64::from(target[k])).powi(2);
                    n += 1.0;
                }
            }
        }
        (sum, n)
    }
}

impl Prepared {
    /// 1 where the centre's entry is visible, `[b, G]` flat.
    fn visible_at_centre(&self) -> impl Iterator<Item = f32> {
        self.visible.chunks(self.spots * self.genes).flat_map(|record| record[..self.genes].iter().copied())
    }

    /// The model's input on `device`.
    pub fn input(&self, device: &Device) -> SpackleInput {
        let (b, s, g) = (self.ids.len(), self.spots, self.genes);
        let e = self.n_covariates;
        let covariates =
            (e > 0).then(|| (self.covariates.tensor([b, s, e], device), self.covariate_mean.tensor([b, e], device)));
        SpackleInput {
            covariates,
            values: self.values.tensor([b, s, g], device),
            visible: self.visible.tensor([b, s, g], device),
            gene_mean: self.gene_mean.tensor([b, g], device),
            absent: self.absent.clone(),
        }
    }

    /// Sends what a step reads to `device`, ahead of it; gives how many values.
    pub fn send(&mut self, device: &Device) -> usize {
        let rows = [&mut self.values, &mut self.visible, &mut self.target, &mut self.scored];
        let means = [&mut self.gene_mean, &mut self.covariates, &mut self.covariate_mean];
        rows.into_iter().chain(means).map(|values| values.send(device)).sum()
    }
}

/// Row 0 of every neighbourhood, `[b, G]` flat.
pub fn centre(prediction: Tensor<3>) -> Vec<f32> {
    prediction.narrow(1, 0, 1).into_data().try_to_vec().expect("predictions are f32")
}

/// The first `take` of every `row` elements.
fn take_rows(values: &[f32], row: usize, take: usize) -> Vec<f32> {
    if row == take { values.to_vec() } else { values.chunks(row).flat_map(|r| &r[..take]).copied().collect() }
}
