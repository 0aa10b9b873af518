//! One global step: the only place where data, model and engine meet (`docs/step.md`).
//!
//! A step is a pure function of (parameters, optimizer state, EMA, exponents, global_step, optim_step): nothing is
//! applied before every rank has decided the same, so an attempt can be thrown away and run again.

use std::ops::Range;
use std::time::Instant;

use super::config::{OnNonFinite, Reduction, TrainConfig};
use super::error::TrainError;
use super::step_state::StepState;
use super::sums::LaneSeen;
use super::way::Way;
use crate::engine::Engine;
use crate::engine::reduce;
use crate::engine::tail::{LaneRow, TailLayout, exponents_of};
use crate::model::Model;
use crate::model::layers::Training;
use crate::optim::schedule;
use crate::task::{Across, Begun, Prepared, Task, Unread};
use crate::tensor::{Device, Tensor};

/// A config that froze too much.
const NOTHING_LEARNS: &str = "train.freeze: of what is left to train the task uses nothing in some lane; freeze less";

/// A term over all lanes, and the forwards of a rank's first lanes.
type AcrossLanes = (Across, Vec<Begun>);

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
    /// The gradients' way to their sum.
    way: Way<'a>,
    /// Seconds of the last reduction that were this rank's own: in the engine, less waiting for others.
    own_reduce_s: f64,
}

/// What a step did, the same on every rank.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutcome {
    /// Loss terms: Σ λ_k S_k / W_k over all lanes.
    pub loss: f64,
    /// The terms by name: S_k / W_k over all lanes.
    pub terms: Vec<(&'static str, f64)>,
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
    /// Per rank: seconds in data, compute, reduce as far as it was not hidden (this rank's only), and in the engine itself
    /// in the step before.
    pub seconds: Vec<[f64; 4]>,
    /// Records blamed for non-finite values.
    pub bad_records: Vec<u64>,
}

