//! What the filters leave of sections and genes, step by step; what a step drops is in the ledger with all names.

use super::align::Aligned;
use super::config::FilterConfig;
use super::error::ProcessError;
use super::lengths::Species;
use super::{crops, filter, fractions, ledger};
use crate::ingest::OnBadCell;
use crate::panel::Ledger;
use crate::processed::Crops;
use crate::section::{Csr, Gene, Section};

/// What the filters have left so far.
pub(super) struct Kept {
    /// Genes, ids ascending: the columns of `counts`.
    pub(super) genes: Vec<Gene>,
    /// Per section, rows as ingested, ascending.
    pub(super) rows: Vec<Vec<u32>>,
    /// Per section, `[rows, genes]`.
    pub(super) counts: Vec<Csr>,
}

impl Kept {
    pub(super) fn all(sections: &[Section], aligned: Aligned) -> Kept {
        let rows = sections.iter().map(|s| (0..s.n_obs() as u32).collect()).collect();
        Kept { genes: aligned.genes, rows, counts: aligned.counts }
    }

    /// Cells that their picture does not show: an error, or out with all names.
    pub(super) fn drop_obs_without_picture(
        &mut self,
        sections: &[Section],
        crops: &[Option<Crops>],
        on_bad_crop: OnBadCell,
        ledger: &mut Ledger,
    ) -> Result<(), ProcessError> {
        for (section, crops) in sections.iter().zip(crops) {
            let Some(crops) = crops else { continue };
            let bad = crops::without_picture(crops);
            let Some((row, reason)) = bad.first() else { continue };
            if on_bad_crop == OnBadCell::Stop || crops::looks_swapped(crops) {
                return Err(ProcessError::NoCrop {
                    library_id: section.library_id.clone(),
                    obs_id: section.obs_ids[*row as usize].clone(),
                    n: bad.len(),
                    reason: reason.clone(),
                    advice: match crops::looks_swapped(crops) {
                        true => "with x and y swapped more cells would lie inside: is x the column of the image?",
                        false => "process.on_bad_crop = \"skip\" leaves such cells out and counts them",
                    },
                });
            }
        }
        let mut of_sections = crops.iter();
        self.keep_rows(sections, "no picture", ledger, |counts| {
            let bad = of_sections.next().and_then(Option::as_ref).map(crops::without_picture).unwrap_or_default();
            (0..counts.n_rows() as u32).filter(|row| bad.binary_search_by_key(row, |b| b.0).is_err()).collect()
        })
    }

    pub(super) fn drop_obs_by_total(
        &mut self,
        sections: &[Section],
        filter: &FilterConfig,
        ledger: &mut Ledger,
    ) -> Result<(), ProcessError> {
        let reason = format!("total count not between {} and {} (strict)", filter.cell_min, filter.cell_max);
        self.keep_rows(sections, &reason, ledger, |counts| {
            filter::rows_between(counts, filter.cell_min, filter.cell_max)
        })
    }

    pub(super) fn drop_empty_obs(&mut self, sections: &[Section], ledger: &mut Ledger) -> Result<(), ProcessError> {
        self.keep_rows(sections, "no count in any gene that passed the filters", ledger, filter::rows_with_counts)
    }

    pub(super) fn keep_rows(
        &mut self,
        sections: &[Section],
        reason: &str,
        ledger: &mut Ledger,
        mut choose: impl FnMut(&Csr) -> Vec<u32>,
    ) -> Result<(), ProcessError> {
        for (i, section) in sections.iter().enumerate() {
            let kept = choose(&self.counts[i]);
            let before = self.rows[i].len();
            let names = filter::complement(&kept, before)
                .into_iter()
                .map(|at| section.obs_ids[self.rows[i][at as usize] as usize].clone())
                .collect();
            if kept.is_empty() {
                let rule = format!("section `{}`: dropping observations by \"{reason}\"", section.library_id);
                return Err(ProcessError::NothingLeft { what: "observation", rule, before });
            }
            ledger::record(ledger, "obs", Some(&section.library_id), reason.to_string(), names);
            self.counts[i] = self.counts[i].select_rows(&kept);
            self.rows[i] = kept.iter().map(|&at| self.rows[i][at as usize]).collect();
        }
        Ok(())
    }

