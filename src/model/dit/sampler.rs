//! From noise to images: solvers of the flow (Euler, midpoint), DDIM for the diffusion, and guidance by the condition
//! (`spatia.md` §6).

use serde::{Deserialize, Serialize};

use super::diffusion::{BetaSchedule, STEPS};
use super::noising::Objective;
use super::{Condition, Destinations, Dit, DitInput};
use crate::tensor::Tensor;

/// `[sampler]`: how images are made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerConfig {
    /// Which solver; it must fit the objective that the network was trained on.
    pub solver: Solver,
    /// Its steps; the midpoint rule asks the network twice in each.
    pub steps: usize,
    /// s of v = v_u + s·(v_c − v_u); 1 is the condition alone and asks nothing of the null condition.
    pub guidance: f64,
}

/// Solvers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Solver {
    /// Of the flow, first order.
    Euler,
    /// Of the flow, second order.
    Midpoint,
    /// Of the diffusion, without noise on the way.
    Ddim,
}

/// Why no image is made.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// There is nothing to guide away from.
    #[error(
        "guidance {guidance} needs a null condition, and this network was trained without one \
         (model.dit.condition_dropout = 0): use guidance = 1, or train with condition_dropout above 0"
    )]
    NoNullCondition {
        /// The guidance asked for.
        guidance: f64,
    },
    /// The solver belongs to the other objective.
    #[error(
        "solver {solver:?} does not fit the objective {objective:?}: a flow takes euler or midpoint, ddpm takes ddim"
    )]
    SolverOfOtherObjective {
        /// The solver asked for.
        solver: Solver,
        /// What the network was trained on.
        objective: Objective,
    },
    /// Too few steps, or more than the diffusion has.
    #[error("{steps} solver steps are not between 1 and {most}")]
    Steps {
        /// The steps asked for.
        steps: usize,
        /// The most there can be.
        most: usize,
    },
    /// A guidance that is not a number.
    #[error("guidance {guidance} is not a finite number")]
    Guidance {
        /// The guidance asked for.
        guidance: f64,
    },
}

/// Solver steps of a flow are counted in 16 bits of the draws' step.
const MOST_STEPS: usize = 1 << 16;

impl SamplerConfig {
    /// Whether a network that was trained so can be sampled so.
    pub fn check(&self, objective: Objective, dit: &super::DitConfig) -> Result<(), SampleError> {
        let SamplerConfig { solver, steps, guidance } = *self;
        let most = match (objective, solver) {
            (Objective::Flow(_), Solver::Euler | Solver::Midpoint) => MOST_STEPS,
            (Objective::Ddpm(_), Solver::Ddim) => STEPS,
            _ => return Err(SampleError::SolverOfOtherObjective { solver, objective }),
        };
        if steps == 0 || steps > most {
            return Err(SampleError::Steps { steps, most });
        }
        if !guidance.is_finite() {
            return Err(SampleError::Guidance { guidance });
        }
        if guidance != 1.0 && dit.condition_dropout == 0.0 {
            return Err(SampleError::NoNullCondition { guidance });
        }
        Ok(())
    }
}

/// Where tokens are merged while images are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleMerging {
    /// Top-left of every cell.
    TopLeft,
    /// Drawn anew for every question to the network, keyed by this seed and the question's number.
    Drawn {
        /// Seed of the draws.
        seed: u64,
    },
}

