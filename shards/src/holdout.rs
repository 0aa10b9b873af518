//! What of a data set is hidden until it is judged, by which rule, and what becomes of a value before a model sees it.
//!
//! Two protocols (`spotdiff.md` §5). `entries`: a share of all (observation, gene) pairs, zeros included; the shards' records
//! hold what is visible, and the rest lies in a table of its own ([`crate::tables::held`]). `gene_folds`: the genes are cut
//! into folds; whoever reads the shards reads them for one fold, without its genes. Knows no file and no model.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::draw::{DrawKey, Purpose, ShuffleStream, assay_bernoulli};

/// Which values are hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// None.
    #[default]
    None,
    /// A random share of all entries, drawn once.
    Entries,
    /// Every gene in every observation, one fold of genes after the other.
    GeneFolds,
}

impl Protocol {
    /// As a config says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::None => "none",
            Protocol::Entries => "entries",
            Protocol::GeneFolds => "gene_folds",
        }
    }
}

/// What a value becomes before it is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transform {
    /// `total_log1p` where every visible value is a whole number, else `none`.
    #[default]
    Auto,
    /// ln(1 + 10⁴ · value / total of the row's visible values): for counts.
    TotalLog1p,
    /// ln(1 + value).
    Log1p,
    /// As it is: for intensities and for what was normalised before.
    None,
}

impl Transform {
    /// As a config says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Transform::Auto => "auto",
            Transform::TotalLog1p => "total_log1p",
            Transform::Log1p => "log1p",
            Transform::None => "none",
        }
    }

    /// `auto` decided by whether all visible values are whole.
    pub fn resolve(self, whole: bool) -> Transform {
        match self {
            Transform::Auto if whole => Transform::TotalLog1p,
            Transform::Auto => Transform::None,
            other => other,
        }
    }
}

/// How names of genes are compared between a section and its reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GeneCase {
    /// Letter by letter: `Actb` of a mouse is not `ACTB` of a human.
    #[default]
    Exact,
    /// Without regard to case, where one file has lost it.
    Ignore,
}

/// What to hide: the keys `data.holdout`, `data.holdout_fraction`, `data.folds`, `data.seed` and what goes with them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HoldoutRule {
    /// Which values.
    pub protocol: Protocol,
    /// Share of the entries, for `entries`.
    pub fraction: f64,
    /// Number of folds, for `gene_folds`.
    pub folds: u32,
    /// Of the draws.
    pub seed: u64,
    /// Of the observations.
    pub transform: Transform,
    /// Of the reference's cells.
    pub reference_transform: Transform,
    /// Of the names of genes.
    pub gene_case: GeneCase,
}

/// What was hidden, as the manifest keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holdout {
    /// Which values.
    pub protocol: Protocol,
    /// Of the draws.
    pub seed: u64,
    /// `entries`: the share asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// `entries`: how many entries are hidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_hidden: Option<u64>,
    /// `gene_folds`: number of folds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folds: Option<u32>,
    /// `gene_folds`: the fold of each gene of the panel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fold_of_gene: Vec<u32>,
    /// What becomes of a value of an observation.
    pub transform: Transform,
    /// What becomes of a value of a cell of the reference.
    pub reference_transform: Transform,
    /// Where the reference came from, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<ReferenceFacts>,
}

/// What the manifest says about the reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceFacts {
    /// File name.
    pub source: String,
    /// Format it was read as.
    pub format: String,
    /// Cells as ingested.
    pub n_cells_ingested: u64,
    /// Genes as ingested.
    pub n_genes_ingested: u64,
    /// By what its genes were matched: `id = symbol` says that ids of the sections are symbols of the reference.
    pub matched_by: String,
    /// Whether all values are whole numbers.
    pub integer: bool,
    /// Column of the labels, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

impl Holdout {
    /// Whether it holds together for a panel of this many genes.
    ///
    /// # Errors
    /// What does not, in words.
    pub(crate) fn check(&self, n_genes: usize) -> Result<(), String> {
        let folds = self.folds.unwrap_or(0);
        let n_folded = if self.protocol == Protocol::GeneFolds { n_genes } else { 0 };
        if self.fold_of_gene.len() != n_folded || self.folds.is_some() != (n_folded > 0) {
            return Err(format!("folds of {} genes, {n_folded} expected", self.fold_of_gene.len()));
        }
        match self.fold_of_gene.iter().find(|&&fold| fold >= folds) {
            Some(fold) => Err(format!("a gene of fold {fold}, there are {folds}")),
            None => Ok(()),
        }
    }
}

