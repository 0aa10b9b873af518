//! Brings the gene panels of all sections to one: the inner join, ids ascending, version suffixes stripped.
//!
//! What is lost goes to the ledger, per section and by name; a loss above the threshold is refused.

use std::collections::{BTreeMap, BTreeSet};

use super::error::ProcessError;
use super::ledger;
use crate::panel::Ledger;
use crate::section::{Csr, Gene, Section};

/// The shared genes and every section's counts over them.
pub struct Aligned {
    /// Shared genes, ids ascending and without version.
    pub genes: Vec<Gene>,
    /// Per section, `[n_obs, genes]`.
    pub counts: Vec<Csr>,
}

/// The identifier without its version: `ENSG00000186092.7` is `ENSG00000186092`; other ids keep their dots.
pub fn strip_version(id: &str) -> &str {
    match id.split_once('.') {
        Some((stem, _)) if stem.starts_with("ENS") => stem,
        _ => id,
    }
}

/// Joins the panels; `max_genes_lost` is the largest share of a section's genes that may go.
///
/// # Errors
/// `NoCommonGene`, `GenesLost`.
pub fn align(sections: &[Section], max_genes_lost: f64, ledger: &mut Ledger) -> Result<Aligned, ProcessError> {
    // id -> column, of the first gene that bears it
    let columns: Vec<BTreeMap<&str, u32>> = sections.iter().map(|s| first_columns(s, ledger)).collect();
    let mut shared: BTreeSet<&str> = columns.first().map(|c| c.keys().copied().collect()).unwrap_or_default();
    for other in columns.iter().skip(1) {
        shared.retain(|id| other.contains_key(id));
    }
    if shared.is_empty() {
        let examples =
            sections.iter().map(|s| s.genes.first().map_or("none", |g| g.id.as_str())).collect::<Vec<_>>().join(", ");
        return Err(ProcessError::NoCommonGene { n_sections: sections.len(), examples });
    }
    for (section, own) in sections.iter().zip(&columns) {
        let lost: Vec<String> = own.keys().filter(|id| !shared.contains(*id)).map(|id| (*id).to_string()).collect();
        let share = lost.len() as f64 / own.len() as f64;
        if share > max_genes_lost {
            return Err(ProcessError::GenesLost {
                library_id: section.library_id.clone(),
                lost: lost.len(),
                n_genes: own.len(),
                share,
                limit: max_genes_lost,
            });
        }
        ledger::record(ledger, "gene", Some(&section.library_id), "not measured in every section".into(), lost);
    }
    let genes = shared
        .iter()
        .map(|id| {
            let symbol = &sections[0].genes[columns[0][id] as usize].symbol;
            Gene { id: (*id).to_string(), symbol: symbol.clone() }
        })
        .collect();
    let counts = sections
        .iter()
        .zip(&columns)
        .map(|(section, own)| {
            let wanted: Vec<u32> = shared.iter().map(|id| own[id]).collect();
            section.counts.select_columns(&wanted)
        })
        .collect();
    Ok(Aligned { genes, counts })
}

/// Column of each stripped id; later bearers of the same id are recorded as dropped.
fn first_columns<'a>(section: &'a Section, ledger: &mut Ledger) -> BTreeMap<&'a str, u32> {
    let mut columns = BTreeMap::new();
    let mut repeated = Vec::new();
    for (column, gene) in section.genes.iter().enumerate() {
        match columns.entry(strip_version(&gene.id)) {
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(column as u32);
            }
            std::collections::btree_map::Entry::Occupied(_) => repeated.push(gene.id.clone()),
        }
    }
    let reason = "same id as an earlier gene once the version is stripped".to_string();
    ledger::record(ledger, "gene", Some(&section.library_id), reason, repeated);
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::fixture::section;

    #[test]
    fn panels_meet_in_id_order_and_the_lost_are_named() {
        let a = section("a", &["ENSG2.1", "ENSG1.9", "ENSG3"], &[&[1.0, 2.0, 3.0]]);
        let b = section("b", &["ENSG1.4", "ENSG4", "ENSG2.7"], &[&[4.0, 5.0, 6.0]]);
        let mut ledger = Ledger::default();
        let aligned = align(&[a, b], 0.5, &mut ledger).unwrap();
        let ids: Vec<&str> = aligned.genes.iter().map(|g| g.id.as_str()).collect();
        assert_eq!(ids, ["ENSG1", "ENSG2"]);
        assert_eq!(aligned.counts[0].row(0), (&[0, 1][..], &[2.0, 1.0][..]));
        assert_eq!(aligned.counts[1].row(0), (&[0, 1][..], &[4.0, 6.0][..]));
        let lost: Vec<_> = ledger.entries.iter().map(|e| (e.library_id.as_deref(), e.names.as_slice())).collect();
        assert_eq!(lost, [(Some("a"), &["ENSG3".to_string()][..]), (Some("b"), &["ENSG4".to_string()][..])]);
    }

    #[test]
    fn a_loss_above_the_threshold_is_refused_with_its_share() {
        let a = section("a", &["G1", "G2", "G3"], &[&[1.0, 2.0, 3.0]]);
        let b = section("b", &["G1"], &[&[4.0]]);
        let refused = align(&[a, b], 0.5, &mut Ledger::default()).err().unwrap().to_string();
        assert!(refused.contains("`a`: 2 of its 3 genes") && refused.contains("max_genes_lost = 0.5"), "{refused}");
    }

    #[test]
    fn no_gene_in_common_is_an_error() {
        let a = section("a", &["G1"], &[&[1.0]]);
        let b = section("b", &["H1"], &[&[1.0]]);
        let refused = align(&[a, b], 1.0, &mut Ledger::default()).err().unwrap();
        assert!(matches!(refused, ProcessError::NoCommonGene { n_sections: 2, .. }));
    }

    #[test]
    fn only_ensembl_ids_lose_their_version() {
        assert_eq!(strip_version("ENSMUSG00000051951.6"), "ENSMUSG00000051951");
        assert_eq!(strip_version("RP11-34P13.7"), "RP11-34P13.7");
    }

    #[test]
    fn of_two_versions_of_one_id_the_first_stands() {
        let a = section("a", &["ENSG1.1", "ENSG1.2"], &[&[1.0, 2.0]]);
        let mut ledger = Ledger::default();
        let aligned = align(&[a], 1.0, &mut ledger).unwrap();
        assert_eq!(aligned.counts[0].row(0).1, [1.0]);
        assert_eq!(ledger.entries[0].names, ["ENSG1.2"]);
    }
}
