//! Sections and a reference → pieces of which something is hidden: the data of SpotDiff (`spotdiff.md` §1, §5).
//!
//! What is hidden is drawn first, on the shared genes as they were ingested; whatever is decided after that (which observations and
//! genes stay, fractions, the summary) looks at visible entries alone. Under `gene_folds` every gene is hidden in its turn, so
//! nothing but the reference may decide which genes stay. There are no layers: what a value becomes is decided where it is read
//! ([`crate::visible`]).

use std::collections::HashMap;

use super::align::{Aligned, align};
use super::config::{FilterConfig, NicheKind, ProcessConfig, SplitConfig};
use super::error::ProcessError;
use super::fractions::{self, Fractions};
use super::lengths::Species;
use super::shared::{Shared, shared_genes};
use super::{
    Kept, check_sections, config, facts, ledger, neighbours, panel_of, pieces, share_of_zeros, split, summary,
};
use crate::holdout::{Holdout, HoldoutRule, Protocol, ReferenceFacts, folds_of_genes, hidden_entries};
use crate::ingest::OnBadCell;
use crate::matrix::Matrix;
use crate::panel::Ledger;
use crate::processed::{Piece, Processed, Reference};
use crate::section::{Cells, Csr, Section};
use crate::visible::N_NEAR;

/// Names of what an instrument measures as a control.
const CONTROLS: [&str; 3] = ["blank", "negcontrol", "negprb"];

