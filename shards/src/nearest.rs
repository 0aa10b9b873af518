//! The k nearest others of every place in the plane, by a grid.
//!
//! Ties go by (distance, index), so a lattice gives one answer on every machine. Distances are squared f64 differences.

use rayon::prelude::*;

use crate::matrix::Matrix;
use crate::processed::NO_NEIGHBOUR;

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

pub(crate) fn squared(xy: &[[f64; 2]], i: usize, j: usize) -> f64 {
    let (dx, dy) = (xy[i][0] - xy[j][0], xy[i][1] - xy[j][1]);
    dx * dx + dy * dy
}

pub(crate) fn nearer(a: &(f64, u32), b: &(f64, u32)) -> std::cmp::Ordering {
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
}
