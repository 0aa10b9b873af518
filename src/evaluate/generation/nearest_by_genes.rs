//! `nearest_by_genes`: the picture of the training cell whose expression is most similar. A strong fill: what it paints is
//! real, and of about the right cell.
//!
//! Similar: the cosine of ln(1 + counts per 10⁴) over all genes, exact search; of equally similar cells that of lowest record
//! id, so that the order in which training cells are offered is of no matter.

use rayon::prelude::*;

/// The nearest training cell of each query among those offered so far. `P`: where a training cell is.
#[derive(Debug)]
pub struct NearestByGenes<P> {
    queries: Vec<Query<P>>,
    n_genes: usize,
}

#[derive(Debug)]
struct Query<P> {
    id: u64,
    /// `[n_genes]`, of length 1.
    profile: Vec<f64>,
    best: Option<Neighbour<P>>,
}

/// A training cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour<P> {
    /// Cosine of the profiles.
    pub similarity: f64,
    /// Record id.
    pub id: u64,
    /// Where it is.
    pub place: P,
}

/// Record id, place, genes, counts.
pub type Offered<'a, P> = (u64, P, &'a [u32], &'a [f32]);

impl<P: Copy + Send + Sync> NearestByGenes<P> {
    /// For queries of record id, genes and counts, of a panel of `n_genes`.
    pub fn new<'a>(n_genes: usize, cells: impl IntoIterator<Item = (u64, &'a [u32], &'a [f32])>) -> Self {
        let query = |(id, genes, counts): (u64, &[u32], &[f32])| {
            let mut profile = vec![0.0; n_genes];
            genes.iter().zip(profile_of(counts)).for_each(|(&gene, v)| profile[gene as usize] = v);
            Query { id, profile, best: None }
        };
        NearestByGenes { queries: cells.into_iter().map(query).collect(), n_genes }
    }

    /// Looks whether training cells are nearer than what was found so far. A cell is no neighbour of itself.
    ///
    /// # Panics
    /// If a gene is none of the panel.
    pub fn offer(&mut self, cells: &[Offered<'_, P>]) {
        let profiles: Vec<Vec<f64>> = cells.iter().map(|cell| profile_of(cell.3)).collect();
        assert!(
            cells.iter().all(|cell| cell.2.iter().all(|&gene| (gene as usize) < self.n_genes)),
            "the panel's genes"
        );
        self.queries.par_iter_mut().for_each(|query| {
            for (&(id, place, genes, _), profile) in cells.iter().zip(&profiles) {
                let similarity: f64 = genes.iter().zip(profile).map(|(&g, v)| query.profile[g as usize] * v).sum();
                let nearer = |best: &Neighbour<P>| {
                    similarity > best.similarity || (similarity == best.similarity && id < best.id)
                };
                if id != query.id && query.best.as_ref().is_none_or(nearer) {
                    query.best = Some(Neighbour { similarity, id, place });
                }
            }
        });
    }

    /// The neighbours, in the order of the queries; none where nothing was offered.
    pub fn found(&self) -> Vec<Option<Neighbour<P>>> {
        self.queries.iter().map(|query| query.best).collect()
    }
}

/// ln(1 + counts per 10⁴), scaled to length 1; zeros of a cell without counts.
fn profile_of(counts: &[f32]) -> Vec<f64> {
    let depth: f64 = counts.iter().map(|&c| f64::from(c)).sum();
    let logs: Vec<f64> =
        counts.iter().map(|&c| libm::log1p(1e4 * f64::from(c) / depth.max(f64::MIN_POSITIVE))).collect();
    let length = logs.iter().map(|v| v * v).sum::<f64>().sqrt();
    logs.into_iter().map(|v| if length > 0.0 { v / length } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_found_whatever_the_depth_and_the_order() {
        let cells: [(u64, &[u32], &[f32]); 3] = [(10, &[0, 1], &[4.0, 2.0]), (11, &[2], &[9.0]), (12, &[], &[])];
        let training: [Offered<'_, char>; 4] = [
            (3, 'c', &[0, 1], &[8.0, 4.0]), // twice the counts
            (1, 'a', &[0, 2], &[4.0, 4.0]),
            (2, 'b', &[0, 1], &[40.0, 20.0]), // as near as c
            (11, 'd', &[2], &[9.0]),          // the second query itself
        ];
        for order in [[0, 1, 2, 3], [3, 2, 1, 0]] {
            let mut nearest = NearestByGenes::new(3, cells);
            order.into_iter().for_each(|i| nearest.offer(&training[i..=i]));
            let found: Vec<Neighbour<char>> = nearest.found().into_iter().flatten().collect();
            assert_eq!(found.iter().map(|n| n.place).collect::<String>(), "baa");
            assert!((found[0].similarity - 1.0).abs() < 1e-12 && found[2].similarity == 0.0);
        }
        assert_eq!(NearestByGenes::<char>::new(3, cells).found(), [None; 3]);
    }
}
