//! One global step: the only place where data, model and engine meet (`docs/step.md`).
//!
//! A step is a pure function of (parameters, optimizer state, EMA, exponents, global_step, optim_step): nothing is
//! applied before every rank has decided the same, so an attempt can be thrown away and run again.

use std::ops::Range;
use std::time::Instant;

use super::config::{OnNonFinite, Reduction, TrainConfig};
use super::error::TrainError;
use crate::engine::Engine;
use crate::engine::reduce;
use crate::engine::tail::{LaneRow, TailLayout, exponents_of};
use crate::model::Model;
use crate::optim::{adamw, clip, ema, schedule};
use crate::task::{Prepared, Task};
use crate::tensor::{Device, Tensor};

/// What a step is a function of, and what it changes.
#[derive(Debug, Clone, PartialEq)]
pub struct StepState {
    /// Parameters, flat in declaration order.
    pub parameters: Vec<f32>,
    /// Adam's first moment.
    pub adam_m: Vec<f32>,
    /// Adam's second moment.
    pub adam_v: Vec<f32>,
    /// Moving average of the parameters, when on.
    pub ema: Option<Vec<f32>>,
    /// Per tensor: binary exponent of the largest |g| over lanes, in the last applied step where it was not all zero.
    pub exponents: Vec<Option<i16>>,
    /// Batches consumed.
    pub global_step: u64,
    /// Updates applied.
    pub optim_step: u64,
    /// Steps skipped in a row for non-finite values.
    pub skipped_in_a_row: u32,
}

impl StepState {
    /// The state before the first step.
    pub fn new(parameters: Vec<f32>, tensors: usize, with_ema: bool) -> Self {
        let n = parameters.len();
        Self {
            adam_m: vec![0.0; n],
            adam_v: vec![0.0; n],
            ema: with_ema.then(|| parameters.clone()),
            exponents: vec![None; tensors],
            global_step: 0,
            optim_step: 0,
            skipped_in_a_row: 0,
            parameters,
        }
    }

    /// The weights that evaluation uses: the average when on.
    pub fn evaluated(&self) -> &[f32] {
        self.ema.as_ref().unwrap_or(&self.parameters)
    }
}

/// A lane's micro-batch, prepared.
#[derive(Debug)]
pub struct LaneBatch {
    /// Lane.
    pub lane: usize,
    /// What the task made of its records.
    pub batch: Prepared,
}

/// What a rank brings to every step.
pub struct StepRunner<'a> {
    /// The run's config.
    pub config: &'a TrainConfig,
    /// The task.
    pub task: &'a Task,
    /// Places of the parameter tensors.
    pub tensors: &'a [Range<usize>],
    /// The autodiff device.
    pub device: &'a Device,
    /// Sizes of the tail.
    pub layout: TailLayout,
    /// λ_k of the task's terms.
    lambdas: Vec<f64>,
    /// The flat gradient of one lane.
    gradient: Vec<f32>,
    /// Fixed-point gradients, then the tail: one all-reduce.
    exact: Vec<i64>,
    /// f32 gradients (`reduction = "fast"`).
    fast: Vec<f32>,
}

/// What a step did, the same on every rank.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutcome {
    /// Loss terms: Σ λ_k S_k / W_k over all lanes.
    pub loss: f64,
    /// Norm of the summed gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate used.
    pub lr: f64,
    /// Whether the update was applied; `false` for a skipped step.
    pub applied: bool,
    /// Whether the step was run twice for its exponents.
    pub rerun: bool,
    /// Some rank wishes to stop.
    pub stop: bool,
    /// W_k of the next step.
    pub next_weights: Vec<f64>,
    /// Per rank: seconds in data, compute, reduce.
    pub seconds: Vec<[f64; 3]>,
    /// Records blamed for non-finite values.
    pub bad_records: Vec<u64>,
}

impl<'a> StepRunner<'a> {
    /// Buffers for `n_parameters`.
    pub fn new(
        config: &'a TrainConfig,
        task: &'a Task,
        tensors: &'a [Range<usize>],
        n_parameters: usize,
        device: &'a Device,
    ) -> Self {
        let layout = TailLayout { lanes: config.train.lanes, terms: task.terms().len(), tensors: tensors.len() };
        let (lambdas, gradient) = (task.lambdas(), vec![0.0; n_parameters]);
        Self { config, task, tensors, device, layout, lambdas, gradient, exact: vec![], fast: vec![] }
    }