impl<'a> StepRunner<'a> {
    /// Buffers for the model's tensors. `overlaps`: whether sums begin beside backward.
    pub fn new(
        config: &'a TrainConfig,
        task: &'a Task,
        tensors: &'a [Range<usize>],
        overlaps: bool,
        device: &'a Device,
    ) -> Self {
        let layout = TailLayout { lanes: config.train.lanes, terms: task.terms().len(), tensors: tensors.len() };
        let way = Way::new(config, tensors, layout, overlaps, device);
        Self { config, task, tensors, device, layout, lambdas: task.lambdas(), way, own_reduce_s: 0.0 }
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
            let leaves = model.take().expect("a model is always put back");
            let leaves = self.way.begin(leaves, state, &exponents, batches.len(), self.device);
            let across = self.across(engine, &leaves, state, batches)?;
            let of_step = (weights, next_weights, across);
            let (rows, computed) = self.lanes(engine, &leaves, state, batches, of_step, vote_stop)?;
            *model = Some(leaves);
            let compute_s = (computed - started).as_secs_f64();
            let rows = self.reduce(engine, batches, rows, data_s, compute_s, computed)?;
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

    /// The term over all lanes, where the task has one: a forward of each of this rank's lanes, its vectors gathered by slot;
    /// and the first lanes' forwards, which need not be repeated.
    fn across(
        &self,
        engine: &mut dyn Engine,
        model: &Model,
        state: &StepState,
        batches: &[LaneBatch],
    ) -> Result<Option<AcrossLanes>, TrainError> {
        if !self.task.crosses_lanes() {
            return Ok(None);
        }
        let train = &self.config.train;
        let slots = train.lanes * train.micro_batch;
        let (mut words, mut kept) = (Vec::new(), Vec::new());
        for (at, LaneBatch { lane, batch }) in batches.iter().enumerate() {
            let training = train.training(state.global_step, *lane);
            let begun = self.task.begin(model, batch, &training, self.device);
            let [rows, width] = begun.vectors.dims();
            let vectors: Vec<f32> = begun.vectors.clone().inner().into_data().try_to_vec().expect("vectors are f32");
            words.resize(slots * width, 0);
            let own = &mut words[lane * rows * width..][..rows * width];
            own.iter_mut().zip(vectors).for_each(|(word, v)| *word = i64::from(v.to_bits()));
            // The last lane's gradients are told of by listeners that its forward must know.
            let listens = at + 1 == batches.len() && self.way.overlaps();
            if at < train.kept_forwards && !listens {
                kept.push(begun);
            }
        }
        engine.all_reduce_i64("vectors of all lanes", &mut words)?;
        let vectors: Vec<f32> = words.into_iter().map(|word| f32::from_bits(word as u32)).collect();
        Ok(Some((self.task.across(model, &vectors, slots), kept)))
    }

    /// Forward and backward of each of this rank's lanes, each on its own; gives their rows and when the last backward had
    /// ended.
    fn lanes(
        &mut self,
        engine: &mut dyn Engine,
        model: &Model,
        state: &StepState,
        batches: &[LaneBatch],
        (weights, next_weights, across): (&[f64], &[Vec<f64>], Option<AcrossLanes>),
        vote_stop: bool,
    ) -> Result<(Vec<LaneRow>, Instant), TrainError> {
        let mut unread = Vec::with_capacity(batches.len());
        let mut computed = Instant::now();
        let train = &self.config.train;
        let (across, kept) = across.unzip();
        let mut kept = kept.into_iter().flatten();
        for (at, LaneBatch { lane, batch }) in batches.iter().enumerate() {
            let training = train.training(state.global_step, *lane);
            let (task, lambdas, device) = (self.task, &self.lambdas, self.device);
            let across = across.as_ref().map(|across| across.of_lane(*lane, train.lanes, kept.next()));
            let backward = |training: &Training| {
                let terms = task.loss(model, batch, training, across, device);
                let objective = objective(terms.sums, lambdas, weights);
                if !objective.is_tracked() {
                    return Err(TrainError::Config(vec![NOTHING_LEARNS.to_owned()]));
                }
                Ok((terms.values, objective.backward()))
            };
            let last = at + 1 == batches.len();
            if last && self.way.overlaps() {
                let told = self.way.overlapped(engine, at, |listener| {
                    let training = training.with_listener(listener.clone(), model.ids());
                    let (values, mut gradients) = backward(&training)?;
                    computed = Instant::now();
                    model.each_gradient(&mut gradients, &mut |place, gradient| listener.tell(place, gradient));
                    Ok::<_, TrainError>(values)
                });
                unread.push(told??);
            } else {
                let (values, mut gradients) = backward(&training)?;
                unread.push(values);
                let added = self.way.lane(at, |add| model.each_gradient(&mut gradients, add));
                added.map_err(TrainError::Device)?;
                computed = Instant::now();
            }
        }
        let (seen, done) = self.way.seen().map_err(TrainError::Device)?;
        computed = done.unwrap_or(computed);
        let row = |((next, values), seen): ((&Vec<f64>, Unread), LaneSeen)| {
            let (sums, first_bad) = values.read();
            let loss_is_bad = first_bad.is_some() && seen.non_finite == 0;
            LaneRow {
                non_finite: seen.non_finite + u64::from(loss_is_bad),
                first_bad, // none where every loss is finite and a gradient is not
                vote_stop,
                vote_save: false,
                sums,
                next_weights: next.clone(),
                exponents: exponents_of(&seen.max_bits),
                overflow: seen.overflow,
                seconds: [0.0; 4],
            }
        };
        let rows = next_weights.iter().zip(unread).zip(seen).map(row).collect();
        Ok((rows, computed))
    }

    /// Sums gradients and tails over ranks: leaves the whole gradient on its way, gives all lanes' rows.
    fn reduce(
        &mut self,
        engine: &mut dyn Engine,
        batches: &[LaneBatch],
        mut rows: Vec<LaneRow>,
        data_s: f64,
        compute_s: f64,
        computed: Instant,
    ) -> Result<Vec<LaneRow>, TrainError> {
        rows[0].seconds = [data_s, compute_s, 0.0, self.own_reduce_s];
        for (LaneBatch { lane, .. }, row) in batches.iter().zip(&rows) {
            self.layout.write(self.way.tail(), *lane, row);
        }
        let own = self.way.finish(engine)?;
        let mut all = self.layout.read(self.way.tail());
        self.own_reduce_s = own.as_secs_f64();
        all[engine.rank()].seconds[2] = computed.elapsed().as_secs_f64();
        Ok(all)
    }

    fn outcome(&self, rows: &[LaneRow], weights: &[f64], rerun: bool, world_size: usize) -> StepOutcome {
        let terms = self.layout.terms;
        let over_lanes = |f: &dyn Fn(&LaneRow, usize) -> f64| -> Vec<f64> {
            (0..terms).map(|k| rows.iter().map(|r| f(r, k)).sum()).collect()
        };
        let sums = over_lanes(&|r, k| r.sums[k]);
        let mean = |k: usize| if weights[k] == 0.0 { 0.0 } else { sums[k] / weights[k] };
        let means: Vec<f64> = (0..terms).map(mean).collect();
        StepOutcome {
            loss: means.iter().zip(&self.lambdas).map(|(mean, lambda)| lambda * mean).sum(),
            terms: self.task.terms().iter().copied().zip(means).collect(),
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
        outcome.lr = schedule::rate(optim, state.optim_step);
        outcome.gradient_norm = self.way.apply(state, optim, outcome.lr);
        reduce::carry_exponents(&mut state.exponents, seen);
        state.skipped_in_a_row = 0;
        state.optim_step += 1;
        state.global_step += 1;
        outcome.applied = true;
        outcome
    }
}

impl StepRunner<'_> {
    /// From now on [`StepRunner::gradient`] is asked for.
    pub fn keep_gradient(&mut self) {
        self.way.keep_gradient();
    }

    /// The last step's gradient, summed, in the order of the flat parameters that train; on the host it is clipped as well.
    pub fn gradient(&self) -> Vec<f32> {
        self.way.gradient()
    }

    /// Makes `state`'s parameters, moments and average those of its last update, where that was not on the host.
    pub fn bring(&self, state: &mut StepState) {
        if let Way::There(there) = &self.way {
            there.bring(state);
        }
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
