//! How images become noisy and what the network is to say of them: the rectified flow and the diffusion
//! (`spatia.md` §6), with their keyed draws (`docs/step.md` §3).
//!
//! Draws are made on the host. A record's stream is [`step_stream`] in training, [`record_stream`] in validation, assays
//! and generation.

use serde::{Deserialize, Serialize};
use syncytia_shards::draw::{self, DrawKey, Purpose};

use super::diffusion::{BetaSchedule, STEPS};
use crate::tensor::{Tensor, TensorData};

/// What the network is to say of a noisy image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Objective {
    /// Rectified flow: x_t = (1 − t)·ε + t·x, target the velocity x − ε.
    Flow(TimeDraw),
    /// Diffusion: x_k = √ᾱ_k·x + √(1 − ᾱ_k)·ε, target ε; the time is k / 1000.
    Ddpm(BetaSchedule),
}

/// Where on the flow's path a record is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeDraw {
    /// sigmoid(N(0, 1)).
    LogitNormal,
    /// U[0, 1).
    Uniform,
}

/// The last three words of a record's counters.
pub type Stream = [u32; 3];

/// Of the record in `slot` of `global_step`.
pub fn step_stream(global_step: u32, slot: u32) -> Stream {
    [slot, global_step, 0]
}

/// Of a record in an assay: 0 is validation.
pub fn record_stream(record_id: u64, assay: u32) -> Stream {
    [record_id as u32, (record_id >> 32) as u32, assay]
}

/// Standard normals, `per_record` for each stream.
pub fn noise(seed: u64, streams: &[Stream], per_record: usize) -> Vec<f32> {
    let key = DrawKey::new(seed, Purpose::Noise);
    let mut out = vec![0.0; streams.len() * per_record];
    out.chunks_exact_mut(per_record).zip(streams).for_each(|(record, &stream)| draw::normals(key, stream, record));
    out
}

/// Which records lose their condition, each with probability `p`.
pub fn dropped(seed: u64, streams: &[Stream], p: f64) -> Vec<bool> {
    let key = DrawKey::new(seed, Purpose::ConditionDrop);
    streams.iter().map(|&stream| draw::bernoulli(key.word(0, stream), p)).collect()
}

/// A noisy micro-batch and what the network is to say of it, `[b, height, width, channels]` both.
#[derive(Debug, Clone)]
pub struct Noisy {
    /// What the network sees.
    pub images: Tensor<4>,
    /// What it is to say.
    pub target: Tensor<4>,
}

impl Objective {
    /// A time in [0, 1] for each stream.
    pub fn times(self, seed: u64, streams: &[Stream]) -> Vec<f64> {
        let key = DrawKey::new(seed, Purpose::Timestep);
        let time = |&stream: &Stream| {
            let [a, b, ..] = key.block([0, stream[0], stream[1], stream[2]]);
            match self {
                Objective::Flow(TimeDraw::LogitNormal) => {
                    1.0 / (1.0 + libm::exp(-f64::from(draw::normal_pair(a, b)[0])))
                }
                Objective::Flow(TimeDraw::Uniform) => f64::from(draw::uniform(a)),
                Objective::Ddpm(_) => ((u64::from(a) * STEPS as u64) >> 32) as f64 / STEPS as f64,
            }
        };
        streams.iter().map(time).collect()
    }

    /// `images` and `noise`: `[b, height, width, channels]`; `times`: `[b]` as [`Objective::times`] gives them.
    pub fn noisy(self, images: Tensor<4>, noise: Tensor<4>, times: &[f64]) -> Noisy {
        let device = images.device();
        let per_record = |f: &dyn Fn(f64) -> f64| {
            let values: Vec<f32> = times.iter().map(|&t| f(t) as f32).collect();
            Tensor::<1>::from_data(TensorData::new(values, [times.len()]), &device).reshape([times.len(), 1, 1, 1])
        };
        match self {
            Objective::Flow(_) => Noisy {
                images: noise.clone() * per_record(&|t| 1.0 - t) + images.clone() * per_record(&|t| t),
                target: images - noise,
            },
            Objective::Ddpm(betas) => {
                let kept = betas.kept();
                let at = |t: f64| kept[(t * STEPS as f64).round() as usize];
                let images = images * per_record(&|t| at(t).sqrt());
                Noisy { images: images + noise.clone() * per_record(&|t| (1.0 - at(t)).sqrt()), target: noise }
            }
        }
    }
}

