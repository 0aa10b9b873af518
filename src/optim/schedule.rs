//! The learning rate as a function of `optim_step`.

use serde::{Deserialize, Serialize};

use super::OptimConfig;

/// Course after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Stays at the peak.
    #[default]
    Constant,
    /// Half a cosine from the peak to 0 at `schedule_steps`.
    Cosine,
    /// A line from the peak to 0 at `schedule_steps`.
    Linear,
}

/// The rate of update `optim_step` (0-based): linear warm-up to the peak over `warmup_steps`, then the course.
pub fn rate(config: &OptimConfig, optim_step: u64) -> f64 {
    let warmup =
        if optim_step < config.warmup_steps { (optim_step + 1) as f64 / config.warmup_steps as f64 } else { 1.0 };
    let course = match (config.schedule, config.schedule_steps) {
        (Schedule::Constant, _) | (_, None) => 1.0,
        (course, Some(total)) => {
            let span = total.saturating_sub(config.warmup_steps).max(1) as f64;
            let done = (optim_step.saturating_sub(config.warmup_steps) as f64 / span).min(1.0);
            match course {
                Schedule::Cosine => 0.5 * (1.0 + libm::cos(std::f64::consts::PI * done)),
                _ => 1.0 - done,
            }
        }
    };
    config.lr * warmup * course
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_warm_up_fall_and_stay() {
        let text = "lr = 2.0\nschedule = \"cosine\"\nwarmup_steps = 4\nschedule_steps = 14\n";
        let config: OptimConfig = toml::from_str(text).unwrap();
        let rates: Vec<f64> = [0, 1, 3, 4, 9, 14, 99].iter().map(|&t| rate(&config, t)).collect();
        for (ours, expected) in rates.iter().zip([0.5, 1.0, 2.0, 2.0, 1.0, 0.0, 0.0]) {
            assert!((ours - expected).abs() < 1e-12, "{rates:?}");
        }
    }
}
