//! An undirected weighted graph, as a community search reads it, and the quality of a partition of it.

use std::collections::BTreeMap;

/// Neighbours of every node in ascending order. An edge stands at both of its ends, a loop once; weights are positive.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// Where each node's neighbours begin, `[n + 1]`.
    starts: Vec<usize>,
    /// Neighbours.
    others: Vec<u32>,
    /// Weight of each.
    weights: Vec<f64>,
    /// Sum of the weights at a node, loops twice, `[n]`.
    strengths: Vec<f64>,
    /// Sum of all strengths: twice the weight of all edges.
    total: f64,
}

impl Graph {
    /// Of edges `(a, b, weight)`, each given once; equal ones add up.
    ///
    /// # Panics
    /// If an end is not below `n`.
    pub fn of_edges(n: usize, edges: impl IntoIterator<Item = (u32, u32, f64)>) -> Graph {
        let mut all: Vec<BTreeMap<u32, f64>> = vec![BTreeMap::new(); n];
        for (a, b, weight) in edges {
            *all[a as usize].entry(b).or_default() += weight;
            if a != b {
                *all[b as usize].entry(a).or_default() += weight;
            }
        }
        let mut graph =
            Graph { starts: vec![0], others: Vec::new(), weights: Vec::new(), strengths: Vec::new(), total: 0.0 };
        for (node, neighbours) in all.into_iter().enumerate() {
            let of = |(&other, weight): (&u32, &f64)| if other as usize == node { 2.0 * weight } else { *weight };
            graph.strengths.push(neighbours.iter().map(of).sum());
            graph.others.extend(neighbours.keys());
            graph.weights.extend(neighbours.values());
            graph.starts.push(graph.others.len());
        }
        graph.total = graph.strengths.iter().sum();
        graph
    }

    /// Of the nearest neighbours of points: an edge of weight 1 where either names the other.
    pub fn of_nearest(nearest: &[Vec<u32>]) -> Graph {
        let pairs = |(i, others): (usize, &Vec<u32>)| {
            let i = i as u32;
            others.iter().map(move |&j| (i.min(j), i.max(j))).collect::<Vec<_>>()
        };
        let edges: std::collections::BTreeSet<(u32, u32)> = nearest.iter().enumerate().flat_map(pairs).collect();
        Graph::of_edges(nearest.len(), edges.into_iter().map(|(a, b)| (a, b, 1.0)))
    }

    /// How many nodes.
    pub fn n_nodes(&self) -> usize {
        self.strengths.len()
    }

    /// A node's neighbours and the weight of each edge; the node itself, where it has a loop.
    pub fn neighbours(&self, node: usize) -> impl Iterator<Item = (usize, f64)> {
        let range = self.starts[node]..self.starts[node + 1];
        self.others[range.clone()].iter().map(|&other| other as usize).zip(self.weights[range].iter().copied())
    }

    /// Sum of the weights at a node.
    pub fn strength(&self, node: usize) -> f64 {
        self.strengths[node]
    }

    /// Twice the weight of all edges.
    pub fn total(&self) -> f64 {
        self.total
    }

    /// Newman's modularity of a partition `[n]` at resolution γ: Σ over communities of w_in / m − γ (K / 2m)², w_in the weight of
    /// its inner edges, K of its nodes' strengths, m of all edges. 0 without edges.
    pub fn modularity(&self, community_of: &[u32], resolution: f64) -> f64 {
        if self.total == 0.0 {
            return 0.0;
        }
        let n = community_of.iter().max().map_or(0, |&most| most as usize + 1);
        let (mut inner, mut strengths) = (vec![0.0; n], vec![0.0; n]);
        for node in 0..self.n_nodes() {
            let own = community_of[node] as usize;
            strengths[own] += self.strength(node);
            for (other, weight) in self.neighbours(node).filter(|&(other, _)| community_of[other] as usize == own) {
                inner[own] += if other == node { 2.0 * weight } else { weight }; // every other edge comes twice
            }
        }
        let of = |(inner, strength): (&f64, &f64)| inner / self.total - resolution * (strength / self.total).powi(2);
        inner.iter().zip(&strengths).map(of).sum()
    }

    /// The graph whose nodes are the communities `0..n` of this one; inner edges become loops.
    pub fn aggregated(&self, community_of: &[u32], n: usize) -> Graph {
        let mut edges: BTreeMap<(u32, u32), f64> = BTreeMap::new();
        for node in 0..self.n_nodes() {
            for (other, weight) in self.neighbours(node).filter(|&(other, _)| other >= node) {
                let (a, b) = (community_of[node], community_of[other]);
                *edges.entry((a.min(b), a.max(b))).or_default() += weight;
            }
        }
        Graph::of_edges(n, edges.into_iter().map(|((a, b), weight)| (a, b, weight)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two triangles and an edge between them.
    fn triangles() -> Graph {
        let edges = [(0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5), (2, 3)];
        Graph::of_edges(6, edges.map(|(a, b)| (a, b, 1.0)))
    }

    #[test]
    fn modularity_is_newmans() {
        let graph = triangles();
        // 6 of 7 edges inside; half of the strength each: 6/7 − 1/2.
        assert!((graph.modularity(&[0, 0, 0, 1, 1, 1], 1.0) - (6.0 / 7.0 - 0.5)).abs() < 1e-15);
        assert!((graph.modularity(&[0; 6], 1.0)).abs() < 1e-15);
        assert!((graph.modularity(&[0; 6], 0.25) - 0.75).abs() < 1e-15);
    }

    #[test]
    fn an_aggregated_graph_has_the_same_modularity() {
        let graph = triangles();
        let whole = graph.aggregated(&[0, 0, 1, 2, 2, 2], 3);
        assert_eq!(whole.total(), graph.total());
        let (fine, coarse) = (graph.modularity(&[0, 0, 0, 1, 1, 1], 1.3), whole.modularity(&[0, 0, 1], 1.3));
        assert!((fine - coarse).abs() < 1e-15, "{fine} {coarse}");
    }

    #[test]
    fn an_edge_that_both_ends_name_counts_once() {
        let graph = Graph::of_nearest(&[vec![1], vec![0], vec![1]]);
        assert_eq!(graph.total(), 4.0);
        assert_eq!(graph.neighbours(1).collect::<Vec<_>>(), [(0, 1.0), (2, 1.0)]);
    }
}
