//! Exponential moving average of the parameters.

use crate::elementwise::average;

/// average ← decay·average + (1 − decay)·parameters, in f32.
pub fn update(average: &mut [f32], parameters: &[f32], decay: f64) {
    average::mix(average, parameters, decay as f32, (1.0 - decay) as f32);
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
