//! Which window of a section's pictures is a cell's (`spatia.md` §1.1), a square around its centre, and how large that of a
//! niche's region is.
//!
//! Pure: pixels are cut when a row group is written.

use super::config::ProcessConfig;
use super::error::ProcessError;
use crate::pictures::{Cover, Pictures, Window};
use crate::processed::Crops;
use crate::section::Section;

/// Half a side at least, pixels, where it follows a boundary.
const MIN_HALF_SIDE: f64 = 4.0;
/// Half a side where there is no boundary, pixels.
const HALF_SIDE: u32 = 32;
/// Longest side, pixels: beyond that the scale is wrong.
const MAX_SIDE: f64 = 4096.0;

/// How large a window is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    /// From the centre to the farthest side of the box around the boundary.
    Boundary,
    /// A fixed side in pixels.
    Pixels(u32),
}

/// The windows of a section's cells as ingested; `None` without pictures.
///
/// # Errors
/// [`ProcessError::Config`] where a length in µm meets a section without a scale or gives no window, and where regions are
/// asked of a section without pictures.
pub(super) fn plan(section: &Section, config: &ProcessConfig) -> Result<Option<Crops>, ProcessError> {
    let Some(pictures) = &section.pictures else {
        let key = "process.niche_pictures";
        let problem = format!("section `{}` has no pictures to cut a region from", section.library_id);
        return if config.niche_pictures { Err(ProcessError::Config { key, problem }) } else { Ok(None) };
    };
    let um_per_pixel = section.um_per_unit.map(|um| um * pictures.units_per_pixel);
    let rule = rule(section, config, um_per_pixel)?;
    let window = |i: usize| {
        let at = pictures.pixel(section.xy[i]);
        let side = match (rule, &section.boxes) {
            (Rule::Pixels(side), _) => side,
            (Rule::Boundary, Some(boxes)) => 2 * half_side(pictures, at, boxes[i]),
            (Rule::Boundary, None) => 2 * HALF_SIDE,
        };
        pictures.window(at, side)
    };
    let windows = (0..section.n_obs()).map(window).collect();
    let region_side = config.niche_pictures.then(|| {
        let pixels = um_per_pixel.map(|scale| (config.niche_um / scale).round());
        pixels.map_or_else(
            || Err(unscaled(section, "process.niches", "")),
            |pixels| side(section, "process.niche_um", pixels),
        )
    });
    let region_side = region_side.transpose()?;
    let rule = words(section, config);
    Ok(Some(Crops { pictures: pictures.clone(), windows, um_per_pixel, rule, region_side }))
}

fn rule(section: &Section, config: &ProcessConfig, um_per_pixel: Option<f64>) -> Result<Rule, ProcessError> {
    let pixels = match (config.crop_px, config.crop_um, um_per_pixel) {
        (None, None, _) => return Ok(Rule::Boundary),
        (Some(side), ..) => f64::from(side),
        (None, Some(um), Some(scale)) => (um / scale).round(),
        (None, Some(_), None) => {
            return Err(unscaled(section, "process.crop_um", ", or process.crop_px instead of crop_um"));
        }
    };
    side(section, "process.crop_um", pixels).map(Rule::Pixels)
}

fn unscaled(section: &Section, key: &'static str, or: &str) -> ProcessError {
    let problem = format!("section `{}` has no scale: set input.um_per_unit{or}", section.library_id);
    ProcessError::Config { key, problem }
}

/// A side of so many `pixels`, of which `key` speaks.
fn side(section: &Section, key: &'static str, pixels: f64) -> Result<u32, ProcessError> {
    if !(2.0..=MAX_SIDE).contains(&pixels) {
        let problem =
            format!("gives {pixels} pixels a side in section `{}`, 2 to {MAX_SIDE} are possible", section.library_id);
        return Err(ProcessError::Config { key, problem });
    }
    Ok(pixels as u32)
}

fn half_side(pictures: &Pictures, [x, y]: [f64; 2], [x0, y0, x1, y1]: [f64; 4]) -> u32 {
    let ([left, top], [right, bottom]) = (pictures.pixel([x0, y0]), pictures.pixel([x1, y1]));
    let farthest = [x - left, right - x, y - top, bottom - y].into_iter().fold(MIN_HALF_SIDE, f64::max);
    farthest.ceil().min(MAX_SIDE / 2.0) as u32
}

