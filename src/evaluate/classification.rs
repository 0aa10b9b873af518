//! Classes told from vectors (`evaluation.md` §4): macro F1 and accuracy, and labels carried over from the nearest records
//! of another set.

use std::collections::BTreeMap;

use rayon::prelude::*;
use syncytia_shards::processed::Matrix;

/// Neighbours that vote.
pub const NEIGHBOURS: usize = 15;

/// Mean over the classes of truth and prediction of F1; a class with an empty denominator counts as 0.
pub fn macro_f1(truth: &[u32], predicted: &[u32]) -> f64 {
    let mut classes: BTreeMap<u32, [u64; 3]> = BTreeMap::new(); // hits, in truth, in prediction
    for (&truth, &predicted) in truth.iter().zip(predicted) {
        classes.entry(truth).or_default()[1] += 1;
        classes.entry(predicted).or_default()[2] += 1;
        if truth == predicted {
            classes.entry(truth).or_default()[0] += 1;
        }
    }
    let f1 = |[hits, truth, predicted]: &[u64; 3]| 2.0 * *hits as f64 / (truth + predicted) as f64;
    classes.values().map(f1).sum::<f64>() / classes.len().max(1) as f64
}

/// Share of the records whose class was told.
pub fn accuracy(truth: &[u32], predicted: &[u32]) -> f64 {
    truth.iter().zip(predicted).filter(|(t, p)| t == p).count() as f64 / truth.len().max(1) as f64
}

/// The class of each query `[m, d]` by a vote of its [`NEIGHBOURS`] nearest of `known` `[n, d]`; of equal votes the class
/// with the nearer neighbour.
pub fn nearest_classes(known: &Matrix<f32>, classes: &[u32], queries: &Matrix<f32>) -> Vec<u32> {
    assert!(!classes.is_empty() && classes.len() == known.n_rows(), "every known record has a class");
    let squared = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    let vote = |i: usize| {
        let mut near: Vec<(f64, usize)> =
            (0..known.n_rows()).map(|j| (squared(queries.row(i), known.row(j)), j)).collect();
        let k = NEIGHBOURS.min(near.len());
        let order = |a: &(f64, usize), b: &(f64, usize)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        near.select_nth_unstable_by(k - 1, order);
        near.truncate(k);
        near.sort_by(order);
        let mut votes: BTreeMap<u32, (usize, usize)> = BTreeMap::new(); // votes, place of the nearest
        for (place, &(_, j)) in near.iter().enumerate() {
            votes.entry(classes[j]).or_insert((0, place)).0 += 1;
        }
        let most = votes.into_iter().max_by_key(|&(_, (n, place))| (n, std::cmp::Reverse(place)));
        most.expect("somebody is near").0
    };
    (0..queries.n_rows()).into_par_iter().map(vote).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tolerance 5e-11: the references are printed with 10 decimals.
    #[test]
    fn macro_f1_is_that_of_the_table() {
        let (truth, told) = ([0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 0]);
        assert!((macro_f1(&truth, &told) - 0.6555555556).abs() < 5e-11);
        assert!((accuracy(&truth, &told) - 0.6666666667).abs() < 5e-11);
        assert!((macro_f1(&[0, 0, 1, 1], &[0, 2, 1, 1]) - 0.5555555556).abs() < 5e-11, "a class that is never true");
    }

    #[test]
    fn the_nearest_name_the_class() {
        let known = Matrix { n_cols: 1, values: (0..40).map(|i| i as f32).collect() };
        let classes: Vec<u32> = (0..40).map(|i| u32::from(i >= 20)).collect();
        let queries = Matrix { n_cols: 1, values: vec![2.0, 33.0] };
        assert_eq!(nearest_classes(&known, &classes, &queries), [0, 1]);
    }
}
