//! A config's first step on a device: its terms, its gradient, its time. Two devices are held against each other by it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use syncytia_shards::draw;
use syncytia_shards::reader::Shards;

use super::config::TrainConfig;
use super::error::TrainError;
use super::ready::Ready;
use super::step::{LaneBatch, StepRunner};
use super::step_state::StepState;
use crate::engine::ThreadsEngine;
use crate::model::params::ParamSpec;
use crate::tensor::Device;

/// What the first step said, and what it took again and again.
#[derive(Debug, Clone)]
pub struct Said {
    /// The loss terms by name.
    pub terms: Vec<(&'static str, f64)>,
    /// The gradient of each parameter that trains, by its path.
    pub gradients: Vec<OfParameter>,
    /// Seconds of each step after the first.
    pub seconds: Vec<f64>,
    /// Values of its batches that were on the device before the step began.
    pub sent_ahead: usize,
}

/// A parameter's path and its gradient.
pub type OfParameter = (String, Vec<f32>);

/// How far two devices are from each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Of the terms, relative: the worst.
    pub terms: f64,
    /// Of the gradients, over the largest of the parameter's own: the worst.
    pub gradients: f64,
    /// The parameter it is of.
    pub parameter: String,
}

/// The first step on `device` and `more` after it on the same batch, on one rank and without clipping. Parameters are moved off
/// their start, where some are zero and say nothing, to one of many `point`s: at a kink of ReLU, where a value is nothing but
/// rounding, two right devices have different gradients, and they are hardly at one twice. `ahead`: the batches are sent to the device before the step, as the trainer
/// does for a GPU.
///
/// # Errors
/// As [`Ready::with_vectors`] and a step.
pub fn step_on(
    config: &TrainConfig,
    shards: &Arc<Shards>,
    vectors: &[PathBuf],
    (device, ahead): (&Device, bool),
    more: usize,
    point: u64,
) -> Result<Said, TrainError> {
    let mut config = config.clone();
    config.optim.clip_norm = None;
    let ready = Ready::with_vectors(&config, shards, vectors)?.on(device);
    let mut flat = ready.model.to_flat();
    let moves = draw::init_normals(1 + point, "moved", flat.len());
    flat.iter_mut().zip(moves).for_each(|(value, by)| *value += 0.02 * by);
    let batch = |lane| ready.train.batch(&ready.task, &config, 0, lane);
    let mut batches = (0..config.train.lanes).map(batch).collect::<Result<Vec<LaneBatch>, _>>()?;
    let sent_ahead = match ahead {
        true => batches.iter_mut().map(|of_lane| of_lane.batch.send(&ready.device)).sum(),
        false => 0,
    };
    let terms = batches[0].batch.weights().len();
    let weights: Vec<f64> = (0..terms).map(|k| batches.iter().map(|b| b.batch.weights()[k]).sum()).collect();
    let next = vec![vec![0.0; terms]; batches.len()];
    let (trained, frozen) = ready.parts.split(&flat);
    let mut model = Some(ready.parts.model(&ready.model, &trained, &frozen, &ready.device));
    let mut state = StepState::new(trained, ready.parts.trained.len(), false);
    let mut runner = StepRunner::new(&config, &ready.task, &ready.parts.tensors, false, &ready.device);
    runner.keep_gradient();
    let mut engine = ThreadsEngine::group(1, Duration::from_secs(600)).remove(0);
    let said = runner.run(&mut engine, &mut model, &mut state, &batches, &weights, &next, 0.0, false)?;
    let gradient = runner.gradient();
    let of_parameter = |spec: &ParamSpec| (spec.path.clone(), gradient[spec.range()].to_vec());
    let gradients = ready.parts.trained.iter().map(of_parameter).collect();
    let mut seconds = Vec::with_capacity(more);
    for _ in 0..more {
        let began = Instant::now();
        state.global_step = 0; // the batch's own draws
        runner.run(&mut engine, &mut model, &mut state, &batches, &weights, &next, 0.0, false)?;
        seconds.push(began.elapsed().as_secs_f64());
    }
    Ok(Said { terms: said.terms, gradients, seconds, sent_ahead })
}

/// `theirs` from `ours`.
pub fn difference(ours: &Said, theirs: &Said) -> Difference {
    let terms = ours.terms.iter().zip(&theirs.terms).map(|((_, a), (_, b))| far(*a, *b, a.abs()));
    let terms = terms.fold(0.0, f64::max);
    let of_parameter = |((path, a), (_, b)): (&OfParameter, &OfParameter)| {
        let size = a.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let worst = a.iter().zip(b).map(|(a, b)| far(f64::from(*a), f64::from(*b), f64::from(size)));
        (path.clone(), worst.fold(0.0, f64::max))
    };
    let worst = ours.gradients.iter().zip(&theirs.gradients).map(of_parameter);
    let worst = worst.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default();
    Difference { terms, gradients: worst.1, parameter: worst.0 }
}

/// |a − b| over `size`; without end where one is not a number.
fn far(a: f64, b: f64, size: f64) -> f64 {
    if a == b {
        return 0.0;
    }
    let far = (a - b).abs() / size;
    if far.is_nan() { f64::INFINITY } else { far }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_parameter_is_named_and_what_is_not_a_number_is_far() {
        let said = |loss: f64, a: [f32; 2], b: [f32; 2]| Said {
            terms: vec![("loss", loss)],
            gradients: vec![("a".to_owned(), a.to_vec()), ("b".to_owned(), b.to_vec())],
            seconds: vec![],
            sent_ahead: 0,
        };
        let ours = said(2.0, [1.0, -4.0], [0.5, 0.0]);
        let same = Difference { terms: 0.0, gradients: 0.0, parameter: "b".to_owned() };
        assert_eq!(difference(&ours, &ours), same);
        let theirs = said(2.5, [1.0, -4.5], [0.5, 0.25]);
        assert_eq!(difference(&ours, &theirs), Difference { terms: 0.25, gradients: 0.5, parameter: "b".to_owned() });
        let nan = difference(&ours, &said(2.0, [1.0, f32::NAN], [0.5, 0.0]));
        assert_eq!((nan.gradients, nan.parameter.as_str()), (f64::INFINITY, "a"));
    }
}
