//! The noise process of imputation: cosine schedule in f64, what the network says of a noisy vector, and one step back
//! (`spotdiff.md` §4).
//!
//! Steps are t = 0 … T − 1: x_t = √ᾱ_t·x_0 + √(1 − ᾱ_t)·ε.

use serde::{Deserialize, Serialize};

use crate::model::dit::diffusion::{BetaSchedule, products};

/// What the network says of a noisy vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parametrisation {
    /// The noise ε.
    Eps,
    /// v = √ᾱ·ε − √(1 − ᾱ)·x_0: at the last step nearly −x_0, so that x_0 is well conditioned there.
    V,
    /// What is left of x_0 once the best linear guess by x_t is taken away, in its own deviation (Karras et al. 2022, §5, for values of
    /// size `signal`); and x_t is read as that guess (ours; theirs is read at deviation 1). So the network says values of deviation 1 at all times, hands no
    /// noise through, and at the last step reads none.
    #[default]
    Preconditioned,
}

/// β_t and ᾱ_t.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    betas: Vec<f64>,
    kept: Vec<f64>,
    /// Deviation of x_0 that preconditioning reckons with.
    signal: f64,
}

/// How a value is made of two others: `first`·a + `second`·b.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mix {
    /// Of the first.
    pub first: f64,
    /// Of the second.
    pub second: f64,
}

/// The distribution of x_{t−1} given x_t and x_0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Posterior {
    /// Its mean, of (x_0, x_t).
    pub mean: Mix,
    /// Its variance.
    pub variance: f64,
}

impl Schedule {
    /// The cosine schedule of `steps` ≥ 2, for values of deviation `signal`.
    pub fn cosine(steps: usize, signal: f64) -> Self {
        let betas = BetaSchedule::Cosine.betas(steps);
        Self { kept: products(&betas), betas, signal }
    }

    /// Of preconditioning at t: the weight of x_t in the best linear guess of x_0, and the deviation of what is left.
    fn guess(&self, t: usize) -> (f64, f64) {
        let (Mix { first, second }, signal) = (self.noisy(t), self.signal);
        let variance = (first * signal).powi(2) + second * second;
        (first * signal * signal / variance, signal * second / variance.sqrt())
    }

    /// By what the network reads the hidden values of x_t.
    pub fn reads(&self, what: Parametrisation, t: usize) -> f64 {
        match what {
            Parametrisation::Eps | Parametrisation::V => 1.0,
            Parametrisation::Preconditioned => self.guess(t).0,
        }
    }

    /// T.
    pub fn steps(&self) -> usize {
        self.betas.len()
    }

    /// β_t.
    pub fn beta(&self, t: usize) -> f64 {
        self.betas[t]
    }

    /// ᾱ_t, the share of x_0's variance that is left.
    pub fn kept(&self, t: usize) -> f64 {
        self.kept[t]
    }

    /// x_t of (x_0, ε).
    pub fn noisy(&self, t: usize) -> Mix {
        Mix { first: self.kept[t].sqrt(), second: (1.0 - self.kept[t]).sqrt() }
    }

    /// What the network is to say, of (x_0, ε).
    pub fn target(&self, what: Parametrisation, t: usize) -> Mix {
        let Mix { first, second } = self.noisy(t);
        match what {
            Parametrisation::Eps => Mix { first: 0.0, second: 1.0 },
            Parametrisation::V => Mix { first: -second, second: first },
            Parametrisation::Preconditioned => {
                let (weight, left) = self.guess(t);
                Mix { first: (1.0 - weight * first) / left, second: -weight * second / left }
            }
        }
    }

    /// x_0 of (x_t, what the network said).
    pub fn clean(&self, what: Parametrisation, t: usize) -> Mix {
        let Mix { first, second } = self.noisy(t);
        match what {
            Parametrisation::Eps => Mix { first: 1.0 / first, second: -second / first },
            Parametrisation::V => Mix { first, second: -second },
            Parametrisation::Preconditioned => {
                let (weight, left) = self.guess(t);
                Mix { first: weight, second: left }
            }
        }
    }

    /// ε of (x_t, x_0).
    pub fn noise(&self, t: usize) -> Mix {
        let Mix { first, second } = self.noisy(t);
        Mix { first: 1.0 / second, second: -first / second }
    }

