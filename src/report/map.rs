//! A gene on the tissue as a PNG: one disc per spot, perceptually even colours that a colour-blind reader tells apart.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};

/// A range of values and how they are coloured.
#[derive(Debug, Clone, Copy)]
pub enum Scale {
    /// Dark to light over [low, high].
    Sequential(f32, f32),
    /// Blue, white, orange over [−limit, limit].
    Diverging(f32),
    /// Light to dark over the logarithm of counts 1 to the given one.
    Density(f32),
}

const WIDTH: f64 = 320.0;
const NOT_THERE: Rgb<u8> = Rgb([228, 228, 228]);

/// PNG bytes; a spot without a value is light grey.
pub fn png(xy: &[[f64; 2]], values: &[Option<f32>], scale: Scale) -> Vec<u8> {
    discs(xy, values.iter().map(|value| value.map_or(NOT_THERE, |v| scale.colour(v))))
}

/// PNG bytes of classes; one without is light grey.
pub fn classes_png(xy: &[[f64; 2]], classes: &[Option<u32>]) -> Vec<u8> {
    discs(xy, classes.iter().map(|class| class.map_or(NOT_THERE, class_colour)))
}

/// The colour of a class: twelve that colour-blind readers tell apart as far as twelve can be, then the same darker.
pub fn class_colour(class: u32) -> Rgb<u8> {
    let [round, at] = [class / CLASSES.len() as u32, class % CLASSES.len() as u32];
    Rgb(CLASSES[at as usize].map(|v| (f32::from(v) * 0.65f32.powi(round.min(4) as i32)) as u8))
}

/// The colour of a class as CSS.
pub fn class_css(class: u32) -> String {
    let Rgb([r, g, b]) = class_colour(class);
    format!("#{r:02x}{g:02x}{b:02x}")
}

fn discs(xy: &[[f64; 2]], colours: impl Iterator<Item = Rgb<u8>>) -> Vec<u8> {
    let bound = |axis: usize, f: fn(f64, f64) -> f64, start: f64| xy.iter().map(|p| p[axis]).fold(start, f);
    let (x0, x1) = (bound(0, f64::min, f64::INFINITY), bound(0, f64::max, f64::NEG_INFINITY));
    let (y0, y1) = (bound(1, f64::min, f64::INFINITY), bound(1, f64::max, f64::NEG_INFINITY));
    let (w, h) = ((x1 - x0).max(1.0), (y1 - y0).max(1.0));
    // Spots fill their area: the mean distance of n spots on w × h.
    let radius_of_data = 0.5 * (w * h / xy.len().max(1) as f64).sqrt();
    let px = WIDTH / (w + 2.0 * radius_of_data);
    let radius = (radius_of_data * px).max(1.0);
    let height = ((h + 2.0 * radius_of_data) * px).ceil() as u32;
    let mut image = RgbImage::from_pixel(WIDTH as u32, height.max(1), Rgb([255, 255, 255]));
    for (p, colour) in xy.iter().zip(colours) {
        let (cx, cy) = ((p[0] - x0 + radius_of_data) * px, (p[1] - y0 + radius_of_data) * px);
        let span = |c: f64, end: u32| (c - radius).max(0.0) as u32..((c + radius).ceil() as u32 + 1).min(end);
        for y in span(cy, image.height()) {
            for x in span(cx, image.width()) {
                let (dx, dy) = (f64::from(x) + 0.5 - cx, f64::from(y) + 0.5 - cy);
                if dx * dx + dy * dy <= radius * radius {
                    image.put_pixel(x, y, colour);
                }
            }
        }
    }
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).expect("an RGB image in memory encodes");
    bytes.into_inner()
}

impl Scale {
    /// The colour of a value.
    pub fn colour(self, value: f32) -> Rgb<u8> {
        match self {
            Scale::Sequential(low, high) => ramp(&SEQUENTIAL, (value - low) / (high - low).max(1e-6)),
            Scale::Diverging(limit) => ramp(&DIVERGING, 0.5 + 0.5 * value / limit.max(1e-6)),
            Scale::Density(fullest) => ramp(&DENSITY, value.ln() / fullest.ln().max(1e-6)),
        }
    }

    /// The values at the ends of the colour bar.
    pub fn ends(self) -> [f32; 2] {
        match self {
            Scale::Sequential(low, high) => [low, high],
            Scale::Diverging(limit) => [-limit, limit],
            Scale::Density(fullest) => [1.0, fullest],
        }
    }

    /// CSS for a colour bar.
    pub fn gradient(self) -> String {
        let stops: &[[f32; 3]] = match self {
            Scale::Sequential(..) => &SEQUENTIAL,
            Scale::Diverging(_) => &DIVERGING,
            Scale::Density(_) => &DENSITY,
        };
        let colours: Vec<String> = stops.iter().map(|[r, g, b]| format!("rgb({r:.0},{g:.0},{b:.0})")).collect();
        format!("linear-gradient(to right,{})", colours.join(","))
    }
}

/// Okabe and Ito's eight less black, and five between.
const CLASSES: [[u8; 3]; 12] = [
    [0, 114, 178],
    [230, 159, 0],
    [0, 158, 115],
    [204, 121, 167],
    [86, 180, 233],
    [213, 94, 0],
    [240, 228, 66],
    [102, 51, 153],
    [153, 102, 51],
    [102, 153, 51],
    [170, 170, 200],
    [136, 34, 85],
];

/// Lightness rises evenly from near black over blue-green to pale yellow.
const SEQUENTIAL: [[f32; 3]; 6] =
    [[20., 20., 60.], [40., 60., 120.], [30., 110., 140.], [50., 160., 120.], [150., 205., 80.], [250., 235., 120.]];
/// Against white paper one entry is pale and many are dark.
const DENSITY: [[f32; 3]; 5] =
    [[205., 225., 235.], [130., 190., 200.], [50., 140., 150.], [40., 80., 130.], [20., 20., 60.]];
const DIVERGING: [[f32; 3]; 3] = [[30., 90., 170.], [247., 247., 247.], [220., 110., 20.]];

fn ramp(stops: &[[f32; 3]], at: f32) -> Rgb<u8> {
    let at = at.clamp(0.0, 1.0) * (stops.len() - 1) as f32;
    let i = (at as usize).min(stops.len() - 2);
    let t = at - i as f32;
    Rgb(std::array::from_fn(|c| (stops[i][c] + t * (stops[i + 1][c] - stops[i][c])).round() as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_shows_high_and_low_where_they_are() {
        let xy = [[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0]];
        let bytes = png(&xy, &[Some(0.0), Some(1.0), None, Some(0.0)], Scale::Sequential(0.0, 1.0));
        let image = image::load_from_memory(&bytes).unwrap().to_rgb8();
        let (w, h) = image.dimensions();
        assert_eq!(image.get_pixel(w / 4, h / 4).0, [20, 20, 60]);
        assert_eq!(image.get_pixel(3 * w / 4, h / 4).0, [250, 235, 120]);
        assert_eq!(*image.get_pixel(w / 4, 3 * h / 4), NOT_THERE);
    }
}
