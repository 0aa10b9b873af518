//! A moving average.

use multiversion::multiversion;

/// average ← keep·average + take·values.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
pub fn mix(average: &mut [f32], values: &[f32], keep: f32, take: f32) {
    for (a, &p) in average.iter_mut().zip(values) {
        *a = keep * *a + take * p;
    }
}
