//! Principal components, the baseline of every embedding. Orthogonal iteration from drawn directions: the same bits whatever
//! the threads, no matrix of columns × columns.

use rayon::prelude::*;
use syncytia_shards::draw::{DrawKey, Purpose, normal_pair};
use syncytia_shards::processed::Matrix;

/// Directions beyond those wanted, so that the wanted ones converge.
const MORE: usize = 10;
/// Rounds.
const ROUNDS: usize = 12;
/// Records that the directions are fitted on, at most.
const FITTED: usize = 4096;
/// Columns of one task.
const CHUNK: usize = 64;
/// A direction that is shorter after the others were taken out of it is none.
const NOTHING: f64 = 1e-9;

/// Scores `[n, k]` of the rows on the first `k` principal components, or as many as there are.
///
/// Fitted on at most 4,096 rows, evenly spaced.
pub fn scores(rows: &Matrix<f32>, k: usize) -> Matrix<f32> {
    let (n, d) = (rows.n_rows(), rows.n_cols);
    let n_fitted = n.min(FITTED);
    let fitted: Vec<usize> = (0..n_fitted).map(|i| i * n / n_fitted).collect();
    let mean: Vec<f64> = (0..d)
        .into_par_iter()
        .with_min_len(CHUNK)
        .map(|column| fitted.iter().map(|&i| f64::from(rows.row(i)[column])).sum::<f64>() / n_fitted.max(1) as f64)
        .collect();
    let directions = directions(rows, &fitted, &mean, k);
    let n_found = directions.len();
    let values = (0..n).into_par_iter().flat_map_iter(|i| projected(rows.row(i), &mean, &directions).map(|v| v as f32));
    Matrix { n_cols: n_found, values: values.collect() }
}

/// At most `k` orthonormal directions `[d]`, by falling variance.
fn directions(rows: &Matrix<f32>, fitted: &[usize], mean: &[f64], k: usize) -> Vec<Vec<f64>> {
    let (n, d) = (fitted.len(), rows.n_cols);
    let wanted = (k + MORE).min(d).min(n.saturating_sub(1));
    let key = DrawKey::new(0, Purpose::Clusters);
    let normal = |of: usize, at: usize| {
        normal_pair(key.word(at as u32, [0, of as u32, 1]), key.word(at as u32, [0, of as u32, 2]))[0]
    };
    let mut directions: Vec<Vec<f64>> =
        (0..wanted).map(|of| (0..d).map(|at| f64::from(normal(of, at))).collect()).collect();
    orthonormal(&mut directions);
    for _ in 0..ROUNDS {
        let q = directions.len();
        if q == 0 {
            break;
        }
        let scores: Vec<f64> =
            fitted.par_iter().flat_map_iter(|&i| projected(rows.row(i), mean, &directions)).collect(); // [n, q]
        // Xᵀ · scores, some columns of X at a time, the rows in order.
        let starts: Vec<usize> = (0..d).step_by(CHUNK).collect();
        let products: Vec<Vec<f64>> = starts
            .par_iter()
            .map(|&first| {
                let width = CHUNK.min(d - first);
                let mut sums = vec![0.0; width * q];
                for (at, &i) in fitted.iter().enumerate() {
                    let scores = &scores[at * q..(at + 1) * q];
                    let values = &rows.row(i)[first..first + width];
                    for ((&value, mean), sums) in values.iter().zip(&mean[first..]).zip(sums.chunks_mut(q)) {
                        let centred = f64::from(value) - mean;
                        sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += centred * score);
                    }
                }
                sums
            })
            .collect();
        let product = |of: usize| products.iter().flat_map(move |part| part.iter().skip(of).step_by(q).copied());
        directions = (0..q).map(|of| product(of).collect()).collect();
        orthonormal(&mut directions);
    }
    directions.truncate(k);
    if directions.is_empty() {
        directions.push(vec![0.0; d]); // rows without variance all score 0
    }
    directions
}

/// A row's scores.
fn projected<'a>(row: &'a [f32], mean: &'a [f64], directions: &'a [Vec<f64>]) -> impl Iterator<Item = f64> + 'a {
    let centred: Vec<f64> = row.iter().zip(mean).map(|(&value, mean)| f64::from(value) - mean).collect();
    directions.iter().map(move |direction| dot(&centred, direction))
}

