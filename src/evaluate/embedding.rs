//! Vectors judged by labels: clusters at the number of labels over five seeds, and labels carried over from the nearest
//! training records (`evaluation.md` §3, §4). Every method is judged on the same records.

use std::collections::BTreeMap;

use rayon::prelude::*;
use syncytia_shards::draw::{DrawKey, Purpose, uniform};
use syncytia_shards::processed::Matrix;

use super::classification::{accuracy, macro_f1, nearest_classes};
use super::clustering::{Agreement, adjusted_rand, agreement, silhouette};
use super::kmeans;

/// Seeds of the clusterings; the spread over them is reported.
pub const SEEDS: u64 = 5;

/// Vectors of the same records by one method.
#[derive(Debug, Clone, PartialEq)]
pub struct Method {
    /// Stable name.
    pub name: String,
    /// In words.
    pub what: String,
    /// `[n, d]`: of the judged records.
    pub judged: Matrix<f32>,
    /// `[m, d]`: of training records that carry labels over; no rows where there are none.
    pub train: Matrix<f32>,
}

/// The class of each record: a number into `names`, none where unassigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// Ascending.
    pub names: Vec<String>,
    /// `[n]`.
    pub of: Vec<Option<u32>>,
}

impl Classes {
    /// Of labels as read, numbered among `names`; a label that is not there is unassigned.
    pub fn among(names: &[String], labels: &[Option<String>]) -> Classes {
        let number = |label: &String| names.binary_search(label).ok().map(|at| at as u32);
        Classes { names: names.to_vec(), of: labels.iter().map(|l| l.as_ref().and_then(number)).collect() }
    }

    /// Of labels as read; empty text is unassigned.
    pub fn of_labels(labels: &[Option<String>]) -> Classes {
        let mut names: Vec<String> = labels.iter().flatten().filter(|l| !l.is_empty()).cloned().collect();
        names.sort();
        names.dedup();
        Classes::among(&names, labels)
    }

    /// Records with a class, and the class of each.
    pub fn assigned(&self) -> (Vec<usize>, Vec<u32>) {
        self.of.iter().enumerate().filter_map(|(i, class)| Some((i, (*class)?))).unzip()
    }
}

/// The most frequent of some labels; of equals the first by name, none where all are missing.
pub fn majority<'a>(labels: impl Iterator<Item = Option<&'a str>>) -> Option<String> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    labels.flatten().for_each(|label| *counts.entry(label).or_default() += 1);
    let most = counts.into_iter().max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(a.0)));
    most.map(|(label, _)| label.to_owned())
}

/// Rows of a matrix, in that order.
pub fn rows(of: &Matrix<f32>, which: &[usize]) -> Matrix<f32> {
    Matrix { n_cols: of.n_cols, values: which.iter().flat_map(|&i| of.row(i)).copied().collect() }
}

/// How clusters agree with classes, seed by seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Clustered {
    /// One per seed.
    pub seeds: Vec<Agreement>,
    /// The clusters of the first seed, of the records with a class.
    pub first: Vec<u32>,
}

/// Mean and standard deviation over seeds.
pub fn spread(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let values: Vec<f64> = values.collect();
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0).max(1.0)).sqrt())
}

/// k-means of the points `[n, d]` at `k` clusters against their classes `[n]`.
pub fn clustered(points: &Matrix<f32>, classes: &[u32], k: usize) -> Clustered {
    of_partitions(classes, |seed| kmeans::clusters(points, k, seed))
}

/// The floor: clusters drawn without looking.
pub fn at_random(classes: &[u32], k: usize) -> Clustered {
    let drawn = |seed| {
        let key = DrawKey::new(seed, Purpose::Clusters);
        let cluster =
            |i: usize| ((f64::from(uniform(key.word(i as u32, [0, 0, 2]))) * k as f64) as u32).min(k as u32 - 1);
        (0..classes.len()).map(cluster).collect()
    };
    of_partitions(classes, drawn)
}

fn of_partitions(classes: &[u32], partition: impl Fn(u64) -> Vec<u32>) -> Clustered {
    let partitions: Vec<Vec<u32>> = (0..SEEDS).map(partition).collect();
    let seeds = partitions.iter().map(|clusters| agreement(classes, clusters)).collect();
    Clustered { seeds, first: partitions.into_iter().next().expect("there are seeds") }
}

/// Resamples of the records that the uncertainty of an ARI is estimated by.
pub const RESAMPLES: u32 = 200;

/// ARI of the first seed of several clusterings on the same resamples of the records.
pub struct Resampled(Vec<Vec<f64>>);

impl Resampled {
    /// `classes`: `[n]` below `k`; `clustered`: of the same records, in at most `k` clusters. Records are drawn with
    /// replacement, the same for all clusterings; they are not clustered again.
    pub fn of(clustered: &[Clustered], classes: &[u32], k: usize) -> Resampled {
        let (n, key) = (classes.len(), DrawKey::new(0, Purpose::Clusters));
        let one = |resample: u32| -> Vec<f64> {
            let mut counts = vec![vec![0u64; k * k]; clustered.len()];
            key.for_each(n, [resample, 0, 3], |_, word| {
                let record = ((u64::from(word) * n as u64) >> 32) as usize;
                for (counts, of) in counts.iter_mut().zip(clustered) {
                    counts[classes[record] as usize * k + of.first[record] as usize] += 1;
                }
            });
            counts.iter().map(|counts| adjusted_rand(counts, k)).collect()
        };
        Resampled((0..RESAMPLES).into_par_iter().map(one).collect())
    }

