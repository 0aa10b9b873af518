//! Features of pictures by a convolution network that was never trained: its weights are drawn, by a seed that goes into the
//! report (`evaluation.md` §5).
//!
//! It stands in where no trained network can be had. Distances of its features are called FID-rand and KID-rand, are
//! comparable among our own reports of one kind of picture alone, and are never FID or KID.

use rayon::prelude::*;
use syncytia_shards::draw::init_uniforms;
use syncytia_shards::processed::Matrix;

/// Seed of the weights.
pub const SEED: u64 = 0;

/// Features of each layer; those of the last are the picture's.
const WIDTHS: [usize; 3] = [16, 32, 64];
const SIDE: usize = 3;
const STRIDE: usize = 2;

/// Layers of 3 × 3 filters in steps of two pixels with ReLU, without bias; features are the last layer's means over positions.
#[derive(Debug)]
pub struct RandomFeatures {
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    channels: usize,
    /// `[3, 3, channels, width]`.
    weights: Vec<f32>,
    width: usize,
}

impl RandomFeatures {
    /// For pictures of this many channels; weights uniform with variance 2 / inputs (He et al. 2015).
    pub fn new(channels: usize) -> RandomFeatures {
        let inputs = std::iter::once(channels).chain(WIDTHS);
        let layer = |(k, (channels, width)): (usize, (usize, usize))| {
            let fan_in = SIDE * SIDE * channels;
            let bound = (6.0 / fan_in as f32).sqrt();
            let drawn = init_uniforms(SEED, &format!("random_features.{k}"), fan_in * width);
            Layer { channels, weights: drawn.into_iter().map(|u| bound * (2.0 * u - 1.0)).collect(), width }
        };
        RandomFeatures { layers: inputs.zip(WIDTHS).enumerate().map(layer).collect() }
    }

    /// How many features a picture has.
    pub fn n_features(&self) -> usize {
        WIDTHS[WIDTHS.len() - 1]
    }

    /// Features `[n, 64]` of `n` square pictures, bytes row-major with the channel last.
    pub fn of(&self, pictures: &[u8], side: usize) -> Matrix<f64> {
        let each = side * side * self.layers[0].channels;
        let rows: Vec<Vec<f64>> = pictures.par_chunks(each).map(|picture| self.of_one(picture, side)).collect();
        Matrix { n_cols: self.n_features(), values: rows.concat() }
    }

    fn of_one(&self, picture: &[u8], side: usize) -> Vec<f64> {
        let mut values: Vec<f32> = picture.iter().map(|&v| f32::from(v) / 127.5 - 1.0).collect();
        let mut side = side;
        for layer in &self.layers {
            values = layer.forward(&values, side);
            side = side.div_ceil(STRIDE);
        }
        let positions = side * side;
        let mut means = vec![0.0; self.n_features()];
        for response in values.chunks(self.n_features()) {
            means.iter_mut().zip(response).for_each(|(mean, &v)| *mean += f64::from(v) / positions as f64);
        }
        means
    }
}

impl Layer {
    /// `[side, side, channels]` to `[⌈side / 2⌉, ⌈side / 2⌉, width]`, zeros around the picture.
    fn forward(&self, values: &[f32], side: usize) -> Vec<f32> {
        let small = side.div_ceil(STRIDE);
        let mut out = vec![0.0; small * small * self.width];
        for (at, out) in out.chunks_mut(self.width).enumerate() {
            let (top, left) = (at / small * STRIDE, at % small * STRIDE);
            for (tap, weights) in self.weights.chunks(self.channels * self.width).enumerate() {
                // The window's middle is on the picture's pixel.
                let (y, x) = ((top + tap / SIDE).checked_sub(1), (left + tap % SIDE).checked_sub(1));
                let (Some(y), Some(x)) = (y.filter(|y| *y < side), x.filter(|x| *x < side)) else { continue };
                let pixel = &values[(y * side + x) * self.channels..][..self.channels];
                for (value, weights) in pixel.iter().zip(weights.chunks(self.width)) {
                    out.iter_mut().zip(weights).for_each(|(sum, w)| *sum += value * w);
                }
            }
            out.iter_mut().for_each(|v| *v = v.max(0.0));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::frechet::frechet_distance;

    /// Discs of a radius on a dark ground, at slightly different places.
    fn discs(radius: f64, n: usize) -> Vec<u8> {
        let pixel = |k: usize, y: usize, x: usize| {
            let (dy, dx) = (y as f64 - 8.0 - (k % 3) as f64, x as f64 - 8.0 - (k / 3 % 3) as f64);
            if dy.hypot(dx) < radius { 200 - (k % 7) as u8 } else { 30 }
        };
        let of = |k| (0..16 * 16).map(move |i| pixel(k, i / 16, i % 16));
        (0..n).flat_map(of).collect()
    }

    #[test]
    fn a_picture_has_the_same_features_alone_and_among_others() {
        let network = RandomFeatures::new(1);
        let pictures = discs(4.0, 5);
        let all = network.of(&pictures, 16);
        assert_eq!((all.n_rows(), all.n_cols), (5, 64));
        assert_eq!(network.of(&pictures[2 * 256..3 * 256], 16).values, all.row(2));
        assert_ne!(all.row(1), all.row(2));
        assert!(all.values.iter().all(|v| v.is_finite() && *v >= 0.0));
        assert_eq!(RandomFeatures::new(3).of(&[7; 3 * 25], 5).n_rows(), 1, "sides that are no multiple of eight");
    }

    #[test]
    fn the_further_the_sizes_the_further_the_features() {
        let network = RandomFeatures::new(1);
        let of = |radius| network.of(&discs(radius, 90), 16);
        let (small, middle, large) = (of(3.0), of(4.0), of(6.0));
        let far = |a, b| frechet_distance(a, b).unwrap();
        assert!(far(&small, &small) < 1e-6);
        assert!(far(&small, &middle) > 1e-3 && far(&small, &large) > 2.0 * far(&small, &middle));
    }
}