fn words(section: &Section, config: &ProcessConfig) -> String {
    match (config.crop_px, config.crop_um, &section.boxes) {
        (Some(px), _, _) => format!("{px} pixels a side around the centre"),
        (None, Some(um), _) => format!("{um} µm a side around the centre"),
        (None, None, Some(_)) => "square around the centre that holds the boundary's box".to_owned(),
        (None, None, None) => format!("{} pixels a side around the centre (no boundaries)", 2 * HALF_SIDE),
    }
}

/// Rows of a section whose window has no pixel of the picture or lies on a tile that does not decode, with the reason.
pub(super) fn without_picture(crops: &Crops) -> Vec<(u32, String)> {
    let reason = |window: &Window| {
        if crops.pictures.cover(window) == Cover::None {
            let [height, width] = crops.pictures.size();
            let (row, column) = (window.row, window.column);
            return Some(format!("at pixel row {row}, column {column} of a picture of {height} × {width}"));
        }
        crops.pictures.bad_tile(window).map(|(file, tile)| file.error(tile).to_string())
    };
    (0u32..).zip(&crops.windows).filter_map(|(row, window)| Some((row, reason(window)?))).collect()
}

/// Whether most centres would fall into the picture if x and y changed places.
pub(super) fn looks_swapped(crops: &Crops) -> bool {
    let [height, width] = crops.pictures.size().map(f64::from);
    let inside = |x: f64, y: f64| (0.0..width).contains(&x) && (0.0..height).contains(&y);
    let centre = |w: &Window| {
        let half = f64::from(w.side) / 2.0;
        (w.column as f64 + half, w.row as f64 + half)
    };
    let count = |swap: bool| {
        let of = |w: &&Window| {
            let (x, y) = centre(w);
            if swap { inside(y, x) } else { inside(x, y) }
        };
        crops.windows.iter().filter(of).count()
    };
    count(true) > count(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pictures::{PictureFile, Source};
    use crate::process::fixture;

    fn section() -> Section {
        let mut section = fixture::section("a", &["g"], &[&[1.0][..]; 2]);
        let file = PictureFile {
            path: "a.png".into(),
            size: [100, 200],
            n_samples: 1,
            range: None,
            bad: Vec::new(),
            blake3: String::new(),
        };
        section.xy = vec![[60.0, 30.0], [500.0, 30.0]];
        section.um_per_unit = Some(1.0);
        section.pictures = Some(Pictures { source: Source::Picture(file), origin: [10.0, 10.0], units_per_pixel: 0.5 });
        section
    }

    fn windows(section: &Section, config: &ProcessConfig) -> Vec<Window> {
        plan(section, config).unwrap().unwrap().windows
    }

    #[test]
    fn a_window_reaches_to_the_farthest_side_of_the_box() {
        let mut section = section();
        section.boxes = Some(vec![[55.0, 29.5, 61.0, 33.0], [499.9, 29.9, 500.1, 30.1]]);
        let found = windows(&section, &ProcessConfig::default());
        assert_eq!(found[0], Window { row: 30, column: 90, side: 20 }, "5 µm to the left are 10 pixels");
        assert_eq!(found[1].side, 8, "at least 4 pixels to each side");
    }

    #[test]
    fn without_a_boundary_64_pixels_or_what_is_asked_for() {
        let section = section();
        let side = |config| windows(&section, &config)[0].side;
        assert_eq!(side(ProcessConfig::default()), 64);
        assert_eq!(side(ProcessConfig { crop_um: Some(24.0), ..ProcessConfig::default() }), 48);
        assert_eq!(side(ProcessConfig { crop_px: Some(32), ..ProcessConfig::default() }), 32);
        let mut unscaled = section.clone();
        unscaled.um_per_unit = None;
        let refused = plan(&unscaled, &ProcessConfig { crop_um: Some(24.0), ..ProcessConfig::default() });
        assert!(refused.unwrap_err().to_string().contains("input.um_per_unit"));
    }

    #[test]
    fn a_cell_outside_of_the_picture_is_found_and_changed_axes_are_suspected() {
        let mut section = section();
        let crops = plan(&section, &ProcessConfig::default()).unwrap().unwrap();
        let found = without_picture(&crops);
        let [(1, reason)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(reason, "at pixel row 8, column 948 of a picture of 100 × 200");
        assert!(!looks_swapped(&crops));
        section.xy = vec![[12.0, 100.0], [15.0, 105.0]];
        assert!(looks_swapped(&plan(&section, &ProcessConfig::default()).unwrap().unwrap()));
    }
}
