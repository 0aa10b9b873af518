//! What Space Ranger says about a slide: scale factors, lattice, pictures.
//!
//! The size of a pixel comes, in this order, from `microns_per_pixel` (Visium HD), from the lattice (neighbouring spots
//! of a row lie 100 µm apart, their array columns differ by 2), and from `spot_diameter_fullres`, which Space Ranger
//! computes for a spot of 65 µm although the printed spot is 55 µm across. On two real sections the lattice gives 65.1
//! and 69.9 µm for that diameter, so dividing it by 55 would be wrong by 18 and 27 %.

use std::collections::BTreeMap;
use std::io::Cursor;

use image::{DynamicImage, ImageFormat};

/// Distance of neighbouring spots of one row of the Visium slide.
const PITCH_UM: f64 = 100.0;
/// Diameter behind `spot_diameter_fullres`.
pub(super) const SPOT_DIAMETER_UM: f64 = 65.0;
/// Pairs of neighbours below which the lattice is not trusted.
const MIN_PAIRS: usize = 10;

/// `scalefactors_json.json`, or `uns/spatial/<library>/scalefactors`.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Deserialize)]
pub(super) struct ScaleFactors {
    pub(super) spot_diameter_fullres: Option<f64>,
    pub(super) tissue_lowres_scalef: Option<f64>,
    pub(super) tissue_hires_scalef: Option<f64>,
    pub(super) microns_per_pixel: Option<f64>,
}

/// µm per full-resolution pixel, as far as the slide tells.
pub(super) fn um_per_unit(scale: &ScaleFactors, row_col: Option<&[[i32; 2]]>, xy: &[[f64; 2]]) -> Option<f64> {
    let positive = |v: f64| (v.is_finite() && v > 0.0).then_some(v);
    // The lattice speaks of Visium only where Space Ranger's spots are.
    let spot = scale.spot_diameter_fullres.and_then(positive);
    let lattice = || spot.and(row_col).and_then(|rc| pitch(rc, xy)).map(|p| PITCH_UM / p);
    let known = scale.microns_per_pixel.and_then(positive);
    known.or_else(lattice).or_else(|| spot.map(|d| SPOT_DIAMETER_UM / d)).and_then(positive)
}

/// Median distance of spots whose array columns differ by two.
fn pitch(row_col: &[[i32; 2]], xy: &[[f64; 2]]) -> Option<f64> {
    let at: BTreeMap<[i32; 2], usize> = row_col.iter().enumerate().map(|(i, &rc)| (rc, i)).collect();
    let right = |rc: &[i32; 2]| rc[1].checked_add(2).and_then(|column| at.get(&[rc[0], column]));
    let pairs = row_col.iter().enumerate().filter_map(|(i, rc)| right(rc).map(|&j| (i, j)));
    let mut distances: Vec<f64> = pairs.map(|(i, j)| libm::hypot(xy[i][0] - xy[j][0], xy[i][1] - xy[j][1])).collect();
    if distances.len() < MIN_PAIRS {
        return None;
    }
    distances.sort_by(f64::total_cmp);
    let median = distances[distances.len() / 2];
    (median > 0.0).then_some(median)
}

/// A picture from uns/spatial `[height, width, 1 | 3 | 4]` as PNG; floats are of 0..1. `None` where it is no picture.
pub(super) fn png(shape: &[u64], is_float: bool, values: &[f64]) -> Option<Vec<u8>> {
    let &[height, width, n_channels] = shape else { return None };
    let factor = if is_float && values.iter().all(|&v| v <= 1.0) { 255.0 } else { 1.0 };
    let bytes: Vec<u8> = values.iter().map(|v| (v * factor).round().clamp(0.0, 255.0) as u8).collect();
    let (width, height) = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
    let picture = match n_channels {
        1 => DynamicImage::ImageLuma8(image::GrayImage::from_raw(width, height, bytes)?),
        3 => DynamicImage::ImageRgb8(image::RgbImage::from_raw(width, height, bytes)?),
        4 => DynamicImage::ImageRgba8(image::RgbaImage::from_raw(width, height, bytes)?),
        _ => return None,
    };
    let mut png = Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png).ok()?;
    Some(png.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pixel_is_measured_on_the_lattice_before_the_spot() {
        let row_col: Vec<[i32; 2]> = (0..20).map(|i| [3, 2 * i + 1]).collect();
        let xy: Vec<[f64; 2]> = (0..20).map(|i| [200.0 * f64::from(i), 7.0]).collect();
        let spot = ScaleFactors { spot_diameter_fullres: Some(130.0), ..ScaleFactors::default() };
        assert_eq!(um_per_unit(&spot, Some(&row_col), &xy), Some(0.5));
        assert_eq!(um_per_unit(&spot, Some(&row_col[..3]), &xy[..3]), Some(0.5), "65 µm over 130 pixels");
        assert_eq!(um_per_unit(&ScaleFactors::default(), Some(&row_col), &xy), None, "no Visium, no guess");
        let hd = ScaleFactors { microns_per_pixel: Some(0.27), ..spot };
        assert_eq!(um_per_unit(&hd, Some(&row_col), &xy), Some(0.27));
    }

    #[test]
    fn a_picture_of_floats_and_one_of_bytes_become_the_same_png() {
        let floats = png(&[1, 2, 3], true, &[0.0, 1.0, 0.0, 1.0, 1.0, 0.0]).unwrap();
        let bytes = png(&[1, 2, 3], false, &[0.0, 255.0, 0.0, 255.0, 255.0, 0.0]).unwrap();
        assert_eq!(floats, bytes);
        assert_eq!(image::load_from_memory(&floats).unwrap().to_rgb8().get_pixel(1, 0).0, [255, 255, 0]);
        let dark = png(&[1, 1, 3], false, &[0.0, 1.0, 0.0]).unwrap();
        assert_eq!(image::load_from_memory(&dark).unwrap().to_rgb8().get_pixel(0, 0).0, [0, 1, 0], "bytes stay bytes");
        assert_eq!(png(&[2, 2], true, &[0.0; 4]), None);
    }
}
