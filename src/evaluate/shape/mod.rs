//! Ten numbers of a cell's shape and brightness, measured in its picture (`spatia.md` §7.3): the largest region above Otsu's
//! threshold, described as scikit-image's `regionprops` defines the words (`evaluation.md` §5).
//!
//! Real and made pictures are measured by this code alone, so that a difference is the pictures'.

mod mask;
mod outline;

use syncytia_shards::processed::Matrix;

pub use self::mask::{largest_region, otsu};
pub use self::outline::{convex_area, perimeter};

/// The features, in the order of [`Shape`].
pub const NAMES: [&str; 10] = [
    "area",
    "perimeter",
    "eccentricity",
    "solidity",
    "mean_intensity",
    "max_intensity",
    "min_intensity",
    "intensity_std",
    "major_axis",
    "minor_axis",
];

/// Their units; empty for ratios. Intensities are bytes, 0 to 255; px are those of the picture that the network paints.
pub const UNITS: [&str; 10] = ["px²", "px", "", "", "/255", "/255", "/255", "/255", "px", "px"];

/// A picture's features, in the order of [`NAMES`].
pub type Shape = [f64; 10];

/// The mean over channels, rounded to a byte: `pixels` row-major with the channel last.
pub fn gray(pixels: &[u8], channels: usize, width: usize) -> Matrix<u8> {
    let mean = |pixel: &[u8]| {
        let sum: usize = pixel.iter().map(|&v| usize::from(v)).sum();
        ((2 * sum + channels) / (2 * channels)) as u8
    };
    Matrix { n_cols: width, values: pixels.chunks(channels).map(mean).collect() }
}

/// The features of a gray picture; none where nothing is brighter than the threshold.
pub fn shape(gray: &Matrix<u8>) -> Option<Shape> {
    let region = largest_region(&above(gray, otsu(gray)?))?;
    let inside = || region.values.iter().zip(&gray.values).filter(|(inside, _)| **inside).map(|(_, &v)| v);
    let area = inside().count() as f64;
    let mean = inside().map(f64::from).sum::<f64>() / area;
    let variance = inside().map(|v| (f64::from(v) - mean).powi(2)).sum::<f64>() / area;
    let [major, minor] = spread(&region);
    Some([
        area,
        perimeter(&region),
        if major == 0.0 { 0.0 } else { (1.0 - minor / major).sqrt() },
        area / convex_area(&region) as f64,
        mean,
        f64::from(inside().max()?),
        f64::from(inside().min()?),
        variance.sqrt(),
        4.0 * major.sqrt(),
        4.0 * minor.sqrt(),
    ])
}

fn above(gray: &Matrix<u8>, threshold: u8) -> Matrix<bool> {
    Matrix { n_cols: gray.n_cols, values: gray.values.iter().map(|&v| v > threshold).collect() }
}

/// Variances of the region's pixels along its long and its short axis: eigenvalues of their covariance, never below 0.
fn spread(region: &Matrix<bool>) -> [f64; 2] {
    let at = |i: usize| [(i / region.n_cols) as f64, (i % region.n_cols) as f64];
    let pixels: Vec<[f64; 2]> = (0..region.values.len()).filter(|&i| region.values[i]).map(at).collect();
    let n = pixels.len() as f64;
    let mean: [f64; 2] = std::array::from_fn(|axis| pixels.iter().map(|p| p[axis]).sum::<f64>() / n);
    let moment = |a: usize, b: usize| pixels.iter().map(|p| (p[a] - mean[a]) * (p[b] - mean[b])).sum::<f64>() / n;
    let (rows, columns, both) = (moment(0, 0), moment(1, 1), moment(0, 1));
    let (middle, half) = ((rows + columns) / 2.0, ((rows - columns) / 2.0).hypot(both));
    [middle + half, (middle - half).max(0.0)]
}

#[cfg(test)]
mod tests;
