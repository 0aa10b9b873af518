//! Sums and state where the model is: on a GPU gradients are quantised and added up, ranks' sums are added, and parameters are
//! updated without a visit to the host. The host sees three numbers a tensor and lane, the norm, the tail (`docs/step.md` §5).
//!
//! [`StepState`] is the host's copy: it is what a run begins with and what a checkpoint holds, and [`There::bring`] makes it true
//! again. Knows no model and no task.

mod added;
mod beside;
mod halves;
mod leaving;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::added::{Added, Places, Seen, Sum};
use self::beside::Beside;
use self::leaving::{By, Leaving};
use super::config::Reduction;
use super::own_time::OwnTime;
use super::step_state::StepState;
use super::sums::LaneSeen;
use crate::elementwise::adamw::Constants;
use crate::engine::tail::TailLayout;
use crate::engine::{Engine, EngineError, buckets};
use crate::optim::{OptimConfig, adamw};
use crate::tensor::flat;
use crate::tensor::{Device, Listener, Tensor};

/// The device's part of a step.
pub struct There {
    places: Arc<Places>,
    /// Between ranks.
    in_bf16: bool,
    kept: Option<Kept>,
    /// From [`There::begin`] to [`There::finish`].
    added: Option<Added>,
    /// What a last lane looked like whose buckets left beside backward, and this rank's lanes before it.
    seen: Option<Seen>,
    /// Buckets that have left in this attempt.
    left: usize,
    /// The whole gradient, from [`There::finish`] to [`There::apply`], or to the next attempt where it is kept.
    gradient: Option<Tensor<1>>,
    keeps_gradient: bool,
    tail: Vec<i64>,
    own: Duration,
}

/// What an update changes.
struct Kept {
    parameters: Tensor<1>,
    /// Adam's, the first of all parameters and then the second.
    moments: Tensor<1>,
    average: Option<Tensor<1>>,
    /// The updates that are in it.
    optim_step: u64,
}

impl There {
    /// For the tensors of a model on `device`. With `overlaps` buckets leave one by one; not in bf16, where the device adds between two ways.
    pub fn new(
        tensors: &[Range<usize>],
        reduction: Reduction,
        layout: TailLayout,
        overlaps: bool,
        device: &Device,
    ) -> There {
        let (exact, in_bf16) = (reduction == Reduction::Exact, reduction == Reduction::FastBf16);
        let buckets =
            if overlaps && !in_bf16 { buckets::plan(tensors, buckets::IN_PLACE) } else { buckets::whole(tensors) };
        There {
            in_bf16,
            places: Arc::new(Places::new(tensors, buckets, layout.lanes, exact, device)),
            kept: None,
            added: None,
            seen: None,
            left: 0,
            gradient: None,
            keeps_gradient: false,
            tail: vec![0; layout.len()],
            own: Duration::ZERO,
        }
    }

    /// Whether buckets leave while backward runs.
    pub fn overlaps(&self) -> bool {
        self.places.buckets.len() > 1
    }

    /// The parameters that train, flat; from `state`, where it is not what was left here.
    pub fn parameters(&mut self, state: &StepState) -> Tensor<1> {
        self.kept(state).parameters.clone()
    }

    fn kept(&mut self, state: &StepState) -> &mut Kept {
        if self.kept.as_ref().is_none_or(|kept| kept.optim_step != state.optim_step) {
            let send = |values: &[f32]| flat::values(values.to_vec(), &self.places.device);
            let moments = [&state.adam_m[..], &state.adam_v].concat();
            self.kept = Some(Kept {
                parameters: send(&state.parameters),
                moments: flat::values(moments, &self.places.device),
                average: state.ema.as_deref().map(send),
                optim_step: state.optim_step,
            });
        }
        self.kept.as_mut().expect("it was just made")
    }

    /// Makes the host's copy what is here.
    pub fn bring(&self, state: &mut StepState) {
        let Some(kept) = &self.kept else { return };
        assert_eq!(kept.optim_step, state.optim_step, "a state is brought after its own update");
        let n = state.parameters.len();
        state.parameters = read(&kept.parameters);
        let mut moments = read(&kept.moments);
        state.adam_v = moments.split_off(n);
        state.adam_m = moments;
        state.ema = kept.average.as_ref().map(read);
    }

    /// An attempt at a step begins, with these exponents, on `lanes` lanes of this rank.
    pub fn begin(&mut self, exponents: &[Option<i16>], lanes: usize) {
        self.gradient = None;
        self.added = Some(Added::nothing(&self.places, exponents, lanes));
        (self.seen, self.left, self.own) = (None, 0, Duration::ZERO);
        self.tail.fill(0);
    }