    /// Runs one global step on this rank's lanes.
    ///
    /// `weights`: W_k of this step; `next_weights`: this rank's lanes' weights of the next one, in the same order as
    /// `batches`. `data_s`: seconds this rank waited for its batches.
    #[expect(clippy::too_many_arguments, reason = "the arguments are the definition of a step")]
    pub fn run(
        &mut self,
        engine: &mut dyn Engine,
        model: &mut Option<Model>,
        state: &mut StepState,
        batches: &[LaneBatch],
        weights: &[f64],
        next_weights: &[Vec<f64>],
        data_s: f64,
        vote_stop: bool,
    ) -> Result<StepOutcome, TrainError> {
        let mut exponents = state.exponents.clone();
        let mut rerun = false;
        loop {
            let started = Instant::now();
            let leaves = model.take().expect("a model is always put back").from_flat(&state.parameters, self.device);
            let rows = self.lanes(&leaves, state, batches, weights, next_weights, &exponents, vote_stop);
            *model = Some(leaves);
            let compute_s = started.elapsed().as_secs_f64();
            let rows = self.reduce(engine, batches, rows, &exponents, data_s, compute_s)?;
            let outcome = self.outcome(&rows, weights, rerun, engine.world_size());
            if rows.iter().any(|r| r.non_finite > 0) {
                return self.not_finite(state, outcome);
            }
            let seen = (0..self.tensors.len()).map(|t| rows.iter().filter_map(|r| r.exponents[t]).max());
            let seen: Vec<Option<i16>> = seen.collect();
            if self.config.train.reduction == Reduction::Exact {
                let overflow = rows.iter().any(|r| r.overflow.contains(&true));
                let unknown = exponents.iter().zip(&seen).any(|(known, seen)| known.is_none() && seen.is_some());
                if overflow || unknown {
                    if rerun {
                        return Err(TrainError::SecondOverflow { global_step: state.global_step });
                    }
                    reduce::carry_exponents(&mut exponents, &seen);
                    rerun = true;
                    continue;
                }
            }
            return Ok(self.apply(state, outcome, &seen));
        }
    }

    /// Forward and backward of each of this rank's lanes, each on its own; fills the reduction buffers.
    #[expect(clippy::too_many_arguments, reason = "the arguments are the definition of a step")]
    fn lanes(
        &mut self,
        model: &Model,
        state: &StepState,
        batches: &[LaneBatch],
        weights: &[f64],
        next_weights: &[Vec<f64>],
        exponents: &[Option<i16>],
        vote_stop: bool,
    ) -> Vec<LaneRow> {
        let (n, lanes) = (self.gradient.len(), self.config.train.lanes);
        let exact = self.config.train.reduction == Reduction::Exact;
        let tail_at = if exact { n } else { 0 };
        self.exact.resize(tail_at + self.layout.len(), 0);
        self.exact[tail_at..].fill(0); // the values before it are set by the first lane
        self.fast.clear();
        self.fast.resize(if exact { 0 } else { n }, 0.0);
        let mut rows = Vec::with_capacity(batches.len());
        for (at, (LaneBatch { lane, batch }, next)) in batches.iter().zip(next_weights).enumerate() {
            let first_slot = lane * self.config.train.micro_batch;
            let terms =
                self.task.loss(model, batch, self.config.train.seed, state.global_step, first_slot, self.device);
            let mut gradients = objective(terms.sums, &self.lambdas, weights).backward();
            model.gradients_to_flat(&mut gradients, &mut self.gradient);
            let scan = reduce::scan(&self.gradient, self.tensors);
            let mut overflow = vec![false; self.tensors.len()];
            if exact {
                for (t, range) in self.tensors.iter().enumerate() {
                    let (gradient, sum) = (&self.gradient[range.clone()], &mut self.exact[range.clone()]);
                    let bits = scan.max_bits[t];
                    let shift = exponents[t].map(|exponent| reduce::shift(exponent, lanes));
                    overflow[t] = bits < f32::INFINITY.to_bits()
                        && shift.is_some_and(|shift| reduce::overflows(bits, shift, lanes));
                    match shift.filter(|_| bits != 0 && !overflow[t]) {
                        Some(shift) if at == 0 => reduce::quantise(gradient, shift, sum),
                        Some(shift) => reduce::quantise_add(gradient, shift, sum),
                        None if at == 0 => sum.fill(0),
                        None => {}
                    }
                }
            } else {
                self.fast.iter_mut().zip(&self.gradient).for_each(|(sum, g)| *sum += g);
            }
            let loss_is_bad = terms.first_bad.is_some() && scan.non_finite == 0;
            rows.push(LaneRow {
                non_finite: scan.non_finite + u64::from(loss_is_bad),
                first_bad: terms.first_bad, // none where every loss is finite and a gradient is not
                vote_stop,
                vote_save: false,
                sums: terms.values,
                next_weights: next.clone(),
                exponents: exponents_of(&scan.max_bits),
                overflow,
                seconds: [0.0; 3],
            });
        }
        rows
    }

