//! Retrieval (`evaluation.md` §4): does a record's vector on one side find the same record on the other?

use rayon::prelude::*;
use syncytia_shards::processed::Matrix;

/// Ranks of the truth, from 0: candidates that are more alike, those as alike counted against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranks(pub Vec<usize>);

impl Ranks {
    /// Of each query `[n, d]` its own row among the candidates `[n, d]`, by cosine.
    pub fn by_cosine(queries: &Matrix<f32>, candidates: &Matrix<f32>) -> Ranks {
        assert_eq!(queries.n_rows(), candidates.n_rows(), "each query has one candidate");
        let (queries, candidates) = (unit_rows(queries), unit_rows(candidates));
        let rank = |i: usize| {
            let query = queries.row(i);
            let alike = |j: usize| candidates.row(j).iter().zip(query).map(|(c, q)| f64::from(c * q)).sum::<f64>();
            let own = alike(i);
            (0..candidates.n_rows()).filter(|&j| j != i && alike(j) >= own).count()
        };
        Ranks((0..queries.n_rows()).into_par_iter().map(rank).collect())
    }

    /// Of a matrix of similarities `[n, n]`, the truth on the diagonal.
    pub fn of(similarity: &Matrix<f32>) -> Ranks {
        let rank = |i: usize| {
            let row = similarity.row(i);
            (0..row.len()).filter(|&j| j != i && row[j] >= row[i]).count()
        };
        Ranks((0..similarity.n_rows()).map(rank).collect())
    }

    /// Share of the queries whose truth is among the first `k`.
    pub fn recall_at(&self, k: usize) -> f64 {
        self.0.iter().filter(|&&rank| rank < k).count() as f64 / self.0.len().max(1) as f64
    }

    /// Mean of 1 / place of the truth, places from 1.
    pub fn mrr(&self) -> f64 {
        self.0.iter().map(|&rank| 1.0 / (rank + 1) as f64).sum::<f64>() / self.0.len().max(1) as f64
    }
}

fn unit_rows(of: &Matrix<f32>) -> Matrix<f32> {
    let row = |i: usize| {
        let length = of.row(i).iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        of.row(i).iter().map(move |&v| (f64::from(v) / length) as f32)
    };
    Matrix { n_cols: of.n_cols, values: (0..of.n_rows()).flat_map(row).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truth_has_the_ranks_of_the_table() {
        let similarity = Matrix { n_cols: 3, values: vec![0.9, 0.1, 0.3, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8] };
        let ranks = Ranks::of(&similarity);
        // Tolerance 5e-11: the references are printed with 10 decimals.
        for (found, expected) in [(ranks.recall_at(1), 0.6666666667), (ranks.mrr(), 0.8333333333)] {
            assert!((found - expected).abs() < 5e-11);
        }
        assert_eq!(ranks.recall_at(2), 1.0);
    }

    #[test]
    fn an_equal_candidate_counts_against_the_truth() {
        let same = Matrix { n_cols: 2, values: vec![1.0f32; 8] };
        assert_eq!(Ranks::by_cosine(&same, &same), Ranks(vec![3; 4]));
        let apart = Matrix { n_cols: 2, values: vec![2.0f32, 0.0, 0.0, 5.0] };
        assert_eq!(Ranks::by_cosine(&apart, &apart), Ranks(vec![0, 0]));
    }
}
