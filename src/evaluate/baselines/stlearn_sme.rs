//! stLearn's SME imputation without morphology (`pd_gd`; `systems.md`): a spot's zeros become a weighted mean of the spots near
//! and alike.
//!
//! Weight of two spots = 1 if nearer than three spot distances × Pearson's r of their principal components. The original keeps
//! the spot itself (weight 1) among the three largest, so that the zero it is to fill pulls the estimate down; `Itself::Left` is
//! the fill without that, of positive weights only.

use faer::{Mat, Side};
use rayon::prelude::*;
use syncytia_shards::nearest::knn;
use syncytia_shards::process::neighbours;
use syncytia_shards::processed::{Matrix, NO_NEIGHBOUR};

use crate::evaluate::block::{Block, Seen};

/// Spots that count, by weight.
const LARGEST: usize = 3;
/// In spot distances; exclusive.
const REACH: f64 = 3.0;
/// Spots of a hexagonal lattice within `REACH`, and some more.
const CANDIDATES: usize = 42;
/// Principal components.
const COMPONENTS: usize = 50;

/// Whether the spot itself is among those averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Itself {
    /// As the package.
    Kept,
    /// Others only.
    Left,
}

/// Fills from what is visible; a hidden or missing entry is a zero.
pub fn fill(block: &Block, seen: &Seen, itself: Itself) -> Matrix<f32> {
    let x = &seen.values;
    let components = components(x);
    let nearest = knn(&block.piece.xy, CANDIDATES);
    let unit = neighbours::spot_distance(&block.piece.xy);
    let near = |i: usize| -> Vec<usize> {
        let others = nearest.row(i).iter().filter(|&&j| j != NO_NEIGHBOUR).map(|&j| j as usize);
        others.filter(|&j| distance(&block.piece.xy, i, j) < REACH * unit).collect()
    };
    let rows: Vec<Vec<f32>> = (0..x.n_rows())
        .into_par_iter()
        .map(|i| {
            let mut weights: Vec<(usize, f64)> =
                near(i).into_iter().map(|j| (j, correlation(&components[i], &components[j]))).collect();
            match itself {
                Itself::Kept => weights.push((i, 1.0)),
                Itself::Left => weights.retain(|w| w.1 > 0.0), // without the 1, signed weights may sum to almost nothing
            }
            impute(x, i, weights)
        })
        .collect();
    Matrix { n_cols: x.n_cols, values: rows.concat() }
}

/// Row `i` with its zeros replaced by the mean under the largest weights; zeros stay where those do not sum to something positive.
fn impute(x: &Matrix<f32>, i: usize, mut weights: Vec<(usize, f64)>) -> Vec<f32> {
    weights.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    weights.truncate(LARGEST);
    let total: f64 = weights.iter().map(|w| w.1).sum();
    let mean = |g: usize| {
        let sum: f64 = weights.iter().map(|&(j, w)| w * f64::from(x.row(j)[g])).sum();
        if total > 0.0 { (sum / total) as f32 } else { 0.0 }
    };
    x.row(i).iter().enumerate().map(|(g, &v)| if v == 0.0 { mean(g) } else { v }).collect()
}

/// Scores of every row on the principal components of the gene-centred matrix, each component's largest loading positive.
fn components(x: &Matrix<f32>) -> Vec<Vec<f64>> {
    let (n, genes) = (x.n_rows(), x.n_cols);
    let mut mean = vec![0.0; genes];
    for i in 0..n {
        mean.iter_mut().zip(x.row(i)).for_each(|(m, &v)| *m += f64::from(v) / n as f64);
    }
    let centred = Mat::from_fn(n, genes, |i, g| f64::from(x.row(i)[g]) - mean[g]);
    let gram = centred.transpose() * &centred;
    let eigen = gram.self_adjoint_eigen(Side::Lower).expect("a Gram matrix of finite values decomposes");
    let kept = COMPONENTS.min(genes);
    let loadings = Mat::from_fn(genes, kept, |g, k| {
        let vector = eigen.U().col(genes - 1 - k); // ascending eigenvalues
        let largest = (0..genes).map(|h| vector[h]).max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(1.0);
        if largest < 0.0 { -vector[g] } else { vector[g] }
    });
    let scores = centred * loadings;
    (0..n).map(|i| (0..kept).map(|k| scores[(i, k)]).collect()).collect()
}

/// Pearson's r; 0 where either is constant.
fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len() as f64;
    let (mean_a, mean_b) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        ab += (x - mean_a) * (y - mean_b);
        aa += (x - mean_a).powi(2);
        bb += (y - mean_b).powi(2);
    }
    if aa > 0.0 && bb > 0.0 { ab / (aa * bb).sqrt() } else { 0.0 }
}

fn distance(xy: &[[f64; 2]], i: usize, j: usize) -> f64 {
    (xy[i][0] - xy[j][0]).hypot(xy[i][1] - xy[j][1])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `systems.md`: X and W given, computed with stLearn.
    #[test]
    fn zeros_become_the_mean_under_the_three_largest_weights() {
        let x = Matrix { n_cols: 2, values: vec![0.0, 4.0, 2.0, 0.0, 4.0, 2.0, 0.0, 0.0] };
        let w = [[1.0, 0.5, 0.25, 0.0], [0.5, 1.0, 0.8, 0.1], [0.25, 0.8, 1.0, 0.2], [0.0, 0.1, 0.2, 1.0]];
        let expected = [[1.142_857_2, 4.0], [2.0, 1.565_217_4], [4.0, 2.0], [0.769_230_8, 0.307_692_3]];
        for i in 0..4 {
            let ours = impute(&x, i, w[i].into_iter().enumerate().collect());
            assert!(ours.iter().zip(expected[i]).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6), "{i}: {ours:?}");
        }
        assert_eq!(impute(&x, 0, vec![(1, -0.5), (2, 0.25)]), [0.0, 4.0], "weights that sum to nothing positive");
    }

    #[test]
    fn components_turn_but_do_not_stretch() {
        let values = (0..40).map(|i| ((i * i) % 17) as f32 + (i % 3) as f32).collect();
        let x = Matrix { n_cols: 4, values };
        let scores = components(&x);
        let between = |i: usize, j: usize| -> [f64; 2] {
            let of_scores = scores[i].iter().zip(&scores[j]).map(|(a, b)| (a - b).powi(2)).sum();
            let of_x = x.row(i).iter().zip(x.row(j)).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            [of_scores, of_x]
        };
        for (i, j) in [(0, 1), (2, 7), (3, 9)] {
            let [a, b] = between(i, j);
            assert!((a - b).abs() < 1e-9 * b.max(1.0), "{a} {b}");
        }
        assert!((correlation(&[1.0, 2.0, 4.0], &[2.0, 4.0, 8.0]) - 1.0).abs() < 1e-12);
    }
}
