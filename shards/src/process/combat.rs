//! ComBat: batch correction by empirical Bayes, parametric prior, no covariates (Johnson et al. 2007; `spared.md` §6).
//!
//! Works on the layer values of all pieces at once; a batch is a section or a donor. f64 throughout, rounded once.

use serde::{Deserialize, Serialize};

pub use crate::panel::CombatParameters;
use crate::processed::Matrix;

/// Which ComBat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Combat {
    /// No corrected layers.
    #[serde(rename = "none")]
    None,
    /// As published.
    #[serde(rename = "standard")]
    Standard,
    /// As the Python package combat 0.3.3 has it, for parity: scales about the first gene's shift, population variances.
    #[serde(rename = "combat_0_3_3")]
    Combat033,
}

/// Largest relative change of a last iteration.
const CONVERGED: f64 = 1e-4;
/// A bound that no real data reach: the update contracts.
const MAX_ITERATIONS: usize = 10_000;

/// Estimates the correction of `layers` (`[n_i, G]` each) whose batches are `batch_of`, numbered from 0 without gaps.
///
/// `None` with fewer than two batches (there is nothing to correct) and where a batch has fewer than two observations.
pub fn estimate(layers: &[&Matrix<f32>], batch_of: &[usize], combat: Combat) -> Option<CombatParameters> {
    let n_batches = batch_of.iter().max().map_or(0, |b| b + 1);
    let rows: Vec<Vec<&[f32]>> = (0..n_batches)
        .map(|b| {
            let own = layers.iter().zip(batch_of).filter(|(_, of)| **of == b);
            own.flat_map(|(layer, _)| (0..layer.n_rows()).map(|i| layer.row(i))).collect()
        })
        .collect();
    if combat == Combat::None || n_batches < 2 || rows.iter().any(|own| own.len() < 2) {
        return None;
    }
    let genes = layers[0].n_cols;
    let total: usize = rows.iter().map(Vec::len).sum();
    let batch_means: Vec<Vec<f64>> = rows.iter().map(|own| column_means(own, genes)).collect();
    let mut mean = vec![0.0; genes];
    let mut variance = vec![0.0; genes];
    for (own, means) in rows.iter().zip(&batch_means) {
        for g in 0..genes {
            mean[g] += own.len() as f64 / total as f64 * means[g];
            let squares: f64 = own.iter().map(|row| (f64::from(row[g]) - means[g]).powi(2)).sum();
            variance[g] += squares / total as f64;
        }
    }
    let deviation: Vec<f64> = variance.iter().map(|v| v.sqrt()).collect();
    let (shift, scale) = rows.iter().map(|own| batch_parameters(own, &mean, &deviation, combat)).unzip();
    Some(CombatParameters { mean, deviation, shift, scale })
}

/// `layer` of batch `batch`, corrected: σ (Z − γ*) / √δ* + α.
pub fn apply(parameters: &CombatParameters, layer: &Matrix<f32>, batch: usize) -> Matrix<f32> {
    correct(parameters, layer, &parameters.shift[batch], &parameters.scale[batch])
}

/// `layer` as a batch of its own under the mean and deviation of others: what a section added later gets.
pub fn apply_to_new_batch(parameters: &CombatParameters, layer: &Matrix<f32>, combat: Combat) -> Matrix<f32> {
    let rows: Vec<&[f32]> = (0..layer.n_rows()).map(|i| layer.row(i)).collect();
    if rows.len() < 2 {
        return layer.clone();
    }
    let (shift, scale) = batch_parameters(&rows, &parameters.mean, &parameters.deviation, combat);
    correct(parameters, layer, &shift, &scale)
}

fn correct(parameters: &CombatParameters, layer: &Matrix<f32>, shift: &[f64], scale: &[f64]) -> Matrix<f32> {
    let CombatParameters { mean, deviation, .. } = parameters;
    let corrected = |(i, &x): (usize, &f32)| {
        let g = i % layer.n_cols;
        if deviation[g] == 0.0 || scale[g] == 0.0 {
            return x;
        }
        let z = ((f64::from(x) - mean[g]) / deviation[g] - shift[g]) / scale[g].sqrt();
        (deviation[g] * z + mean[g]) as f32
    };
    Matrix { n_cols: layer.n_cols, values: layer.values.iter().enumerate().map(corrected).collect() }
}

