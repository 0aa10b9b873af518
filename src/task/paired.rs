//! A split's spots and the reference's cells as alignment and imputation read them: plain matrices, all in memory.
//!
//! What is hidden is not here: hidden values are 0 and their bits are off, whatever they were.

use rayon::prelude::*;
use syncytia_shards::matrix::Matrix;

use crate::model::spotdiff::psi_config::AROUND;

/// Spots, or cells, of all genes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Side {
    /// Record ids of spots; of cells their numbers in the reference.
    pub ids: Vec<u64>,
    /// `[n, G]`: values in [−1, 1], hidden ones 0.
    pub values: Matrix<f32>,
    /// `[n, G]`: whether visible; of cells, all.
    pub bits: Matrix<bool>,
    /// `[n, G]`: ln(1 + x) of what is visible, else 0: what prompts speak of.
    pub expression: Matrix<f32>,
    /// `[n, G]`: the weighted mean of the cells nearest by what is visible (of a cell: of others than itself). For alignment
    /// those cells as they are, x̄; for imputation as ω moves them, X_rna^pair.
    pub pair: Matrix<f32>,
    /// `[n]` lists of the nearest of its own kind, rows, nearest first: spots by place, cells by what is visible.
    pub near: Vec<Vec<u32>>,
    /// What the neighbours of each show, `[n, AROUND · G]` ([`around()`]), where the model reads it; of cells 0.
    pub around: Option<Matrix<f32>>,
    /// Mean of a prompt's tokens, `[n, width]`, where a text encoder has read them.
    pub text: Option<Matrix<f32>>,
}

/// Both sides.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Paired {
    /// Spots of a split, by record id.
    pub spots: Side,
    /// Where they stand, in the unit of their section.
    pub places: Vec<[f32; 3]>,
    /// Cells of the reference, moved by ω for imputation; none where there is no reference.
    pub cells: Option<Side>,
    /// Genes that a fold hides in every spot, `[G]`; none hidden where entries are.
    pub folded: Vec<bool>,
    /// Mean of the tokens of each gene's name, `[G, width]`, where a text encoder has read them.
    pub gene_text: Option<Matrix<f32>>,
    /// Median distance of a spot to its nearest.
    pub near_distance: f64,
    /// Median distance of two spots.
    pub far_distance: f64,
}

/// What cannot be learned from, in words.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PairedError {
    /// Matrices of different sizes.
    #[error("{side}: {what} has {found} values, {rows} rows of {genes} genes have {expected}")]
    Shape {
        /// Spots or cells.
        side: &'static str,
        /// Which matrix.
        what: &'static str,
        /// Its values.
        found: usize,
        /// Rows.
        rows: usize,
        /// Genes.
        genes: usize,
        /// What they should be.
        expected: usize,
    },
    /// A value that is none.
    #[error("{side}: row {row}, gene {gene}: {what} is {value}, not a finite number")]
    NotFinite {
        /// Spots or cells.
        side: &'static str,
        /// Row.
        row: usize,
        /// Gene.
        gene: usize,
        /// Which matrix.
        what: &'static str,
        /// Its value.
        value: f32,
    },
    /// A hidden value that is not 0.
    #[error("{side}: row {row}, gene {gene} is hidden and its {what} is {value}: what is hidden must be 0")]
    Leak {
        /// Spots or cells.
        side: &'static str,
        /// Row.
        row: usize,
        /// Gene.
        gene: usize,
        /// Which matrix.
        what: &'static str,
        /// Its value.
        value: f32,
    },
    /// A gene that the fold hides and a spot shows.
    #[error("row {row} of the spots shows gene {gene}, which the fold hides")]
    Shown {
        /// Row.
        row: usize,
        /// Gene.
        gene: usize,
    },
}

/// What the nearest of each row show of every gene: mean of what is visible (0 where nothing is) and share that is visible, of
/// the rows in `near`, then of those and theirs without the row itself. `[n, AROUND · G]`, channel after channel.
pub fn around(values: &Matrix<f32>, bits: &Matrix<bool>, near: &[Vec<u32>]) -> Matrix<f32> {
    let g = values.n_cols;
    let row = |(i, nearest): (usize, &Vec<u32>)| -> Vec<f32> {
        let mut wide: Vec<u32> = nearest.iter().flat_map(|&j| &near[j as usize]).chain(nearest).copied().collect();
        wide.sort_unstable();
        wide.dedup();
        wide.retain(|&j| j as usize != i);
        let mut out = vec![0.0; AROUND * g];
        for (rows, out) in [nearest, &wide].into_iter().zip(out.chunks_mut(2 * g)) {
            for gene in 0..g {
                let seen = rows.iter().map(|&j| j as usize).filter(|&j| bits.row(j)[gene]);
                let (sum, n) = seen.fold((0.0, 0), |(sum, n), j| (sum + f64::from(values.row(j)[gene]), n + 1));
                out[gene] = if n > 0 { (sum / f64::from(n)) as f32 } else { 0.0 };
                out[g + gene] = n as f32 / rows.len().max(1) as f32;
            }
        }
        out
    };
    let rows: Vec<Vec<f32>> = near.par_iter().enumerate().map(row).collect();
    Matrix { n_cols: AROUND * g, values: rows.concat() }
}

