//! `knn_reference`: the 50 cells that correlate best with a spot over the visible genes, weighted by max(r, 0).

use syncytia_shards::processed::Matrix;

use super::Standard;
use super::alike::{best, centred_unit, weighted_mean};

pub(super) fn fill(standard: &Standard) -> Matrix<f32> {
    let alike = best(&centred_unit(&standard.spots), &centred_unit(&standard.cells));
    weighted_mean(&alike, &standard.unseen, positive)
}

/// max(r, 0) of their sum; zeros where none is above 0.
pub(super) fn positive(r: &[f64]) -> Vec<f64> {
    let sum: f64 = r.iter().map(|r| r.max(0.0)).sum();
    r.iter().map(|r| if sum > 0.0 { r.max(0.0) / sum } else { 0.0 }).collect()
}
