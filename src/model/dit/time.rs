//! Time of the noise process as a vector: fixed sinusoids, then two layers (`spatia.md` §6).

use crate::model::init::{Init, Scope};
use crate::model::layers::{Linear, Training};
use crate::tensor::{Device, Module, Tensor, TensorData, silu};

/// Sinusoids of a time.
pub const TIME_FEATURES: usize = 256;

/// Times in [0, 1] are this many times longer for the sinusoids, which would be nearly constant otherwise.
const TIME_SCALE: f64 = 1000.0;

/// `width` sinusoids of `t`: cosines, then sines, of t · 10000^(−i/(width/2)).
pub fn sinusoids(t: f64, width: usize) -> Vec<f32> {
    let half = width / 2;
    let angles: Vec<f64> = (0..half).map(|i| t * libm::pow(10_000.0, -(i as f64) / half as f64)).collect();
    let cosines = angles.iter().map(|&a| libm::cos(a) as f32);
    cosines.chain(angles.iter().map(|&a| libm::sin(a) as f32)).collect()
}

/// Sinusoids → d → SiLU → d.
#[derive(Module, Debug)]
pub struct TimeEmbedding {
    /// Sinusoids → d.
    pub fc1: Linear,
    /// d → d.
    pub fc2: Linear,
}

impl TimeEmbedding {
    /// Weights N(0, .02²) as in DiT, biases 0.
    pub fn new(scope: &Scope, d: usize) -> Self {
        let linear = |name, n_in| Linear::with_init(&scope.child(name), n_in, d, Init::Normal(0.02), Init::Zeros);
        Self { fc1: linear("fc1", TIME_FEATURES), fc2: linear("fc2", d) }
    }

    /// `[b, d]` of times in [0, 1].
    pub fn forward(&self, times: &[f64], device: &Device, training: Option<&Training>) -> Tensor<2> {
        let values: Vec<f32> = times.iter().flat_map(|t| sinusoids(TIME_SCALE * t, TIME_FEATURES)).collect();
        let features = Tensor::from_data(TensorData::new(values, [times.len(), TIME_FEATURES]), device);
        self.fc2.forward2(silu(self.fc1.forward2(features, training)), training)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `spatia.md` §6; f32 near 1.
    #[test]
    fn sinusoids_equal_the_spec() {
        let check = |t, expected: [f64; 8]| {
            for (ours, expected) in sinusoids(t, 8).iter().zip(expected) {
                assert!((f64::from(*ours) - expected).abs() < 1e-7, "{ours} against {expected}");
            }
        };
        check(0.25, [0.96891242, 0.99968752, 0.99999688, 0.99999997, 0.24740396, 0.0249974, 0.0025, 0.00025]);
        check(
            250.0,
            [0.24098831, 0.99120281, -0.80114362, 0.96891242, -0.97052802, -0.13235175, 0.59847214, 0.24740396],
        );
    }
}
