//! A crop as it is stored, bytes, to the picture the encoder reads: resized, replicated if grey, normalised (`spatia.md`
//! §1.1, §3). Plain loops in a fixed order: the same bits on every host.

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
        out.extend(plane.iter().map(|v| (v / 255.0 - mean) / sd));
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
    let (of_rows, of_columns) = (weights(height, size), weights(width, size));
    let mut wide = vec![0.0f32; height * size];
    let mut plane = vec![0.0f32; size * size];
    for channel in 0..wanted {
        // A grey crop is resized once and replicated.
        if channel < channels {
            for row in 0..height {
                for (col, (first, ws)) in of_columns.iter().enumerate() {
                    let at = |i: usize| f32::from(crop[(row * width + first + i) * channels + channel]);
                    wide[row * size + col] = ws.iter().enumerate().map(|(i, w)| w * at(i)).sum();
                }
            }
            for (row, (first, ws)) in of_rows.iter().enumerate() {
                let plane = &mut plane[row * size..(row + 1) * size];
                plane.fill(0.0);
                for (i, w) in ws.iter().enumerate() {
                    let wide = &wide[(first + i) * size..][..size];
                    plane.iter_mut().zip(wide).for_each(|(sum, v)| *sum += w * v);
                }
            }
        }
        each(channel, &plane);
    }
    Ok(())
}

/// First source pixel and weights (of sum 1) of each of `to` pixels made from `from`.
fn weights(from: usize, to: usize) -> Vec<(usize, Vec<f32>)> {
    let step = from as f64 / to as f64;
    let reach = step.max(1.0);
    let of = |i: usize| {
        let centre = (i as f64 + 0.5) * step;
        let first = (centre - reach + 0.5).floor().max(0.0) as usize;
        let end = ((centre + reach + 0.5).floor() as usize).min(from);
        let ws: Vec<f64> = (first..end).map(|j| (1.0 - ((j as f64 + 0.5 - centre) / reach).abs()).max(0.0)).collect();
        let sum: f64 = ws.iter().sum();
        (first, ws.into_iter().map(|w| (w / sum) as f32).collect())
    };
    (0..to).map(of).collect()
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
