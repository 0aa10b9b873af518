//! A step's gradients on their way to an update, on the host or where the model is.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::config::TrainConfig;
use super::step_state::StepState;
use super::sums::{LaneSeen, Sums};
use super::there::There;
use crate::engine::tail::TailLayout;
use crate::engine::{Engine, EngineError};
use crate::model::Model;
use crate::optim::{OptimConfig, adamw, clip, ema};
use crate::tensor::{Device, Listener, Tensor, TensorData, cause};

/// Parameters that are clipped, updated and averaged before the next ones: they stay in the cache meanwhile.
const UPDATED: usize = 8192;

/// Where gradients are added up and parameters updated.
pub(super) enum Way<'a> {
    /// On the host.
    Host {
        sums: Box<Sums<'a>>,
        /// What this attempt's lanes looked like.
        seen: Vec<LaneSeen>,
    },
    /// Where the model is.
    There(Box<There>),
}

impl<'a> Way<'a> {
    /// As the config says. With `overlaps` sums begin beside backward.
    pub fn new(
        config: &TrainConfig,
        tensors: &'a [Range<usize>],
        layout: TailLayout,
        overlaps: bool,
        device: &Device,
    ) -> Way<'a> {
        let reduction = config.train.reduction;
        match config.train.keeps_there() {
            true => Way::There(Box::new(There::new(tensors, reduction, layout, overlaps, device))),
            false => Way::Host { sums: Box::new(Sums::new(tensors, reduction, layout, overlaps)), seen: Vec::new() },
        }
    }

    /// An attempt at a step begins, with these exponents, on `lanes` lanes of this rank; gives the model with the state's parameters.
    pub fn begin(
        &mut self,
        model: Model,
        state: &StepState,
        exponents: &[Option<i16>],
        lanes: usize,
        device: &Device,
    ) -> Model {
        match self {
            Way::Host { sums, seen } => {
                sums.begin(exponents);
                seen.clear();
                model.with_trained(&state.parameters, device)
            }
            Way::There(there) => {
                there.begin(exponents, lanes);
                model.with_trained_there(&there.parameters(state), device)
            }
        }
    }

    /// Whether sums begin beside backward.
    pub fn overlaps(&self) -> bool {
        match self {
            Way::Host { sums, .. } => sums.overlaps(),
            Way::There(there) => there.overlaps(),
        }
    }

    /// Adds the gradients of this rank's lane `at`, flat, as `feed` gives them; those it does not give are zero.
    ///
    /// # Errors
    /// What the device could not do, in its words.
    pub fn lane(&mut self, at: usize, feed: impl FnOnce(&mut dyn FnMut(usize, Tensor<1>))) -> Result<(), String> {
        match self {
            Way::Host { sums, seen } => {
                let mut lost = None;
                let feed = |add: &mut dyn FnMut(usize, TensorData)| {
                    feed(&mut |place, gradient| match gradient.try_into_data() {
                        Ok(data) => add(place, data),
                        Err(error) => lost = Some(cause(&error.to_string())),
                    });
                };
                seen.push(sums.lane(at == 0, feed));
                lost.map_or(Ok(()), Err)
            }
            Way::There(there) => {
                there.lane(at, feed);
                Ok(())
            }
        }
    }

    /// As [`Way::lane`] for a rank's last one: `backward` tells its listener of gradients as they become complete, and what is
    /// whole leaves meanwhile.
    pub fn overlapped<T>(
        &mut self,
        engine: &mut dyn Engine,
        at: usize,
        backward: impl FnOnce(Listener) -> T,
    ) -> Result<T, EngineError> {
        match self {
            Way::Host { sums, seen } => {
                let (result, of_lane) = sums.overlapped(engine, at == 0, backward)?;
                seen.push(of_lane);
                Ok(result)
            }
            Way::There(there) => there.overlapped(engine, at, backward),
        }
    }

    /// What this rank's lanes looked like; and when the device had done them, where that is later than backward's end.
    ///
    /// # Errors
    /// What the device could not do, in its words.
    pub fn seen(&mut self) -> Result<(Vec<LaneSeen>, Option<Instant>), String> {
        match self {
            Way::Host { seen, .. } => Ok((std::mem::take(seen), None)),
            Way::There(there) => there.seen().map(|(seen, done)| (seen, Some(done))),
        }
    }

    /// The tail, to be written before [`Way::finish`] and read after it.
    pub fn tail(&mut self) -> &mut [i64] {
        match self {
            Way::Host { sums, .. } => sums.tail(),
            Way::There(there) => there.tail(),
        }
    }

    /// Sums what has not left yet; gives the time in the engine of this attempt, less waiting for others.
    pub fn finish(&mut self, engine: &mut dyn Engine) -> Result<Duration, EngineError> {
        match self {
            Way::Host { sums, .. } => sums.finish(engine).map(|()| sums.own()),
            Way::There(there) => there.finish(engine).map(|()| there.own()),
        }
    }

    /// Clip, Adam, average, on the same bits on every rank; gives the gradient's norm before clipping.
    pub fn apply(&mut self, state: &mut StepState, optim: &OptimConfig, lr: f64) -> f64 {
        match self {
            Way::Host { sums, .. } => update(state, sums, optim, lr),
            Way::There(there) => there.apply(state, optim, lr),
        }
    }

    /// From now on [`Way::gradient`] is asked for.
    pub fn keep_gradient(&mut self) {
        if let Way::There(there) = self {
            there.keep_gradient();
        }
    }

    /// The last step's gradient, on the host.
    pub fn gradient(&self) -> Vec<f32> {
        match self {
            Way::Host { sums, .. } => sums.gradient.clone(),
            Way::There(there) => there.gradient(),
        }
    }
}

/// The host's.
fn update(state: &mut StepState, sums: &mut Sums<'_>, optim: &OptimConfig, lr: f64) -> f64 {
    let norm = sums.norm();
    let n = state.parameters.len();
    for at in (0..n).step_by(UPDATED).map(|start| start..n.min(start + UPDATED)) {
        let gradient = &mut sums.gradient[at.clone()];
        if let Some(limit) = optim.clip_norm {
            clip::clip(gradient, norm, limit);
        }
        let parameters = &mut state.parameters[at.clone()];
        let (m, v) = (&mut state.adam_m[at.clone()], &mut state.adam_v[at.clone()]);
        adamw::update(optim, lr, state.optim_step + 1, gradient, parameters, m, v);
        if let (Some(average), Some(decay)) = (&mut state.ema, optim.ema) {
            ema::update(&mut average[at], parameters, decay);
        }
    }
    norm
}
