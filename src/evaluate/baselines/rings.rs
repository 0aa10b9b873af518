//! Means over the spots around: hops on the symmetrised 6-nearest-neighbour graph, the spot itself left out.

use syncytia_shards::processed::Matrix;

use super::means;
use crate::evaluate::block::{Block, Seen};

/// Mean of visible values within `hops`; the gene's median where none is visible.
pub fn ring_mean(block: &Block, seen: &Seen, hops: usize) -> Matrix<f32> {
    let fallback = means::of_genes(seen, means::median);
    let genes = seen.values.n_cols;
    let mut values = Vec::with_capacity(seen.values.values.len());
    let (mut sum, mut n) = (vec![0.0f64; genes], vec![0u32; genes]);
    for spot in 0..block.n_obs() {
        sum.fill(0.0);
        n.fill(0);
        for &other in &block.rings.within(spot, hops)[1..] {
            let (row, visible) = (seen.values.row(other as usize), seen.visible.row(other as usize));
            for g in 0..genes {
                if visible[g] {
                    sum[g] += f64::from(row[g]);
                    n[g] += 1;
                }
            }
        }
        values.extend((0..genes).map(|g| if n[g] == 0 { fallback[g] } else { (sum[g] / f64::from(n[g])) as f32 }));
    }
    Matrix { n_cols: genes, values }
}
