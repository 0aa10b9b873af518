//! From noise to values: one step, DDIM (η = 0) and ancestral sampling (`spotdiff.md` §4).
//!
//! x̂_0 is held in [−1, 1] where it feeds the next step, and visible entries are put back after every step. Noise is drawn
//! by record, sample and step, so that a record's draws are its own.

use serde::{Deserialize, Serialize};
use syncytia_shards::draw::{self, DrawKey, Purpose};

use super::psi::{Known, Psi};
use super::schedule::{Mix, Parametrisation, Schedule};
use crate::tensor::{Tensor, TensorData};

/// How samples are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Solver {
    /// So many of the T steps, evenly spaced, without noise on the way.
    Ddim(usize),
    /// All T steps, each with its noise.
    Ancestral,
}

/// What is read out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readout {
    /// x̂_0 at t = T − 1, the mean given the conditions, beside so many samples for the spread. Averaged over as many starts, unless
    /// preconditioned: then the start plays no part.
    OneStep(usize),
    /// The mean of so many samples.
    MeanOfSamples(usize),
}

/// A readout of a micro-batch, `[b · G]` row-major each.
#[derive(Debug, Clone, PartialEq)]
pub struct Imputed {
    /// What is read out; visible entries as they were.
    pub mean: Vec<f32>,
    /// The mean of the samples; visible entries as they were.
    pub sampled: Vec<f32>,
    /// Standard deviation of the samples (divisor n), 0 where visible.
    pub spread: Vec<f32>,
}

/// The noise process and what the network says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// β and ᾱ.
    pub schedule: Schedule,
    /// What the network says.
    pub parametrisation: Parametrisation,
    /// Seed of every draw.
    pub seed: u64,
}

impl Readout {
    /// Samples that the spread is made of.
    pub fn draws(self) -> usize {
        let (Readout::OneStep(n) | Readout::MeanOfSamples(n)) = self;
        n
    }

    /// What is wrong with it, in words.
    pub fn problem(self) -> Option<String> {
        let n = self.draws();
        (!(1..=1 << 15).contains(&n)).then(|| format!("readout: {n} draws are not between 1 and 32768"))
    }
}

impl Solver {
    /// What is wrong with it for a process of `steps`, in words.
    pub fn problem(self, steps: usize) -> Option<String> {
        match self {
            Solver::Ddim(n) if n == 0 || n > steps => {
                Some(format!("solver: {n} steps of DDIM are not between 1 and the {steps} of the process"))
            }
            _ => None,
        }
    }
}

impl Process {
    /// Times as the network reads them: t / T.
    pub fn times(&self, times: &[usize]) -> Vec<f64> {
        times.iter().map(|&t| t as f64 / self.schedule.steps() as f64).collect()
    }

    /// What ψ says of `x` (`[b, G]`) at t.
    fn ask(&self, psi: &Psi, x: Tensor<2>, known: &Known, t: usize) -> Tensor<2> {
        let b = x.dims()[0];
        let read = put_back(x.mul_scalar(self.schedule.reads(self.parametrisation, t)), known);
        psi.forward(read, known, &self.times(&vec![t; b]), None)
    }

    /// Hidden genes of the records `ids`, with every hidden gene asked for. Without `spread` a readout that needs no samples draws
    /// none: then its own values stand for their mean, and the spread is 0.
    pub fn impute(
        &self,
        psi: &Psi,
        known: &Known,
        ids: &[u64],
        (readout, solver): (Readout, Solver),
        spread: bool,
    ) -> Imputed {
        let ask = |x: Tensor<2>, t: usize| self.ask(psi, x, known, t);
        let (bits, visible) = (values(known.bits.clone()), values(known.visible.clone()));
        let over = |draws: &[Vec<f32>]| -> (Vec<f32>, Vec<f32>) {
            let n = draws.len() as f64;
            let of = |(i, &bit): (usize, &f32)| {
                if bit != 0.0 {
                    return (visible[i], 0.0);
                }
                let m = draws.iter().map(|d| f64::from(d[i])).sum::<f64>() / n;
                let v = draws.iter().map(|d| (f64::from(d[i]) - m).powi(2)).sum::<f64>() / n;
                (m as f32, v.sqrt() as f32)
            };
            bits.iter().enumerate().map(of).unzip()
        };
        let sampled = |n: usize| {
            let draw = |k: u32| values(self.sample(&ask, known, ids, k, solver));
            over(&(0..n as u32).map(draw).collect::<Vec<_>>())
        };
        match readout {
            Readout::OneStep(n) => {
                let start = |k: u32| values(self.one_step(&ask, known, ids, k));
                let starts = if self.parametrisation == Parametrisation::Preconditioned { 1 } else { n };
                let mean = over(&(0..starts as u32).map(start).collect::<Vec<_>>()).0;
                let (sampled, spread) = if spread { sampled(n) } else { (mean.clone(), vec![0.0; mean.len()]) };
                Imputed { mean, sampled, spread }
            }
            Readout::MeanOfSamples(n) => {
                let (mean, spread) = sampled(n);
                Imputed { sampled: mean.clone(), mean, spread }
            }
        }
    }

    /// x̂_0 at t = T − 1, not held in [−1, 1].
    fn one_step(&self, ask: &dyn Fn(Tensor<2>, usize) -> Tensor<2>, known: &Known, ids: &[u64], k: u32) -> Tensor<2> {
        let t = self.schedule.steps() - 1;
        let x = put_back(self.noise(known, ids, k, 0), known);
        mix(self.schedule.clean(self.parametrisation, t), x.clone(), ask(x, t))
    }