/// Gram and Schmidt's way, each twice; directions that add nothing are gone.
fn orthonormal(directions: &mut Vec<Vec<f64>>) {
    let mut found: Vec<Vec<f64>> = Vec::with_capacity(directions.len());
    for mut direction in directions.drain(..) {
        let length = dot(&direction, &direction).sqrt();
        for _ in 0..2 {
            for other in &found {
                let along = dot(&direction, other);
                direction.iter_mut().zip(other).for_each(|(v, o)| *v -= along * o);
            }
        }
        let left = dot(&direction, &direction).sqrt();
        if left > NOTHING * length {
            direction.iter_mut().for_each(|v| *v /= left);
            found.push(direction);
        }
    }
    *directions = found;
}

/// Eight sums beside each other, always the same way.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (whole_a, whole_b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = whole_a.remainder().iter().zip(whole_b.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in whole_a.zip(whole_b) {
        for i in 0..8 {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// Scores of two kinds side by side, for judged and for training rows: each kind is scaled so that its judged rows have a
/// variance of 1 in all, and neither drowns the other.
pub fn sides_by_side(a: &[Matrix<f32>; 2], b: &[Matrix<f32>; 2]) -> [Matrix<f32>; 2] {
    let (by_a, by_b) = (scale(&a[0]), scale(&b[0]));
    [0, 1].map(|set| {
        let (a, b) = (&a[set], &b[set]);
        let row = |i: usize| a.row(i).iter().map(|v| v * by_a).chain(b.row(i).iter().map(|v| v * by_b));
        Matrix { n_cols: a.n_cols + b.n_cols, values: (0..a.n_rows()).flat_map(row).collect() }
    })
}

fn scale(of: &Matrix<f32>) -> f32 {
    let squares: f64 = of.values.iter().map(|&v| f64::from(v).powi(2)).sum();
    if squares > 0.0 { (of.n_rows() as f64 / squares).sqrt() as f32 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 60 points on a plane in 9 dimensions, 3 times as wide as high.
    fn plane() -> Matrix<f32> {
        let point = |i: usize| {
            let (u, v) = ((i as f32 * 0.7).sin() * 3.0, (i as f32 * 1.3).cos());
            (0..9).map(move |k| 5.0 + u * ((k as f32).sin()) + v * ((k as f32 * 2.0).cos()))
        };
        Matrix { n_cols: 9, values: (0..60).flat_map(point).collect() }
    }

    fn variances(scores: &Matrix<f32>) -> Vec<f64> {
        let column = |k: usize| (0..scores.n_rows()).map(move |i| f64::from(scores.row(i)[k]));
        let mean = |k: usize| column(k).sum::<f64>() / scores.n_rows() as f64;
        (0..scores.n_cols).map(|k| column(k).map(|v| (v - mean(k)).powi(2)).sum::<f64>()).collect()
    }

    #[test]
    fn the_components_hold_what_there_is_by_falling_variance() {
        let rows = plane();
        let of_rows: f64 = variances(&rows).iter().sum();
        let found = scores(&rows, 5);
        let sum: f64 = found.values.iter().map(|&v| f64::from(v)).sum();
        assert!(sum.abs() < 1e-3, "scores are centred: {sum}");
        let found = variances(&found);
        assert!(found[0] > found[1] && found[2..].iter().all(|v| *v < 1e-6 * of_rows), "{found:?}");
        // f32 scores of centred f64: seven digits.
        assert!((found.iter().sum::<f64>() / of_rows - 1.0).abs() < 1e-6);
        let best: faer::Mat<f64> = faer::Mat::from_fn(9, 9, |a, b| {
            let mean = |k: usize| (0..60).map(|i| f64::from(rows.row(i)[k])).sum::<f64>() / 60.0;
            (0..60).map(|i| (f64::from(rows.row(i)[a]) - mean(a)) * (f64::from(rows.row(i)[b]) - mean(b))).sum()
        });
        let eigen = best.self_adjoint_eigen(faer::Side::Lower).unwrap();
        let largest: f64 = eigen.S().column_vector()[8];
        assert!((found[0] / largest - 1.0).abs() < 1e-6);
    }

    #[test]
    fn one_thread_and_four_find_the_same_bits() {
        let on = |n: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
            pool.install(|| scores(&plane(), 3))
        };
        assert_eq!(on(1), on(4));
    }

    #[test]
    fn rows_without_variance_have_no_component() {
        let flat = Matrix { n_cols: 3, values: vec![1.5f32; 12] };
        assert!(scores(&flat, 2).values.iter().all(|v| *v == 0.0));
    }
}
