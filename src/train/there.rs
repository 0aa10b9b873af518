//! Sums and state where the model is: on a GPU gradients are quantised and added up, ranks' sums are added, and parameters are
//! updated without a visit to the host. The host sees two numbers a tensor and lane, the norm, the tail (`docs/step.md` §5).
//!
//! [`StepState`] is the host's copy: it is what a run begins with and what a checkpoint holds, and [`There::bring`] makes it true
//! again. Knows no model and no task.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::config::Reduction;
use super::step::StepState;
use super::sums::LaneSeen;
use crate::elementwise::adamw::Constants;
use crate::engine::reduce;
use crate::engine::tail::TailLayout;
use crate::engine::{Engine, EngineError, Sum};
use crate::optim::{OptimConfig, adamw};
use crate::tensor::flat::{self, Fixed, Lendable};
use crate::tensor::{Device, Int, Tensor};

/// The device's part of a step.
pub struct There<'a> {
    tensors: &'a [Range<usize>],
    layout: TailLayout,
    /// Without gradients.
    device: Device,
    kept: Option<Kept>,
    /// Per tensor the shift of its fixed point, where its exponent is known.
    shifts: Vec<Option<i32>>,
    sums: Sums,
    /// A row for each tensor of each of this rank's lanes.
    facts: Option<Tensor<1, Int>>,
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

enum Sums {
    /// `reduction = "exact"`.
    Fixed(Option<Tensor<1, Int>>),
    /// `reduction = "fast"`.
    Plain(Option<Tensor<1>>),
}

