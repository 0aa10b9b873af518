//! Features of the picture around every observation by random convolutions: a stand-in for a trained image encoder where none
//! can be had, labelled so wherever it appears (`random_conv[k]`).
//!
//! The window is one spot distance wide, read bilinearly to 12 × 12 RGB in −1 … 1; each feature is the mean over positions of
//! ReLU(filter · 3 × 3 patch) of one filter with uniform weights, keyed by its number: the same on every machine.

use rayon::prelude::*;

use super::error::ProcessError;
use super::neighbours;
use crate::draw::{DrawKey, Purpose, uniform};
use crate::processed::Matrix;
use crate::section::{Features, Section};

/// Key of the columns.
pub const NAME: &str = "random_conv";
const SIDE: usize = 12;
const FILTER: usize = 3;
const WEIGHTS: usize = FILTER * FILTER * 3;

/// `[n_obs, n]` for all observations as ingested.
///
/// # Errors
/// [`ProcessError::NoPicture`] where the section has none that can be read.
pub fn features(section: &Section, n: usize) -> Result<Features, ProcessError> {
    let none = || ProcessError::NoPicture { library_id: section.library_id.clone() };
    let tissue = section.image.as_ref().ok_or_else(none)?;
    let picture = image::load_from_memory(&tissue.encoded).map_err(|_| none())?.to_rgb32f();
    let window = neighbours::spot_distance(&section.xy) * tissue.scale;
    let key = DrawKey::new(0, Purpose::Synthetic);
    let filters: Vec<[f32; WEIGHTS]> = (0..n as u32)
        .map(|filter| std::array::from_fn(|w| 2.0 * uniform(key.word(w as u32, [filter, 0, u32::MAX])) - 1.0))
        .collect();
    let rows: Vec<Vec<f32>> = section
        .xy
        .par_iter()
        .map(|xy| {
            let patch = patch(&picture, xy.map(|v| v * tissue.scale), window);
            filters.iter().map(|filter| mean_response(&patch, filter)).collect()
        })
        .collect();
    Ok(Features { name: NAME.to_owned(), values: Matrix { n_cols: n, values: rows.concat() } })
}

type Patch = [[[f32; 3]; SIDE]; SIDE];

/// `SIDE` × `SIDE` pixels of the window centred on `[x, y]` (pixels of the picture), edges repeated.
fn patch(picture: &image::Rgb32FImage, [x, y]: [f64; 2], window: f64) -> Patch {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let at = |v: f64, size: usize| -> (usize, usize, f32) {
        let v = v.clamp(0.0, (size - 1) as f64);
        let low = v.floor() as usize;
        (low, (low + 1).min(size - 1), (v - v.floor()) as f32)
    };
    let offset = |i: usize| ((i as f64 + 0.5) / SIDE as f64 - 0.5) * window;
    std::array::from_fn(|i| {
        let (y0, y1, fy) = at(y + offset(i), height);
        std::array::from_fn(|j| {
            let (x0, x1, fx) = at(x + offset(j), width);
            let pixel = |x: usize, y: usize, c: usize| picture.get_pixel(x as u32, y as u32).0[c];
            std::array::from_fn(|c| {
                let top = pixel(x0, y0, c) * (1.0 - fx) + pixel(x1, y0, c) * fx;
                let bottom = pixel(x0, y1, c) * (1.0 - fx) + pixel(x1, y1, c) * fx;
                2.0 * (top * (1.0 - fy) + bottom * fy) - 1.0
            })
        })
    })
}

fn mean_response(patch: &Patch, filter: &[f32; WEIGHTS]) -> f32 {
    let positions = SIDE - FILTER + 1;
    let mut sum = 0.0;
    for i in 0..positions {
        for j in 0..positions {
            let mut response = 0.0;
            for (k, weight) in filter.iter().enumerate() {
                let (di, dj, c) = (k / (FILTER * 3), k / 3 % FILTER, k % 3);
                response += weight * patch[i + di][j + dj][c];
            }
            sum += response.max(0.0);
        }
    }
    sum / (positions * positions) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::fixture;
    use crate::section::TissueImage;

    /// Left half black, right half white.
    fn halves() -> Vec<u8> {
        let picture = image::RgbImage::from_fn(40, 20, |x, _| image::Rgb([if x < 20 { 0 } else { 255 }; 3]));
        let mut encoded = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut encoded, image::ImageFormat::Png).unwrap();
        encoded.into_inner()
    }

    #[test]
    fn features_tell_the_picture_around_a_spot_and_nothing_else() {
        let mut section = fixture::section("a", &["g"], &[&[1.0][..]; 4]);
        assert!(matches!(features(&section, 3), Err(ProcessError::NoPicture { .. })));
        section.xy = vec![[4.0, 5.0], [8.0, 12.0], [30.0, 5.0], [34.0, 12.0]];
        section.image = Some(TissueImage { encoded: halves(), scale: 1.0 });
        let found = features(&section, 5).unwrap().values;
        assert_eq!((found.n_rows(), found.n_cols), (4, 5));
        assert_eq!(found.row(0), found.row(1), "both see black");
        assert_eq!(found.row(2), found.row(3), "both see white");
        assert_ne!(found.row(0), found.row(2));
    }
}
