//! f32 as 64-bit fixed point, q = round-to-nearest-even(g · 2^shift), and back (`docs/step.md` §5).

use multiversion::multiversion;

/// f32 bits, less the sign, from which on a value is not finite.
pub const INFINITE: u32 = 0x7f80_0000;
/// 2⁶²: what the sum of all lanes must not leave.
const ROOM: f64 = 4_611_686_018_427_387_904.0;

/// What values look like, before any conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    /// Number of values that are NaN or infinite.
    pub non_finite: u64,
    /// Largest |g| as f32 bits; 0 where all are zero.
    pub max_bits: u32,
}

/// Looks at values.
pub fn scan(values: &[f32]) -> Scan {
    let max_bits = max_abs_bits(values);
    let non_finite = match max_bits {
        INFINITE.. => values.iter().filter(|v| !v.is_finite()).count() as u64,
        _ => 0,
    };
    Scan { non_finite, max_bits }
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn max_abs_bits(values: &[f32]) -> u32 {
    values.iter().fold(0, |max, v| max.max(v.to_bits() & 0x7fff_ffff))
}

/// Whether a lane's largest value leaves the range that `lanes` summands may use: |q| > 2^62 / lanes.
pub fn overflows(max_bits: u32, shift: i32, lanes: usize) -> bool {
    let q = (f64::from(f32::from_bits(max_bits)) * exp2(shift)).round_ties_even();
    q * lanes as f64 > ROOM
}

/// Sets the accumulator to round-to-nearest-even(g · 2^shift), element by element.
pub fn quantise(values: &[f32], shift: i32, sum: &mut [i64]) {
    quantise_scaled(values, exp2(shift), sum);
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn quantise_scaled(values: &[f32], scale: f64, sum: &mut [i64]) {
    for (s, &g) in sum.iter_mut().zip(values) {
        *s = (f64::from(g) * scale).round_ties_even() as i64;
    }
}

/// Adds round-to-nearest-even(g · 2^shift) to the accumulator, element by element.
pub fn quantise_add(values: &[f32], shift: i32, sum: &mut [i64]) {
    quantise_add_scaled(values, exp2(shift), sum);
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn quantise_add_scaled(values: &[f32], scale: f64, sum: &mut [i64]) {
    for (s, &g) in sum.iter_mut().zip(values) {
        *s = s.wrapping_add((f64::from(g) * scale).round_ties_even() as i64);
    }
}

/// f32(f64(Σq) · 2^−shift).
pub fn dequantise(sum: &[i64], shift: i32, out: &mut [f32]) {
    dequantise_scaled(sum, exp2(-shift), out);
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn dequantise_scaled(sum: &[i64], scale: f64, out: &mut [f32]) {
    for (o, &q) in out.iter_mut().zip(sum) {
        *o = (q as f64 * scale) as f32;
    }
}

/// 2^n exactly, for |n| ≤ 1022.
pub fn exp2(n: i32) -> f64 {
    f64::from_bits(((1023 + n) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_finite_values_are_counted() {
        assert_eq!(scan(&[1.0, f32::NAN, 0.0, f32::NEG_INFINITY, -3.0]).non_finite, 2);
        assert_eq!(scan(&[0.0, -0.0]), Scan { non_finite: 0, max_bits: 0 });
        assert_eq!(scan(&[0.5, -3.0]), Scan { non_finite: 0, max_bits: 3f32.to_bits() });
    }
}