    /// Genes that pass the totals, have a length where TPM needs one, and lie in the expressed-fraction prefix; ascending.
    ///
    /// Lengths come before the prefix unless asked otherwise (`spared.md` §0 drops at TPM, after it): mitochondrial genes are
    /// expressed everywhere and would lift the running mean for genes that then stay without them.
    pub(super) fn choose_genes(
        &self,
        filter: &FilterConfig,
        needs_length: bool,
        species: Option<Species>,
        fractions: &fractions::Fractions,
        ledger: &mut Ledger,
    ) -> Result<Vec<u32>, ProcessError> {
        let all: Vec<u32> = (0..self.genes.len() as u32).collect();
        let mut passing = filter::genes_between(&self.counts, filter.gene_min, filter.gene_max);
        let rule = format!("total count not between {} and {} (strict)", filter.gene_min, filter.gene_max);
        self.record_genes(&all, &passing, rule, ledger)?;
        if filter.gene_min_obs > 0 {
            let common = filter::genes_in(&self.counts, &passing, filter.gene_min_obs);
            let rule = format!("counted in fewer than {} observations", filter.gene_min_obs);
            self.record_genes(&passing, &common, rule, ledger)?;
            passing = common;
        }
        let drop_without_length = |genes: Vec<u32>, ledger: &mut Ledger| -> Result<Vec<u32>, ProcessError> {
            let with_length = self.with_length(&genes, species)?;
            let rule = format!("no length in {}", species.map_or("any annotation", Species::annotation));
            self.record_genes(&genes, &with_length, rule, ledger)?;
            Ok(with_length)
        };
        if needs_length && filter.lengths_before_prefix {
            passing = drop_without_length(passing, ledger)?;
        }
        let chosen = fractions::select_prefix(&passing, fractions, filter.real_data_percentage);
        let share = filter.real_data_percentage;
        let rule =
            format!("outside the prefix with a mean expressed fraction of filter.real_data_percentage = {share}");
        self.record_genes(&passing, &chosen, rule, ledger)?;
        if needs_length && !filter.lengths_before_prefix { drop_without_length(chosen, ledger) } else { Ok(chosen) }
    }

    /// Those of `genes` with a merged exon length; an error where none has one.
    fn with_length(&self, genes: &[u32], species: Option<Species>) -> Result<Vec<u32>, ProcessError> {
        let length = |gene: u32| species.and_then(|s| s.length_of(&self.genes[gene as usize].id));
        let found: Vec<u32> = genes.iter().copied().filter(|&gene| length(gene).is_some()).collect();
        if found.is_empty() {
            return Err(ProcessError::NoLength {
                n_genes: genes.len(),
                first_id: self.genes[genes[0] as usize].id.clone(),
                species: species.map_or("unknown", Species::as_str),
            });
        }
        Ok(found)
    }

    pub(super) fn record_genes(
        &self,
        before: &[u32],
        kept: &[u32],
        rule: String,
        ledger: &mut Ledger,
    ) -> Result<(), ProcessError> {
        if kept.is_empty() {
            let rule = format!("dropping genes by \"{rule}\"");
            return Err(ProcessError::NothingLeft { what: "gene", rule, before: before.len() });
        }
        let lost = before.iter().filter(|gene| kept.binary_search(gene).is_err());
        let names = lost.map(|&gene| self.genes[gene as usize].id.clone()).collect();
        ledger::record(ledger, "gene", None, rule, names);
        Ok(())
    }

    pub(super) fn keep_genes(&mut self, genes: &[u32]) {
        self.genes = genes.iter().map(|&gene| self.genes[gene as usize].clone()).collect();
        self.counts.iter_mut().for_each(|counts| *counts = counts.select_columns(genes));
    }
}
