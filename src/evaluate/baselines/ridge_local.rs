//! Ridge regression per gene from a spot's own visible values and its ring means (`evaluation.md` §10).
//!
//! Features, 3G: own visible values (ring-3 mean where not visible), ring-1 mean, ring-3 mean, each less the section's
//! mean of visible values. Fitted on the training sections' hidden entries, λ = 30, with an intercept.

use rayon::prelude::*;
use syncytia_shards::processed::Matrix;

use super::{means, rings};
use crate::evaluate::block::{Block, Seen};

/// λ.
const PENALTY: f64 = 30.0;

/// Weights per gene: 3G, then the intercept.
#[derive(Debug, Clone)]
pub struct RidgeLocal {
    weights: Vec<Vec<f64>>,
}

/// A training block with what is hidden in it.
#[derive(Debug)]
pub struct Fit<'a> {
    /// The block.
    pub block: &'a Block,
    /// What is visible.
    pub seen: &'a Seen,
    /// What is hidden: the rows of the regression.
    pub hidden: &'a Matrix<bool>,
}

impl RidgeLocal {
    /// Fits on the hidden entries of the training blocks.
    pub fn fit(blocks: &[Fit<'_>]) -> RidgeLocal {
        let features: Vec<(Matrix<f64>, Vec<f32>)> = blocks.iter().map(|b| features(b.block, b.seen)).collect();
        let genes = blocks.first().map_or(0, |b| b.block.n_genes());
        let weights = (0..genes).into_par_iter().map(|g| fit_gene(g, blocks, &features)).collect();
        RidgeLocal { weights }
    }

    /// Predictions for every entry.
    pub fn fill(&self, block: &Block, seen: &Seen) -> Matrix<f32> {
        let (features, mean) = features(block, seen);
        let genes = block.n_genes();
        let rows: Vec<Vec<f32>> = (0..block.n_obs())
            .into_par_iter()
            .map(|i| {
                let x = features.row(i);
                let one = |g: usize| {
                    let w = &self.weights[g];
                    let dot: f64 = x.iter().zip(w).map(|(x, w)| x * w).sum();
                    (f64::from(mean[g]) + dot + w[x.len()]) as f32
                };
                (0..genes).map(one).collect()
            })
            .collect();
        Matrix { n_cols: genes, values: rows.concat() }
    }
}

/// `[n, 3G]` and the section's gene means.
fn features(block: &Block, seen: &Seen) -> (Matrix<f64>, Vec<f32>) {
    let mean = means::of_genes(seen, means::mean);
    let (near, far) = (rings::ring_mean(block, seen, 1), rings::ring_mean(block, seen, 3));
    let genes = block.n_genes();
    let mut values = Vec::with_capacity(block.n_obs() * 3 * genes);
    for i in 0..block.n_obs() {
        let own = |g: usize| if seen.visible.row(i)[g] { seen.values.row(i)[g] } else { far.row(i)[g] };
        let less_mean = |v: f32, g: usize| f64::from(v) - f64::from(mean[g]);
        values.extend((0..genes).map(|g| less_mean(own(g), g)));
        values.extend((0..genes).map(|g| less_mean(near.row(i)[g], g)));
        values.extend((0..genes).map(|g| less_mean(far.row(i)[g], g)));
    }
    (Matrix { n_cols: 3 * genes, values }, mean)
}

fn fit_gene(gene: usize, blocks: &[Fit<'_>], features: &[(Matrix<f64>, Vec<f32>)]) -> Vec<f64> {
    let mut rows: Vec<(&[f64], f64)> = Vec::new();
    for (fit, (x, mean)) in blocks.iter().zip(features) {
        for i in 0..fit.block.n_obs() {
            if fit.hidden.row(i)[gene] {
                rows.push((x.row(i), f64::from(fit.block.target.row(i)[gene]) - f64::from(mean[gene])));
            }
        }
    }
    let p = features.first().map_or(0, |f| f.0.n_cols);
    let n = rows.len().max(1) as f64;
    let mut x_mean = vec![0.0; p];
    let mut y_mean = 0.0;
    for (x, y) in &rows {
        x_mean.iter_mut().zip(*x).for_each(|(m, v)| *m += v / n);
        y_mean += y / n;
    }
    let (mut gram, mut moment) = (vec![0.0; p * p], vec![0.0; p]);
    let mut centred = vec![0.0; p];
    for (x, y) in &rows {
        centred.iter_mut().zip(x.iter().zip(&x_mean)).for_each(|(c, (v, m))| *c = v - m);
        for (i, &ci) in centred.iter().enumerate() {
            moment[i] += ci * (y - y_mean);
            gram[i * p..i * p + i + 1].iter_mut().zip(&centred).for_each(|(g, &cj)| *g += ci * cj);
        }
    }
    (0..p).for_each(|i| gram[i * p + i] += PENALTY);
    let mut weights = solve_positive_definite(&mut gram, moment);
    let intercept = y_mean - weights.iter().zip(&x_mean).map(|(w, m)| w * m).sum::<f64>();
    weights.push(intercept);
    weights
}

/// Cholesky on the lower triangle `[p, p]`, then two triangular solves.
fn solve_positive_definite(a: &mut [f64], mut b: Vec<f64>) -> Vec<f64> {
    let p = b.len();
    for j in 0..p {
        for i in j..p {
            let dot: f64 = a[i * p..i * p + j].iter().zip(&a[j * p..j * p + j]).map(|(x, y)| x * y).sum();
            let rest = a[i * p + j] - dot;
            a[i * p + j] = if i == j { rest.sqrt() } else { rest / a[j * p + j] };
        }
    }
    for i in 0..p {
        let dot: f64 = a[i * p..i * p + i].iter().zip(&b).map(|(x, y)| x * y).sum();
        b[i] = (b[i] - dot) / a[i * p + i];
    }
    for i in (0..p).rev() {
        let dot: f64 = (i + 1..p).map(|k| a[k * p + i] * b[k]).sum();
        b[i] = (b[i] - dot) / a[i * p + i];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_solver_solves() {
        // [[4, 2], [2, 3]] x = [2, 5] has x = [-0.5, 2].
        let x = solve_positive_definite(&mut [4.0, 0.0, 2.0, 3.0], vec![2.0, 5.0]);
        assert!((x[0] + 0.5).abs() < 1e-12 && (x[1] - 2.0).abs() < 1e-12, "{x:?}");
    }
}
