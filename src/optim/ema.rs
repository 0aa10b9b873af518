//! Exponential moving average of the parameters.

use multiversion::multiversion;

/// average ← decay·average + (1 − decay)·parameters, in f32.
pub fn update(average: &mut [f32], parameters: &[f32], decay: f64) {
    mix(average, parameters, decay as f32, (1.0 - decay) as f32);
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn mix(average: &mut [f32], parameters: &[f32], keep: f32, take: f32) {
    for (a, &p) in average.iter_mut().zip(parameters) {
        *a = keep * *a + take * p;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_average_moves_towards_the_parameters() {
        let mut average = [1.0f32];
        super::update(&mut average, &[2.0], 0.75);
        assert_eq!(average, [1.25]);
    }
}