    /// Sums gradients and tails over ranks: leaves the whole gradient in `self.gradient`, gives all lanes' rows.
    fn reduce(
        &mut self,
        engine: &mut dyn Engine,
        batches: &[LaneBatch],
        mut rows: Vec<LaneRow>,
        exponents: &[Option<i16>],
        data_s: f64,
        compute_s: f64,
    ) -> Result<Vec<LaneRow>, TrainError> {
        let tail_at = self.exact.len() - self.layout.len();
        rows[0].seconds = [data_s, compute_s, 0.0];
        for (LaneBatch { lane, .. }, row) in batches.iter().zip(&rows) {
            self.layout.write(&mut self.exact[tail_at..], *lane, row);
        }
        let started = Instant::now();
        if self.config.train.reduction == Reduction::Exact {
            let (tensors, lanes) = (self.tensors, self.config.train.lanes);
            let shifts: Vec<Option<i32>> = exponents.iter().map(|e| e.map(|e| reduce::shift(e, lanes))).collect();
            let convert = |first: usize, sums: &[i64], out: &mut [f32]| {
                reduce::dequantise_segment(tensors, &shifts, first, sums, out);
            };
            let (words, out) = (&mut self.exact, &mut self.gradient);
            engine.all_reduce_converted("sum of gradients and tail", words, self.layout.len(), &convert, out)?;
        } else {
            engine.all_reduce_i64("tail", &mut self.exact)?;
            engine.all_reduce_f32("sum of gradients", &mut self.fast)?;
            self.gradient.copy_from_slice(&self.fast);
        }
        let mut all = self.layout.read(&self.exact[tail_at..]);
        all[engine.rank()].seconds[2] = started.elapsed().as_secs_f64();
        Ok(all)
    }

    fn outcome(&self, rows: &[LaneRow], weights: &[f64], rerun: bool, world_size: usize) -> StepOutcome {
        let terms = self.layout.terms;
        let over_lanes = |f: &dyn Fn(&LaneRow, usize) -> f64| -> Vec<f64> {
            (0..terms).map(|k| rows.iter().map(|r| f(r, k)).sum()).collect()
        };
        let sums = over_lanes(&|r, k| r.sums[k]);
        let term = |k: usize| if weights[k] == 0.0 { 0.0 } else { self.lambdas[k] * (sums[k] / weights[k]) };
        let loss = (0..terms).map(term).sum();
        StepOutcome {
            loss,
            gradient_norm: f64::NAN,
            lr: 0.0,
            applied: false,
            rerun,
            stop: rows.iter().any(|r| r.vote_stop),
            next_weights: over_lanes(&|r, k| r.next_weights[k]),
            seconds: rows.iter().take(world_size).map(|r| r.seconds).collect(),
            bad_records: rows.iter().filter_map(|r| r.first_bad).collect(),
        }
    }

    /// A NaN or infinity somewhere: every rank stops or skips alike.
    fn not_finite(&self, state: &mut StepState, outcome: StepOutcome) -> Result<StepOutcome, TrainError> {
        state.skipped_in_a_row += 1;
        let global_step = state.global_step;
        let stop = self.config.train.on_nonfinite == OnNonFinite::Stop || state.skipped_in_a_row >= 3;
        if stop {
            let in_a_row = state.skipped_in_a_row;
            return Err(TrainError::NotFinite { global_step, records: outcome.bad_records, in_a_row });
        }
        state.global_step += 1;
        Ok(outcome)
    }

    /// Clip, Adam, EMA, on the same bits on every rank.
    fn apply(&mut self, state: &mut StepState, mut outcome: StepOutcome, seen: &[Option<i16>]) -> StepOutcome {
        let optim = &self.config.optim;
        outcome.gradient_norm = clip::global_norm(&self.gradient, self.tensors);
        if let Some(limit) = optim.clip_norm {
            clip::clip(&mut self.gradient, outcome.gradient_norm, limit);
        }
        outcome.lr = schedule::rate(optim, state.optim_step);
        adamw::update(
            optim,
            outcome.lr,
            state.optim_step + 1,
            &self.gradient,
            &mut state.parameters,
            &mut state.adam_m,
            &mut state.adam_v,
        );
        if let (Some(average), Some(decay)) = (&mut state.ema, optim.ema) {
            ema::update(average, &state.parameters, decay);
        }
        reduce::carry_exponents(&mut state.exponents, seen);
        state.skipped_in_a_row = 0;
        state.optim_step += 1;
        state.global_step += 1;
        outcome.applied = true;
        outcome
    }
}

/// Σ c_k S_k: what a lane's backward runs on.
///
/// # Panics
/// If there is no term.
pub fn objective(sums: Vec<Tensor<1>>, lambdas: &[f64], weights: &[f64]) -> Tensor<1> {
    let terms = sums.into_iter().zip(lambdas.iter().zip(weights));
    let term = |(sum, (&lambda, &weight)): (Tensor<1>, _)| sum.mul_scalar(coefficient(lambda, weight));
    terms.map(term).reduce(|total, term| total + term).expect("a task has a loss term")
}

/// c_k = λ_k / W_k in f64, rounded once to f32; 0 where W_k = 0.
fn coefficient(lambda: f64, weight: f64) -> f32 {
    if weight == 0.0 { 0.0 } else { (lambda / weight) as f32 }
}
