//! Token merging for a generator (the ToMe-SD rule, `spatia.md` §6.1): which tokens of a grid share one place while they
//! attend.
//!
//! Indices are constants, chosen on the host from detached tokens; values flow through the mean and the copy
//! (`average_rows`, `copy_rows`).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use syncytia_shards::draw::{DrawKey, Purpose};

use super::patch::Grid;
use crate::tensor::{Int, RowMap, Tensor, TensorData, largest_of_rows, matmul, unit_rows};

/// `[model.dit.token_merging]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenMergingConfig {
    /// ρ: the part of all tokens that is merged into others, 0 to 0.75. At 0 nothing is matched.
    pub ratio: f64,
    /// Also around the feed-forward.
    #[serde(default)]
    pub mlp: bool,
    /// Also around the cross-attention.
    #[serde(default)]
    pub cross: bool,
}

impl TokenMergingConfig {
    /// r of `n_tokens`: round(ρ·N), at most the three of every cell that are not destinations.
    pub fn n_merged(&self, n_tokens: usize) -> usize {
        ((self.ratio * n_tokens as f64).round() as usize).min(n_tokens - n_tokens / 4)
    }
}

/// How the token of every 2×2 cell is chosen that others may be merged into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destinations {
    /// The top-left one: validation, and sampling that asks for it.
    TopLeft,
    /// By draw: counter (cell / 4, 0, step, block). One draw for all records of a step, whatever lane they are in.
    Drawn {
        /// Key of the draws.
        key: DrawKey,
        /// global_step in training, the solver's step in sampling.
        step: u32,
    },
}

impl Destinations {
    /// Drawn with the run's seed.
    pub fn drawn(seed: u64, step: u32) -> Self {
        Destinations::Drawn { key: DrawKey::new(seed, Purpose::TokenMerge), step }
    }

    /// One token of every cell, cells row by row. `grid` has an even number of rows and columns.
    pub fn of(self, grid: Grid, block: u32) -> Vec<u32> {
        assert!(grid.rows.is_multiple_of(2) && grid.columns.is_multiple_of(2), "cells of 2×2 fill the grid");
        let cells_in_row = grid.columns / 2;
        let token = |cell: usize, place: usize| {
            let (row, column) = (2 * (cell / cells_in_row) + place / 2, 2 * (cell % cells_in_row) + place % 2);
            (row * grid.columns + column) as u32
        };
        let n_cells = grid.n_tokens() / 4;
        match self {
            Destinations::TopLeft => (0..n_cells).map(|cell| token(cell, 0)).collect(),
            Destinations::Drawn { key, step } => {
                let mut tokens = Vec::with_capacity(n_cells);
                // the upper two bits: ⌊4u⌋
                key.for_each(n_cells, [0, step, block], |cell, word| tokens.push(token(cell, (word >> 30) as usize)));
                tokens
            }
        }
    }
}

/// Matches the tokens `x` (`[b, N, d]`, without gradients: `inner`) of each record with their destinations and says where each goes in
/// the short sequence of N − r: what stays by descending score, then the destinations.
///
/// Scores are cosines; ties go to the lowest index.
pub fn match_tokens(x: Tensor<3>, destinations: &[u32], n_merged: usize) -> Arc<RowMap> {
    let [b, n, _] = x.dims();
    let n_dst = destinations.len();
    let mut is_destination = vec![false; n];
    destinations.iter().for_each(|&t| is_destination[t as usize] = true);
    let sources: Vec<u32> = (0..n as u32).filter(|&t| !is_destination[t as usize]).collect();

    let n_short = n - n_merged;
    let first_destination = n_short - n_dst;
    let mut short_of = vec![0; b * n];
    for (matches, short_of) in best_matches(x, &sources, destinations).iter().zip(short_of.chunks_exact_mut(n)) {
        let order = by_score(matches);
        let (leave, stay) = order.split_at(n_merged);
        for (place, &i) in stay.iter().enumerate() {
            short_of[sources[i] as usize] = place as u32;
        }
        for (i, &token) in destinations.iter().enumerate() {
            short_of[token as usize] = (first_destination + i) as u32;
        }
        for &i in leave {
            short_of[sources[i] as usize] = (first_destination + matches[i].destination) as u32;
        }
    }
    Arc::new(RowMap::new(n, n_short, short_of))
}

/// The destination that a source is most like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Match {
    /// Its place among the destinations.
    pub(super) destination: usize,
    /// Cosine.
    pub(super) score: f32,
}

/// For each record of `x` (`[b, N, d]`) and each of the `sources`, the best of the `destinations`; the first of equals.
pub(super) fn best_matches(x: Tensor<3>, sources: &[u32], destinations: &[u32]) -> Vec<Vec<Match>> {
    let ([b, n, d], device) = (x.dims(), x.device());
    let unit = unit_rows(x.reshape([b * n, d])).reshape([b, n, d]);
    let of = |tokens: &[u32]| {
        let at = tokens.iter().map(|&t| i64::from(t)).collect::<Vec<_>>();
        unit.clone().select(1, Tensor::<1, Int>::from_data(TensorData::new(at, [tokens.len()]), &device))
    };
    let scores = matmul(of(sources), of(destinations).swap_dims(1, 2)); // [b, src, dst]
    let best = largest_of_rows(scores.reshape([b * sources.len(), destinations.len()]));
    let of_record =
        |best: &[(f32, usize)]| best.iter().map(|&(score, destination)| Match { destination, score }).collect();
    best.chunks_exact(sources.len()).map(of_record).collect()
}

