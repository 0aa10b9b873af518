//! The diffusion's schedule: how much of the image is left after each of its 1,000 steps (`spatia.md` §6, option `ddpm`).

use serde::{Deserialize, Serialize};

/// Steps of the noise process.
pub const STEPS: usize = 1000;

/// β, the variance that a step adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// From 1e-4 to .02 in even steps.
    Linear,
    /// Such that ᾱ_k = cos²((k/T + .008) / 1.008 · π/2), β at most .999.
    Cosine,
}

impl BetaSchedule {
    /// β_k for k = 0 … `steps` − 1.
    pub fn betas(self, steps: usize) -> Vec<f64> {
        let last = (steps - 1) as f64;
        let signal = |k: usize| {
            let angle = (k as f64 / steps as f64 + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2;
            libm::cos(angle) * libm::cos(angle)
        };
        let beta = |k: usize| match self {
            BetaSchedule::Linear => 1e-4 + k as f64 / last * (0.02 - 1e-4),
            BetaSchedule::Cosine => (1.0 - signal(k + 1) / signal(k)).min(0.999),
        };
        (0..steps).map(beta).collect()
    }

    /// ᾱ_k for k = 0 … T − 1: the product of 1 − β up to and with step k.
    pub fn kept(self) -> Vec<f64> {
        products(&self.betas(STEPS))
    }
}

/// ᾱ of β: the product of 1 − β up to and with each step.
pub fn products(betas: &[f64]) -> Vec<f64> {
    let next = |kept: &mut f64, beta: &f64| {
        *kept *= 1.0 - beta;
        Some(*kept)
    };
    betas.iter().scan(1.0, next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the published schedules: the linear one ends at 4.0358e-5; the cosine one is its formula, up to the cap.
    #[test]
    fn schedules_are_the_published_ones() {
        let linear = BetaSchedule::Linear.kept();
        assert!((linear[0] - 0.9999).abs() < 1e-12 && (linear[999] - 4.0358e-5).abs() < 1e-8, "{}", linear[999]);
        let cosine = BetaSchedule::Cosine.kept();
        let start = (0.008f64 / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
        let half = (0.508f64 / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
        assert!((cosine[499] - half / start).abs() < 1e-9, "{}", cosine[499]);
        assert!(cosine[999] > 0.0);
        for kept in [linear, cosine] {
            assert!(kept.windows(2).all(|w| w[1] < w[0]));
        }
    }
}
