//! AdamW's arithmetic (`optim::adamw` says what it is), parameter by parameter in f32.

use multiversion::multiversion;

/// What is the same for all parameters of an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Constants {
    /// What the gradient is multiplied by first; by 1 it keeps its bits.
    pub clip: f32,
    /// 1 − lr·wd.
    pub keep: f32,
    /// β₁.
    pub b1: f32,
    /// 1 − β₁.
    pub one_less_b1: f32,
    /// β₂.
    pub b2: f32,
    /// 1 − β₂.
    pub one_less_b2: f32,
    /// lr/c₁.
    pub step: f32,
    /// √c₂.
    pub root_c2: f32,
    /// ε.
    pub eps: f32,
}

/// One update of parameters and moments, each at least as long as the gradient.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
pub fn update(c: &Constants, gradient: &[f32], p: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    let n = gradient.len();
    let (p, m, v) = (&mut p[..n], &mut m[..n], &mut v[..n]);
    for i in 0..n {
        let g = gradient[i] * c.clip;
        let m1 = c.b1 * m[i] + c.one_less_b1 * g;
        let v1 = c.b2 * v[i] + c.one_less_b2 * g * g;
        m[i] = m1;
        v[i] = v1;
        p[i] = p[i] * c.keep - c.step * (m1 / (v1.sqrt() / c.root_c2 + c.eps));
    }
}
