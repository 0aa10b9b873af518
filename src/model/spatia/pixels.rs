//! A crop as it is stored, bytes, to the picture the encoder reads: resized, replicated if grey, normalised (`spatia.md`
//! §1.1, §3). Plain loops in a fixed order: the same bits on every host.

use multiversion::multiversion;

use super::config::ImageConfig;

/// ImageNet's mean and standard deviation of red, green and blue, of values in [0, 1].
const RGB: [(f32, f32); 3] = [(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)];

/// The same of anything that is not RGB: the means over the three.
const OTHER: (f32, f32) = (0.449, 0.226);

/// Why a crop cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CropError {
    /// A side or the channels are 0.
    #[error("the crop is empty: {height} × {width} pixels of {channels} channels")]
    Empty {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// Channels.
        channels: usize,
    },
    /// Bytes and shape disagree.
    #[error("the crop has {found} bytes, not the {height} × {width} × {channels} of its shape")]
    Length {
        /// Bytes there are.
        found: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// Channels.
        channels: usize,
    },
    /// Neither grey nor of the model's channels.
    #[error(
        "the crop has {found} channels; model.spatia.image.channels is {expected} (one channel would be replicated)"
    )]
    Channels {
        /// Channels of the crop.
        found: usize,
        /// Channels of the model.
        expected: usize,
    },
}

/// One crop, `[height, width, channels]` bytes, as `[channels, size, size]` of the model, appended to `out`.
///
/// Bilinear with a triangle as wide as the step when it gets smaller (what PIL calls bilinear); untouched at its own size.
pub fn push_picture(out: &mut Vec<f32>, crop: &[u8], shape: [usize; 3], config: &ImageConfig) -> Result<(), CropError> {
    resized(crop, shape, config.channels, config.size, |channel, plane| {
        let (mean, sd) = if config.channels == RGB.len() { RGB[channel] } else { OTHER };
        normalised(out, plane, mean, sd);
    })
}

/// One crop as `[size, size, channels]` in [−1, 1], as a generator paints it, appended to `out`.
pub fn push_signed(
    out: &mut Vec<f32>,
    crop: &[u8],
    shape: [usize; 3],
    channels: usize,
    size: usize,
) -> Result<(), CropError> {
    let first = out.len();
    resized(crop, shape, channels, size, |channel, plane| {
        out.resize(first + size * size * channels, 0.0);
        let pixels = out[first..].iter_mut().skip(channel).step_by(channels);
        pixels.zip(plane).for_each(|(pixel, v)| *pixel = v / 127.5 - 1.0);
    })
}

/// Gives each of `channels` planes of `size` × `size` values in 0..255 to `each`.
fn resized(
    crop: &[u8],
    [height, width, channels]: [usize; 3],
    wanted: usize,
    size: usize,
    mut each: impl FnMut(usize, &[f32]),
) -> Result<(), CropError> {
    if height == 0 || width == 0 || channels == 0 {
        return Err(CropError::Empty { height, width, channels });
    }
    if crop.len() != height * width * channels {
        return Err(CropError::Length { found: crop.len(), height, width, channels });
    }
    if channels != 1 && channels != wanted {
        return Err(CropError::Channels { found: channels, expected: wanted });
    }
    let mut plane = vec![0.0f32; size * size];
    if (height, width) == (size, size) {
        for channel in 0..wanted {
            if channel < channels {
                let bytes = crop.iter().skip(channel).step_by(channels);
                plane.iter_mut().zip(bytes).for_each(|(v, &byte)| *v = f32::from(byte));
            }
            each(channel, &plane);
        }
        return Ok(());
    }
    let of_rows = Weights::new(height, size);
    let of_columns = if width == height { of_rows.clone() } else { Weights::new(width, size) };
    let mut wide = vec![0.0f32; height * size];
    let mut row_values = vec![0.0f32; width];
    for channel in 0..wanted {
        // A grey crop is resized once and replicated.
        if channel < channels {
            for (row, wide) in wide.chunks_exact_mut(size).enumerate() {
                let bytes = crop[row * width * channels..].iter().skip(channel).step_by(channels);
                row_values.iter_mut().zip(bytes).for_each(|(v, &byte)| *v = f32::from(byte));
                for (wide, (first, ws)) in wide.iter_mut().zip(of_columns.iter()) {
                    *wide = ws.iter().zip(&row_values[first..]).map(|(w, v)| w * v).sum();
                }
            }
            for (plane, (first, ws)) in plane.chunks_exact_mut(size).zip(of_rows.iter()) {
                stacked(plane, ws, &wide[first * size..]);
            }
        }
        each(channel, &plane);
    }
    Ok(())
}

/// `sum` = Σ w · row of `rows`, in their order.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn stacked(sum: &mut [f32], ws: &[f32], rows: &[f32]) {
    sum.fill(0.0);
    for (w, row) in ws.iter().zip(rows.chunks_exact(sum.len())) {
        sum.iter_mut().zip(row).for_each(|(sum, v)| *sum += w * v);
    }
}

