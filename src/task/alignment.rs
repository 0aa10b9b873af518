//! Alignment, SpotDiff's stage 1: the cells paired with a spot, moved by ω, are to look like what is visible of the spot
//! (`spotdiff.md` §3).
//!
//! Losses are on y = ω(x̄) over a lane's spots: values, correlation of genes, and near spots alike, far ones apart. Draws:
//! a near and a far spot by (slot, global_step) in training, by (record id, assay) in validation.

use serde::{Deserialize, Serialize};
use syncytia_shards::draw::{DrawKey, Purpose};
use syncytia_shards::matrix::Matrix;

use super::losses::gene_correlation::one_minus_correlation;
use super::losses::locality::{Apart, LocForm, locality};
use super::losses::positive_or_zero;
use super::paired::Paired;
use super::{DrawsAt, Terms};
use crate::model::layers::Training;
use crate::model::spotdiff::Spotdiff;
use crate::model::spotdiff::omega::Omega;
use crate::tensor::{Device, Tensor, TensorData, Values};

/// `[task]` with `kind = "alignment"`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlignmentConfig {
    /// λ of 1 − correlation of genes. Default .1.
    pub lambda_pea: f64,
    /// λ of locality. Default .5.
    pub lambda_loc: f64,
    /// Which formula of locality. Default `ours`.
    pub loc_form: LocForm,
    /// m: far spots are pushed apart up to this mean squared difference of a gene. Default .1.
    pub margin: f64,
}

impl Default for AlignmentConfig {
    fn default() -> Self {
        Self { lambda_pea: 0.1, lambda_loc: 0.5, loc_form: LocForm::Ours, margin: 0.1 }
    }
}

/// Names of the terms.
const TERMS: [&str; 3] = ["value", "correlation", "locality"];

/// Near spots among which one is drawn.
const NEAR: usize = 6;

/// Draws until a far spot is found; the farthest of so many, where none is far enough.
const TRIES: usize = 32;

/// Rows of a forward outside of training.
const ROWS: usize = 256;

/// The task.
#[derive(Debug, Clone)]
pub struct Alignment {
    config: AlignmentConfig,
    seed: u64,
}

/// A micro-batch on the host.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Record ids in slot order.
    pub ids: Vec<u64>,
    /// x̄ of the spots, of a near one of each, of a far one of each, `[3b, G]`.
    pub means: Values<f32>,
    /// What is visible of the spots, `[b, G]`, else 0.
    pub values: Values<f32>,
    /// `[b, G]`: whether visible.
    pub bits: Vec<bool>,
    /// Distances of near and far ones over σ.
    pub apart: Apart,
    /// W_k.
    pub weights: Vec<f64>,
    /// `[G]`: genes that a spot may show.
    shown: Vec<bool>,
    genes: usize,
}

impl Prepared {
    /// Sends what a step reads to `device`, ahead of it; gives how many values.
    pub fn send(&mut self, device: &Device) -> usize {
        self.means.send(device) + self.values.send(device)
    }
}

impl AlignmentConfig {
    /// What is wrong with it, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let all = [("lambda_pea", self.lambda_pea), ("lambda_loc", self.lambda_loc), ("margin", self.margin)];
        all.into_iter().filter_map(|(key, value)| positive_or_zero(key, value)).collect()
    }
}

impl Alignment {
    /// With its draws keyed by `seed`.
    pub fn new(config: AlignmentConfig, seed: u64) -> Self {
        Self { config, seed }
    }