impl Side {
    /// Number of rows.
    pub fn n(&self) -> usize {
        self.ids.len()
    }

    fn check(&self, side: &'static str, genes: usize) -> Result<(), PairedError> {
        let rows = self.n();
        let sized = |what, found: usize, expected: usize| {
            if found == expected {
                Ok(())
            } else {
                Err(PairedError::Shape { side, what, found, rows, genes, expected })
            }
        };
        sized("values", self.values.values.len(), rows * genes)?;
        sized("bits", self.bits.values.len(), rows * genes)?;
        sized("expression", self.expression.values.len(), rows * genes)?;
        sized("pair", self.pair.values.len(), rows * genes)?;
        sized("near", self.near.len(), rows)?;
        if let Some(around) = &self.around {
            sized("around", around.values.len(), rows * AROUND * genes)?;
        }
        let matrices = [("value", &self.values), ("expression", &self.expression), ("paired cells' value", &self.pair)];
        for (what, matrix) in matrices {
            if let Some(at) = matrix.values.iter().position(|v| !v.is_finite()) {
                let (row, gene, value) = (at / genes, at % genes, matrix.values[at]);
                return Err(PairedError::NotFinite { side, row, gene, what, value });
            }
        }
        for (what, matrix) in &matrices[..2] {
            let leaks = |(value, bit): (&f32, &bool)| !bit && *value != 0.0;
            if let Some(at) = matrix.values.iter().zip(&self.bits.values).position(leaks) {
                let (row, gene, value) = (at / genes, at % genes, matrix.values[at]);
                return Err(PairedError::Leak { side, row, gene, what, value });
            }
        }
        Ok(())
    }
}

impl Paired {
    /// Both sides, checked.
    ///
    /// # Errors
    /// [`PairedError`]: sizes that do not agree; a value that is not finite; a hidden value that is not 0; a spot that shows
    /// a gene of the fold.
    pub fn new(
        spots: Side,
        places: Vec<[f32; 3]>,
        cells: Option<Side>,
        folded: Vec<bool>,
        gene_text: Option<Matrix<f32>>,
    ) -> Result<Paired, PairedError> {
        let genes = folded.len();
        spots.check("spots", genes)?;
        if let Some(cells) = &cells {
            cells.check("cells", genes)?;
        }
        let shown = spots.bits.values.iter().enumerate().find(|&(at, &bit)| bit && folded[at % genes]);
        if let Some((at, _)) = shown {
            return Err(PairedError::Shown { row: at / genes, gene: at % genes });
        }
        if places.len() != spots.n() {
            let (found, rows) = (places.len(), spots.n());
            return Err(PairedError::Shape { side: "spots", what: "places", found, rows, genes, expected: rows });
        }
        let (near_distance, far_distance) = medians(&spots.near, &places);
        Ok(Paired { spots, places, cells, folded, gene_text, near_distance, far_distance })
    }

    /// Distance of two spots.
    pub fn distance(&self, a: usize, b: usize) -> f64 {
        distance(self.places[a], self.places[b])
    }

    /// G.
    pub fn genes(&self) -> usize {
        self.folded.len()
    }

    /// Whether genes are hidden, not entries.
    pub fn is_fold(&self) -> bool {
        self.folded.contains(&true)
    }
}

fn distance(a: [f32; 3], b: [f32; 3]) -> f64 {
    let squared = |axis: usize| (f64::from(a[axis]) - f64::from(b[axis])).powi(2);
    (squared(0) + squared(1) + squared(2)).sqrt()
}

/// Most spots whose distances to each other are looked at; of more, evenly spaced ones.
const MOST_SPOTS: usize = 2048;