impl<'a> There<'a> {
    /// For the tensors of a model on `device`; none for sums that are added on the host (`fast_bf16`).
    pub fn new(
        tensors: &'a [Range<usize>],
        reduction: Reduction,
        layout: TailLayout,
        device: &Device,
    ) -> Option<There<'a>> {
        let sums = match reduction {
            Reduction::Exact => Sums::Fixed(None),
            Reduction::Fast => Sums::Plain(None),
            Reduction::FastBf16 => return None,
        };
        let (tail, shifts) = (vec![0; layout.len()], vec![None; tensors.len()]);
        let device = device.clone().without_autodiff();
        let own = Duration::ZERO;
        Some(There {
            tensors,
            layout,
            device,
            kept: None,
            shifts,
            sums,
            facts: None,
            gradient: None,
            keeps_gradient: false,
            tail,
            own,
        })
    }

    /// The parameters that train, flat; from `state`, where it is not what was left here.
    pub fn parameters(&mut self, state: &StepState) -> Tensor<1> {
        self.kept(state).parameters.clone()
    }

    fn kept(&mut self, state: &StepState) -> &mut Kept {
        if self.kept.as_ref().is_none_or(|kept| kept.optim_step != state.optim_step) {
            let send = |values: &[f32]| flat::values(values.to_vec(), &self.device);
            let moments = [&state.adam_m[..], &state.adam_v].concat();
            self.kept = Some(Kept {
                parameters: send(&state.parameters),
                moments: flat::values(moments, &self.device),
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
        let of_step = self.layout.lanes;
        self.shifts = exponents.iter().map(|e| e.map(|e| reduce::shift(e, of_step))).collect();
        let n = self.tensors.last().map_or(0, |t| t.end);
        self.gradient = None;
        match &mut self.sums {
            Sums::Fixed(sums) => *sums = Some(flat::no_sums(n, &self.device)),
            Sums::Plain(sums) => *sums = Some(flat::zeros(n, &self.device)),
        }
        self.facts = Some(flat::no_facts(lanes * self.tensors.len(), &self.device));
        self.own = Duration::ZERO;
        self.tail.fill(0);
    }

    /// Adds the gradients of this rank's lane `at`, flat; those that are not there are zero. Nothing waits for the device.
    pub fn lane(&mut self, at: usize, gradients: impl FnOnce(&mut dyn FnMut(usize, Tensor<1>))) {
        gradients(&mut |tensor, gradient| {
            let row = at * self.tensors.len() + tensor;
            let (place, lanes) = (self.tensors[tensor].start, self.layout.lanes);
            let facts = flat::look(self.facts.take().expect(BEGUN), gradient.clone(), row);
            match (&mut self.sums, self.shifts[tensor]) {
                (Sums::Fixed(sums), Some(shift)) => {
                    let fixed = Fixed { at: place, row, shift, lanes };
                    *sums = Some(flat::add_fixed(sums.take().expect(BEGUN), gradient, &facts, fixed));
                }
                (Sums::Fixed(_), None) => {}
                (Sums::Plain(sums), _) => *sums = Some(flat::add(sums.take().expect(BEGUN), gradient, place)),
            }
            self.facts = Some(facts);
        });
    }

    /// What this rank's lanes looked like: the one time in an attempt that the host waits for all of them.
    pub fn seen(&mut self) -> Vec<LaneSeen> {
        let facts = flat::read_facts(self.facts.take().expect(BEGUN));
        let (lanes, exact) = (self.layout.lanes, matches!(self.sums, Sums::Fixed(_)));
        let of_lane = |facts: &[(u32, u64)]| {
            let finite = |bits: u32| bits < f32::INFINITY.to_bits();
            let overflows = |(&(bits, _), shift): (&(u32, u64), &Option<i32>)| {
                exact && finite(bits) && shift.is_some_and(|shift| reduce::overflows(bits, shift, lanes))
            };
            LaneSeen {
                non_finite: facts.iter().map(|&(_, bad)| bad).sum(),
                max_bits: facts.iter().map(|&(bits, _)| bits).collect(),
                overflow: facts.iter().zip(&self.shifts).map(overflows).collect(),
            }
        };
        facts.chunks_exact(self.tensors.len()).map(of_lane).collect()
    }

    /// The tail, to be written before [`There::finish`] and read after it.
    pub fn tail(&mut self) -> &mut [i64] {
        &mut self.tail
    }

    /// Sums over ranks; then the gradient is whole.
    pub fn finish(&mut self, engine: &mut dyn Engine) -> Result<(), EngineError> {
        let (begun, waited) = (Instant::now(), engine.waited());
        engine.all_reduce_i64("tail", &mut self.tail)?;
        let gradient = match &mut self.sums {
            Sums::Fixed(sums) => {
                let sums = all_reduce(engine, sums.take().expect(BEGUN), Sum::I64, fixed_by_host)?;
                let mut gradient = flat::zeros(sums.dims()[0], &self.device);
                for (tensor, shift) in self.tensors.iter().zip(&self.shifts) {
                    if let Some(shift) = shift {
                        gradient = flat::from_fixed(gradient, &sums, tensor.start, tensor.len(), *shift);
                    }
                }
                gradient
            }
            Sums::Plain(sums) => all_reduce(engine, sums.take().expect(BEGUN), Sum::F32, plain_by_host)?,
        };
        self.gradient = Some(gradient);
        self.own = begun.elapsed().saturating_sub(engine.waited() - waited);
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

/// The operation by way of the host, the tail going by itself; and where the sums lie.
const GRADIENTS: &str = "sum of gradients";
const IN_PLACE: &str = "sum of gradients, in place";

type ByHost<K> = fn(&mut dyn Engine, Tensor<1, K>) -> Result<Tensor<1, K>, EngineError>;

/// Sums over ranks, where they lie if the engine can: a rank alone has nothing to add, and not every engine adds in a device's
/// memory.
fn all_reduce<K: Lendable>(
    engine: &mut dyn Engine,
    sums: Tensor<1, K>,
    of: Sum,
    by_host: ByHost<K>,
) -> Result<Tensor<1, K>, EngineError> {
    if engine.world_size() == 1 {
        return Ok(sums);
    }
    if !engine.sums_there() {
        return by_host(engine, sums);
    }
    let (sums, lent) = K::lend(sums);
    // The others are on their way into the sum: there is no other way for this rank alone.
    let lent = lent.map_err(|message| EngineError::Memory { rank: engine.rank(), operation: IN_PLACE, message })?;
    // SAFETY: the memory is this tensor's alone, of this rank's device, which has done all that was asked of it; it is lent until the
    // engine returns.
    match unsafe { engine.all_reduce_there(IN_PLACE, lent.address(), lent.length(), of) } {
        Ok(()) => Ok(sums),
        Err(error) => {
            lent.forget(); // a sum that waits for a lost peer may still write there
            std::mem::forget(sums);
            Err(error)
        }
    }
}

fn fixed_by_host(engine: &mut dyn Engine, sums: Tensor<1, Int>) -> Result<Tensor<1, Int>, EngineError> {
    let device = sums.device();
    let mut words: Vec<i64> = sums.into_data().try_to_vec().expect("sums are i64");
    engine.all_reduce_i64(GRADIENTS, &mut words)?;
    Ok(flat::sums(words, &device))
}

fn plain_by_host(engine: &mut dyn Engine, sums: Tensor<1>) -> Result<Tensor<1>, EngineError> {
    let device = sums.device();
    let mut values = read(&sums);
    engine.all_reduce_f32(GRADIENTS, &mut values)?;
    Ok(flat::values(values, &device))
}