    /// Names of the loss terms, in order.
    pub fn terms(&self) -> &'static [&'static str] {
        &TERMS
    }

    /// λ_k of the loss terms, in order.
    pub fn lambdas(&self) -> Vec<f64> {
        vec![1.0, self.config.lambda_pea, self.config.lambda_loc]
    }

    /// Gathers spots, and draws a near and a far one of each.
    pub fn prepare(&self, paired: &Paired, rows: &[usize], at: DrawsAt) -> Prepared {
        let spots = &paired.spots;
        let ids: Vec<u64> = rows.iter().map(|&row| spots.ids[row]).collect();
        let key = DrawKey::new(self.seed, Purpose::NearAndFar);
        let others = |(i, (&row, &id)): (usize, (&usize, &u64))| near_and_far(paired, row, key, at.stream(i, id));
        let (near, far): (Vec<usize>, Vec<usize>) = rows.iter().zip(&ids).enumerate().map(others).unzip();
        let sigma = if paired.near_distance > 0.0 { paired.near_distance } else { 1.0 };
        let apart = |others: &[usize]| rows.iter().zip(others).map(|(&a, &b)| paired.distance(a, b) / sigma).collect();
        let of = |rows: &[usize], matrix: &Matrix<f32>| -> Vec<f32> {
            rows.iter().flat_map(|&row| matrix.row(row)).copied().collect()
        };
        let bits: Vec<bool> = rows.iter().flat_map(|&row| spots.bits.row(row)).copied().collect();
        let visible = bits.iter().filter(|bit| **bit).count() as f64;
        Prepared {
            means: [rows, &near, &far].into_iter().flat_map(|rows| of(rows, &spots.pair)).collect(),
            values: of(rows, &spots.values).into(),
            apart: Apart { near: apart(&near), far: apart(&far) },
            weights: vec![visible, 1.0, rows.len() as f64],
            shown: paired.folded.iter().map(|folded| !folded).collect(),
            genes: paired.genes(),
            bits,
            ids,
        }
    }

    /// The loss terms of a lane.
    pub fn loss(&self, model: &Spotdiff, batch: &Prepared, training: &Training, device: &Device) -> Terms {
        let b = batch.ids.len();
        let means = batch.means.tensor([3 * b, batch.genes], device);
        let all = model.omega.forward(means, Some(&training.with_rows_per_slot(3)));
        let part = |i: usize| all.clone().narrow(0, i * b, b);
        let mut terms = Terms::default();
        terms.push(squared_errors(part(0), batch, device), &batch.ids);
        terms.push(one_minus_correlation(part(0), &batch.values, &batch.bits), &batch.ids);
        let config = &self.config;
        let parts = [part(0), part(1), part(2)];
        terms.push(locality(config.loc_form, parts, &batch.shown, &batch.apart, config.margin), &batch.ids);
        terms
    }

    /// Squared errors of the visible entries, and their number.
    pub fn validate(&self, model: &Spotdiff, batch: &Prepared, device: &Device) -> (f64, f64) {
        let means = tensor(&batch.means[..batch.ids.len() * batch.genes], batch.genes, device);
        let errors = squared_errors(model.omega.forward(means, None), batch, device);
        let errors: Vec<f32> = errors.into_data().try_to_vec().expect("f32");
        (errors.iter().map(|&e| f64::from(e)).sum(), batch.weights[0])
    }
}

/// Cells `[n, G]` as the spatial domain would show them.
pub fn moved(omega: &Omega, cells: &Matrix<f32>, device: &Device) -> Matrix<f32> {
    let forward = |rows: &[f32]| -> Vec<f32> {
        omega.forward(tensor(rows, cells.n_cols, device), None).into_data().try_to_vec().expect("f32")
    };
    let values = cells.values.chunks(ROWS * cells.n_cols.max(1)).flat_map(forward).collect();
    Matrix { n_cols: cells.n_cols, values }
}

/// A spot among the nearest of `row`, and one farther than two spots mostly are.
fn near_and_far(paired: &Paired, row: usize, key: DrawKey, stream: [u32; 3]) -> (usize, usize) {
    let below = |n: usize, element: u32| ((u64::from(key.word(element, stream)) * n as u64) >> 32) as usize;
    let near = &paired.spots.near[row];
    let near = match near.len().min(NEAR) {
        0 => row,
        n => near[below(n, 0)] as usize,
    };
    let mut farthest = (row, 0.0);
    for element in 1..=TRIES as u32 {
        let other = below(paired.spots.n(), element);
        let away = paired.distance(row, other);
        if away > farthest.1 {
            farthest = (other, away);
        }
        if away > paired.far_distance {
            break;
        }
    }
    (near, farthest.0)
}

