//! How alike two pictures are, pixel by pixel: structural similarity and peak signal-to-noise ratio of values in 0..=1
//! (`evaluation.md` §5), as scikit-image computes them.

use syncytia_shards::processed::Matrix;

/// Weights of a window's rows and columns, and how a covariance in it is normalised.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    weights: Vec<f64>,
    normalisation: f64,
}

impl Window {
    /// 11 × 11, Gaussian of σ 1.5, population moments (Wang et al. 2004).
    pub fn gaussian() -> Window {
        let raw: Vec<f64> = (-5i32..=5).map(|i| (-0.5 * (f64::from(i) / 1.5).powi(2)).exp()).collect();
        let sum: f64 = raw.iter().sum();
        Window { weights: raw.into_iter().map(|w| w / sum).collect(), normalisation: 1.0 }
    }

    /// 7 × 7, all alike, sample covariance.
    pub fn uniform() -> Window {
        Window { weights: vec![1.0 / 7.0; 7], normalisation: 49.0 / 48.0 }
    }
}

/// (.01 R)² and (.03 R)² with R = 1.
const STABLE: [f64; 2] = [1e-4, 9e-4];

/// Mean structural similarity over the pixels whose window lies in the picture; none where the picture is smaller than it.
///
/// # Panics
/// If the pictures are of different sizes.
pub fn ssim(a: &Matrix<f64>, b: &Matrix<f64>, window: &Window) -> Option<f64> {
    assert_eq!((a.n_cols, a.values.len()), (b.n_cols, b.values.len()), "both pictures have one size");
    let product = |x: &Matrix<f64>, y: &Matrix<f64>| Matrix {
        n_cols: x.n_cols,
        values: x.values.iter().zip(&y.values).map(|(x, y)| x * y).collect(),
    };
    let mean = |of: &Matrix<f64>| smoothed(of, &window.weights);
    let (mean_a, mean_b) = (mean(a)?, mean(b)?);
    let (aa, bb, ab) = (mean(&product(a, a))?, mean(&product(b, b))?, mean(&product(a, b))?);
    let at = |i: usize| {
        let (x, y) = (mean_a[i], mean_b[i]);
        let variance = |square: f64, x: f64, y: f64| window.normalisation * (square - x * y);
        let (xx, yy, xy) = (variance(aa[i], x, x), variance(bb[i], y, y), variance(ab[i], x, y));
        let alike = (2.0 * x * y + STABLE[0]) * (2.0 * xy + STABLE[1]);
        alike / ((x * x + y * y + STABLE[0]) * (xx + yy + STABLE[1]))
    };
    Some((0..mean_a.len()).map(at).sum::<f64>() / mean_a.len() as f64)
}

/// Weighted means of the windows that lie in the picture, row by row.
fn smoothed(picture: &Matrix<f64>, weights: &[f64]) -> Option<Vec<f64>> {
    let (rows, columns, reach) = (picture.n_rows(), picture.n_cols, weights.len());
    let (tall, wide) = ((rows + 1).checked_sub(reach)?, (columns + 1).checked_sub(reach)?);
    if tall == 0 || wide == 0 {
        return None;
    }
    let weighted = |each: &dyn Fn(usize) -> f64| weights.iter().enumerate().map(|(k, w)| w * each(k)).sum::<f64>();
    let mut across = Vec::with_capacity(rows * wide);
    for row in 0..rows {
        across.extend((0..wide).map(|column| weighted(&|k| picture.row(row)[column + k])));
    }
    let down = |i: usize| weighted(&|k| across[(i / wide + k) * wide + i % wide]);
    Some((0..tall * wide).map(down).collect())
}

/// Decibels that are printed for pictures without a difference.
pub const MOST_DECIBELS: f64 = 100.0;

/// 10 · log₁₀(1 / mean squared error), at most [`MOST_DECIBELS`].
///
/// # Panics
/// If the pictures are of different sizes.
pub fn psnr(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "both pictures have one size");
    let squared: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    (10.0 * (a.len() as f64 / squared).log10()).min(MOST_DECIBELS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pictures of `evaluation.md` §5.
    fn known() -> (Matrix<f64>, Matrix<f64>) {
        let mut a = Matrix { n_cols: 16, values: Vec::new() };
        let mut b = a.clone();
        for i in 0..16 {
            for j in 0..16 {
                let value = f64::from((16 * i + j) % 256) / 255.0;
                a.values.push(value);
                let waves = (f64::from(i) / 3.0).sin() * (f64::from(j) / 2.0).cos();
                b.values.push((value + 0.1 * waves).clamp(0.0, 1.0));
            }
        }
        (a, b)
    }

    /// Tolerance 1e-9: the references are printed with ten decimals.
    #[test]
    fn alike_as_scikit_image_says() {
        let (a, b) = known();
        let ours = |window: &Window| ssim(&a, &b, window).unwrap();
        assert!((ours(&Window::gaussian()) - 0.936_572_149_7).abs() < 1e-9);
        assert!((ours(&Window::uniform()) - 0.939_840_984_4).abs() < 1e-9);
        assert!((ssim(&a, &a, &Window::gaussian()).unwrap() - 1.0).abs() < 1e-12);
        assert!((psnr(&a.values, &b.values) - 25.785_986_933_5).abs() < 1e-9);
    }

    #[test]
    fn equal_pictures_are_capped_and_small_ones_have_no_window() {
        assert!((psnr(&[0.5; 4], &[0.4; 4]) - 20.0).abs() < 1e-9);
        assert_eq!(psnr(&[0.3], &[0.3]), MOST_DECIBELS);
        let small = Matrix { n_cols: 10, values: vec![0.5; 200] };
        assert_eq!(ssim(&small, &small, &Window::gaussian()), None);
    }
}
