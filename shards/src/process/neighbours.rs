//! Who is near whom in a piece: graphs of the six nearest, and neighbourhoods for a model's input.
//!
//! Ties go by (distance, index), so a lattice gives one answer on every machine.

use super::config::{NearestGraph, Neighbourhood, ProcessConfig};
pub use super::hops::{Graph, HopWindows};
use crate::nearest::{knn, nearer, squared};
use crate::processed::{Matrix, NO_NEIGHBOUR, Piece};

/// Neighbours of the base graph of completion, Moran's I, rings and guard bands: the six of a hexagonal lattice.
pub const BASE_NEIGHBOURS: usize = 6;

/// Fills `Piece::neighbours`.
pub(super) fn attach(pieces: &mut [Piece], config: &ProcessConfig) {
    let n = config.n_neighbours as usize;
    for piece in pieces {
        piece.neighbours = match config.neighbourhood {
            Neighbourhood::Knn => knn(&piece.xy, n),
            Neighbourhood::HexHops => hex_hops(&piece.xy, n),
        };
    }
}

/// Spots at each hop distance 1..=`max_hops` on the symmetrised graph of the k nearest: an edge where either names the other.
pub fn symmetrised_hops(xy: &[[f64; 2]], k: usize, max_hops: usize) -> HopWindows {
    HopWindows::new(&Graph::from_knn(&knn(xy, k)).symmetrised(), max_hops)
}

/// The windows of the median completion (`spared.md` §4): hops along `graph` of the six nearest.
pub fn completion_hops(xy: &[[f64; 2]], max_hops: usize, graph: NearestGraph) -> HopWindows {
    HopWindows::new(&nearest_graph(xy, graph), max_hops)
}

/// The graph of the six nearest, read as `graph` says.
pub fn nearest_graph(xy: &[[f64; 2]], graph: NearestGraph) -> Graph {
    let own = Graph::from_knn(&knn(xy, BASE_NEIGHBOURS));
    match graph {
        NearestGraph::Own => own,
        NearestGraph::Reverse => own.transposed(),
        NearestGraph::Symmetrised => own.symmetrised(),
    }
}

/// Median distance to the nearest other observation, in native units: the pitch of a lattice; 0 for fewer than two.
pub fn spot_distance(xy: &[[f64; 2]]) -> f64 {
    let nearest = knn(xy, 1);
    let others = (0..xy.len()).filter(|&i| nearest.row(i)[0] != NO_NEIGHBOUR);
    let mut squares: Vec<f64> = others.map(|i| squared(xy, i, nearest.row(i)[0] as usize)).collect();
    squares.sort_unstable_by(f64::total_cmp);
    squares.get(squares.len() / 2).map_or(0.0, |median| median.sqrt())
}

/// Observations within two steps on the lattice, `[n_obs, n]`, nearest first, ties by index, padded with [`NO_NEIGHBOUR`].
///
/// A lattice step joins two observations where either is among the other's six nearest and they are at most 1.3 × the median
/// such distance apart, which drops the far "neighbours" of border spots. Where an irregular layout gives more than `n`, the
/// nearest stay.
pub fn hex_hops(xy: &[[f64; 2]], n: usize) -> Matrix<u32> {
    let nearest = knn(xy, BASE_NEIGHBOURS);
    let mut lengths: Vec<f64> = Vec::with_capacity(nearest.values.len());
    for i in 0..xy.len() {
        lengths.extend(nearest.row(i).iter().filter(|&&j| j != NO_NEIGHBOUR).map(|&j| squared(xy, i, j as usize)));
    }
    lengths.sort_unstable_by(f64::total_cmp);
    let reach = lengths.get(lengths.len() / 2).map_or(0.0, |median| 1.3 * 1.3 * median);
    let lists: Vec<Vec<u32>> = (0..xy.len())
        .map(|i| {
            let near = |j: &&u32| **j != NO_NEIGHBOUR && squared(xy, i, **j as usize) <= reach;
            nearest.row(i).iter().filter(near).copied().collect()
        })
        .collect();
    let windows = HopWindows::new(&Graph::from_lists(&lists).symmetrised(), 2);
    let mut values = vec![NO_NEIGHBOUR; xy.len() * n];
    if n > 0 {
        for (i, out) in values.chunks_mut(n).enumerate() {
            let mut found: Vec<(f64, u32)> =
                windows.others_within(i, 2).iter().map(|&j| (squared(xy, i, j as usize), j)).collect();
            found.sort_unstable_by(nearer);
            for (slot, (_, j)) in out.iter_mut().zip(found) {
                *slot = j;
            }
        }
    }
    Matrix { n_cols: n, values }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::fixture::hexagonal;

    #[test]
    fn inside_a_hexagonal_lattice_eighteen_nearest_are_the_two_hops() {
        let xy = hexagonal(9, 9);
        let (nearest, hops) = (knn(&xy, 18), hex_hops(&xy, 18));
        for row in 2..7 {
            for col in 2..7 {
                let i = row * 9 + col;
                assert_eq!(nearest.row(i), hops.row(i), "spot {i}");
                assert!(!nearest.row(i).contains(&NO_NEIGHBOUR));
            }
        }
    }

    #[test]
    fn a_corner_of_the_lattice_is_padded_not_reached_beyond_two_hops() {
        let hops = hex_hops(&hexagonal(9, 9), 18);
        // spot 0 touches 9 (99.998 away: rows are 86.6 apart) and 1 (100); two steps away lie 2, 10, 18 and 19
        let padding = [NO_NEIGHBOUR; 12];
        assert_eq!(hops.row(0)[..2], [9, 1]);
        let mut second = hops.row(0)[2..6].to_vec();
        second.sort_unstable();
        assert_eq!(second, [2, 10, 18, 19]);
        assert_eq!(hops.row(0)[6..], padding);
    }
}
