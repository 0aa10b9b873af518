//! The exact nearest neighbours of points, by brute force: no tree, no approximation, the same whatever the threads.

use rayon::prelude::*;
use syncytia_shards::processed::Matrix;

/// Of each point `[n, d]` its `k` nearest others (all, where there are fewer), nearest first; of equally far ones those with
/// the lower number.
pub fn nearest(points: &Matrix<f32>, k: usize) -> Vec<Vec<u32>> {
    let n = points.n_rows();
    let k = k.min(n.saturating_sub(1));
    let of_point = |i: usize| -> Vec<u32> {
        let own = points.row(i);
        let far = |j: usize| own.iter().zip(points.row(j)).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        let mut others: Vec<(f32, u32)> = (0..n).filter(|&j| j != i).map(|j| (far(j), j as u32)).collect();
        first_sorted(&mut others, k, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        others.into_iter().map(|(_, j)| j).collect()
    };
    (0..n).into_par_iter().map(of_point).collect()
}

/// Keeps the first `k` in order, sorted.
pub(super) fn first_sorted<T>(items: &mut Vec<T>, k: usize, order: impl Fn(&T, &T) -> std::cmp::Ordering + Copy) {
    if k < items.len() {
        items.select_nth_unstable_by(k, order);
        items.truncate(k);
    }
    items.sort_unstable_by(order);
}

/// Coordinates as points.
pub fn places(xyz: &[[f32; 3]]) -> Matrix<f32> {
    Matrix { n_cols: 3, values: xyz.concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_come_first_and_ties_by_number() {
        let points = Matrix { n_cols: 1, values: vec![0.0, 10.0, 1.0, -1.0, 2.5] };
        assert_eq!(nearest(&points, 2), [vec![2, 3], vec![4, 2], vec![0, 4], vec![0, 2], vec![2, 0]]);
        assert_eq!(nearest(&points, 9)[1], [4, 2, 0, 3]);
        assert_eq!(nearest(&places(&[[0.0; 3]]), 3), [Vec::<u32>::new()]);
    }
}