    /// Sample `k`.
    pub fn sample(
        &self,
        ask: &dyn Fn(Tensor<2>, usize) -> Tensor<2>,
        known: &Known,
        ids: &[u64],
        k: u32,
        solver: Solver,
    ) -> Tensor<2> {
        let schedule = &self.schedule;
        let last = schedule.steps() - 1;
        let mut x = put_back(self.noise(known, ids, k, 0), known);
        let clean = |x: &Tensor<2>, t: usize| {
            let said = ask(x.clone(), t);
            mix(schedule.clean(self.parametrisation, t), x.clone(), said).clamp(-1.0, 1.0)
        };
        match solver {
            Solver::Ancestral => {
                for t in (1..=last).rev() {
                    let back = schedule.posterior(t);
                    let mean = mix(back.mean, clean(&x, t), x.clone());
                    let noise = self.noise(known, ids, k, (last - t + 1) as u32);
                    x = put_back(mean + noise.mul_scalar(back.variance.sqrt()), known);
                }
                put_back(clean(&x, 0), known)
            }
            Solver::Ddim(steps) => {
                let at = evenly(last, steps);
                for (i, &t) in at.iter().enumerate() {
                    let x0 = clean(&x, t);
                    let Some(&next) = at.get(i + 1) else {
                        x = x0;
                        break;
                    };
                    let noise = mix(schedule.noise(t), x, x0.clone());
                    x = put_back(mix(schedule.noisy(next), x0, noise), known);
                }
                put_back(x, known)
            }
        }
    }

    /// Standard normals of sample `k` before its `step`, `[b, G]`.
    fn noise(&self, known: &Known, ids: &[u64], k: u32, step: u32) -> Tensor<2> {
        let [b, genes] = known.bits.dims();
        let key = DrawKey::new(self.seed, Purpose::SampleNoise);
        let mut out = vec![0.0; b * genes];
        for (row, &id) in out.chunks_mut(genes).zip(ids) {
            draw::normals(key, [id as u32, (id >> 32) as u32, (k << 16) | step], row);
        }
        Tensor::from_data(TensorData::new(out, [b, genes]), &known.bits.device())
    }
}

/// `x` where nothing is visible, else what is.
fn put_back(x: Tensor<2>, known: &Known) -> Tensor<2> {
    let hidden = known.bits.clone().neg().add_scalar(1.0);
    x * hidden + known.visible.clone()
}

fn mix(by: Mix, a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    a.mul_scalar(by.first) + b.mul_scalar(by.second)
}

fn values(x: Tensor<2>) -> Vec<f32> {
    x.into_data().try_to_vec().expect("values are f32")
}

/// `steps` steps from `last` to 0, evenly spaced; the last one alone when one is asked for.
fn evenly(last: usize, steps: usize) -> Vec<usize> {
    let gaps = (steps - 1).max(1) as f64;
    (0..steps).map(|i| (last as f64 * (1.0 - i as f64 / gaps)).round() as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::layers::reference::tensor;

    /// Two records of three genes, of which the first is visible.
    fn known() -> Known {
        Known {
            visible: tensor(vec![0.5, 0., 0., -0.25, 0., 0.], [2, 3]),
            bits: tensor(vec![1., 0., 0., 1., 0., 0.], [2, 3]),
            pair: tensor(vec![0.; 6], [2, 3]),
            around: None,
            text: None,
        }
    }

    fn process(parametrisation: Parametrisation) -> Process {
        Process { schedule: Schedule::cosine(100, 0.5), parametrisation, seed: 3 }
    }

    /// What a network says that knows every clean value: .4.
    fn told(process: &Process) -> impl Fn(Tensor<2>, usize) -> Tensor<2> {
        let process = process.clone();
        move |x: Tensor<2>, t: usize| {
            let noise = process.schedule.noise(t);
            let eps = x.mul_scalar(noise.first).add_scalar(noise.second * 0.4);
            let target = process.schedule.target(process.parametrisation, t);
            eps.mul_scalar(target.second).add_scalar(target.first * 0.4)
        }
    }

    #[test]
    fn both_solvers_find_the_value_when_it_is_told_and_keep_what_is_visible() {
        for parametrisation in [Parametrisation::V, Parametrisation::Eps, Parametrisation::Preconditioned] {
            let process = process(parametrisation);
            for solver in [Solver::Ddim(10), Solver::Ddim(100), Solver::Ancestral] {
                let out = values(process.sample(&told(&process), &known(), &[7, 9], 0, solver));
                for (i, value) in out.iter().enumerate() {
                    let expected = [0.5, 0.4, 0.4, -0.25, 0.4, 0.4][i];
                    assert!((value - expected).abs() < 1e-3, "{parametrisation:?} {solver:?}: {out:?}"); // f32, 100 steps
                }
            }
        }
    }

    /// With x̂_0 = 0 the ancestral sampler's last mean is 0 and DDIM's path is the noise scaled down.
    #[test]
    fn draws_are_keyed_by_record_sample_and_step() {
        let process = process(Parametrisation::V);
        let noise = |ids: &[u64], k, step| values(process.noise(&known(), ids, k, step));
        let first = noise(&[7, 9], 0, 0);
        assert_eq!(first[3..], noise(&[8, 9], 0, 0)[3..]);
        for other in
            [noise(&[8, 9], 0, 0), noise(&[7, 9], 1, 0), noise(&[7, 9], 0, 1), noise(&[7 + (1 << 32), 9], 0, 0)]
        {
            assert_ne!(first[..3], other[..3]);
        }
    }

    #[test]
    fn steps_are_evenly_spaced() {
        assert_eq!(evenly(999, 4), [999, 666, 333, 0]);
        assert_eq!(evenly(999, 1), [999]);
        assert_eq!(evenly(9, 10), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
    }
}
