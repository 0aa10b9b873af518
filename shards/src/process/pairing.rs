//! The cells that look like a spot: nearest by cosine over what is visible, and their weighted mean (`spotdiff.md` §3).
//!
//! similarity(i, c) = Σ_g s_ig·c_cg / √(Σ_g s_ig² · Σ_{g visible in i} c_cg²); the N cells of greatest similarity, ties by row.
//! All sums run in f64 in one order, whatever the number of threads. Pure functions on matrices: what is aggregated need not be
//! what was compared (cells moved by a network, say). Knows no file.

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::matrix::Matrix;

/// Why spots cannot be paired with cells.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PairingError {
    /// More cells are asked for than there are.
    #[error(
        "{wanted} nearest cells are asked for and the reference has {n_cells}{}: ask for at most that many, or give more cells",
        if *others { " (a cell's nearest others do not include itself)" } else { "" }
    )]
    TooFewCells {
        /// Neighbours asked for.
        wanted: usize,
        /// Cells there are to choose from.
        n_cells: usize,
        /// Whether cells were to be paired with others.
        others: bool,
    },
    /// Matrices over different genes.
    #[error("spots have {spots} genes and cells {cells}: both must be cut to the genes they share")]
    Genes {
        /// Columns of the spots.
        spots: usize,
        /// Columns of the cells.
        cells: usize,
    },
}

/// Which entries count.
#[derive(Debug, Clone, Copy)]
pub enum Seen<'a> {
    /// These genes, in every row `[G]`.
    Genes(&'a [bool]),
    /// These entries `[n, G]`, row-major: of each row its own.
    Entries(&'a [bool]),
}

impl Seen<'_> {
    fn sees(&self, row: usize, gene: usize, n_genes: usize) -> bool {
        match self {
            Seen::Genes(of_genes) => of_genes[gene],
            Seen::Entries(of_entries) => of_entries[row * n_genes + gene],
        }
    }
}

/// The nearest cells of every row.
#[derive(Debug, Clone, PartialEq)]
pub struct Nearest {
    /// Rows of cells `[n, N]`, most similar first.
    pub cells: Matrix<u32>,
    /// Their similarity `[n, N]`, −1 to 1; 0 where one of the two has no length.
    pub similarity: Matrix<f64>,
}

/// How similarities become weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// max(r, 0) / Σ max(r, 0); all equal where no similarity is above 0.
    Positive,
    /// SpaGE's: over the cells with d = 1 − r < 1, (1 − d / Σd) / (their number − 1); one such cell has all the weight, none: all equal.
    Spage,
}

/// The `n` nearest cells of each spot. `spots` `[n_spots, G]`, `cells` `[n_cells, G]`; what is not `seen` counts for neither.
///
/// # Errors
/// [`PairingError`].
pub fn nearest_cells(
    spots: &Matrix<f32>,
    seen: Seen<'_>,
    cells: &Matrix<f32>,
    n: usize,
) -> Result<Nearest, PairingError> {
    let queries = Queries { values: spots, seen, are_cells: false };
    nearest_of_rows(&queries, 0..spots.n_rows(), cells, n)
}

/// The `n` nearest *other* cells of each cell: what a cell is paired with where cells stand for spots.
///
/// # Errors
/// [`PairingError`].
pub fn nearest_other_cells(cells: &Matrix<f32>, seen: Seen<'_>, n: usize) -> Result<Nearest, PairingError> {
    let queries = Queries { values: cells, seen, are_cells: true };
    nearest_of_rows(&queries, 0..cells.n_rows(), cells, n)
}

/// What is paired with cells.
#[derive(Debug, Clone, Copy)]
pub struct Queries<'a> {
    /// `[n, G]`.
    pub values: &'a Matrix<f32>,
    /// Which of them count.
    pub seen: Seen<'a>,
    /// Whether row i is cell i, which is not its own neighbour.
    pub are_cells: bool,
}