    /// Adds the gradients of this rank's lane `at`, flat; those that are not there are zero. Nothing waits for the device.
    pub fn lane(&mut self, at: usize, gradients: impl FnOnce(&mut dyn FnMut(usize, Tensor<1>))) {
        let added = self.added.as_mut().expect(BEGUN);
        gradients(&mut |tensor, gradient| added.add(at, tensor, gradient));
    }

    /// As [`There::lane`] for a rank's last lane: `backward` runs here and tells its listener of gradients as they become complete;
    /// they are added, and every bucket that is whole leaves meanwhile.
    pub fn overlapped<T>(
        &mut self,
        engine: &mut dyn Engine,
        at: usize,
        backward: impl FnOnce(Listener) -> T,
    ) -> Result<T, EngineError> {
        let added = self.added.take().expect(BEGUN);
        let Beside { result, added, seen, left, own } = beside::run(added, &self.places.buckets, at, engine, backward)?;
        (self.added, self.seen, self.left) = (Some(added), Some(seen), left);
        self.own += own;
        Ok(result)
    }

    /// What this rank's lanes looked like, and when they were done: the one time in an attempt that the host waits for all of them.
    ///
    /// # Errors
    /// What the device could not do, in its words.
    pub fn seen(&mut self) -> Result<(Vec<LaneSeen>, Instant), String> {
        match self.seen.take() {
            Some(seen) => seen,
            None => self.added.as_mut().expect(BEGUN).seen(),
        }
    }

    /// The tail, to be written before [`There::finish`] and read after it.
    pub fn tail(&mut self) -> &mut [i64] {
        &mut self.tail
    }

    /// Sums over ranks what has not left yet, and then the tail; then the gradient is whole.
    pub fn finish(&mut self, engine: &mut dyn Engine) -> Result<(), EngineError> {
        let (by, mut added) = (By::of(engine), self.added.take().expect(BEGUN));
        for k in self.left..self.places.buckets.len() {
            let sum = match added.take(k) {
                Sum::Plain(values) if self.in_bf16 => Sum::Plain(halves::sum(values, engine, &mut self.own)?),
                sum => Leaving::begin(sum, by).sum(engine, &mut self.own)?.there(&self.places.device),
            };
            added.come_back(k, sum);
        }
        let clock = OwnTime::start(engine);
        engine.all_reduce_i64("tail", &mut self.tail)?;
        self.own += clock.stop(engine);
        self.gradient = Some(added.gradient());
        Ok(())
    }

    /// Time in the engine of this attempt, less waiting for others.
    pub fn own(&self) -> Duration {
        self.own
    }

    /// Clip, Adam, average; gives the gradient's norm before clipping. `state` stays behind until [`There::bring`].
    pub fn apply(&mut self, state: &StepState, optim: &OptimConfig, lr: f64) -> f64 {
        let gradient = self.gradient.take().expect("a step is applied after its sum");
        let norm = flat::norm(&gradient);
        let clip = optim.clip_norm.filter(|&limit| norm > limit).map_or(1.0, |limit| (limit / norm) as f32);
        let by = Constants { clip, ..adamw::constants(optim, lr, state.optim_step + 1) };
        let kept = self.kept.take().expect("its parameters were asked for before");
        let (parameters, moments) = flat::adamw(kept.parameters, kept.moments, &gradient, by);
        let average = match (kept.average, optim.ema) {
            (Some(average), Some(decay)) => {
                Some(flat::average(average, &parameters, decay as f32, (1.0 - decay) as f32))
            }
            (average, _) => average,
        };
        self.kept = Some(Kept { parameters, moments, average, optim_step: state.optim_step + 1 });
        self.gradient = self.keeps_gradient.then_some(gradient);
        norm
    }

    /// Keeps every step's gradient for [`There::gradient`], 4 bytes a parameter.
    pub fn keep_gradient(&mut self) {
        self.keeps_gradient = true;
    }

    /// The last step's gradient, summed, on the host; empty where none was kept.
    pub fn gradient(&self) -> Vec<f32> {
        self.gradient.as_ref().map(read).unwrap_or_default()
    }
}

const BEGUN: &str = "an attempt has begun";

fn read(values: &Tensor<1>) -> Vec<f32> {
    values.clone().into_data().try_to_vec().expect("state is f32")
}

#[cfg(test)]
mod tests;
