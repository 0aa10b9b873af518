//! Clipping by the global norm.

use std::ops::Range;

use multiversion::multiversion;

/// Euclidean norm of the whole gradient: squares in f64, summed per tensor by 8 interleaved accumulators added in
/// order, the tensors' sums added in declaration order (`docs/step.md` §5).
pub fn global_norm(gradient: &[f32], tensors: &[Range<usize>]) -> f64 {
    let total: f64 = tensors.iter().map(|range| squared_sum(&gradient[range.clone()])).sum();
    libm::sqrt(total)
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn squared_sum(values: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 8];
    let chunks = values.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(v) * f64::from(v);
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(v) * f64::from(v);
    }
    lanes.iter().sum()
}

/// Scales the gradient so that its norm is at most `limit`; the factor is made in f64 and rounded to f32.
pub fn clip(gradient: &mut [f32], norm: f64, limit: f64) {
    if norm > limit {
        let factor = (limit / norm) as f32;
        gradient.iter_mut().for_each(|g| *g *= factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_gradient_is_cut_to_the_limit_and_a_short_one_is_left() {
        let tensors = [0..1, 1..3];
        let mut gradient = vec![3.0, 0.0, 4.0];
        assert_eq!(global_norm(&gradient, &tensors), 5.0);
        clip(&mut gradient, 5.0, 1.0);
        assert_eq!(gradient, [0.6, 0.0, 0.8]);
        let before = gradient.clone();
        clip(&mut gradient, 1.0, 1.0);
        assert_eq!(gradient, before);
    }
}
