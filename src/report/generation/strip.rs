//! Pictures of one cell side by side as one PNG: real, painted, and what it is judged with.
//!
//! Contrast is stretched per channel over the real pictures shown (least to the 99.5th percentile), the same for all of them:
//! nothing but the view.

use image::{ImageFormat, Rgb, RgbImage};

/// Least pixels of a picture's side on the page: small ones are shown with square pixels, not blurred.
const SIDE: usize = 128;
/// White between pictures.
const GAP: usize = 6;

/// Darkest and brightest value of each channel.
pub type Stretch = Vec<[u8; 2]>;

/// The stretch of these pictures, bytes with the channel last.
pub fn stretch<'a>(pictures: impl Iterator<Item = &'a [u8]> + Clone, channels: usize) -> Stretch {
    let of = |channel: usize| {
        let mut values: Vec<u8> =
            pictures.clone().flat_map(|picture| picture.iter().skip(channel).step_by(channels)).copied().collect();
        values.sort_unstable();
        let low = values.first().copied().unwrap_or(0);
        let high = values.get(values.len() * 995 / 1000).copied().unwrap_or(u8::MAX);
        [low, high.max(low.saturating_add(1))]
    };
    (0..channels).map(of).collect()
}

/// PNG of square pictures of this side, left to right; gray of one channel, else RGB of the first three.
pub fn png(pictures: &[&[u8]], side: usize, stretch: &Stretch) -> Vec<u8> {
    let channels = stretch.len();
    let times = SIDE.div_ceil(side);
    let shown = side * times;
    let wide = pictures.len() * (shown + GAP) - GAP;
    let mut strip = RgbImage::from_pixel(wide as u32, shown as u32, Rgb([255; 3]));
    let value = |v: u8, [low, high]: [u8; 2]| {
        let share = (f32::from(v) - f32::from(low)) / (f32::from(high) - f32::from(low));
        (255.0 * share).round().clamp(0.0, 255.0) as u8
    };
    for (k, picture) in pictures.iter().enumerate() {
        for at in 0..shown * shown {
            let (y, x) = (at / shown, at % shown);
            let pixel = &picture[(y / times * side + x / times) * channels..][..channels];
            let of = |channel: usize| pixel.get(channel).map_or(0, |&v| value(v, stretch[channel]));
            let rgb = if channels == 1 { [of(0); 3] } else { [of(0), of(1), of(2)] };
            strip.put_pixel((k * (shown + GAP) + x) as u32, y as u32, Rgb(rgb));
        }
    }
    let mut png = std::io::Cursor::new(Vec::new());
    strip.write_to(&mut png, ImageFormat::Png).expect("memory can be written to");
    png.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_stand_side_by_side_with_square_pixels_and_full_contrast() {
        let (a, b) = (vec![10, 20, 30, 40], vec![40; 4]);
        let stretch = stretch([&a[..], &b[..]].into_iter(), 1);
        assert_eq!(stretch, [[10, 40]]);
        let strip = image::load_from_memory(&png(&[&a, &b], 2, &stretch)).unwrap().to_rgb8();
        assert_eq!(strip.dimensions(), (2 * 128 + 6, 128));
        let at = |x, y| strip.get_pixel(x, y).0;
        assert_eq!([at(0, 0), at(63, 63), at(64, 0), at(0, 64)], [[0; 3], [0; 3], [85; 3], [170; 3]]);
        assert_eq!([at(130, 5), at(140, 5)], [[255; 3], [255; 3]], "the gap, and the second's 40");
    }

    #[test]
    fn a_channel_of_one_value_and_two_channels_are_shown() {
        let flat = vec![7, 0, 7, 255, 7, 0, 7, 255];
        let stretch = stretch(std::iter::once(&flat[..]), 2);
        assert_eq!(stretch, [[7, 8], [0, 255]]);
        let strip = image::load_from_memory(&png(&[&flat], 2, &stretch)).unwrap().to_rgb8();
        assert_eq!(strip.get_pixel(64, 0).0, [0, 255, 0]);
    }
}