/// `[b]`: each record's mean over its pixels of (prediction − target)².
pub fn squared_errors(prediction: Tensor<4>, target: Tensor<4>) -> Tensor<1> {
    let [b, height, width, channels] = prediction.dims();
    let off = (prediction - target).reshape([b, height * width * channels]);
    (off.clone() * off).mean_dim(1).reshape([b])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::cpu;

    const FLOW: Objective = Objective::Flow(TimeDraw::LogitNormal);
    const DDPM: Objective = Objective::Ddpm(BetaSchedule::Linear);

    fn images(values: &[f32]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len() / 2, 1, 2, 1]), &cpu())
    }

    fn check(x: Tensor<4>, expected: &[f64]) {
        let x: Vec<f32> = x.into_data().try_to_vec().unwrap();
        assert_eq!(x.len(), expected.len());
        x.iter().zip(expected).for_each(|(a, b)| assert!((f64::from(*a) - b).abs() < 1e-6, "{a} against {b}"));
    }

    #[test]
    fn a_flow_runs_straight_from_noise_to_the_image() {
        let (x, e) = (images(&[1.0, -1.0, 0.5, 0.0]), images(&[0.2, 2.0, -1.0, 1.0]));
        let noisy = FLOW.noisy(x.clone(), e.clone(), &[0.25, 1.0]);
        check(noisy.images, &[0.4, 1.25, 0.5, 0.0]);
        check(noisy.target, &[0.8, -3.0, 1.5, -1.0]);
        check(FLOW.noisy(x, e, &[0.0, 0.0]).images, &[0.2, 2.0, -1.0, 1.0]);
    }

    #[test]
    fn a_diffusion_keeps_the_variance_and_asks_for_the_noise() {
        let (x, e) = (images(&[1.0, -1.0]), images(&[0.2, 2.0]));
        let noisy = DDPM.noisy(x, e, &[0.5]);
        let kept = BetaSchedule::Linear.kept()[500];
        let mixed = |x: f64, e: f64| kept.sqrt() * x + (1.0 - kept).sqrt() * e;
        check(noisy.images, &[mixed(1.0, 0.2), mixed(-1.0, 2.0)]);
        check(noisy.target, &[0.2, 2.0]);
    }

    #[test]
    fn errors_are_means_over_the_pixels_of_a_record() {
        let of = squared_errors(images(&[1.0, 2.0, 0.0, 1.0]), images(&[1.0, 0.0, 3.0, 0.0]));
        let of: Vec<f32> = of.into_data().try_to_vec().unwrap();
        assert_eq!(of, [2.0, 5.0]);
    }

    /// Bands of four standard errors at 20,000 draws.
    #[test]
    fn times_are_drawn_as_named() {
        let streams: Vec<Stream> = (0..20_000).map(|slot| step_stream(3, slot)).collect();
        let share = |times: &[f64], below: f64| times.iter().filter(|t| **t < below).count() as f64 / 20_000.0;
        let near = |a: f64, b: f64| assert!((a - b).abs() < 0.015, "{a} against {b}");
        let logit = FLOW.times(1, &streams);
        near(share(&logit, 0.5), 0.5);
        near(share(&logit, 1.0 / (1.0 + 1f64.exp())), 0.1587); // one standard deviation below
        let uniform = Objective::Flow(TimeDraw::Uniform).times(1, &streams);
        near(share(&uniform, 0.25), 0.25);
        let steps = DDPM.times(1, &streams);
        near(share(&steps, 0.9), 0.9);
        assert!(steps.iter().all(|t| (t * 1000.0).round() / 1000.0 == *t && (0.0..1.0).contains(t)));
    }

    #[test]
    fn draws_are_those_of_the_record_however_the_batch_is_cut() {
        let streams: Vec<Stream> = (0..6).map(|slot| step_stream(9, 100 + slot)).collect();
        let parts = |f: &dyn Fn(&[Stream]) -> Vec<f32>| {
            assert_eq!(f(&streams), [f(&streams[..2]), f(&streams[2..])].concat());
        };
        parts(&|s| noise(4, s, 7));
        parts(&|s| FLOW.times(4, s).iter().map(|&t| t as f32).collect());
        parts(&|s| dropped(4, s, 0.5).iter().map(|&d| f32::from(d)).collect());
        assert_ne!(noise(4, &streams, 7), noise(5, &streams, 7));
        assert_ne!(noise(4, &[record_stream(1 << 32, 0)], 7), noise(4, &[record_stream(1, 0)], 7));
    }

    #[test]
    fn as_many_conditions_are_dropped_as_asked() {
        let streams: Vec<Stream> = (0..20_000).map(|slot| step_stream(3, slot)).collect();
        let n = dropped(1, &streams, 0.1).iter().filter(|d| **d).count();
        assert!((1830..2170).contains(&n), "{n} of 20,000 at .1"); // four standard errors
        assert!(!dropped(1, &streams, 0.0).contains(&true));
    }
}