    /// One step back from t ≥ 1.
    pub fn posterior(&self, t: usize) -> Posterior {
        let (beta, here, before) = (self.betas[t], self.kept[t], self.kept[t - 1]);
        let mean = Mix {
            first: before.sqrt() * beta / (1.0 - here),
            second: (1.0 - beta).sqrt() * (1.0 - before) / (1.0 - here),
        };
        Posterior { mean, variance: beta * (1.0 - before) / (1.0 - here) }
    }
}

impl Mix {
    /// `first`·a + `second`·b.
    pub fn of(self, a: f64, b: f64) -> f64 {
        self.first * a + self.second * b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `spotdiff.md` §4, to the digits printed there.
    #[test]
    fn the_tables_are_the_spec_s() {
        let near =
            |ours: f64, theirs: f64, digit: f64| assert!((ours - theirs).abs() <= 0.51 * digit, "{ours}, {theirs}");
        let long = Schedule::cosine(1000, 0.5);
        for (t, beta, digit) in [
            (0, 4.128e-5, 1e-8),
            (1, 4.614e-5, 1e-8),
            (500, 3.15569e-3, 1e-8),
            (998, 0.74999939, 1e-8),
            (999, 0.999, 1e-12),
        ] {
            near(long.beta(t), beta, digit);
        }
        for (t, kept) in [(0, 0.99995872), (250, 0.84588799), (500, 0.49228517), (750, 0.14317865)] {
            near(long.kept(t), kept, 1e-8);
        }
        let parity = Schedule::cosine(1500, 0.5);
        near(parity.beta(0), 2.698e-5, 1e-8);
        near(parity.kept(750), 0.49280464, 1e-8);
        let short = [
            0.02790726, 0.07549364, 0.12439599, 0.17718953, 0.23728153, 0.30988344, 0.40400314, 0.53699818, 0.74382937,
            0.999,
        ];
        let ours = Schedule::cosine(10, 0.5);
        short.iter().enumerate().for_each(|(t, &beta)| near(ours.beta(t), beta, 1e-8));
    }

    #[test]
    fn one_step_back_equals_its_vector() {
        let schedule = Schedule::cosine(10, 0.5);
        let clean = schedule.clean(Parametrisation::Eps, 5).of(0.4, 0.3);
        let back = schedule.posterior(5);
        for (ours, theirs) in [(clean, 0.26795362), (back.mean.of(clean, 0.4), 0.34366982), (back.variance, 0.23794263)]
        {
            assert!((ours - theirs).abs() < 6e-9, "{ours} against {theirs}");
        }
    }

    /// Over x_0 and ε of their deviations, what is left has deviation 1 and nothing in common with the guess.
    #[test]
    fn what_a_preconditioned_network_says_is_of_one_size_and_no_more_to_be_guessed_linearly() {
        let (schedule, signal) = (Schedule::cosine(1000, 0.5), 0.5);
        for t in [1, 100, 500, 900, 999] {
            let (xt, said) = (schedule.noisy(t), schedule.target(Parametrisation::Preconditioned, t));
            let variance = (said.first * signal).powi(2) + said.second * said.second;
            let common = said.first * xt.first * signal * signal + said.second * xt.second;
            assert!((variance - 1.0).abs() < 1e-9 && common.abs() < 1e-9, "{t}: {variance}, {common}");
        }
        assert!(schedule.reads(Parametrisation::Preconditioned, 999) < 1e-4);
    }

    #[test]
    fn every_parametrisation_leads_back_to_where_the_noise_came_from() {
        let schedule = Schedule::cosine(1000, 0.5);
        for what in [Parametrisation::Eps, Parametrisation::V, Parametrisation::Preconditioned] {
            for t in [0, 1, 500, 990] {
                let (x0, eps) = (0.3, -1.2);
                let (xt, said) = (schedule.noisy(t).of(x0, eps), schedule.target(what, t).of(x0, eps));
                assert!((schedule.clean(what, t).of(xt, said) - x0).abs() < 1e-9, "{what:?} at {t}");
                assert!((schedule.noise(t).of(xt, x0) - eps).abs() < 1e-9, "{what:?} at {t}");
            }
        }
    }
}