/// Runs the whole pipeline on the sections of a data set, in their order. `on_same_place`: what becomes of observations at one place.
///
/// # Errors
/// Any [`ProcessError`]; nothing is written anywhere.
pub fn hide(
    sections: Vec<Section>,
    cells: Option<Cells>,
    (filter, config, split): (&FilterConfig, &ProcessConfig, &SplitConfig),
    rule: &HoldoutRule,
    on_same_place: OnBadCell,
) -> Result<Processed, ProcessError> {
    config::check(filter, config, split)?;
    check_sections(&sections)?;
    check_rule(rule, filter, config, &sections, cells.is_some())?;
    let splits = split::resolve(&sections, split)?;

    let mut ledger = Ledger::default();
    for section in &sections {
        section.notes.iter().for_each(|note| ledger::note(&mut ledger, &section.library_id, note));
    }
    let mut aligned = align(&sections, filter.max_genes_lost, &mut ledger)?;
    drop_controls(&mut aligned, &mut ledger);
    let mut theirs = Vec::new();
    let mut matched_by = String::new();
    if let Some(cells) = &cells {
        cells.notes.iter().for_each(|note| ledger::note(&mut ledger, REFERENCE, note));
        (theirs, matched_by) = meet(&mut aligned, cells, rule, filter.max_genes_lost, &mut ledger)?;
    }
    let n_shared = aligned.genes.len();
    if rule.protocol == Protocol::GeneFolds && rule.folds as usize > n_shared {
        return Err(ProcessError::TooManyFolds { folds: rule.folds, n_genes: n_shared });
    }
    let (held, n_taken) = take_hidden(&mut aligned, rule);

    let missing_before = share_of_zeros(&aligned.counts, n_taken);
    let mut kept = Kept::all(&sections, aligned);
    drop_same_place(&mut kept, &sections, on_same_place, &mut ledger)?;
    // under gene_folds an observation shows nothing in one fold and something in another: it leaves where it is read
    if rule.protocol != Protocol::GeneFolds {
        kept.drop_obs_by_total(&sections, filter, &mut ledger)?;
    }
    let species = Species::of_ids(kept.genes.iter().map(|gene| gene.id.as_str()));
    let (genes, fractions) = match (rule.protocol, &cells) {
        (Protocol::GeneFolds, Some(cells)) => {
            let unknown = Fractions { exp_frac: vec![0.0; n_shared], glob_exp_frac: vec![0.0; n_shared] };
            (genes_of_the_reference(&kept, cells, &theirs, &mut ledger)?, unknown)
        }
        _ => {
            let fractions = fractions::expressed(&kept.counts);
            (kept.choose_genes(filter, false, species, &fractions, &mut ledger)?, fractions)
        }
    };
    if rule.protocol == Protocol::GeneFolds && rule.folds as usize > genes.len() {
        return Err(ProcessError::TooManyFolds { folds: rule.folds, n_genes: genes.len() });
    }
    kept.keep_genes(&genes);
    if rule.protocol != Protocol::GeneFolds {
        kept.drop_empty_obs(&sections, &mut ledger)?;
    }
    let panel = panel_of(&genes, &kept.genes, &fractions, species, false);

    let mut pieces = pieces::cut(&sections, &kept, &splits, split, &mut ledger);
    pieces::check_sizes(&pieces, config)?;
    check_near(&pieces)?;
    if rule.protocol == Protocol::Entries {
        pieces.iter_mut().for_each(|piece| attach_hidden(piece, &held, &genes, n_shared, rule));
    }
    neighbours::attach(&mut pieces, config);
    note_constant(&pieces, &panel.genes.iter().map(|g| g.id.clone()).collect::<Vec<_>>(), &mut ledger);

    let n_hidden = pieces.iter().map(|p| p.hidden.values.iter().filter(|h| **h).count() as u64).sum();
    let is = |protocol| rule.protocol == protocol;
    let holdout = Holdout {
        protocol: rule.protocol,
        seed: rule.seed,
        fraction: is(Protocol::Entries).then_some(rule.fraction),
        n_hidden: is(Protocol::Entries).then_some(n_hidden),
        folds: is(Protocol::GeneFolds).then_some(rule.folds),
        fold_of_gene: match rule.protocol {
            Protocol::GeneFolds => folds_of_genes(rule.seed, genes.len(), rule.folds),
            _ => Vec::new(),
        },
        transform: rule.transform,
        reference_transform: rule.reference_transform,
        reference: cells.as_ref().map(|cells| reference_facts(cells, matched_by)),
    };
    let columns: Vec<u32> = genes.iter().filter_map(|&gene| theirs.get(gene as usize).copied()).collect();
    let reference = cells.map(|cells| cut_reference(&cells, &columns, &mut ledger)).transpose()?;
    let summary = summary(&sections, &pieces, missing_before);
    tracing::info!(%summary);
    let sections = sections.into_iter().map(|section| facts(section, None)).collect();
    let covariates = Vec::new();
    Ok(Processed { panel, sections, pieces, ledger, summary, covariates, reference, holdout: Some(holdout) })
}

/// What the ledger calls it.
const REFERENCE: &str = "reference";

/// Refuses keys that would look at what is hidden, or that there is nothing here for.
fn check_rule(
    rule: &HoldoutRule,
    filter: &FilterConfig,
    config: &ProcessConfig,
    sections: &[Section],
    has_reference: bool,
) -> Result<(), ProcessError> {
    let refuse = |key, problem: &str| Err(ProcessError::Config { key, problem: problem.to_owned() });
    if !config.layers.is_empty() {
        return refuse(
            "process.layers",
            "must be [] with data.holdout or --reference: values are transformed where they are read, so that none is made of hidden \
             ones (configs/spotdiff/shard.toml)",
        );
    }
    if config.niches != NicheKind::None || sections.iter().any(|s| s.pictures.is_some()) {
        return refuse(
            "data.holdout",
            "goes with counts alone: set process.niches = \"none\" and input.images = \"none\"",
        );
    }
    if sections.iter().any(|s| !s.features.is_empty()) {
        return refuse(
            "input.features",
            "must be empty with data.holdout: an embedding is made of all genes, hidden ones too",
        );
    }
    if rule.protocol == Protocol::Entries && !(rule.fraction > 0.0 && rule.fraction < 1.0) {
        return refuse("data.holdout_fraction", "is a share between 0 and 1");
    }
    if rule.protocol != Protocol::GeneFolds {
        return Ok(());
    }
    if rule.folds < 2 {
        return refuse("data.folds", "must be 2 or more: the genes of a fold are predicted from those of the others");
    }
    if !has_reference {
        return refuse(
            "data.holdout",
            "= \"gene_folds\" hides a gene in every observation: only single cells can tell of it, give them with --reference",
        );
    }
    let neutral = filter.cell_min == 0.0
        && filter.gene_min == 0.0
        && filter.gene_min_obs == 0
        && filter.real_data_percentage == 0.0
        && filter.cell_max >= 1e9
        && filter.gene_max >= 1e9;
    match neutral {
        true => Ok(()),
        false => refuse(
            "filter",
            "looks at every gene, and under data.holdout = \"gene_folds\" every gene is hidden once: write cell_min = 0, gene_min = 0, \
             gene_min_obs = 0, real_data_percentage = 0, cell_max and gene_max = 1e12 (configs/spotdiff/shard.toml)",
        ),
    }
}