/// Images of `condition` from `noise` (`[b, image, image, channels]`, standard normals), pixels mostly in [−1, 1].
///
/// The same noise with another condition gives the picture's counterpart. Each record depends on its noise and condition
/// alone.
pub fn generate(
    dit: &Dit,
    objective: Objective,
    config: &SamplerConfig,
    condition: &Condition,
    noise: Tensor<4>,
    merging: SampleMerging,
) -> Result<Tensor<4>, SampleError> {
    config.check(objective, dit.config())?;
    let b = noise.dims()[0];
    let mut questions = 0;
    let mut ask = |images: Tensor<4>, time: f64| {
        let destinations = match merging {
            SampleMerging::TopLeft => Destinations::TopLeft,
            SampleMerging::Drawn { seed } => Destinations::drawn(seed, questions),
        };
        questions += 1;
        let say = |condition: Condition| {
            let input = DitInput { images: images.clone(), times: vec![time; b], condition, destinations };
            dit.forward(&input, None)
        };
        guided(config.guidance, || say(condition.clone()), || say(condition.clone().dropped(true)))
    };
    Ok(match (objective, config.solver) {
        (Objective::Ddpm(betas), _) => ddim(noise, betas, config.steps, ask),
        (_, Solver::Midpoint) => midpoint(noise, config.steps, &mut ask),
        _ => euler(noise, config.steps, &mut ask),
    })
}

/// v_u + s·(v_c − v_u); at s = 1 only the conditioned one is asked for, at 0 only the other.
fn guided<const D: usize>(
    s: f64,
    conditioned: impl FnOnce() -> Tensor<D>,
    unconditioned: impl FnOnce() -> Tensor<D>,
) -> Tensor<D> {
    if s == 1.0 {
        return conditioned();
    }
    let without = unconditioned();
    if s == 0.0 {
        return without;
    }
    (conditioned() - without.clone()) * s + without
}

/// x(1) of dx/dt = v(x, t) from x(0), by `steps` steps of first order.
pub fn euler<const D: usize>(
    x: Tensor<D>,
    steps: usize,
    mut velocity: impl FnMut(Tensor<D>, f64) -> Tensor<D>,
) -> Tensor<D> {
    let h = 1.0 / steps as f64;
    (0..steps).fold(x, |x, i| x.clone() + velocity(x, i as f64 * h) * h)
}

/// x(1) of dx/dt = v(x, t) from x(0), by `steps` steps of second order.
pub fn midpoint<const D: usize>(
    x: Tensor<D>,
    steps: usize,
    mut velocity: impl FnMut(Tensor<D>, f64) -> Tensor<D>,
) -> Tensor<D> {
    let h = 1.0 / steps as f64;
    (0..steps).fold(x, |x, i| {
        let t = i as f64 * h;
        let half = x.clone() + velocity(x.clone(), t) * (h / 2.0);
        x + velocity(half, t + h / 2.0) * h
    })
}

/// DDIM (η = 0) from x_{T−1} over `steps` evenly spaced steps; `noise_in` is asked at k / 1000. The image guessed on the
/// way is held in [−1, 1] and the noise made to agree, as pixels are there.
pub fn ddim<const D: usize>(
    x: Tensor<D>,
    betas: BetaSchedule,
    steps: usize,
    mut noise_in: impl FnMut(Tensor<D>, f64) -> Tensor<D>,
) -> Tensor<D> {
    let kept = betas.kept();
    let at = ddim_steps(steps);
    at.iter().enumerate().fold(x, |x, (i, &k)| {
        let (here, next) = (kept[k], at.get(i + 1).map_or(1.0, |&k| kept[k]));
        let noise = noise_in(x.clone(), k as f64 / STEPS as f64);
        let image = (x.clone() - noise * (1.0 - here).sqrt()) * (1.0 / here.sqrt());
        let image = image.clamp(-1.0, 1.0);
        let noise = (x - image.clone() * here.sqrt()) * (1.0 / (1.0 - here).sqrt());
        image * next.sqrt() + noise * (1.0 - next).sqrt()
    })
}