/// The sources from the most to the least alike, the first of equals first.
pub(super) fn by_score(matches: &[Match]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..matches.len()).collect();
    order.sort_by(|&i, &j| matches[j].score.total_cmp(&matches[i].score)); // stable
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{average_rows, copy_rows, cpu};

    const GRID: Grid = Grid { rows: 4, columns: 4 };

    fn tokens(values: &[[f64; 2]]) -> Tensor<3> {
        let flat: Vec<f32> = values.iter().flatten().map(|&v| v as f32).collect();
        Tensor::from_data(TensorData::new(flat, [1, values.len(), 2]), &cpu())
    }

    fn rows(x: Tensor<3>) -> Vec<[f64; 2]> {
        let flat: Vec<f32> = x.into_data().try_to_vec().unwrap();
        flat.chunks(2).map(|r| [f64::from(r[0]), f64::from(r[1])]).collect()
    }

    /// `spatia.md` §11; 1e-6: f32 means of values near 1.
    #[test]
    fn a_merged_grid_equals_the_reference() {
        let t: Vec<[f64; 2]> = (0..16).map(f64::from).map(|i| [(0.37 * i).cos(), (0.61 * i).sin() + 0.2]).collect();
        let destinations = Destinations::TopLeft.of(GRID, 0);
        assert_eq!(destinations, [0, 2, 8, 10]);
        let map = match_tokens(tokens(&t), &destinations, 8);
        let short = average_rows(tokens(&t), &map);
        let expected = [
            [0.0974560886, 1.1971119952],
            [-0.5991099264, 0.6139733574],
            [-0.2755902468, 0.2914646422],
            [-0.2690331031, 1.0607873879],
            [0.8715232205, 0.3356666171],
            [0.5313768203, 0.9795541119],
            [-0.8555260855, -0.5744516625],
            [-0.8481000317, 0.0178374957],
        ];
        let close = |a: &[[f64; 2]], b: &[[f64; 2]]| {
            assert_eq!(a.len(), b.len());
            for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
                assert!((a - b).abs() < 1e-6, "{a} against {b}");
            }
        };
        close(&rows(short.clone()), &expected);
        let mut back = t.clone();
        for (value, places) in [(4, vec![0, 15]), (5, vec![1, 2, 3, 4, 14]), (6, vec![6, 7, 8, 9]), (7, vec![10])] {
            places.iter().for_each(|&p| back[p] = expected[value]);
        }
        close(&rows(copy_rows(short, &map)), &back);
    }

    #[test]
    fn ties_go_to_the_lowest_index() {
        // All alike: the first four sources leave, all to the first destination.
        let map = match_tokens(tokens(&[[1.0, 0.0]; 16]), &[0, 2, 8, 10], 4);
        let stays: Vec<u32> = (0..8).collect();
        assert_eq!(map.short_of()[..4], [8, 8, 9, 8]); // 0 and 2 are destinations, 1 and 3 go to the first
        assert_eq!(map.short_of()[4..6], [8, 8]);
        let rest: Vec<u32> = [6, 7, 9, 11, 12, 13, 14, 15].iter().map(|&t: &usize| map.short_of()[t]).collect();
        assert_eq!(rest, stays);
    }

    #[test]
    fn a_record_is_matched_by_itself() {
        let many = |seed: f32| -> Vec<f32> { (0..16 * 4).map(|i| (seed + 1.7 * i as f32).sin()).collect() };
        let tensor = |v: Vec<f32>, b| Tensor::<3>::from_data(TensorData::new(v, [b, 16, 4]), &cpu());
        let destinations = Destinations::drawn(3, 7).of(GRID, 1);
        let both = match_tokens(tensor([many(0.3), many(2.1)].concat(), 2), &destinations, 8);
        let second = match_tokens(tensor(many(2.1), 1), &destinations, 8);
        assert_eq!(both.short_of()[16..], *second.short_of());
    }

    #[test]
    fn tokens_that_are_zero_or_not_numbers_do_not_stop_the_match() {
        let mut t = vec![[0.0, 0.0]; 16];
        t[5] = [f64::NAN, 1.0];
        assert_eq!(match_tokens(tokens(&t), &[0, 2, 8, 10], 12).n_short(), 4);
    }

    #[test]
    fn destinations_are_one_of_every_cell_keyed_by_step_and_block() {
        let of = |step, block| Destinations::drawn(3, step).of(GRID, block);
        for destinations in [of(0, 0), of(1, 0), of(0, 1)] {
            let cells: Vec<u32> = destinations.iter().map(|t| t / 8 * 2 + t % 4 / 2).collect();
            assert_eq!(cells, [0, 1, 2, 3]);
        }
        let big = Grid { rows: 16, columns: 16 };
        let of = |step, block| Destinations::drawn(3, step).of(big, block);
        assert_eq!(of(0, 0), of(0, 0));
        assert!(of(0, 0) != of(1, 0) && of(0, 0) != of(0, 1) && of(0, 0) != Destinations::TopLeft.of(big, 0));
    }

    #[test]
    fn as_many_are_merged_as_the_ratio_says() {
        let merged = |ratio, n| TokenMergingConfig { ratio, mlp: false, cross: false }.n_merged(n);
        assert_eq!((merged(0.5, 1024), merged(0.75, 64), merged(0.9, 64), merged(0.3, 16)), (512, 48, 48, 5));
    }
}