/// `[b]`: squared errors summed over what is visible.
fn squared_errors(y: Tensor<2>, batch: &Prepared, device: &Device) -> Tensor<1> {
    let seen: Vec<f32> = batch.bits.iter().map(|&bit| f32::from(u8::from(bit))).collect();
    let values = batch.values.tensor([batch.ids.len(), batch.genes], device);
    let off = (y - values) * tensor(&seen, batch.genes, device);
    (off.clone() * off).sum_dim(1).squeeze_dim(1)
}

fn tensor(values: &[f32], genes: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len() / genes, genes]), device)
}

#[cfg(test)]
mod tests {
    use super::super::paired::tests::wave;
    use super::*;
    use crate::model::spotdiff::tests::tiny;
    use crate::tensor::cpu;

    const AT: DrawsAt = DrawsAt::Step { global_step: 3, first_slot: 8 };

    #[test]
    fn near_spots_are_near_far_ones_far_and_no_cut_changes_them() {
        let (paired, task) = (wave(30, 0, 6, &[2]), Alignment::new(AlignmentConfig::default(), 1));
        let rows: Vec<usize> = (0..30).collect();
        let batch = task.prepare(&paired, &rows, AT);
        assert!((paired.near_distance - 1.0).abs() < 1e-9);
        assert!(batch.apart.far.iter().all(|&d| d > paired.far_distance), "{:?}", batch.apart.far);
        let later = task.prepare(&paired, &rows[10..], DrawsAt::Step { global_step: 3, first_slot: 18 });
        assert_eq!(later.apart.far, batch.apart.far[10..]);
        assert_eq!(batch.weights, [30.0 * 5.0, 1.0, 30.0]);
    }

    #[test]
    fn hidden_genes_of_spots_say_nothing_and_omega_learns() {
        let device = cpu().autodiff();
        let (paired, task) = (wave(12, 0, 6, &[2]), Alignment::new(AlignmentConfig::default(), 1));
        let model = Spotdiff::new(&tiny(), 6, 1, &device);
        let batch = task.prepare(&paired, &(0..12).collect::<Vec<_>>(), AT);
        let terms = task.loss(&model, &batch, &Training::new(1, 3, 8), &device);
        let (values, _) = terms.values.read();
        let [value, correlation, locality] = values[..] else { panic!("three terms: {values:?}") };
        assert!(value > 0.0 && locality > 0.0, "{values:?}");
        assert!(correlation.abs() < 1e-5, "the pairs are a line of the values: {correlation}");
        let gradients = terms.sums[0].clone().backward();
        let of = model.omega.last.weight.val().grad(&gradients).unwrap();
        let of: Vec<f32> = of.into_data().try_to_vec().unwrap();
        let width = of.len() / 6;
        assert!(of[2 * width..3 * width].iter().all(|g| *g == 0.0), "a hidden gene got a gradient");
        assert!(of[..width].iter().any(|g| *g != 0.0));
        // nor by locality, which looks at spots that are not asked about
        let (spread, again) =
            (wave(12, 0, 6, &[2]), Alignment::new(AlignmentConfig { margin: 9.0, ..Default::default() }, 1));
        let batch = again.prepare(&spread, &(0..12).collect::<Vec<_>>(), AT);
        let terms = again.loss(&model, &batch, &Training::new(1, 3, 8), &device);
        let gradients = terms.sums[2].clone().backward();
        let of: Vec<f32> = model.omega.last.weight.val().grad(&gradients).unwrap().into_data().try_to_vec().unwrap();
        assert!(of[2 * width..3 * width].iter().all(|g| *g == 0.0), "locality moves a hidden gene");
        assert!(of[..width].iter().any(|g| *g != 0.0));
    }
}
