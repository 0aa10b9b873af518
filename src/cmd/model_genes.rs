//! A file's observations over the genes of a model: its counts as the model reads them, and the file that a command writes.

use std::collections::BTreeMap;

use syncytia_shards::ingest::h5ad_write::{AnnData, Raw, Uns, Values, X};
use syncytia_shards::process::strip_version;
use syncytia_shards::processed::Matrix;
use syncytia_shards::section::{Csr, Section};

use super::exit::UsageError;
use crate::train::state::RunState;

/// The section's counts in the columns of the model's whole panel, with a ledger of what it lacks.
pub fn aligned(section: &Section, run: &RunState, max_lost: f64) -> anyhow::Result<Csr> {
    let column_of: BTreeMap<&str, u32> =
        section.genes.iter().enumerate().map(|(i, g)| (strip_version(&g.id), i as u32)).collect();
    let lost: Vec<&str> =
        run.genes.iter().map(String::as_str).filter(|g| !column_of.contains_key(strip_version(g))).collect();
    let share = lost.len() as f64 / run.genes.len().max(1) as f64;
    if !lost.is_empty() {
        eprintln!(
            "warning: the input lacks {} of the model's {} genes, predicted as missing: {lost:?}",
            lost.len(),
            run.genes.len()
        );
    }
    if share > max_lost {
        return Err(UsageError(format!(
            "the input lacks {:.0} % of the model's genes, more than --max-genes-lost {max_lost}: is it the same species, \
             and are its gene ids those of the panel ({}, ...)?",
            100.0 * share,
            run.genes[0]
        ))
        .into());
    }
    // Genes the input lacks get a column that holds nothing.
    let mut padded = section.counts.clone();
    let nothing = padded.n_cols as u32;
    padded.n_cols += run.panel.genes.len();
    let columns: Vec<u32> = run
        .panel
        .genes
        .iter()
        .enumerate()
        .map(|(i, gene)| column_of.get(gene.id.as_str()).copied().unwrap_or(nothing + i as u32))
        .collect();
    Ok(padded.select_columns(&columns))
}

/// A file's observations over the model's genes: `x` and `layers`, what they are in `uns["syncytia"]`, and the file's own matrix in raw.
pub fn annotated(
    section: &Section,
    run: &RunState,
    provenance: BTreeMap<String, Uns>,
    x: Matrix<f32>,
    layers: BTreeMap<String, X>,
) -> AnnData {
    let whole = AnnData::from_section(section);
    let mut uns = whole.uns;
    uns.insert("syncytia".to_owned(), Uns::Dict(provenance));
    let raw = match whole.x {
        Some(X::Sparse(x)) => Some(Raw { x, var_names: whole.var_names, var: whole.var }),
        _ => None,
    };
    AnnData {
        obs_names: whole.obs_names,
        obs: whole.obs,
        var_names: run.genes.clone(),
        var: vec![("symbol".to_owned(), Values::Text(run.symbols.clone()))],
        x: Some(X::Dense(x)),
        layers,
        obsm: whole.obsm,
        uns,
        raw,
    }
}
