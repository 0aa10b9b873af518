//! Graphs over observations and the windows they reach in h hops.

use rayon::prelude::*;

use crate::processed::{Matrix, NO_NEIGHBOUR};

/// A directed graph: for each observation the ascending list of those it points to.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// Node `i` owns `targets[starts[i]..starts[i + 1]]`.
    starts: Vec<usize>,
    targets: Vec<u32>,
}

impl Graph {
    /// From adjacency lists; order and repetition in a list do not matter. Every target must be below `lists.len()`.
    pub fn from_lists(lists: &[Vec<u32>]) -> Graph {
        let mut graph = Graph { starts: vec![0], targets: Vec::new() };
        for list in lists {
            let mut sorted = list.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert!(sorted.last().is_none_or(|&j| (j as usize) < lists.len()), "a target is outside the graph");
            graph.targets.extend(sorted);
            graph.starts.push(graph.targets.len());
        }
        graph
    }

    /// Row `i` of a neighbour table points to its entries; padding is left out.
    pub fn from_knn(knn: &Matrix<u32>) -> Graph {
        let list = |i| knn.row(i).iter().copied().filter(|&j| j != NO_NEIGHBOUR).collect();
        Graph::from_lists(&(0..knn.n_rows()).map(list).collect::<Vec<_>>())
    }

    /// Number of nodes.
    pub fn n_nodes(&self) -> usize {
        self.starts.len() - 1
    }

    /// Where node `i` points, ascending.
    pub fn targets(&self, i: usize) -> &[u32] {
        &self.targets[self.starts[i]..self.starts[i + 1]]
    }

    /// Every edge turned round.
    pub fn transposed(&self) -> Graph {
        let mut lists = vec![Vec::new(); self.n_nodes()];
        for i in 0..self.n_nodes() {
            self.targets(i).iter().for_each(|&j| lists[j as usize].push(i as u32));
        }
        Graph::from_lists(&lists)
    }

    /// An edge wherever there is one in either direction.
    pub fn symmetrised(&self) -> Graph {
        let turned = self.transposed();
        let both = |i| [self.targets(i), turned.targets(i)].concat();
        Graph::from_lists(&(0..self.n_nodes()).map(both).collect::<Vec<_>>())
    }
}

/// For every node the nodes at hop distance 0, 1, …, `max_hops`; ascending inside one distance.
#[derive(Debug, Clone, PartialEq)]
pub struct HopWindows {
    max_hops: usize,
    /// Node `i`, distance `h`: `spots[starts[i · (max_hops + 1) + h]..starts[that + 1]]`.
    starts: Vec<usize>,
    spots: Vec<u32>,
}

impl HopWindows {
    /// Breadth first from every node along the edges of `graph`.
    pub fn new(graph: &Graph, max_hops: usize) -> HopWindows {
        let n = graph.n_nodes();
        let per_node: Vec<(Vec<usize>, Vec<u32>)> = (0..n)
            .into_par_iter()
            .map_init(
                || vec![u32::MAX; n],
                |reached_by, i| {
                    let (mut ends, mut spots) = (vec![1], vec![i as u32]);
                    reached_by[i] = i as u32;
                    let mut ring_start = 0;
                    for _ in 0..max_hops {
                        let ring_end = spots.len();
                        for at in ring_start..ring_end {
                            for &j in graph.targets(spots[at] as usize) {
                                if reached_by[j as usize] != i as u32 {
                                    reached_by[j as usize] = i as u32;
                                    spots.push(j);
                                }
                            }
                        }
                        spots[ring_end..].sort_unstable();
                        ends.push(spots.len());
                        ring_start = ring_end;
                    }
                    (ends, spots)
                },
            )
            .collect();
        let mut windows = HopWindows { max_hops, starts: vec![0], spots: Vec::new() };
        for (ends, spots) in per_node {
            let base = windows.spots.len();
            windows.starts.extend(ends.iter().map(|end| base + end));
            windows.spots.extend(spots);
        }
        windows
    }

    /// Number of nodes.
    pub fn n_nodes(&self) -> usize {
        (self.starts.len() - 1) / (self.max_hops + 1)
    }

    /// The farthest distance held.
    pub fn max_hops(&self) -> usize {
        self.max_hops
    }

    /// Nodes exactly `h` hops from `i`, ascending; `h` = 0 is `i` itself.
    pub fn ring(&self, i: usize, h: usize) -> &[u32] {
        assert!(h <= self.max_hops, "asked for hop {h} of windows of {} hops", self.max_hops);
        let at = i * (self.max_hops + 1) + h;
        &self.spots[self.starts[at]..self.starts[at + 1]]
    }

    /// Nodes at most `h` hops from `i`: `i` first, then by distance.
    pub fn within(&self, i: usize, h: usize) -> &[u32] {
        assert!(h <= self.max_hops, "asked for hop {h} of windows of {} hops", self.max_hops);
        let first = i * (self.max_hops + 1);
        &self.spots[self.starts[first]..self.starts[first + h + 1]]
    }

    /// [`HopWindows::within`] less `i` itself.
    pub fn others_within(&self, i: usize, h: usize) -> &[u32] {
        &self.within(i, h)[1..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_follow_the_arrows() {
        // 0 → 1 → 2 → 3, and 3 → 0
        let ring = Graph::from_lists(&[vec![1], vec![2], vec![3], vec![0]]);
        let windows = HopWindows::new(&ring, 2);
        assert_eq!((windows.ring(0, 0), windows.ring(0, 1), windows.ring(0, 2)), (&[0][..], &[1][..], &[2][..]));
        assert_eq!(windows.within(2, 2), [2, 3, 0]);
        let back = HopWindows::new(&ring.transposed(), 2);
        assert_eq!(back.within(2, 2), [2, 1, 0]);
        let both = HopWindows::new(&ring.symmetrised(), 2);
        assert_eq!(both.ring(0, 1), [1, 3]);
        assert_eq!(both.others_within(0, 2), [1, 3, 2]);
        assert_eq!(both.n_nodes(), 4);
    }

    #[test]
    fn an_island_reaches_itself_only() {
        let windows = HopWindows::new(&Graph::from_lists(&[vec![], vec![0]]), 3);
        assert_eq!(windows.within(0, 3), [0]);
        assert_eq!(windows.within(1, 3), [1, 0]);
    }
}