/// The nearest cells of some rows: a block of the work, for who does it in parts.
///
/// # Errors
/// [`PairingError`].
pub fn nearest_of_rows(
    queries: &Queries<'_>,
    rows: Range<usize>,
    cells: &Matrix<f32>,
    n: usize,
) -> Result<Nearest, PairingError> {
    let Queries { values: spots, seen, are_cells: others } = *queries;
    let g = spots.n_cols;
    if cells.n_cols != g {
        return Err(PairingError::Genes { spots: g, cells: cells.n_cols });
    }
    let n_cells = cells.n_rows().saturating_sub(usize::from(others));
    if n > n_cells {
        return Err(PairingError::TooFewCells { wanted: n, n_cells, others });
    }
    let cells_f64: Vec<f64> = cells.values.iter().map(|&v| f64::from(v)).collect();
    let mut found = vec![(0u32, 0f64); rows.len() * n];
    found.par_chunks_mut(n.max(1)).enumerate().for_each_init(
        || (vec![0f64; g], vec![0f64; g], Vec::with_capacity(cells.n_rows())),
        |(query, visible, all), (at, out)| {
            let row = rows.start + at;
            for gene in 0..g {
                let sees = seen.sees(row, gene, g);
                visible[gene] = f64::from(u8::from(sees));
                query[gene] = if sees { f64::from(spots.row(row)[gene]) } else { 0.0 };
            }
            let own = dot(query, query).sqrt();
            all.clear();
            for (c, cell) in cells_f64.chunks_exact(g.max(1)).enumerate() {
                if others && c == row {
                    continue;
                }
                let (product, square) = against(query, visible, cell);
                let length = own * square.sqrt();
                all.push((c as u32, if length > 0.0 { product / length } else { 0.0 }));
            }
            let closer = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
            if n < all.len() {
                all.select_nth_unstable_by(n - 1, closer);
            }
            all.truncate(n);
            all.sort_unstable_by(closer);
            out.copy_from_slice(all);
        },
    );
    Ok(Nearest {
        cells: Matrix { n_cols: n, values: found.iter().map(|f| f.0).collect() },
        similarity: Matrix { n_cols: n, values: found.iter().map(|f| f.1).collect() },
    })
}

/// Partial sums side by side, so that the compiler vectorises; one order on every machine.
const SIDE: usize = 8;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; SIDE];
    for (a, b) in a.chunks(SIDE).zip(b.chunks(SIDE)) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

/// (query · cell, |cell|² over what is visible).
fn against(query: &[f64], visible: &[f64], cell: &[f64]) -> (f64, f64) {
    let (mut products, mut squares) = ([0.0; SIDE], [0.0; SIDE]);
    for ((q, v), c) in query.chunks(SIDE).zip(visible.chunks(SIDE)).zip(cell.chunks(SIDE)) {
        for k in 0..c.len() {
            products[k] += q[k] * c[k];
            squares[k] += v[k] * c[k] * c[k];
        }
    }
    (products.iter().sum(), squares.iter().sum())
}

impl Nearest {
    /// The weights of each row's cells `[n, N]`; they add up to 1.
    pub fn weights(&self, weighting: Weighting) -> Matrix<f64> {
        let n = self.similarity.n_cols;
        let of_row = |row: usize| {
            let similarity = self.similarity.row(row);
            let weights: Vec<f64> = match weighting {
                Weighting::Positive => similarity.iter().map(|r| r.max(0.0)).collect(),
                Weighting::Spage => spage(similarity),
            };
            let sum: f64 = weights.iter().sum();
            weights.into_iter().map(move |w| if sum > 0.0 { w / sum } else { 1.0 / n as f64 })
        };
        Matrix { n_cols: n, values: (0..self.similarity.n_rows()).flat_map(of_row).collect() }
    }

    /// X_rna^pair: the weighted mean of each row's cells, `[n, columns]`. `values`: of all cells, `[n_cells, columns]`.
    pub fn aggregate(&self, weighting: Weighting, values: &Matrix<f32>) -> Matrix<f32> {
        let (weights, g) = (self.weights(weighting), values.n_cols);
        let mut out = vec![0f32; self.cells.n_rows() * g];
        out.par_chunks_mut(g.max(1)).enumerate().for_each_init(
            || vec![0f64; g],
            |sums, (row, out)| {
                sums.fill(0.0);
                for (&cell, &weight) in self.cells.row(row).iter().zip(weights.row(row)) {
                    for (sum, &value) in sums.iter_mut().zip(values.row(cell as usize)) {
                        *sum += weight * f64::from(value);
                    }
                }
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out = *sum as f32);
            },
        );
        Matrix { n_cols: g, values: out }
    }
}