/// Blanks and negative probes are no genes.
fn drop_controls(aligned: &mut Aligned, ledger: &mut Ledger) {
    let is_control = |id: &str| CONTROLS.iter().any(|name| id.to_ascii_lowercase().starts_with(name));
    let names = aligned.genes.iter().filter(|g| is_control(&g.id)).map(|g| g.id.clone()).collect();
    ledger::record(ledger, "gene", None, "a control of the instrument, no gene".to_owned(), names);
    let columns = (0u32..).zip(&aligned.genes).filter(|(_, g)| !is_control(&g.id)).map(|(column, _)| column).collect();
    cut(aligned, columns);
}

fn cut(aligned: &mut Aligned, columns: Vec<u32>) {
    if columns.len() == aligned.genes.len() {
        return;
    }
    aligned.genes = columns.iter().map(|&column| aligned.genes[column as usize].clone()).collect();
    aligned.counts.iter_mut().for_each(|counts| *counts = counts.select_columns(&columns));
}

/// Cuts the sections to the genes they share with the reference; its column of each, and by what they were matched.
fn meet(
    aligned: &mut Aligned,
    cells: &Cells,
    rule: &HoldoutRule,
    max_genes_lost: f64,
    ledger: &mut Ledger,
) -> Result<(Vec<u32>, String), ProcessError> {
    let Shared { ours, theirs, matched_by } = shared_genes(&aligned.genes, &cells.genes, rule.gene_case)?;
    let n_genes = aligned.genes.len();
    let lost: Vec<String> = (0u32..)
        .zip(&aligned.genes)
        .filter(|(column, _)| ours.binary_search(column).is_err())
        .map(|(_, gene)| gene.id.clone())
        .collect();
    let share = lost.len() as f64 / n_genes as f64;
    if share > max_genes_lost {
        let (lost, limit) = (lost.len(), max_genes_lost);
        return Err(ProcessError::GenesNotInReference { lost, n_genes, share, limit });
    }
    ledger::record(ledger, "gene", None, "not measured in the reference".to_owned(), lost);
    let mut is_shared = vec![false; cells.genes.len()];
    theirs.iter().for_each(|&column| is_shared[column as usize] = true);
    let others = cells.genes.iter().zip(is_shared).filter(|(_, shared)| !shared).map(|(g, _)| g.id.clone()).collect();
    ledger::record(ledger, "gene", Some(REFERENCE), "not measured in the sections".to_owned(), others);
    cut(aligned, ours);
    Ok((theirs, matched_by))
}