/// γ* and δ* of the batch that `rows` are, per gene; a gene that never varies has neither.
fn batch_parameters(rows: &[&[f32]], mean: &[f64], deviation: &[f64], combat: Combat) -> (Vec<f64>, Vec<f64>) {
    let varies: Vec<usize> = (0..mean.len()).filter(|&g| deviation[g] > 0.0).collect();
    let z: Vec<Vec<f64>> =
        varies.iter().map(|&g| rows.iter().map(|row| (f64::from(row[g]) - mean[g]) / deviation[g]).collect()).collect();
    let (shifts, scales) = shrink(&z, combat);
    let spread = |values: Vec<f64>, rest: f64| {
        let mut all = vec![rest; mean.len()];
        varies.iter().zip(values).for_each(|(&g, v)| all[g] = v);
        all
    };
    (spread(shifts, 0.0), spread(scales, 1.0))
}

/// γ* and δ* of one batch from its standardised values, `[genes][n]`.
fn shrink(z: &[Vec<f64>], combat: Combat) -> (Vec<f64>, Vec<f64>) {
    let genes = z.len() as f64;
    let n = z.first().map_or(0, Vec::len) as f64;
    let less = if combat == Combat::Combat033 { 0.0 } else { 1.0 };
    let gamma: Vec<f64> = z.iter().map(|own| own.iter().sum::<f64>() / n).collect();
    let about = |own: &[f64], centre: f64| own.iter().map(|v| (v - centre).powi(2)).sum::<f64>();
    let delta: Vec<f64> = z.iter().zip(&gamma).map(|(own, &g)| about(own, g) / (n - less)).collect();
    let over_genes = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / genes;
        (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / genes)
    };
    let (gamma_mean, tau2) = over_genes(&gamma);
    let (m, s2) = over_genes(&delta);
    if s2 == 0.0 {
        return (gamma, delta); // one gene, or genes alike: nothing to shrink towards
    }
    let (a, b) = ((2.0 * s2 + m * m) / s2, (m * s2 + m.powi(3)) / s2);
    let (mut shift, mut scale) = (gamma.clone(), delta.clone());
    for _ in 0..MAX_ITERATIONS {
        let next: Vec<f64> =
            gamma.iter().zip(&scale).map(|(&g, &d)| (n * tau2 * g + d * gamma_mean) / (n * tau2 + d)).collect();
        let centre = |g: usize| if combat == Combat::Combat033 { next[0] } else { next[g] };
        let widths: Vec<f64> =
            z.iter().enumerate().map(|(g, own)| (0.5 * about(own, centre(g)) + b) / (n / 2.0 + a - 1.0)).collect();
        let change = |new: &[f64], old: &[f64]| {
            new.iter().zip(old).map(|(n, o)| (n - o).abs() / o).fold(f64::NEG_INFINITY, f64::max)
        };
        let changed = change(&next, &shift).max(change(&widths, &scale));
        (shift, scale) = (next, widths);
        if changed <= CONVERGED {
            break;
        }
    }
    (shift, scale)
}

