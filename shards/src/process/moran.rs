//! Moran's I of genes on a row-normalised neighbour graph, and the genes it ranks first (`spared.md` §5).

use std::fmt;

use rayon::prelude::*;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::hops::Graph;
use crate::processed::Matrix;

/// I = (N / S0) · Σ_ij w_ij z_i z_j / Σ_i z_i² with w_ij = 1 / (number of targets of i) and S0 = Σ w_ij; `None` where x is
/// constant or the graph has no edge.
pub fn moran(x: &[f32], graph: &Graph) -> Option<f64> {
    assert_eq!(x.len(), graph.n_nodes(), "one value per node");
    let first = x.first()?;
    if x.iter().all(|v| v == first) {
        return None;
    }
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / x.len() as f64;
    let z: Vec<f64> = x.iter().map(|&v| f64::from(v) - mean).collect();
    let (mut cross, mut s0) = (0.0, 0.0);
    for (i, zi) in z.iter().enumerate() {
        let targets = graph.targets(i);
        if !targets.is_empty() {
            cross += zi * targets.iter().map(|&j| z[j as usize]).sum::<f64>() / targets.len() as f64;
            s0 += 1.0;
        }
    }
    let own: f64 = z.iter().map(|v| v * v).sum();
    (s0 > 0.0 && own > 0.0).then(|| x.len() as f64 / s0 * cross / own)
}

/// Moran's I of every column of `x` (`[n_obs, genes]`); parallel over genes.
pub fn per_gene(x: &Matrix<f32>, graph: &Graph) -> Vec<Option<f64>> {
    (0..x.n_cols)
        .into_par_iter()
        .map(|gene| moran(&x.values.iter().skip(gene).step_by(x.n_cols).copied().collect::<Vec<_>>(), graph))
        .collect()
}

/// Mean over pieces of the values that exist, per gene.
pub fn mean_over_pieces(pieces: &[Vec<Option<f64>>]) -> Vec<Option<f64>> {
    let n_genes = pieces.first().map_or(0, Vec::len);
    (0..n_genes)
        .map(|gene| {
            let known: Vec<f64> = pieces.iter().filter_map(|piece| piece[gene]).collect();
            (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
        })
        .collect()
}

/// The `n` genes of highest score, best first; ties by position (ids ascend), genes without a score last.
pub fn top(scores: &[Option<f64>], n: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    let score = |gene: u32| scores[gene as usize].unwrap_or(f64::NEG_INFINITY);
    order.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
    order.truncate(n);
    order
}

/// How many genes of highest Moran's I make the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopMoran {
    /// 128 when more than 320 genes remain, else 32.
    Auto,
    /// This many, or all if fewer remain.
    Genes(u32),
}

impl TopMoran {
    /// The number of genes kept of `n_remaining`.
    pub fn resolve(self, n_remaining: usize) -> usize {
        let wanted = match self {
            TopMoran::Auto if n_remaining > 320 => 128,
            TopMoran::Auto => 32,
            TopMoran::Genes(n) => n as usize,
        };
        wanted.min(n_remaining)
    }
}

impl Serialize for TopMoran {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            TopMoran::Auto => serializer.serialize_str("auto"),
            TopMoran::Genes(n) => serializer.serialize_u32(*n),
        }
    }
}

impl<'de> Deserialize<'de> for TopMoran {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AutoOrNumber;
        impl Visitor<'_> for AutoOrNumber {
            type Value = TopMoran;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("\"auto\" or a number of genes of at least 1")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<TopMoran, E> {
                if word == "auto" {
                    Ok(TopMoran::Auto)
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(word), &self))
                }
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<TopMoran, E> {
                match u32::try_from(n) {
                    Ok(n) if n >= 1 => Ok(TopMoran::Genes(n)),
                    _ => Err(E::invalid_value(de::Unexpected::Unsigned(n), &self)),
                }
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<TopMoran, E> {
                match u64::try_from(n) {
                    Ok(n) => self.visit_u64(n),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(n), &self)),
                }
            }
        }
        deserializer.deserialize_any(AutoOrNumber)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(x: &[f32], graph: &Graph, expected: f64) {
        let got = moran(x, graph).unwrap();
        // the vectors are printed to ten digits
        assert!((got - expected).abs() < 1e-10, "{got} against {expected}");
    }

    #[test]
    fn a_path_of_four() {
        let path = Graph::from_lists(&[vec![1], vec![0, 2], vec![1, 3], vec![2]]);
        check(&[1.0, 2.0, 3.0, 4.0], &path, 0.4);
        check(&[1.0, -1.0, 1.0, -1.0], &path, -1.0);
        check(&[1.0, 1.0, 2.0, 2.0], &path, 0.5);
    }

    #[test]
    fn the_hexagonal_patch_knows_its_orientation() {
        let lists: [[u32; 3]; 12] = [
            [4, 1, 8],
            [4, 5, 2],
            [6, 5, 1],
            [6, 7, 2],
            [8, 1, 0],
            [9, 1, 2],
            [10, 3, 2],
            [11, 3, 6],
            [4, 9, 0],
            [4, 5, 8],
            [6, 5, 9],
            [7, 6, 10],
        ];
        let own = Graph::from_lists(&lists.map(|l| l.to_vec()));
        let x = [1.0, 2.0, 3.0, 4.0, 2.0, 3.0, 4.0, 5.0, 1.0, 3.0, 5.0, 7.0];
        check(&x, &own, 0.573_717_948_7);
        check(&x, &own.transposed(), 0.755_769_230_8);
        check(&[0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0], &own, 0.0);
    }

    #[test]
    fn a_constant_gene_has_no_score_and_comes_last() {
        let path = Graph::from_lists(&[vec![1], vec![0, 2], vec![1]]);
        let x = Matrix { n_cols: 3, values: vec![0.1, 1.0, 3.0, 0.1, -1.0, 2.0, 0.1, 1.0, 1.0] };
        let scores = per_gene(&x, &path);
        assert_eq!(scores[0], None);
        assert!(scores[1].unwrap() < 0.0);
        assert_eq!(top(&scores, 3), [2, 1, 0]);
    }

    #[test]
    fn ties_go_by_position_and_missing_scores_leave_the_mean() {
        assert_eq!(top(&[Some(0.5), Some(0.9), Some(0.5), None], 3), [1, 0, 2]);
        let mean = mean_over_pieces(&[vec![Some(0.2), None, None], vec![Some(0.4), Some(0.7), None]]);
        assert!((mean[0].unwrap() - 0.3).abs() < 1e-15, "one rounding of a mean of two");
        assert_eq!(mean[1..], [Some(0.7), None]);
    }
}