/// Takes hidden entries out of the counts; what was there, per section `[n_obs, shared genes]`, and how many entries are hidden.
fn take_hidden(aligned: &mut Aligned, rule: &HoldoutRule) -> (Vec<Csr>, usize) {
    if rule.protocol != Protocol::Entries {
        return (Vec::new(), 0);
    }
    let mut n_hidden = 0;
    let n_genes = aligned.genes.len();
    let mut of_sections = Vec::new();
    for (ordinal, counts) in aligned.counts.iter_mut().enumerate() {
        let empty = || Csr { n_cols: n_genes, indptr: vec![0], ..Csr::default() };
        let (mut visible, mut held) = (empty(), empty());
        for row in 0..counts.n_rows() {
            let hidden = hidden_entries(rule.seed, (ordinal as u64) << 32 | row as u64, rule.fraction, n_genes);
            n_hidden += hidden.iter().filter(|h| **h).count();
            let (genes, values) = counts.row(row);
            for (&gene, &value) in genes.iter().zip(values) {
                let to = if hidden[gene as usize] { &mut held } else { &mut visible };
                to.indices.push(gene);
                to.values.push(value);
            }
            visible.indptr.push(visible.indices.len());
            held.indptr.push(held.indices.len());
        }
        *counts = visible;
        of_sections.push(held);
    }
    (of_sections, n_hidden)
}

/// Gives a piece its hidden bits and values, over the genes that stayed.
fn attach_hidden(piece: &mut Piece, held: &[Csr], genes: &[u32], n_shared: usize, rule: &HoldoutRule) {
    let of_row = |i: usize| {
        let all = hidden_entries(rule.seed, piece.record_id(i), rule.fraction, n_shared);
        genes.iter().map(|&gene| all[gene as usize]).collect::<Vec<_>>()
    };
    let values = (0..piece.n_obs()).flat_map(of_row).collect();
    piece.hidden = Matrix { n_cols: genes.len(), values };
    piece.held = held[piece.section as usize].select_rows(&piece.rows).select_columns(genes);
}

/// Observations at one place have no distance: an error, or the later ones out with all names.
fn drop_same_place(
    kept: &mut Kept,
    sections: &[Section],
    on_same_place: OnBadCell,
    ledger: &mut Ledger,
) -> Result<(), ProcessError> {
    let mut repeated: Vec<Vec<bool>> = Vec::new();
    for section in sections {
        let mut first_at: HashMap<[u64; 3], usize> = HashMap::new();
        let mut of_section = vec![false; section.n_obs()];
        let mut example = None;
        for (i, xy) in section.xy.iter().enumerate() {
            let z = section.z.as_ref().map_or(0.0, |z| z[i]);
            // −0 and 0 are one place
            let place = [xy[0], xy[1], z].map(|v| (v + 0.0).to_bits());
            if let Some(&first) = first_at.get(&place) {
                of_section[i] = true;
                example.get_or_insert((first, i));
            } else {
                first_at.insert(place, i);
            }
        }
        if let (Some((a, b)), OnBadCell::Stop) = (example, on_same_place) {
            return Err(ProcessError::SamePlace {
                library_id: section.library_id.clone(),
                n: of_section.iter().filter(|r| **r).count(),
                first: section.obs_ids[a].clone(),
                second: section.obs_ids[b].clone(),
                x: section.xy[a][0],
                y: section.xy[a][1],
            });
        }
        repeated.push(of_section);
    }
    let mut of_sections = repeated.iter();
    kept.keep_rows(sections, "at the place of an earlier observation", ledger, |counts| {
        let repeated = of_sections.next().expect("one list per section");
        (0..counts.n_rows() as u32).filter(|&row| !repeated[row as usize]).collect()
    })
}

/// Genes of which some cell has a count; the sections may not decide.
fn genes_of_the_reference(
    kept: &Kept,
    cells: &Cells,
    theirs: &[u32],
    ledger: &mut Ledger,
) -> Result<Vec<u32>, ProcessError> {
    let mut counted = vec![false; cells.genes.len()];
    cells.counts.indices.iter().for_each(|&column| counted[column as usize] = true);
    let all: Vec<u32> = (0..theirs.len() as u32).collect();
    let passing = all.iter().copied().filter(|&gene| counted[theirs[gene as usize] as usize]).collect::<Vec<_>>();
    kept.record_genes(&all, &passing, "no count in any cell of the reference".to_owned(), ledger)?;
    Ok(passing)
}