/// What `syncytia inspect` prints.
impl fmt::Display for Holdout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::None => write!(f, "hidden     nothing")?,
            Protocol::Entries => {
                let share = 100.0 * self.fraction.unwrap_or(0.0);
                write!(f, "hidden     {} entries ({share} %), seed {}", self.n_hidden.unwrap_or(0), self.seed)?;
            }
            Protocol::GeneFolds => {
                write!(f, "hidden     {} folds of genes, seed {}", self.folds.unwrap_or(0), self.seed)?;
            }
        }
        write!(f, "; transform {}", self.transform.as_str())?;
        if let Some(facts) = &self.reference {
            let whole = if facts.integer { "whole numbers" } else { "not whole numbers" };
            write!(
                f,
                "\ncells      from {} ({}): {} cells × {} genes ingested, genes matched by {}, {whole}; transform {}",
                facts.source,
                facts.format,
                facts.n_cells_ingested,
                facts.n_genes_ingested,
                facts.matched_by,
                self.reference_transform.as_str()
            )?;
        }
        Ok(())
    }
}

/// Which of `n_genes` entries of a record are hidden: entry `g` by word `g` of the record's stream.
pub fn hidden_entries(seed: u64, record_id: u64, fraction: f64, n_genes: usize) -> Vec<bool> {
    let mut hidden = vec![false; n_genes];
    let key = DrawKey::new(seed, Purpose::HeldEntries);
    assay_bernoulli(key, 0, record_id, &vec![fraction; n_genes], &mut hidden);
    hidden
}

/// Which entries of a record are hidden where `fraction` of all are, given which are at the shards' `share`: one uniform of each
/// entry decides at every fraction, so that what is hidden at one is hidden at all greater ones, and at `share` it is `hidden`.
///
/// That uniform is `share`·v of a hidden entry, `share` + (1 − `share`)·v of another, with v of word `g` of the record's stream: what
/// the shards drew for genes that they left out need not be known.
pub fn hidden_at(seed: u64, record_id: u64, hidden: &[bool], share: f64, fraction: f64) -> Vec<bool> {
    let among_hidden = (fraction / share).min(1.0);
    let among_others = ((fraction - share) / (1.0 - share)).max(0.0);
    let p: Vec<f64> = hidden.iter().map(|&hidden| if hidden { among_hidden } else { among_others }).collect();
    let mut out = vec![false; hidden.len()];
    assay_bernoulli(DrawKey::new(seed, Purpose::SparseEntries), 0, record_id, &p, &mut out);
    out
}

/// The fold of each gene: a keyed shuffle of the genes, cut into `folds` parts that are equal to within one.
pub fn folds_of_genes(seed: u64, n_genes: usize, folds: u32) -> Vec<u32> {
    let order = ShuffleStream::new(seed, Purpose::GeneFolds, &[]).permutation(n_genes);
    let mut fold = vec![0; n_genes];
    for (place, gene) in order.into_iter().enumerate() {
        fold[gene as usize] = (place * folds as usize / n_genes) as u32;
    }
    fold
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_are_equal_to_within_one_and_the_seed_matters() {
        let fold = folds_of_genes(0, 84, 5);
        let mut sizes: Vec<usize> = (0..5).map(|k| fold.iter().filter(|&&f| f == k).count()).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [16, 17, 17, 17, 17]);
        assert_eq!(fold, folds_of_genes(0, 84, 5));
        assert_ne!(fold, folds_of_genes(1, 84, 5));
        assert!(fold.windows(2).any(|w| w[0] > w[1]), "shuffled, not cut in order");
    }

    #[test]
    fn what_is_hidden_at_a_share_is_hidden_at_all_greater_ones() {
        let (mut n, mut of_all) = ([0; 5], 0);
        for id in 0..500 {
            let shards = hidden_entries(3, id, 0.3, 84);
            let masks = [0.1, 0.3, 0.5, 0.7, 0.9].map(|fraction| hidden_at(3, id, &shards, 0.3, fraction));
            assert_eq!(masks[1], shards);
            for pair in masks.windows(2) {
                assert!(pair[0].iter().zip(&pair[1]).all(|(less, more)| !less || *more));
            }
            n.iter_mut().zip(&masks).for_each(|(n, mask)| *n += mask.iter().filter(|h| **h).count());
            of_all += shards.len();
        }
        for (n, fraction) in n.into_iter().zip([0.1, 0.3, 0.5, 0.7, 0.9]) {
            let found = n as f64 / of_all as f64;
            assert!((found - fraction).abs() < 0.01, "4 standard deviations: {found} for {fraction}");
        }
        let shards = hidden_entries(3, 7, 0.3, 84);
        assert_ne!(hidden_at(3, 7, &shards, 0.3, 0.5), hidden_at(4, 7, &shards, 0.3, 0.5));
    }

    #[test]
    fn a_record_hides_the_same_entries_whoever_stands_beside_it() {
        let share = |seed| {
            let n: usize = (0..500).map(|id| hidden_entries(seed, id, 0.3, 84).iter().filter(|h| **h).count()).sum();
            n as f64 / (500.0 * 84.0)
        };
        assert!((share(0) - 0.3).abs() < 0.009, "4 standard deviations: {}", share(0));
        assert_eq!(hidden_entries(0, 7, 0.3, 84), hidden_entries(0, 7, 0.3, 84));
        assert_ne!(hidden_entries(0, 7, 0.3, 84), hidden_entries(0, 8, 0.3, 84));
        assert_ne!(hidden_entries(0, 7, 0.3, 84), hidden_entries(1, 7, 0.3, 84));
    }
}