/// Not yet divided by their sum, which is 1 where two or more cells have d < 1.
fn spage(similarity: &[f64]) -> Vec<f64> {
    let near: Vec<Option<f64>> = similarity.iter().map(|r| Some(1.0 - r).filter(|d| *d < 1.0)).collect();
    let (n, sum) = near.iter().flatten().fold((0usize, 0.0), |(n, sum), d| (n + 1, sum + d));
    let weight = |d: f64| match n {
        1 => 1.0,
        _ if sum == 0.0 => 1.0 / n as f64, // all alike
        _ => (1.0 - d / sum) / (n - 1) as f64,
    };
    near.into_iter().map(|d| d.map_or(0.0, weight)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(n_cols: usize, values: &[f32]) -> Matrix<f32> {
        Matrix { n_cols, values: values.to_vec() }
    }

    /// spotdiff.md §3, verified there.
    fn vector() -> (Matrix<f32>, Matrix<f32>) {
        let cells = [1., 0., 1.9, 0., 1., 0., 2., 0.5, 3., 1., 1., 1.];
        (matrix(3, &[1., 0., 2.]), matrix(3, &cells))
    }

    fn close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            // the cells' 1.9 is an f32 here: 2.5e-8 of it is rounding
            assert!((f - e).abs() < 3e-8, "{found:?} for {expected:?}");
        }
    }

    #[test]
    fn the_vector_of_the_specification() {
        let (spot, cells) = vector();
        let all = nearest_cells(&spot, Seen::Genes(&[true; 3]), &cells, 4).unwrap();
        assert_eq!(all.cells.values, [0, 2, 3, 1]);
        close(&all.similarity.values, &[0.99978306, 0.98287219, 0.77459667, 0.0]);
        let two = nearest_cells(&spot, Seen::Genes(&[true; 3]), &cells, 2).unwrap();
        close(&two.weights(Weighting::Positive).values, &[0.5042647, 0.4957353]);
        let mean = two.aggregate(Weighting::Positive, &cells).values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        for (f, e) in mean.iter().zip([1.4957353, 0.24786765, 2.44530883]) {
            assert!((f - e).abs() < 1.2e-7 * e.max(1.0), "{mean:?}"); // rounded to f32 once
        }
        // the small distance of cell 0 carries that rounding to the weights
        let spage = two.weights(Weighting::Spage).values;
        assert!((spage[0] - 0.98749228).abs() < 2e-6 && (spage[1] - 0.01250772).abs() < 2e-6, "{spage:?}");
    }

    #[test]
    fn what_is_hidden_counts_for_neither_and_each_spot_has_its_own() {
        let spots = matrix(3, &[1., 9., 2., 1., 9., 2.]);
        let (_, cells) = vector();
        let bits = [true, false, true, false, true, false];
        let of_entries = nearest_cells(&spots, Seen::Entries(&bits), &cells, 2).unwrap();
        let of_genes = nearest_cells(&spots, Seen::Genes(&bits[..3]), &cells, 2).unwrap();
        assert_eq!(of_entries.cells.row(0), of_genes.cells.row(0));
        assert_eq!(of_entries.similarity.row(0), of_genes.similarity.row(0));
        // over genes 0 and 2 alone cell 2 is [2, 3]
        let expected = 8.0 / (5f64.sqrt() * 13f64.sqrt());
        assert!((of_entries.similarity.row(0)[1] - expected).abs() < 1e-12);
        // over gene 1 alone all cells that have it are alike: ties by row
        assert_eq!(of_entries.cells.row(1), [1, 2]);
        assert_eq!(of_entries.similarity.row(1), [1.0, 1.0]);
    }

    #[test]
    fn a_cell_is_not_its_own_neighbour() {
        let (_, cells) = vector();
        let others = nearest_other_cells(&cells, Seen::Genes(&[true; 3]), 3).unwrap();
        for row in 0..4 {
            let mut found = others.cells.row(row).to_vec();
            found.sort_unstable();
            assert_eq!(found, (0..4).filter(|&c| c != row as u32).collect::<Vec<_>>());
        }
        assert_eq!(others.cells.row(0)[0], 2);
    }

    #[test]
    fn without_a_similarity_above_0_all_weigh_the_same() {
        let spot = matrix(2, &[1., 0.]);
        let cells = matrix(2, &[-1., 0., 0., 1., 0., 0.]);
        let nearest = nearest_cells(&spot, Seen::Genes(&[true; 2]), &cells, 3).unwrap();
        assert_eq!(nearest.cells.values, [1, 2, 0]);
        for weighting in [Weighting::Positive, Weighting::Spage] {
            assert_eq!(nearest.weights(weighting).values, [1.0 / 3.0; 3]);
        }
        let one = nearest_cells(&matrix(2, &[1., 1.]), Seen::Genes(&[true; 2]), &cells, 2).unwrap();
        assert_eq!(one.weights(Weighting::Spage).values, [1.0, 0.0], "one near cell has all the weight");
    }

    #[test]
    fn more_neighbours_than_cells_are_refused_with_both_numbers() {
        let (spot, cells) = vector();
        let refused = nearest_cells(&spot, Seen::Genes(&[true; 3]), &cells, 5).unwrap_err().to_string();
        assert!(refused.contains("5 nearest cells") && refused.contains("reference has 4"), "{refused}");
        let refused = nearest_other_cells(&cells, Seen::Genes(&[true; 3]), 4).unwrap_err().to_string();
        assert!(refused.contains("4 nearest") && refused.contains("has 3") && refused.contains("itself"), "{refused}");
        assert!(nearest_other_cells(&cells, Seen::Genes(&[true; 3]), 3).is_ok());
        let genes = nearest_cells(&matrix(2, &[1., 1.]), Seen::Genes(&[true; 2]), &cells, 1).unwrap_err();
        assert_eq!(genes, PairingError::Genes { spots: 2, cells: 3 });
    }
}