fn check_near(pieces: &[Piece]) -> Result<(), ProcessError> {
    match pieces.iter().find(|piece| piece.n_obs() <= N_NEAR) {
        None => Ok(()),
        Some(piece) => Err(ProcessError::TooFewObs {
            library_id: piece.library_id.clone(),
            split: piece.split.as_str(),
            n_obs: piece.n_obs(),
            needed: N_NEAR + 1,
            n_neighbours: N_NEAR,
        }),
    }
}

/// Says which genes have one value in all visible entries: they stay, scaled to 0, and no correlation with them is defined.
fn note_constant(pieces: &[Piece], names: &[String], ledger: &mut Ledger) {
    let mut range = vec![(f32::INFINITY, f32::NEG_INFINITY); names.len()];
    for piece in pieces {
        for i in 0..piece.n_obs() {
            let (genes, values) = piece.counts.row(i);
            let mut of_row = vec![0f32; names.len()];
            genes.iter().zip(values).for_each(|(&gene, &value)| of_row[gene as usize] = value);
            for (gene, (low, high)) in range.iter_mut().enumerate() {
                if piece.hidden.n_cols == 0 || !piece.hidden.row(i)[gene] {
                    (*low, *high) = (low.min(of_row[gene]), high.max(of_row[gene]));
                }
            }
        }
    }
    let constant: Vec<&str> =
        range.iter().zip(names).filter(|((low, high), _)| low >= high).map(|(_, name)| name.as_str()).collect();
    if !constant.is_empty() {
        let words = format!(
            "{} genes have the same value wherever they are visible; they stay, and correlations with them are skipped: {}",
            constant.len(),
            constant.join(", ")
        );
        ledger::note(ledger, &pieces[0].library_id, &words);
    }
}

fn reference_facts(cells: &Cells, matched_by: String) -> ReferenceFacts {
    ReferenceFacts {
        source: cells.source.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        format: cells.format.to_owned(),
        n_cells_ingested: cells.obs_ids.len() as u64,
        n_genes_ingested: cells.genes.len() as u64,
        matched_by,
        integer: cells.counts.values.iter().all(|v| v.fract() == 0.0),
        label: cells.label.as_ref().map(|l| l.name.clone()),
    }
}

/// The cells over the panel's genes; those without any value there are left out.
fn cut_reference(cells: &Cells, columns: &[u32], ledger: &mut Ledger) -> Result<Reference, ProcessError> {
    let (counts, totals) = (cells.counts.select_columns(columns), cells.counts.row_sums());
    let rows: Vec<u32> = (0..counts.n_rows() as u32).filter(|&i| !counts.row(i as usize).0.is_empty()).collect();
    let empty = (0..counts.n_rows()).filter(|&i| counts.row(i).0.is_empty());
    let names = empty.map(|i| cells.obs_ids[i].clone()).collect();
    if rows.is_empty() {
        let rule = "cutting the reference to the shared genes".to_owned();
        return Err(ProcessError::NothingLeft { what: "cell", rule, before: counts.n_rows() });
    }
    ledger::record(ledger, "cell", Some(REFERENCE), "no value in any shared gene".to_owned(), names);
    let at = |i: &u32| *i as usize;
    let label = |i: &u32| cells.label.as_ref().and_then(|l| l.values[at(i)].clone());
    Ok(Reference {
        ids: rows.iter().map(|&i| u64::from(i)).collect(),
        names: rows.iter().map(|i| cells.obs_ids[at(i)].clone()).collect(),
        labels: rows.iter().map(label).collect(),
        totals: rows.iter().map(|i| totals[at(i)]).collect(),
        counts: counts.select_rows(&rows),
    })
}

#[cfg(test)]
mod tests;
