//! What ψ says of all that is hidden, when it has learned.

use rayon::prelude::*;
use syncytia_shards::matrix::Matrix;

use super::{Imputation, Rows};
use crate::model::spotdiff::Spotdiff;
use crate::model::spotdiff::sampler::Imputed;
use crate::task::paired::Paired;
use crate::tensor::Device;

/// Spots of a forward outside of training, where each is for itself.
pub const ROWS: usize = 64;

/// What is read out of all spots, `[n, G]` each.
#[derive(Debug, Clone, PartialEq)]
pub struct Readings {
    /// The readout that the config names.
    pub mean: Matrix<f32>,
    /// The mean of samples.
    pub sampled: Matrix<f32>,
    /// Their standard deviation.
    pub spread: Matrix<f32>,
}

impl Imputation {
    /// Every hidden entry of all spots, given all that is visible, in the scale of the spots' values; visible entries stand as they
    /// are, with spread 0. `rows`: spots of a forward, on which nothing depends unless the network attends over them.
    pub fn impute(&self, model: &Spotdiff, paired: &Paired, rows: usize, device: &Device) -> Readings {
        let (spots, genes) = (&paired.spots, paired.genes());
        let all: Vec<usize> = (0..spots.n()).collect();
        let forward = |rows: &[usize]| -> Imputed {
            let mut out = Rows { genes, ..Rows::default() };
            for &row in rows {
                let bits = spots.bits.row(row);
                self.push(&mut out, paired, (spots, row), (bits, &vec![false; genes]), self.config.steps - 1, [0; 3]);
            }
            if let Some(text) = paired.gene_text.as_ref().filter(|_| self.reads_text()) {
                out.text.of_genes = text.values.clone().into();
            }
            let ids: Vec<u64> = rows.iter().map(|&row| spots.ids[row]).collect();
            let known = self.known(model, &out, None, device);
            self.process.impute(&model.psi, &known, &ids, (self.config.readout, self.config.solver), self.spread)
        };
        // Forwards side by side: the kernels of a small network do not fill the cores.
        let parts: Vec<Imputed> = all.par_chunks(rows).map(forward).collect();
        let matrix = |of: fn(&Imputed) -> &Vec<f32>| Matrix {
            n_cols: genes,
            values: parts.iter().flat_map(of).copied().collect(),
        };
        Readings {
            mean: matrix(|part| &part.mean),
            sampled: matrix(|part| &part.sampled),
            spread: matrix(|part| &part.spread),
        }
    }
}

/// `values` averaged over each spot and the `k` nearest of it. With it a spot's values depend on other spots': it is a
/// readout of its own, to be named beside every figure.
pub fn smoothed(values: &Matrix<f32>, near: &[Vec<u32>], k: usize) -> Matrix<f32> {
    let row = |(i, near): (usize, &Vec<u32>)| -> Vec<f32> {
        let rows: Vec<usize> = std::iter::once(i).chain(near.iter().take(k).map(|&j| j as usize)).collect();
        let mean = |g: usize| rows.iter().map(|&r| f64::from(values.row(r)[g])).sum::<f64>() / rows.len() as f64;
        (0..values.n_cols).map(|g| mean(g) as f32).collect()
    };
    Matrix { n_cols: values.n_cols, values: near.iter().enumerate().flat_map(row).collect() }
}
