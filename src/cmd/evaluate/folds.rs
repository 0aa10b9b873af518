//! What runs of SpotDiff impute, of one or of every fold of genes, beside what was hidden: one matrix of each for all folds.

use syncytia_shards::matrix::Matrix;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::held;

use crate::cmd::imputed::{Imputed, impute};
use crate::cmd::trained::Trained;

/// The model's readout, as the page names it.
pub const MODEL: &str = "spotdiff";
/// The same, averaged over near spots.
pub const SMOOTHED: &str = "spotdiff_smooth";
/// Means of samples.
pub const SAMPLED: &str = "spotdiff_samples";

/// What each run makes of what its fold hides; `spread`: whether samples are drawn where the readout needs none.
pub fn impute_all(runs: &[Trained], shards: &Shards, split: Split, spread: bool) -> anyhow::Result<Vec<Imputed>> {
    let of_run = |run: &Trained| {
        run.check_shards(shards)?;
        let said = run.run.config.view().fold.map_or(String::new(), |fold| format!(" of fold {fold}"));
        eprintln!("imputing what is hidden{said} of {}", split.as_str());
        impute(run, shards, split, spread)
    };
    runs.iter().map(of_run).collect()
}

/// What each fold says of what it hides, for the spots `ids`; where there are none, all that is said.
pub fn together(ids: &[u64], found: &[Imputed], said: fn(&Imputed) -> &Matrix<f32>) -> Matrix<f32> {
    let n_cols = found[0].hides.len();
    let mut all = Matrix { n_cols, values: vec![f32::NAN; ids.len() * n_cols] };
    for of in found {
        for (out, id) in all.values.chunks_mut(n_cols).zip(ids) {
            let there = of.seen.ids.binary_search(id).expect("spots that are judged are in every fold");
            for (gene, &value) in said(of).row(there).iter().enumerate() {
                if of.fold.is_none() || of.hides[gene] {
                    out[gene] = value;
                }
            }
        }
    }
    all
}

/// All folds put together, or the one there is.
pub struct Whole {
    /// Spots that every fold shows something of, ascending.
    pub ids: Vec<u64>,
    /// Where they lie.
    pub xy: Vec<[f64; 2]>,
    /// Levels; NaN where nothing was hidden that could be judged.
    pub truth: Matrix<f32>,
    /// What was hidden in any fold.
    pub hidden: Matrix<bool>,
    /// By the readout.
    pub imputed: Matrix<f32>,
    /// The same, averaged over near spots.
    pub smooth: Matrix<f32>,
    /// Means of samples.
    pub sampled: Matrix<f32>,
}

impl Whole {
    /// Reads what was hidden, at the levels of each fold.
    pub fn of(shards: &Shards, split: Split, found: &[Imputed]) -> anyhow::Result<Whole> {
        let first = &found[0];
        let n_cols = first.hides.len();
        // Spots that every fold shows something of.
        let mut ids = first.seen.ids.clone();
        ids.retain(|id| found.iter().all(|f| f.seen.ids.binary_search(id).is_ok()));
        let mut truth = Matrix { n_cols, values: vec![f32::NAN; ids.len() * n_cols] };
        let mut hidden = Matrix { n_cols, values: vec![false; ids.len() * n_cols] };
        for of in found {
            let held = held::read(shards, split, of.fold)?.of(&of.seen.ids).expect("they are of the split");
            for (row, id) in ids.iter().enumerate() {
                let there = of.seen.ids.binary_search(id).expect("kept above");
                for gene in 0..n_cols {
                    let (at, from) = (row * n_cols + gene, there * n_cols + gene);
                    let shows = of.fold.is_none() && !held.hidden.values[from];
                    if shows {
                        truth.values[at] = of.seen.levels.values[from];
                    }
                    if held.hidden.values[from] {
                        hidden.values[at] = true;
                        truth.values[at] = of.seen.scale.level(there, held.values.values[from]) as f32;
                    }
                }
            }
        }
        let at = |id: &u64| {
            let place = first.seen.xyz[first.seen.ids.binary_search(id).expect("kept above")];
            [f64::from(place[0]), f64::from(place[1])]
        };
        let [imputed, smooth, sampled] = [
            together(&ids, found, |of| &of.values),
            together(&ids, found, |of| &of.smooth),
            together(&ids, found, |of| &of.sampled),
        ];
        Ok(Whole { xy: ids.iter().map(at).collect(), ids, truth, hidden, imputed, smooth, sampled })
    }
}
