//! What is measured of a set of pictures beside the real ones of the same cells: shape by shape, as a set, pixel by pixel.

use rayon::prelude::*;
use syncytia_shards::draw::{DrawKey, Purpose, normals};
use syncytia_shards::processed::Matrix;

use super::Pictures;
use crate::evaluate::distance::{kolmogorov_smirnov, sliced_wasserstein, wasserstein_1};
use crate::evaluate::frechet::frechet_distance;
use crate::evaluate::kernel_distance::kernel_distance;
use crate::evaluate::metrics::{Figure, pearson};
use crate::evaluate::random_features::RandomFeatures;
use crate::evaluate::shape::{NAMES, Shape};
use crate::evaluate::similarity::{Window, psnr, ssim};

/// Directions of the sliced distance.
const DIRECTIONS: usize = 64;

/// Pictures and what was measured of each.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The pictures.
    pub pictures: Pictures,
    /// Their shapes; none where a picture has no region.
    pub shapes: Vec<Option<Shape>>,
    /// Their random features.
    pub features: Matrix<f64>,
}

impl Measured {
    /// Measures pictures.
    pub fn of(pictures: Pictures, network: &RandomFeatures) -> Measured {
        let shapes = pictures.shapes();
        let features = network.of(&pictures.bytes, pictures.side);
        Measured { pictures, shapes, features }
    }
}

/// One feature of the shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FeatureScores {
    /// Wasserstein-1, in the feature's unit.
    pub w1: f64,
    /// The same in standard deviations of the real ones; none where those do not vary.
    pub w1_scaled: Option<f64>,
    /// Kolmogorov–Smirnov statistic.
    pub ks: f64,
    /// Pearson's r over cells; none where one side does not vary.
    pub pcc: Option<f64>,
}

/// What a set of pictures is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Pictures on each side.
    pub n: usize,
    /// Cells left out of what is measured of shapes: the real picture or the other has no region.
    pub without_region: usize,
    /// In the order of [`NAMES`]; none where no cell is left.
    pub features: Option<[FeatureScores; NAMES.len()]>,
    /// Sliced Wasserstein of the standardised shapes; none where no cell is left.
    pub swd: Option<f64>,
    /// Fréchet distance of random features; none below two pictures.
    pub fid_rand: Option<f64>,
    /// Kernel distance of random features; none below two pictures.
    pub kid_rand: Option<f64>,
    /// Mean structural similarity with the cell's own picture; none of pictures smaller than a window.
    pub ssim: Option<f64>,
    /// Mean peak signal-to-noise ratio, decibels.
    pub psnr: f64,
}

impl Scores {
    /// Mean over features of one of their scores, and over how many.
    pub fn over_features(&self, score: impl Fn(&FeatureScores) -> Option<f64>) -> Option<Figure> {
        let values: Vec<f64> = self.features.iter().flatten().filter_map(score).collect();
        let n = values.len();
        (n > 0).then(|| Figure {
            value: values.iter().sum::<f64>() / n as f64,
            n_used: n as u64,
            n_skipped: (NAMES.len() - n) as u64,
        })
    }

    /// Cells whose shapes were compared.
    pub fn n_shapes(&self) -> usize {
        self.n - self.without_region
    }
}

/// Scores `other` against `real`, cell by cell in one order; `seed` draws directions and subsets.
///
/// # Panics
/// If they are not of as many cells, or there are none.
pub fn score(real: &Measured, other: &Measured, seed: u64) -> Scores {
    let n = real.pictures.n();
    assert!(n > 0 && n == other.pictures.n(), "one picture of every cell on both sides");
    let pairs: Vec<(Shape, Shape)> = real.shapes.iter().zip(&other.shapes).filter_map(|(&a, &b)| a.zip(b)).collect();
    let features = || std::array::from_fn(|k| feature(&pairs.iter().map(|(a, b)| (a[k], b[k])).collect::<Vec<_>>()));
    Scores {
        n,
        without_region: n - pairs.len(),
        features: (!pairs.is_empty()).then(features),
        swd: sliced(&pairs, seed),
        fid_rand: frechet_distance(&real.features, &other.features),
        kid_rand: kernel_distance(&real.features, &other.features, seed),
        ssim: mean_ssim(&real.pictures, &other.pictures),
        psnr: mean_psnr(&real.pictures, &other.pictures),
    }
}

fn feature(pairs: &[(f64, f64)]) -> FeatureScores {
    let (real, other): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let w1 = wasserstein_1(&real, &other);
    FeatureScores {
        w1,
        w1_scaled: varies(&real).then(|| w1 / mean_and_sd(&real).1),
        ks: kolmogorov_smirnov(&real, &other),
        pcc: (varies(&real) && varies(&other)).then(|| pearson(pairs)).flatten(),
    }
}

/// Whether values differ by more than the root of a rounding error, which is all that the eccentricity of discs is.
fn varies(values: &[f64]) -> bool {
    values.iter().any(|v| (v - values[0]).abs() > 1e-7 * values[0].abs().max(1.0))
}

/// Population standard deviation.
fn mean_and_sd(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt())
}

