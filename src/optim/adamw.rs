//! AdamW (Loshchilov & Hutter 2019), in the order of operations of PyTorch's single-tensor path.

use super::OptimConfig;
use crate::elementwise::adamw::{self, Constants};

/// One update of all parameters; `t` is `optim_step` + 1.
///
/// Elementwise in f32, bias corrections in f64 and rounded once (`docs/step.md` §5):
/// p ← p·(1 − lr·wd); m ← β₁m + (1 − β₁)g; v ← β₂v + ((1 − β₂)g)g; p ← p − (lr/c₁)·(m / (√v/√c₂ + ε)).
pub fn update(config: &OptimConfig, lr: f64, t: u64, gradient: &[f32], p: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    adamw::update(&constants(config, lr, t), gradient, p, m, v);
}

/// What is the same for all parameters in update `t` = `optim_step` + 1, made in f64 and rounded once. Nothing is clipped.
pub fn constants(config: &OptimConfig, lr: f64, t: u64) -> Constants {
    let [b1, b2] = config.betas;
    let correction = |b: f64| 1.0 - libm::pow(b, t as f64);
    Constants {
        clip: 1.0,
        keep: (1.0 - lr * config.weight_decay) as f32,
        b1: b1 as f32,
        one_less_b1: (1.0 - b1) as f32,
        b2: b2 as f32,
        one_less_b2: (1.0 - b2) as f32,
        step: (lr / correction(b1)) as f32,
        root_c2: libm::sqrt(correction(b2)) as f32,
        eps: config.eps as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::schedule::Schedule;

    fn config(weight_decay: f64) -> OptimConfig {
        OptimConfig {
            lr: 1e-3,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay,
            clip_norm: None,
            ema: None,
            schedule: Schedule::Constant,
            warmup_steps: 0,
            schedule_steps: None,
        }
    }

    /// The update in f64, from the formulas of the paper.
    fn reference(g: f64, p: f64, m: f64, v: f64, t: i32, wd: f64) -> (f64, f64, f64) {
        let m = 0.9 * m + 0.1 * g;
        let v = 0.999 * v + 0.001 * g * g;
        let (mh, vh) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.999f64.powi(t)));
        (p * (1.0 - 1e-3 * wd) - 1e-3 * mh / (vh.sqrt() + 1e-8), m, v)
    }

    #[test]
    fn three_updates_follow_the_formulas() {
        for wd in [0.0, 0.05] {
            let (mut p, mut m, mut v) = ([0.5f32, -1.25], [0.0f32; 2], [0.0f32; 2]);
            let mut r = [(0.5, 0.0, 0.0), (-1.25, 0.0, 0.0)];
            for t in 1..=3 {
                let g = [0.3f32 / t as f32, -2e-4];
                update(&config(wd), 1e-3, t, &g, &mut p, &mut m, &mut v);
                for i in 0..2 {
                    r[i] = reference(f64::from(g[i]), r[i].0, r[i].1, r[i].2, t as i32, wd);
                    // A few f32 roundings of values near 1.
                    assert!((f64::from(p[i]) - r[i].0).abs() < 3e-7, "{} against {}", p[i], r[i].0);
                }
            }
        }
    }

    /// Golden (`docs/step.md` §5), computed by an independent f32 emulation: these bits are the definition of the order of operations.
    #[test]
    fn one_update_has_the_bits_of_the_definition() {
        let (mut p, mut m, mut v) = ([0.5f32, -1.25, 3.0], [0.01f32, 0.0, -0.2], [1e-4f32, 0.0, 0.5]);
        update(&config(0.05), 1e-3, 7, &[0.3, -2e-4, 1e-9], &mut p, &mut m, &mut v);
        let bits = |x: [f32; 3]| x.map(f32::to_bits);
        assert_eq!((bits(p), bits(m), bits(v)), GOLDEN);
    }

    const GOLDEN: ([u32; 3], [u32; 3], [u32; 3]) = (
        [1056948563, 3214929245, 1077935670],
        [1025490551, 3081225644, 3191362027],
        [960962533, 774892543, 1056947831],
    );
}
