//! Who is near whom: k nearest by a grid, and neighbourhoods for a model's input.
//!
//! Ties go by (distance, index), so a lattice gives one answer on every machine. Distances are squared f64 differences.

use rayon::prelude::*;

use super::config::{NearestGraph, Neighbourhood, ProcessConfig};
pub use super::hops::{Graph, HopWindows};
pub use crate::processed::NO_NEIGHBOUR;
use crate::processed::{Matrix, Piece};

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

/// The k nearest others of every observation, `[n_obs, k]`, nearest first, ties by index; padded with [`NO_NEIGHBOUR`] where
/// there are fewer than k others. Coordinates must be finite.
pub fn knn(xy: &[[f64; 2]], k: usize) -> Matrix<u32> {
    let mut values = vec![NO_NEIGHBOUR; xy.len() * k];
    if k > 0 && !xy.is_empty() {
        let grid = Grid::new(xy);
        values.par_chunks_mut(k).enumerate().for_each_init(Vec::new, |found, (i, out)| {
            grid.nearest(xy, i, k, found);
            for (slot, &(_, j)) in out.iter_mut().zip(found.iter()) {
                *slot = j;
            }
        });
    }
    Matrix { n_cols: k, values }
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

fn squared(xy: &[[f64; 2]], i: usize, j: usize) -> f64 {
    let (dx, dy) = (xy[i][0] - xy[j][0], xy[i][1] - xy[j][1]);
    dx * dx + dy * dy
}

fn nearer(a: &(f64, u32), b: &(f64, u32)) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
}

/// Observations sorted into square cells of about two each.
struct Grid {
    origin: [f64; 2],
    side: f64,
    n: [usize; 2],
    /// Cell `c` holds `members[starts[c]..starts[c + 1]]`.
    starts: Vec<usize>,
    members: Vec<u32>,
}

impl Grid {
    fn new(xy: &[[f64; 2]]) -> Grid {
        let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
        for p in xy {
            for axis in 0..2 {
                low[axis] = low[axis].min(p[axis]);
                high[axis] = high[axis].max(p[axis]);
            }
        }
        let extent = [high[0] - low[0], high[1] - low[1]];
        let n_obs = xy.len() as f64;
        // the second bound keeps a long thin section at n_obs / 2 cells a side
        let side = (2.0 * extent[0] * extent[1] / n_obs).sqrt().max(2.0 * extent[0].max(extent[1]) / n_obs);
        let side = if side > 0.0 && side.is_finite() { side } else { 1.0 };
        let mut grid = Grid { origin: low, side, n: [1, 1], starts: Vec::new(), members: Vec::new() };
        grid.n = [0, 1].map(|axis| ((extent[axis] / side) as usize).min(xy.len()) + 1);
        let cells: Vec<usize> = xy.iter().map(|p| grid.index(grid.cell(p))).collect();
        grid.starts = vec![0; grid.n[0] * grid.n[1] + 1];
        for &c in &cells {
            grid.starts[c + 1] += 1;
        }
        for c in 1..grid.starts.len() {
            grid.starts[c] += grid.starts[c - 1];
        }
        let mut next = grid.starts.clone();
        grid.members = vec![0; xy.len()];
        for (i, &c) in cells.iter().enumerate() {
            grid.members[next[c]] = i as u32;
            next[c] += 1;
        }
        grid
    }

    fn cell(&self, p: &[f64; 2]) -> [usize; 2] {
        [0, 1].map(|axis| (((p[axis] - self.origin[axis]) / self.side) as usize).min(self.n[axis] - 1))
    }

    fn index(&self, cell: [usize; 2]) -> usize {
        cell[1] * self.n[0] + cell[0]
    }

    /// Leaves the k nearest others of `i` in `found`, nearest first.
    fn nearest(&self, xy: &[[f64; 2]], i: usize, k: usize, found: &mut Vec<(f64, u32)>) {
        found.clear();
        let [cx, cy] = self.cell(&xy[i]);
        for ring in 0..self.n[0].max(self.n[1]) {
            self.visit_ring(cx, cy, ring, |j| {
                if j as usize != i {
                    found.push((squared(xy, i, j as usize), j));
                }
            });
            if found.len() >= k {
                let (_, kth, _) = found.select_nth_unstable_by(k - 1, nearer);
                // whatever lies beyond this ring is at least `ring` cells away; the slack covers the rounding of cell()
                let beyond = ring as f64 * self.side * (1.0 - 1e-9);
                if kth.0 < beyond * beyond {
                    break;
                }
            }
        }
        found.sort_unstable_by(nearer);
        found.truncate(k);
    }

    /// Calls `visit` for all members of the cells at Chebyshev distance `ring`.
    fn visit_ring(&self, cx: usize, cy: usize, ring: usize, mut visit: impl FnMut(u32)) {
        let (x_low, x_high) = (cx.saturating_sub(ring), (cx + ring).min(self.n[0] - 1));
        for y in cy.saturating_sub(ring)..=(cy + ring).min(self.n[1] - 1) {
            let whole_row = y.abs_diff(cy) == ring;
            let mut x = x_low;
            while x <= x_high {
                if whole_row || x.abs_diff(cx) == ring {
                    let c = self.index([x, y]);
                    self.members[self.starts[c]..self.starts[c + 1]].iter().for_each(|&j| visit(j));
                    x += 1;
                } else {
                    // inside the ring: jump to its right side
                    x = cx + ring;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::process::fixture::hexagonal;

    fn by_brute_force(xy: &[[f64; 2]], k: usize) -> Vec<u32> {
        (0..xy.len())
            .flat_map(|i| {
                let mut others: Vec<(f64, u32)> =
                    (0..xy.len()).filter(|&j| j != i).map(|j| (squared(xy, i, j), j as u32)).collect();
                others.sort_by(nearer);
                let mut row: Vec<u32> = others.iter().take(k).map(|o| o.1).collect();
                row.resize(k, NO_NEIGHBOUR);
                row
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn the_grid_finds_what_comparing_all_pairs_finds(
            // few distinct places: ties and coincident points are common
            points in prop::collection::vec((0_i32..12, 0_i32..40), 1..90), k in 1_usize..25, stretch in 0.0_f64..3.0
        ) {
            let xy: Vec<[f64; 2]> = points.iter().map(|&(x, y)| [f64::from(x) * stretch, f64::from(y)]).collect();
            prop_assert_eq!(knn(&xy, k).values, by_brute_force(&xy, k));
        }
    }

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