fn column_means(rows: &[&[f32]], genes: usize) -> Vec<f64> {
    let mut means = vec![0.0; genes];
    for row in rows {
        means.iter_mut().zip(*row).for_each(|(m, &v)| *m += f64::from(v));
    }
    means.iter_mut().for_each(|m| *m /= rows.len() as f64);
    means
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Genes in rows, as the specification prints them; the first three spots are one batch, the others another.
    const X: [[f32; 6]; 4] = [
        [5.0, 5.5, 6.0, 8.0, 8.5, 9.5],
        [2.0, 2.4, 1.8, 3.0, 3.3, 2.9],
        [7.0, 6.5, 7.2, 5.0, 5.5, 4.6],
        [1.0, 1.2, 0.8, 1.1, 0.9, 1.3],
    ];

    fn spots(range: std::ops::Range<usize>) -> Matrix<f32> {
        Matrix { n_cols: 4, values: range.flat_map(|s| X.map(|gene| gene[s])).collect() }
    }

    fn check(combat: Combat, expected: [[f64; 6]; 4]) {
        let (a, b) = (spots(0..3), spots(3..6));
        let parameters = estimate(&[&a, &b], &[0, 1], combat).unwrap();
        let corrected = [apply(&parameters, &a, 0), apply(&parameters, &b, 1)].map(|m| m.values).concat();
        for (g, row) in expected.iter().enumerate() {
            for (s, &value) in row.iter().enumerate() {
                let ours = f64::from(corrected[s * 4 + g]);
                // the vectors are of f64 inputs; ours are f32, half a spacing at 8 is 5e-7
                assert!((ours - value).abs() < 2e-6, "{combat:?}, gene {g}, spot {s}: {ours} against {value}");
            }
        }
    }

    /// `spared.md` §6.
    #[test]
    fn the_standard_correction_equals_its_vector() {
        check(
            Combat::Standard,
            [
                [6.56435243, 6.99998017, 7.43560792, 6.64313755, 7.04071124, 7.83585862],
                [2.48572708, 2.82349748, 2.31684188, 2.53780333, 2.78200337, 2.45640332],
                [6.13445743, 5.70302158, 6.30703177, 5.85311861, 6.25207119, 5.53395655],
                [1.05464912, 1.22620895, 0.8830893, 1.045103, 0.88398537, 1.20622063],
            ],
        );
    }

    /// `spared.md` §6: with both defects of the package the published data were made with.
    #[test]
    fn the_correction_of_combat_0_3_3_equals_its_vector() {
        check(
            Combat::Combat033,
            [
                [6.48567582, 7.01265626, 7.5396367, 6.52374917, 7.00123924, 7.95621939],
                [2.47908566, 2.87565977, 2.2807986, 2.52330558, 2.81637126, 2.42561702],
                [6.13937104, 5.90535917, 6.23297578, 5.82867765, 6.0785757, 5.62875921],
                [1.05508518, 1.20886687, 0.9013035, 1.04496398, 0.88931079, 1.20061718],
            ],
        );
    }

    #[test]
    fn pieces_of_one_batch_are_corrected_together() {
        let (a, b) = (spots(0..3), spots(3..6));
        let whole = estimate(&[&a, &b], &[0, 1], Combat::Standard).unwrap();
        let (b1, b2) = (spots(3..4), spots(4..6));
        assert_eq!(estimate(&[&b1, &a, &b2], &[1, 0, 1], Combat::Standard).unwrap(), whole);
    }

    #[test]
    fn a_section_added_later_is_corrected_like_one_that_was_there() {
        let (a, b) = (spots(0..3), spots(3..6));
        let parameters = estimate(&[&a, &b], &[0, 1], Combat::Standard).unwrap();
        assert_eq!(apply_to_new_batch(&parameters, &b, Combat::Standard), apply(&parameters, &b, 1));
    }

    #[test]
    fn one_batch_and_a_batch_of_one_have_no_correction() {
        let (a, b) = (spots(0..3), spots(3..4));
        assert_eq!(estimate(&[&a], &[0], Combat::Standard), None);
        assert_eq!(estimate(&[&a, &b], &[0, 1], Combat::Standard), None);
        assert_eq!(estimate(&[&a, &spots(3..6)], &[0, 1], Combat::None), None);
    }

    #[test]
    fn a_gene_that_never_varies_is_left_as_it_is() {
        let constant = |range| {
            let mut m = spots(range);
            m.values.chunks_mut(4).for_each(|row| row[2] = 3.25);
            m
        };
        let (a, b) = (constant(0..3), constant(3..6));
        let corrected = apply(&estimate(&[&a, &b], &[0, 1], Combat::Standard).unwrap(), &a, 0);
        assert!(corrected.values.iter().all(|v| v.is_finite()));
        assert_eq!(corrected.row(1)[2], 3.25);
    }
}
