//! Median completion of missing entries from a growing neighbourhood (`spared.md` §4; the adaptive median filter of SEPAL).
//!
//! Works on the values of one piece and never writes over what was measured.

use rayon::prelude::*;

use super::hops::HopWindows;
use crate::processed::Matrix;

/// Fills the zeros of `x` (`[n_obs, genes]`): the median of the smallest window W_h(i), h = 1, 2, …, that is not 0, always of
/// the original values, zeros and the spot itself included; where all are 0, the median of the gene's non-zero values (0 if
/// there are none). Non-zero entries are kept. Parallel over observations; every entry is computed alone, so threads
/// change no bit.
pub fn complete(x: &Matrix<f32>, hops: &HopWindows) -> Matrix<f32> {
    assert_eq!(x.n_rows(), if x.n_cols == 0 { 0 } else { hops.n_nodes() }, "one window per observation");
    let overall = nonzero_medians(x);
    let mut values = x.values.clone();
    if x.n_cols > 0 {
        values.par_chunks_mut(x.n_cols).enumerate().for_each_init(Vec::new, |window, (i, out)| {
            for (gene, value) in out.iter_mut().enumerate().filter(|(_, v)| **v == 0.0) {
                *value = fill(x, hops, i, gene, window).unwrap_or(overall[gene]);
            }
        });
    }
    Matrix { n_cols: x.n_cols, values }
}

/// The first window median that is not 0.
fn fill(x: &Matrix<f32>, hops: &HopWindows, i: usize, gene: usize, window: &mut Vec<f32>) -> Option<f32> {
    (1..=hops.max_hops()).find_map(|h| {
        window.clear();
        window.extend(hops.within(i, h).iter().map(|&j| x.values[j as usize * x.n_cols + gene]));
        Some(median(window)).filter(|&m| m != 0.0)
    })
}

/// Per gene, the median of its non-zero values; 0 where there is none.
fn nonzero_medians(x: &Matrix<f32>) -> Vec<f32> {
    (0..x.n_cols)
        .into_par_iter()
        .map(|gene| {
            let mut present: Vec<f32> =
                x.values.iter().skip(gene).step_by(x.n_cols).copied().filter(|&v| v != 0.0).collect();
            median(&mut present)
        })
        .collect()
}

/// The middle value, or the mean of the two middle values; 0 of nothing. Reorders its input.
fn median(values: &mut [f32]) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    let odd = values.len() % 2 == 1;
    let (below, &mut upper, _) = values.select_nth_unstable_by(middle, f32::total_cmp);
    if odd {
        return upper;
    }
    let lower = below.iter().copied().max_by(f32::total_cmp).unwrap_or(upper);
    ((f64::from(lower) + f64::from(upper)) / 2.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::NearestGraph;
    use crate::process::fixture::hexagonal;
    use crate::process::neighbours::{Graph, completion_hops};

    const HOLES: [f32; 25] = [
        0.0, 3.0, 4.0, 0.0, 0.0, 2.0, 0.0, 3.0, 5.0, 0.0, 1.0, 2.0, 0.0, 4.0, 6.0, 0.0, 2.0, 3.0, 0.0, 5.0, 0.0, 0.0,
        2.0, 3.0, 4.0,
    ];
    const COMPLETED: [f32; 25] = [
        1.5, 3.0, 4.0, 1.5, 4.0, 2.0, 2.0, 3.0, 5.0, 5.0, 1.0, 2.0, 2.0, 4.0, 6.0, 1.5, 2.0, 3.0, 4.0, 5.0, 1.0, 2.0,
        2.0, 3.0, 4.0,
    ];

    /// The vector of `spared.md` §4: interior entries for both orientations, the rest under the parity orientation, where
    /// ties at the border allow.
    #[test]
    fn the_hexagonal_patch_of_the_specification() {
        let x = Matrix { n_cols: 1, values: HOLES.to_vec() };
        let own = complete(&x, &completion_hops(&hexagonal(5, 5), 4, NearestGraph::Own));
        let reverse = complete(&x, &completion_hops(&hexagonal(5, 5), 4, NearestGraph::Reverse));
        for i in [6, 7, 8, 11, 12, 13, 16, 17, 18] {
            assert_eq!(reverse.values[i], COMPLETED[i], "entry {i}, parity orientation");
        }
        assert_eq!(own.values[12], 2.0, "the centre does not know the orientation");
        assert_eq!(reverse.values, COMPLETED, "whole patch, parity orientation");
    }

    #[test]
    fn windows_grow_until_the_median_is_not_zero() {
        // a path 0 - 1 - 2 - 3 - 4; observation 0: W_1 = {0, 5}, median 2.5; observation 2: W_1 = {0, 0, 0}, W_2 = {0,0,0,5,0}
        let path = Graph::from_lists(&[vec![1], vec![0, 2], vec![1, 3], vec![2, 4], vec![3]]);
        let hops = HopWindows::new(&path, 2);
        let x = Matrix { n_cols: 2, values: vec![5.0, 7.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0] };
        let got = complete(&x, &hops);
        // column 0: spot 1 sees {0, 5, 0}: 0, then {0, 5, 0, 0}: 0, then the gene's own median 5
        assert_eq!(got.values.iter().step_by(2).copied().collect::<Vec<_>>(), [5.0, 5.0, 5.0, 5.0, 5.0]);
        let denser = Matrix { n_cols: 1, values: vec![0.0, 4.0, 0.0, 0.0, 6.0] };
        // spot 0: {0, 4} → 2; spot 2: {0, 4, 0} → 0, then all five {0, 0, 0, 4, 6} → 0, then the gene's median 5; spot 3: {0, 0, 6} → 0, {0, 0, 6, 4} → 2
        assert_eq!(complete(&denser, &hops).values, [2.0, 4.0, 5.0, 2.0, 6.0]);
    }

    #[test]
    fn a_gene_that_is_nowhere_stays_zero() {
        let hops = HopWindows::new(&Graph::from_lists(&[vec![1], vec![0]]), 1);
        assert_eq!(complete(&Matrix { n_cols: 1, values: vec![0.0, 0.0] }, &hops).values, [0.0, 0.0]);
    }

    #[test]
    fn an_even_count_takes_the_mean_of_the_middle_two() {
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&mut [9.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&mut []), 0.0);
    }
}
