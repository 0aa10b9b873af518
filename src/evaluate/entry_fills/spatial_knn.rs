//! `spatial_knn`: of each gene the mean of the visible values of the 10 nearest spots, the spot itself left out; the gene's mean
//! where none is visible.

use rayon::prelude::*;
use syncytia_shards::processed::Matrix;

use super::{Given, means};
use crate::evaluate::nearest::{nearest, places};

/// Spots.
const NEAREST: usize = 10;

pub(super) fn fill(given: &Given) -> Matrix<f32> {
    let genes = given.values.n_cols;
    let fallback = means(given);
    let of_spot = |others: &Vec<u32>| {
        let (mut sums, mut counts) = (vec![0.0; genes], vec![0u32; genes]);
        for &other in others {
            let (values, visible) = (given.values.row(other as usize), given.visible.row(other as usize));
            for gene in (0..genes).filter(|&gene| visible[gene]) {
                sums[gene] += f64::from(values[gene]);
                counts[gene] += 1;
            }
        }
        for gene in 0..genes {
            sums[gene] = if counts[gene] > 0 { sums[gene] / f64::from(counts[gene]) } else { fallback[gene] };
        }
        sums.into_iter().map(|v| v as f32)
    };
    let around = nearest(&places(given.xyz), NEAREST);
    Matrix { n_cols: genes, values: around.par_iter().flat_map_iter(of_spot).collect() }
}
