//! A step's gradients on their way to an update, on the host or where the model is.

use std::ops::Range;
use std::time::Duration;

use super::config::TrainConfig;
use super::step::StepState;
use super::sums::Sums;
use super::there::There;
use crate::engine::tail::TailLayout;
use crate::engine::{Engine, EngineError};
use crate::model::Model;
use crate::optim::{OptimConfig, adamw, clip, ema};
use crate::tensor::Device;

/// Parameters that are clipped, updated and averaged before the next ones: they stay in the cache meanwhile.
const UPDATED: usize = 8192;

/// Where gradients are added up and parameters updated.
pub(super) enum Way<'a> {
    /// On the host.
    Host(Box<Sums<'a>>),
    /// Where the model is.
    There(Box<There<'a>>),
}

impl<'a> Way<'a> {
    /// As the config says. Sums that begin beside backward, and those in bf16, are the host's.
    pub fn new(
        config: &TrainConfig,
        tensors: &'a [Range<usize>],
        layout: TailLayout,
        overlaps: bool,
        device: &Device,
    ) -> Way<'a> {
        let reduction = config.train.reduction;
        let there = config.train.keeps_there() && !overlaps;
        match there.then(|| There::new(tensors, reduction, layout, device)).flatten() {
            Some(there) => Way::There(Box::new(there)),
            None => Way::Host(Box::new(Sums::new(tensors, reduction, layout, overlaps))),
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
            Way::Host(sums) => {
                sums.begin(exponents);
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
        matches!(self, Way::Host(sums) if sums.overlaps())
    }

    /// The tail, to be written before [`Way::finish`] and read after it.
    pub fn tail(&mut self) -> &mut [i64] {
        match self {
            Way::Host(sums) => sums.tail(),
            Way::There(there) => there.tail(),
        }
    }

    /// Sums what has not left yet; gives the time in the engine of this attempt, less waiting for others.
    pub fn finish(&mut self, engine: &mut dyn Engine) -> Result<Duration, EngineError> {
        match self {
            Way::Host(sums) => sums.finish(engine).map(|()| sums.own()),
            Way::There(there) => there.finish(engine).map(|()| there.own()),
        }
    }

    /// Clip, Adam, average, on the same bits on every rank; gives the gradient's norm before clipping.
    pub fn apply(&mut self, state: &mut StepState, optim: &OptimConfig, lr: f64) -> f64 {
        match self {
            Way::Host(sums) => update(state, sums, optim, lr),
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
            Way::Host(sums) => sums.gradient.clone(),
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