/// Of shapes in standard deviations of the real ones from their mean; what does not vary among those is left out.
fn sliced(pairs: &[(Shape, Shape)], seed: u64) -> Option<f64> {
    let of_real = |k: usize| {
        let real: Vec<f64> = pairs.iter().map(|pair| pair.0[k]).collect();
        let (mean, sd) = mean_and_sd(&real);
        varies(&real).then_some((k, mean, sd))
    };
    let scales: Vec<(usize, f64, f64)> = (0..NAMES.len()).filter_map(of_real).collect();
    if scales.is_empty() {
        return None;
    }
    let standardised = |side: fn(&(Shape, Shape)) -> &Shape| Matrix {
        n_cols: scales.len(),
        values: pairs.iter().flat_map(|p| scales.iter().map(move |&(k, mean, sd)| (side(p)[k] - mean) / sd)).collect(),
    };
    let mut drawn = vec![0.0f32; DIRECTIONS * scales.len()];
    normals(DrawKey::new(seed, Purpose::PaintedPictures), [0, 0, 0], &mut drawn);
    let mut directions = Matrix { n_cols: scales.len(), values: drawn.into_iter().map(f64::from).collect() };
    for direction in directions.values.chunks_mut(scales.len()) {
        let length = direction.iter().map(|v| v * v).sum::<f64>().sqrt();
        direction.iter_mut().for_each(|v| *v /= length);
    }
    Some(sliced_wasserstein(&standardised(|p| &p.0), &standardised(|p| &p.1), &directions))
}

/// Mean over cells of the mean over channels.
fn mean_ssim(a: &Pictures, b: &Pictures) -> Option<f64> {
    let window = Window::gaussian();
    let plane = |picture: &[u8], channel: usize| Matrix {
        n_cols: a.side,
        values: picture.iter().skip(channel).step_by(a.channels).map(|&v| f64::from(v) / 255.0).collect(),
    };
    let one = |i: usize| {
        let of = |channel| ssim(&plane(a.get(i), channel), &plane(b.get(i), channel), &window);
        Some((0..a.channels).map(of).sum::<Option<f64>>()? / a.channels as f64)
    };
    let all: Vec<f64> = (0..a.n()).into_par_iter().map(one).collect::<Option<_>>()?;
    Some(all.iter().sum::<f64>() / a.n() as f64)
}

fn mean_psnr(a: &Pictures, b: &Pictures) -> f64 {
    let share = |picture: &[u8]| picture.iter().map(|&v| f64::from(v) / 255.0).collect::<Vec<_>>();
    (0..a.n()).map(|i| psnr(&share(a.get(i)), &share(b.get(i)))).sum::<f64>() / a.n() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Discs of these radii and this brightness, 24 × 24 pixels.
    fn discs(radii: &[f64], bright: u8) -> Measured {
        let pixel = |r: f64, i: usize| {
            let (y, x) = ((i / 24) as f64 - 11.5, (i % 24) as f64 - 11.5);
            if y.hypot(x) < r { bright } else { 10 }
        };
        let bytes = radii.iter().flat_map(|&r| (0..24 * 24).map(move |i| pixel(r, i))).collect();
        Measured::of(Pictures { side: 24, channels: 1, bytes }, &RandomFeatures::new(1))
    }

    #[test]
    fn equal_sets_score_perfectly() {
        let real = discs(&[3.0, 4.0, 5.0, 6.0, 7.0], 200);
        let scores = score(&real, &real, 1);
        assert_eq!((scores.n, scores.without_region, scores.n_shapes()), (5, 0, 5));
        let area = scores.features.unwrap()[0];
        assert_eq!((area.w1, area.w1_scaled, area.ks), (0.0, Some(0.0), 0.0));
        assert!((area.pcc.unwrap() - 1.0).abs() < 1e-12 && scores.swd == Some(0.0));
        assert!((scores.ssim.unwrap() - 1.0).abs() < 1e-12 && scores.psnr == 100.0);
        assert!(scores.fid_rand.unwrap().abs() < 1e-4, "{:?}", scores.fid_rand); // a root of rounding errors
    }

    #[test]
    fn the_same_pictures_of_other_cells_are_the_same_set_and_do_not_correlate() {
        let (real, turned) = (discs(&[3.0, 4.0, 5.0, 6.0, 7.0], 200), discs(&[7.0, 6.0, 5.0, 4.0, 3.0], 200));
        let scores = score(&real, &turned, 1);
        let area = scores.features.unwrap()[0];
        assert_eq!((area.w1, area.ks), (0.0, 0.0));
        assert!(area.pcc.unwrap() < -0.9 && scores.ssim.unwrap() < 0.9);
    }

    #[test]
    fn what_does_not_vary_has_no_correlation_and_a_picture_without_a_region_drops_its_cell() {
        let (real, constant) = (discs(&[3.0, 4.0, 5.0], 200), discs(&[4.0, 4.0, 4.0], 200));
        let scores = score(&real, &constant, 1);
        let features = scores.features.unwrap();
        assert!(features.iter().all(|f| f.pcc.is_none()), "{features:?}");
        assert_eq!(scores.over_features(|f| f.pcc), None);
        let brightness = features[4]; // the same 200 in all real cells
        assert_eq!((brightness.w1, brightness.w1_scaled), (0.0, None));
        let scaled = scores.over_features(|f| f.w1_scaled).unwrap();
        assert_eq!((scaled.n_used, scaled.n_skipped), (5, 5), "all discs are as bright and as round");

        let empty = score(&real, &discs(&[4.0, 0.0, 5.0], 200), 1);
        assert_eq!((empty.n, empty.without_region, empty.n_shapes()), (3, 1, 2));
        let none = score(&real, &discs(&[0.0; 3], 200), 1);
        assert!(none.features.is_none() && none.swd.is_none() && none.ssim.is_some() && none.n_shapes() == 0);
    }
}