    /// Standard error of the ARI of one clustering.
    pub fn error(&self, at: usize) -> f64 {
        spread(self.0.iter().map(|of| of[at])).1
    }

    /// Standard error of the difference of two.
    pub fn error_of_difference(&self, a: usize, b: usize) -> f64 {
        spread(self.0.iter().map(|of| of[a] - of[b])).1
    }
}

/// Points whose silhouette is taken, at most: every one is held against all others.
const SILHOUETTES: usize = 2_000;

/// Mean silhouette of the classes themselves, no clustering asked, and of how many points: at most 2,000, evenly spaced.
pub fn mean_silhouette(points: &Matrix<f32>, classes: &[u32]) -> (f64, usize) {
    let n = classes.len().min(SILHOUETTES);
    let which: Vec<usize> = (0..n).map(|i| i * classes.len() / n).collect();
    let of_which: Vec<u32> = which.iter().map(|&i| classes[i]).collect();
    (silhouette(&rows(points, &which), &of_which).iter().sum::<f64>() / n.max(1) as f64, n)
}

/// Macro F1 and accuracy of labels carried over from the nearest training records.
pub fn carried_over(train: &Matrix<f32>, of_train: &[u32], judged: &Matrix<f32>, classes: &[u32]) -> [f64; 2] {
    let told = nearest_classes(train, of_train, judged);
    [macro_f1(classes, &told), accuracy(classes, &told)]
}

/// Which class each cluster stands for on a map: the pairs with most records first, one class per cluster while there are
/// classes left.
pub fn matched(clusters: &[u32], classes: &[u32], k: usize) -> Vec<u32> {
    let mut counts: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    clusters.iter().zip(classes).for_each(|(&cluster, &class)| *counts.entry((cluster, class)).or_default() += 1);
    let mut pairs: Vec<((u32, u32), u64)> = counts.into_iter().collect();
    pairs.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let (mut class_of, mut taken) = (vec![None; k], vec![false; k]);
    for ((cluster, class), _) in pairs {
        if class_of[cluster as usize].is_none() && !taken[class as usize] {
            class_of[cluster as usize] = Some(class);
            taken[class as usize] = true;
        }
    }
    let mut left = (0..k as u32).filter(|&class| !taken[class as usize]);
    class_of
        .into_iter()
        .map(|class| class.unwrap_or_else(|| left.next().expect("as many classes as clusters")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unassigned_records_are_left_out() {
        let text = |t: &str| Some(t.to_owned());
        let classes = Classes::of_labels(&[text("b"), None, text("a"), text(""), text("b")]);
        assert_eq!(classes.names, ["a", "b"]);
        assert_eq!(classes.assigned(), (vec![0, 2, 4], vec![1, 0, 1]));
    }

    #[test]
    fn the_majority_names_a_place_and_a_tie_goes_by_name() {
        let of = |labels: &[Option<&str>]| majority(labels.iter().copied());
        assert_eq!(of(&[Some("b"), Some("a"), None, Some("b")]).as_deref(), Some("b"));
        assert_eq!(of(&[Some("b"), Some("a")]).as_deref(), Some("a"));
        assert_eq!(of(&[None]), None);
    }

    #[test]
    fn clusters_get_the_colour_of_the_class_they_hold_most_of() {
        assert_eq!(matched(&[0, 0, 1, 1, 2], &[2, 2, 0, 2, 0], 3), [2, 0, 1]);
    }

    #[test]
    fn records_drawn_again_tell_the_error_of_an_ari_and_a_difference_is_paired() {
        let classes: Vec<u32> = (0..400).map(|i| i % 4).collect();
        let half = |from: u32| {
            let clusters: Vec<u32> =
                (0..400).map(|i| if (i / 4 + from).is_multiple_of(2) { i % 4 } else { i % 2 }).collect();
            Clustered { seeds: vec![agreement(&classes, &clusters)], first: clusters }
        };
        let all = [half(0), half(0), half(1)];
        let found = Resampled::of(&all, &classes, 4);
        // Of 100 quadruples each, 50 that agree and 50 that hold two classes.
        assert!(found.error(0) > 0.01 && found.error(0) < 0.06, "{}", found.error(0));
        assert_eq!(found.error_of_difference(0, 1), 0.0);
        assert!(found.error_of_difference(0, 2) > found.error(0), "what one loses the other gains");
        assert_eq!(Resampled::of(&all, &classes, 4).error(2), found.error(2), "drawn by key");
    }

    #[test]
    fn drawn_clusters_tell_nothing_and_the_spread_is_that_of_a_sample() {
        let classes: Vec<u32> = (0..400).map(|i| i % 4).collect();
        let (mean, _) = spread(at_random(&classes, 4).seeds.iter().map(|s| s.ari));
        assert!(mean.abs() < 0.02, "{mean}");
        assert_eq!(spread([1.0, 2.0, 3.0].into_iter()), (2.0, 1.0));
    }
}
