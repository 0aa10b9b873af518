//! k-means: k-means++ starts drawn by seed, Lloyd's rounds, the best of ten restarts (`evaluation.md` §3). The same clusters
//! whatever the threads: every sum has its order.

use rayon::prelude::*;
use syncytia_shards::draw::{DrawKey, Purpose, uniform};
use syncytia_shards::processed::Matrix;

/// Starts, of which the tightest is kept.
pub const RESTARTS: u32 = 10;
/// Lloyd's rounds of a start, at most.
const ROUNDS: usize = 100;
/// Points of one task.
const CHUNK: usize = 256;

/// Clusters `0..k` of the points `[n, d]`.
///
/// # Panics
/// If there are fewer points than clusters, or none are asked for.
pub fn clusters(points: &Matrix<f32>, k: usize, seed: u64) -> Vec<u32> {
    assert!(k > 0 && points.n_rows() >= k, "k-means of {} points in {k} clusters", points.n_rows());
    let starts: Vec<(f64, Vec<u32>)> =
        (0..RESTARTS).into_par_iter().map(|start| lloyd(points, k, seed, start)).collect();
    let best = starts.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
    best.expect("there are restarts").1
}

/// One start: the sum of squared distances, and the clusters.
fn lloyd(points: &Matrix<f32>, k: usize, seed: u64, start: u32) -> (f64, Vec<u32>) {
    let mut centres = plus_plus(points, k, seed, start);
    let mut clusters = vec![u32::MAX; points.n_rows()];
    let mut inertia = f64::INFINITY;
    for _ in 0..ROUNDS {
        let nearest = assign(points, &centres);
        inertia = nearest.iter().map(|of| of.1).sum();
        let found: Vec<u32> = nearest.iter().map(|of| of.0).collect();
        if found == clusters {
            break;
        }
        clusters = found;
        centres = means(points, &clusters, &nearest, k);
    }
    (inertia, clusters)
}

/// The first centre is drawn evenly, each next one by its squared distance from those there are.
fn plus_plus(points: &Matrix<f32>, k: usize, seed: u64, start: u32) -> Vec<Vec<f64>> {
    let key = DrawKey::new(seed, Purpose::Clusters);
    let draw = |nth: usize| f64::from(uniform(key.word(nth as u32, [start, 0, 0])));
    let n = points.n_rows();
    let centre = |i: usize| points.row(i).iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    let mut centres = vec![centre(((draw(0) * n as f64) as usize).min(n - 1))];
    let mut nearest = vec![f64::INFINITY; n];
    while centres.len() < k {
        let newest = &centres[centres.len() - 1];
        nearest.iter_mut().enumerate().for_each(|(i, d)| *d = d.min(squared(points.row(i), newest)));
        let target = draw(centres.len()) * nearest.iter().sum::<f64>();
        let mut below = 0.0;
        let reached = nearest.iter().position(|d| {
            below += d;
            below > target
        });
        // Where all points are centres, any is as good.
        centres.push(centre(reached.unwrap_or(n - 1)));
    }
    centres
}

/// The nearest centre of each point and its squared distance; the first of equals.
fn assign(points: &Matrix<f32>, centres: &[Vec<f64>]) -> Vec<(u32, f64)> {
    let nearest = |i: usize| {
        let distances = centres.iter().map(|centre| squared(points.row(i), centre));
        let of = distances.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).expect("there is a centre");
        (of.0 as u32, of.1)
    };
    (0..points.n_rows()).into_par_iter().with_min_len(CHUNK).map(nearest).collect()
}

/// Means of the clusters; an empty one moves to the point that is farthest from its own centre.
fn means(points: &Matrix<f32>, clusters: &[u32], nearest: &[(u32, f64)], k: usize) -> Vec<Vec<f64>> {
    let mut sums = vec![vec![0.0; points.n_cols]; k];
    let mut sizes = vec![0usize; k];
    for (i, &cluster) in clusters.iter().enumerate() {
        sizes[cluster as usize] += 1;
        sums[cluster as usize].iter_mut().zip(points.row(i)).for_each(|(sum, &v)| *sum += f64::from(v));
    }
    let mut farthest: Vec<usize> = (0..nearest.len()).collect();
    farthest.sort_by(|&a, &b| nearest[b].1.total_cmp(&nearest[a].1).then(a.cmp(&b)));
    let mut far = farthest.into_iter();
    for (centre, &size) in sums.iter_mut().zip(&sizes) {
        match size {
            0 => {
                let i = far.next().expect("there are as many points as clusters");
                *centre = points.row(i).iter().map(|&v| f64::from(v)).collect();
            }
            _ => centre.iter_mut().for_each(|v| *v /= size as f64),
        }
    }
    sums
}

fn squared(point: &[f32], centre: &[f64]) -> f64 {
    point.iter().zip(centre).map(|(&p, c)| (f64::from(p) - c).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::clustering::agreement;

    /// Three round clouds of 40 points at the corners of a triangle, and their classes.
    fn clouds() -> (Matrix<f32>, Vec<u32>) {
        let key = DrawKey::new(3, Purpose::Synthetic);
        let corners = [[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]];
        let at = |i: usize, axis: usize| corners[i % 3][axis] + uniform(key.word((2 * i + axis) as u32, [0; 3])) - 0.5;
        let values = (0..120).flat_map(|i| [at(i, 0), at(i, 1)]).collect();
        (Matrix { n_cols: 2, values }, (0..120).map(|i| i % 3).collect())
    }

    #[test]
    fn clouds_are_found_whatever_the_seed() {
        let (points, classes) = clouds();
        for seed in 0..5 {
            assert_eq!(agreement(&classes, &clusters(&points, 3, seed)).ari, 1.0);
        }
    }

    #[test]
    fn one_thread_and_four_find_the_same() {
        let (points, _) = clouds();
        let on = |n: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
            pool.install(|| clusters(&points, 7, 11))
        };
        assert_eq!(on(1), on(4));
        assert_ne!(clusters(&points, 7, 11), clusters(&points, 7, 12), "another seed starts elsewhere");
    }

    #[test]
    fn equal_points_and_as_many_clusters_as_points_are_no_harm() {
        let same = Matrix { n_cols: 1, values: vec![2.0f32; 5] };
        assert_eq!(clusters(&same, 3, 0).len(), 5);
        let few = Matrix { n_cols: 1, values: vec![1.0f32, 5.0, 9.0] };
        let mut found = clusters(&few, 3, 0);
        found.sort_unstable();
        assert_eq!(found, [0, 1, 2]);
    }
}
