//! Exact GELU and its slope.
//!
//! Φ by Chebyshev's fit of erfc (Press et al., `erfcc`: 1.2·10⁻⁷ relative, also in the tail) and an own exponential, both
//! in plain f32 operations without fused multiply-adds: the same bits on every host.

use multiversion::multiversion;

use super::exp::exp;

/// x·Φ(x), exact to f32.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
pub fn value(x: &[f32], out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        let (cdf, _) = cdf_and_bell(x);
        *out = x * cdf;
    }
}

/// by·(Φ(x) + x·φ(x)).
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
pub fn slope(x: &[f32], by: &[f32], out: &mut [f32]) {
    const INV_SQRT_TAU: f32 = 0.398_942_3;
    for ((out, &x), &by) in out.iter_mut().zip(x).zip(by) {
        let (cdf, bell) = cdf_and_bell(x);
        *out = by * (cdf + x * (bell * INV_SQRT_TAU));
    }
}

/// Φ(x) and exp(−x²/2).
#[inline(always)]
fn cdf_and_bell(x: f32) -> (f32, f32) {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * z);
    let p = 0.170_872_77;
    let p = p * t - 0.822_152_23;
    let p = p * t + 1.488_515_9;
    let p = p * t - 1.135_204;
    let p = p * t + 0.278_868_07;
    let p = p * t - 0.186_288_06;
    let p = p * t + 0.096_784_18;
    let p = p * t + 0.374_091_96;
    let p = p * t + 1.000_023_7;
    let p = p * t - 1.265_512_2;
    let bell = exp(-0.5 * (x * x));
    let half_erfc = 0.5 * t * exp(p) * bell;
    (if x < 0.0 { half_erfc } else { 1.0 - half_erfc }, bell)
}