/// Median distance of a spot to its nearest, and of two spots; 0 where there are none.
fn medians(near: &[Vec<u32>], places: &[[f32; 3]]) -> (f64, f64) {
    let median = |mut of: Vec<f64>| {
        of.sort_by(f64::total_cmp);
        of.get(of.len() / 2).copied().unwrap_or(0.0)
    };
    let to_nearest = near.iter().zip(places);
    let to_nearest = to_nearest.filter_map(|(near, &at)| near.first().map(|&j| distance(at, places[j as usize])));
    let some: Vec<[f32; 3]> = places.iter().copied().step_by(places.len().div_ceil(MOST_SPOTS).max(1)).collect();
    let pairs = (0..some.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    (median(to_nearest.collect()), median(pairs.map(|(i, j)| distance(some[i], some[j])).collect()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// `n` spots on a line and `m` cells of `genes` genes, values waves; `folded` hides genes.
    pub fn wave(n: usize, m: usize, genes: usize, folded: &[usize]) -> Paired {
        let side = |rows: usize, phase: f32, hides: bool| {
            let all = |f: &dyn Fn(usize, usize) -> f32| Matrix {
                n_cols: genes,
                values: (0..rows * genes).map(|at| f(at / genes, at % genes)).collect::<Vec<f32>>(),
            };
            let shown = |g: usize| !(hides && folded.contains(&g));
            let value = |i: usize, g: usize| (phase + 0.7 * i as f32 + 1.3 * g as f32).sin() * 0.9;
            Side {
                ids: (0..rows as u64).collect(),
                values: all(&|i, g| if shown(g) { value(i, g) } else { 0.0 }),
                bits: Matrix { n_cols: genes, values: (0..rows * genes).map(|at| shown(at % genes)).collect() },
                expression: all(&|i, g| if shown(g) { 1.0 + value(i, g) } else { 0.0 }),
                pair: all(&|i, g| 0.5 * value(i, g) + 0.1),
                near: (0..rows).map(|i| (1..=3).map(|k| ((i + k) % rows) as u32).collect()).collect(),
                around: None,
                text: None,
            }
        };
        let places = (0..n).map(|i| [i as f32, 0.0, 0.0]).collect();
        let hidden = (0..genes).map(|g| folded.contains(&g)).collect();
        Paired::new(side(n, 0.0, true), places, (m > 0).then(|| side(m, 0.4, false)), hidden, None).unwrap()
    }

    /// Five rows in a line, each with its neighbours on both sides; row 2 hides its second gene.
    #[test]
    fn what_neighbours_show_is_the_mean_of_what_is_visible_of_them_and_never_one_s_own() {
        let near = vec![vec![1, 2], vec![0, 2], vec![1, 3], vec![2, 4], vec![3, 2]];
        let mut bits = vec![true; 10];
        bits[5] = false;
        let values = vec![1.0, 10.0, 2.0, 20.0, 3.0, 0.0, 4.0, 40.0, 5.0, 50.0];
        let of = |values: &[f32]| {
            let matrix = Matrix { n_cols: 2, values: values.to_vec() };
            around(&matrix, &Matrix { n_cols: 2, values: bits.clone() }, &near)
        };
        let before = of(&values);
        // mean and share of rows 1 and 2, then of 1, 2 and theirs without row 0: 1, 2, 3
        assert_eq!(before.row(0), [2.5, 20.0, 1.0, 0.5, 3.0, 30.0, 1.0, 2.0 / 3.0]);
        assert_eq!(before.row(2)[..4], [3.0, 30.0, 1.0, 1.0]);
        let mut changed = values;
        changed[0] = -7.0;
        let after = of(&changed);
        assert_eq!(before.row(0), after.row(0));
        assert_ne!(before.row(1), after.row(1));
    }

    #[test]
    fn what_does_not_fit_or_leaks_is_refused_by_name() {
        let good = wave(4, 3, 5, &[1]);
        let again = |spots: Side| Paired::new(spots, good.places.clone(), None, good.folded.clone(), None);
        assert_eq!(again(good.spots.clone()).unwrap().spots, good.spots);
        let mut leak = good.spots.clone();
        leak.values.values[6] = 0.25;
        let error = again(leak).unwrap_err();
        assert!(error.to_string().contains("row 1, gene 1 is hidden and its value is 0.25"), "{error}");
        let mut shown = good.spots.clone();
        shown.bits.values[11] = true;
        assert_eq!(again(shown), Err(PairedError::Shown { row: 2, gene: 1 }));
        let mut short = good.spots.clone();
        short.pair.values.pop();
        assert!(again(short).unwrap_err().to_string().contains("pair has 19 values"));
        let mut none = good.spots.clone();
        none.pair.values[3] = f32::NAN;
        assert!(matches!(again(none), Err(PairedError::NotFinite { row: 0, gene: 3, .. })));
    }
}
