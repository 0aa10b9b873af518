//! Spots or cells clustered as stDiff does it (`evaluation.md` §3): principal components, the 30 nearest neighbours, Leiden at the
//! resolution that gives as many clusters as there are labels.

use rayon::prelude::*;
use syncytia_shards::processed::Matrix;

use super::clustering::agreement;
use super::embedding::{Clustered, SEEDS};
use super::graph::Graph;
use super::{leiden, nearest, pca};

/// Principal components.
pub const COMPONENTS: usize = 30;
/// Neighbours.
pub const NEIGHBOURS: usize = 30;
/// Highest resolution tried.
const HIGHEST: f64 = 3.0;
/// Halvings of the interval, at most.
const HALVINGS: u32 = 30;

/// Clusters at a resolution that was searched for.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// Cluster of each record, the largest first.
    pub clusters: Vec<u32>,
    /// How many there are; not always as many as wanted.
    pub n_clusters: usize,
    /// Where.
    pub resolution: f64,
    /// Resolutions tried.
    pub tried: u32,
}

/// Bisection on [0, 3], at most 30 halvings, until there are `wanted` clusters; else the nearest count met, of equals the first.
pub fn at_count(graph: &Graph, wanted: usize, seed: u64) -> Search {
    let (mut low, mut high) = (0.0, HIGHEST);
    let mut best: Option<Search> = None;
    for tried in 1..=HALVINGS {
        let resolution = 0.5 * (low + high);
        let clusters = leiden::communities(graph, resolution, seed);
        let n_clusters = clusters.iter().max().map_or(0, |&most| most as usize + 1);
        if best.as_ref().is_none_or(|best| n_clusters.abs_diff(wanted) < best.n_clusters.abs_diff(wanted)) {
            best = Some(Search { clusters, n_clusters, resolution, tried });
        }
        match n_clusters.cmp(&wanted) {
            std::cmp::Ordering::Equal => break,
            std::cmp::Ordering::Greater => high = resolution,
            std::cmp::Ordering::Less => low = resolution,
        }
        if let Some(best) = &mut best {
            best.tried = tried;
        }
    }
    best.expect("at least one resolution is tried")
}

/// A clustering of five seeds and what was searched for in each.
#[derive(Debug, Clone, PartialEq)]
pub struct Domains {
    /// Agreement with the classes, seed by seed.
    pub clustered: Clustered,
    /// Resolution and number of clusters of each seed.
    pub found: Vec<(f64, usize)>,
}

/// Clusters rows of expression `[n, G]` and compares them with their classes `[n]`, as many clusters as classes.
pub fn against_classes(expression: &Matrix<f32>, classes: &[u32]) -> Domains {
    let mut names = classes.to_vec();
    names.sort_unstable();
    names.dedup();
    let graph = Graph::of_nearest(&nearest::nearest(&pca::scores(expression, COMPONENTS), NEIGHBOURS));
    let searches: Vec<Search> = (0..SEEDS).into_par_iter().map(|seed| at_count(&graph, names.len(), seed)).collect();
    Domains {
        clustered: Clustered {
            seeds: searches.iter().map(|search| agreement(classes, &search.clusters)).collect(),
            first: searches[0].clusters.clone(),
        },
        found: searches.iter().map(|search| (search.resolution, search.n_clusters)).collect(),
    }
}

/// Without labels: the clusters of the measured expression at resolution 1 are the classes.
pub fn classes_of(measured: &Matrix<f32>) -> Vec<u32> {
    let graph = Graph::of_nearest(&nearest::nearest(&pca::scores(measured, COMPONENTS), NEIGHBOURS));
    leiden::communities(&graph, 1.0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncytia_shards::draw::{DrawKey, Purpose, normals};

    /// Five clouds of 60 points in 12 dimensions.
    fn clouds() -> (Matrix<f32>, Vec<u32>) {
        let mut values = vec![0.0; 300 * 12];
        normals(DrawKey::new(2, Purpose::Synthetic), [0; 3], &mut values);
        (0..300).for_each(|i| values[i * 12 + i % 5] += 9.0);
        (Matrix { n_cols: 12, values }, (0..300).map(|i| i % 5).collect())
    }

    #[test]
    fn clouds_are_found_at_the_resolution_that_gives_as_many() {
        let (points, classes) = clouds();
        let found = against_classes(&points, &classes);
        assert!(found.found.iter().all(|of| of.1 == 5), "{:?}", found.found);
        assert!(found.clustered.seeds.iter().all(|of| of.ari == 1.0 && of.ami == 1.0), "{:?}", found.clustered.seeds);
        assert_eq!(found.clustered.seeds.len(), 5);
        assert_eq!(agreement(&classes, &classes_of(&points)).ari, 1.0);
    }

    #[test]
    fn the_bisection_finds_other_counts_too_and_says_where_it_does_not() {
        // One cloud without parts: the resolution alone says how many.
        let mut values = vec![0.0; 300 * 3];
        normals(DrawKey::new(3, Purpose::Synthetic), [0; 3], &mut values);
        let graph = Graph::of_nearest(&nearest::nearest(&Matrix { n_cols: 3, values }, 8));
        for wanted in [3, 5, 8, 11] {
            let found = at_count(&graph, wanted, 1);
            assert_eq!(found.n_clusters, wanted, "at {}", found.resolution);
            assert!(found.tried <= 30 && found.resolution < 3.0);
        }
        // Clouds that no edge joins are never fewer.
        let apart = Graph::of_nearest(&(0..9).map(|i| vec![i / 3 * 3 + (i + 1) % 3]).collect::<Vec<_>>());
        let never = at_count(&apart, 2, 1);
        assert_eq!((never.n_clusters, never.tried), (3, 30));
    }
}