/// `steps` steps from the last to the first, evenly spaced; the last one alone when one is asked for.
fn ddim_steps(steps: usize) -> Vec<usize> {
    let last = (STEPS - 1) as f64;
    let gaps = (steps - 1).max(1) as f64;
    (0..steps).map(|i| (last * (1.0 - i as f64 / gaps)).round() as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::tiny;
    use super::super::noising::{TimeDraw, noise, record_stream};
    use super::super::tests::{B, condition, tensor, trained, values};
    use super::super::{DitConfig, TokenMergingConfig};
    use super::*;
    use crate::tensor::cpu;

    const FLOW: Objective = Objective::Flow(TimeDraw::LogitNormal);
    const EULER: SamplerConfig = SamplerConfig { solver: Solver::Euler, steps: 2, guidance: 1.5 };

    fn one(x: f32) -> Tensor<1> {
        tensor(vec![x], [1], &cpu())
    }

    fn decay(x: Tensor<1>, t: f64) -> Tensor<1> {
        x.neg() + t
    }

    /// `spatia.md` §6: v = −x + t, x(0) = 1, four steps.
    #[test]
    fn solvers_equal_the_reference() {
        let check = |ours: Tensor<1>, expected: f64| {
            let ours = f64::from(values(ours)[0]);
            assert!((ours - expected).abs() < 1e-7, "{ours} against {expected}"); // f32 near 1
        };
        check(euler(one(1.0), 4, decay), 0.6328125);
        check(midpoint(one(1.0), 4, decay), 0.74505806);
    }

    /// Halving the step divides the error by 2 and by 4; the next order's term allows 20 %.
    #[test]
    fn euler_is_of_first_and_midpoint_of_second_order() {
        let exact = 2.0 * (-1f64).exp();
        let ratio = |solve: &dyn Fn(usize) -> Tensor<1>| {
            let off = |steps| (f64::from(values(solve(steps))[0]) - exact).abs();
            off(8) / off(16)
        };
        let (first, second) = (ratio(&|n| euler(one(1.0), n, decay)), ratio(&|n| midpoint(one(1.0), n, decay)));
        assert!((1.6..2.4).contains(&first) && (3.2..4.8).contains(&second), "{first} and {second}");
    }

    /// When all data are one image, the noise in x is known exactly, and DDIM ends at that image from anywhere.
    #[test]
    fn ddim_finds_the_image_when_the_noise_is_told_exactly() {
        for betas in [BetaSchedule::Linear, BetaSchedule::Cosine] {
            let kept = betas.kept();
            let told = |x: Tensor<1>, t: f64| {
                let kept = kept[(t * STEPS as f64).round() as usize];
                (x - 0.4 * kept.sqrt()) / (1.0 - kept).sqrt()
            };
            // not one step: the cosine schedule's ᾱ of 2e-9 there makes a rounding of f32 20,000 times larger
            for steps in [2, 50, 1000] {
                let end = values(ddim(one(-1.3), betas, steps, told))[0];
                assert!((end - 0.4).abs() < 1e-4, "{betas:?}, {steps} steps: {end}"); // f32 over 1,000 steps
            }
        }
        assert_eq!(ddim_steps(4), [999, 666, 333, 0]);
        assert_eq!(ddim_steps(1), [999]);
        assert_eq!(ddim_steps(1000), (0..1000).rev().collect::<Vec<_>>());
    }

    #[test]
    fn guidance_goes_from_the_unconditioned_through_the_conditioned() {
        let at = |s| values(guided(s, || one(3.0), || one(1.0)))[0];
        assert_eq!([at(0.0), at(1.0), at(1.5), at(-1.0)], [1.0, 3.0, 4.0, -1.0]);
    }

    #[test]
    fn guidance_without_a_null_condition_is_an_error_and_none_is_not() {
        let without = DitConfig { condition_dropout: 0.0, ..tiny() };
        let check = |config: SamplerConfig, dit: &DitConfig| config.check(FLOW, dit);
        assert_eq!(check(EULER, &without), Err(SampleError::NoNullCondition { guidance: 1.5 }));
        assert_eq!(check(EULER, &tiny()), Ok(()));
        assert_eq!(check(SamplerConfig { guidance: 1.0, ..EULER }, &without), Ok(()));

        let (dit, noise) = (Dit::new(&without, 1, &cpu()), start(1));
        let merging = SampleMerging::TopLeft;
        let given = condition(&without, &cpu());
        assert!(generate(&dit, FLOW, &EULER, &given, noise.clone(), merging).is_err());
        assert!(generate(&dit, FLOW, &SamplerConfig { guidance: 1.0, ..EULER }, &given, noise, merging).is_ok());
    }

    #[test]
    fn what_does_not_fit_the_objective_is_refused() {
        let ddpm = Objective::Ddpm(BetaSchedule::Cosine);
        let ddim = SamplerConfig { solver: Solver::Ddim, ..EULER };
        assert!(matches!(EULER.check(ddpm, &tiny()), Err(SampleError::SolverOfOtherObjective { .. })));
        assert!(matches!(ddim.check(FLOW, &tiny()), Err(SampleError::SolverOfOtherObjective { .. })));
        let steps = |steps| SamplerConfig { steps, ..ddim }.check(ddpm, &tiny());
        assert_eq!(steps(1001), Err(SampleError::Steps { steps: 1001, most: 1000 }));
        assert_eq!(steps(0), Err(SampleError::Steps { steps: 0, most: 1000 }));
        let guidance = SamplerConfig { guidance: f64::NAN, ..EULER }.check(FLOW, &tiny());
        assert!(matches!(guidance, Err(SampleError::Guidance { .. })));
    }

    fn start(seed: u64) -> Tensor<4> {
        let streams: Vec<_> = (0..B as u64).map(|id| record_stream(id, 1)).collect();
        tensor(noise(seed, &streams, 32 * 32 * 3), [B, 32, 32, 3], &cpu())
    }

    #[test]
    fn images_repeat_with_the_seed_and_answer_to_the_condition() {
        let config = tiny();
        let dit = trained(&config, &cpu());
        let make = |noise_seed, merge_seed, condition: &Condition| {
            let merging = SampleMerging::Drawn { seed: merge_seed };
            values(generate(&dit, FLOW, &EULER, condition, start(noise_seed), merging).unwrap())
        };
        let given = condition(&config, &cpu());
        let image = make(1, 1, &given);
        assert_eq!(image, make(1, 1, &given));
        assert_ne!(image, make(2, 1, &given));
        assert_ne!(image, make(1, 2, &given));
        let mut other = given;
        other.vector = other.vector.mul_scalar(-1.0);
        assert_ne!(image, make(1, 1, &other));
    }

    #[test]
    fn guidance_is_away_from_the_null_condition() {
        let config = tiny();
        let dit = trained(&config, &cpu());
        let make = |guidance, given: &Condition| {
            let sampler = SamplerConfig { guidance, ..EULER };
            values(generate(&dit, FLOW, &sampler, given, start(1), SampleMerging::TopLeft).unwrap())
        };
        let given = condition(&config, &cpu());
        let none = make(1.0, &given.clone().dropped(true));
        assert_eq!(make(0.0, &given), none);
        assert!(make(1.0, &given) != none && make(1.5, &given) != make(1.0, &given));
    }

    #[test]
    fn a_generated_record_does_not_depend_on_its_neighbours() {
        let token_merging = TokenMergingConfig { ratio: 0.5, mlp: true, cross: true };
        let config = DitConfig { token_merging, ..tiny() };
        let dit = trained(&config, &cpu());
        let mut given = condition(&config, &cpu());
        let make = |given: &Condition| {
            let merging = SampleMerging::Drawn { seed: 3 };
            let midpoint = SamplerConfig { solver: Solver::Midpoint, ..EULER };
            values(generate(&dit, FLOW, &midpoint, given, start(1), merging).unwrap())
        };
        let before = make(&given);
        let first = given.vector.clone().narrow(0, 0, 1);
        let rest = given.vector.clone().narrow(0, 1, B - 1).mul_scalar(3.0);
        given.vector = Tensor::cat(vec![first, rest], 0);
        let after = make(&given);
        let one = before.len() / B;
        assert_eq!(before[..one], after[..one]);
        assert_ne!(before[one..], after[one..]);
    }
}