/// Appends (v / 255 − mean) / sd.
fn normalised(out: &mut Vec<f32>, plane: &[f32], mean: f32, sd: f32) {
    let first = out.len();
    out.resize(first + plane.len(), 0.0);
    divided(&mut out[first..], plane, mean, sd);
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn divided(out: &mut [f32], plane: &[f32], mean: f32, sd: f32) {
    out.iter_mut().zip(plane).for_each(|(out, v)| *out = (v / 255.0 - mean) / sd);
}

/// Source pixels and their weights (of sum 1) for each pixel that is made.
#[derive(Debug, Clone)]
struct Weights {
    /// First source pixel, and first and end of its weights.
    places: Vec<[u32; 3]>,
    values: Vec<f32>,
}

impl Weights {
    /// For `to` pixels made from `from`.
    fn new(from: usize, to: usize) -> Self {
        let step = from as f64 / to as f64;
        let reach = step.max(1.0);
        let mut weights = Weights { places: Vec::with_capacity(to), values: Vec::with_capacity(2 * to) };
        for i in 0..to {
            let centre = (i as f64 + 0.5) * step;
            let first = (centre - reach + 0.5).floor().max(0.0) as usize;
            let end = ((centre + reach + 0.5).floor() as usize).min(from);
            let weight = |j: usize| (1.0 - ((j as f64 + 0.5 - centre) / reach).abs()).max(0.0);
            let sum: f64 = (first..end).map(weight).sum();
            let begin = weights.values.len() as u32;
            weights.values.extend((first..end).map(|j| (weight(j) / sum) as f32));
            weights.places.push([first as u32, begin, weights.values.len() as u32]);
        }
        weights
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.places.iter().map(|&[first, begin, end]| (first as usize, &self.values[begin as usize..end as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::spatia::SpatiaConfig;

    fn config(size: usize, channels: usize) -> ImageConfig {
        ImageConfig { size, channels, ..SpatiaConfig::tiny().image }
    }

    fn picture(crop: &[u8], shape: [usize; 3], config: &ImageConfig) -> Vec<f32> {
        let mut out = Vec::new();
        push_picture(&mut out, crop, shape, config).unwrap();
        // Back to bytes, so that the tests can be read.
        let plane = config.size * config.size;
        let stats = |channel| if config.channels == 3 { RGB[channel] } else { OTHER };
        let back = |(i, v): (usize, &f32)| (v * stats(i / plane).1 + stats(i / plane).0) * 255.0;
        out.iter().enumerate().map(back).map(|v| (v * 1e3).round() / 1e3).collect()
    }

    #[test]
    fn a_picture_of_its_own_size_is_untouched_and_its_channels_are_planes() {
        let crop: Vec<u8> = (0..12).map(|i| i * 20).collect();
        let ours = picture(&crop, [2, 2, 3], &config(2, 3));
        assert_eq!(ours, [0., 60., 120., 180., 20., 80., 140., 200., 40., 100., 160., 220.]);
    }

    #[test]
    fn a_generators_picture_is_signed_with_the_channel_last() {
        let crop: Vec<u8> = (0..12).map(|i| i * 20).collect();
        let mut out = vec![9.0];
        push_signed(&mut out, &crop, [2, 2, 3], 3, 2).unwrap();
        push_signed(&mut out, &[0, 255], [1, 2, 1], 2, 1).unwrap();
        let expected: Vec<f32> = crop.iter().map(|&v| f32::from(v) / 127.5 - 1.0).chain([0.0; 2]).collect();
        assert_eq!((out[0], &out[1..]), (9.0, &expected[..]));
    }

    #[test]
    fn grey_is_replicated() {
        let ours = picture(&[10, 20, 30, 40], [2, 2, 1], &config(2, 3));
        assert_eq!(ours, [[10., 20., 30., 40.]; 3].concat());
    }

    #[test]
    fn resizing_is_pils_bilinear() {
        // Halved: (3·0 + 3·40 + 80)/7 and its mirror; doubled: quarters.
        let half = picture(&[0, 40, 80, 120].repeat(4), [4, 4, 1], &config(2, 1));
        assert_eq!(half, [28.571, 91.429, 28.571, 91.429]);
        let double = picture(&[0, 100, 0, 100], [2, 2, 1], &config(4, 1));
        assert_eq!(double[..4], [0., 25., 75., 100.]);
        let flat = picture(&[77; 35], [5, 7, 1], &config(3, 1));
        assert_eq!(flat, [77.0; 9]);
    }

    #[test]
    fn a_crop_that_is_not_its_shape_is_refused() {
        let mut out = Vec::new();
        let mut push = |crop: &[u8], shape| push_picture(&mut out, crop, shape, &config(2, 3)).unwrap_err().to_string();
        assert!(push(&[0; 5], [2, 2, 1]).contains("5 bytes"));
        assert!(push(&[], [0, 2, 1]).contains("empty"));
        assert!(push(&[0; 8], [2, 2, 2]).contains("2 channels; model.spatia.image.channels is 3"));
        assert!(out.is_empty(), "nothing half-written");
    }
}
