//! Sections → processed pieces: filters, fractions, TPM, log2, median completion, Moran's I, layers, neighbours.
//!
//! Without layers the middle is passed over: cells keep the counts of the genes that pass the filters, and get niches and
//! windows of their pictures.
//!
//! Knows no file and no tensor; every step is a pure function in the file of its name, and [`process`] runs them in the order
//! of `spared.md` §0, lengths before the prefix. What a step drops is in the ledger with its reason and all names.

mod align;
pub mod applied;
pub mod combat;
mod config;
pub mod covariates;
mod crops;
pub mod deltas;
mod error;
pub mod filter;
#[cfg(test)]
pub(crate) mod fixture;
pub mod fractions;
mod hide;
mod hops;
mod kept;
mod layers;
mod ledger;
pub mod lengths;
pub mod median;
pub mod moran;
pub mod neighbours;
mod niches;
pub mod pairing;
pub mod picture;
mod pieces;
mod shared;
pub mod split;
pub mod tpm;

pub use align::{Aligned, align, strip_version};
pub use combat::Combat;
pub use config::{
    CombatKey, FilterConfig, Layer, NearestGraph, Neighbourhood, NicheKind, Normalize, ProcessConfig, SplitConfig,
    SplitKind,
};
pub use error::ProcessError;
pub use hide::hide;
pub use hops::HopWindows;
pub use layers::batch_name;
pub use moran::TopMoran;
pub use shared::{Shared, shared_genes};

use std::collections::BTreeSet;

use kept::Kept;
use lengths::Species;

use crate::panel::{Ledger, Panel, PanelGene};
use crate::pictures::Cover;
use crate::processed::{Crops, Piece, Processed, SectionFacts, Summary};
use crate::section::{Csr, Gene, Section};

/// Runs the whole pipeline on the sections of a data set, in their order (the ordinal of a section is its position).
///
/// # Errors
/// Any [`ProcessError`]; nothing is written anywhere.
pub fn process(
    sections: Vec<Section>,
    filter: &FilterConfig,
    config: &ProcessConfig,
    split: &SplitConfig,
) -> Result<Processed, ProcessError> {
    config::check(filter, config, split)?;
    check_sections(&sections)?;
    let rule = split::resolve(&sections, split)?;

    let mut ledger = Ledger::default();
    for section in &sections {
        section.notes.iter().for_each(|note| ledger::note(&mut ledger, &section.library_id, note));
    }
    let aligned = align(&sections, filter.max_genes_lost, &mut ledger)?;
    let missing_before = share_of_zeros(&aligned.counts, 0);
    let crops = plan_crops(&sections, config)?;
    let mut kept = Kept::all(&sections, aligned);
    kept.drop_obs_without_picture(&sections, &crops, config.on_bad_crop, &mut ledger)?;
    kept.drop_obs_by_total(&sections, filter, &mut ledger)?;
    let fractions = fractions::expressed(&kept.counts);
    let species = Species::of_ids(kept.genes.iter().map(|gene| gene.id.as_str()));
    let genes = kept.choose_genes(filter, uses_lengths(config), species, &fractions, &mut ledger)?;
    kept.keep_genes(&genes);
    kept.drop_empty_obs(&sections, &mut ledger)?;
    let mut panel = panel_of(&genes, &kept.genes, &fractions, species, uses_lengths(config));

    let mut pieces = pieces::cut(&sections, &kept, &rule, split, &mut ledger);
    pieces::check_sizes(&pieces, config)?;
    let whole = if config.layers.is_empty() { Vec::new() } else { layers::complete(&pieces, &panel, config) };
    if !whole.is_empty() {
        choose_by_moran(&mut panel, &pieces, &whole, filter, config);
    }
    let covariates = covariates::attach(&sections, &mut pieces, &whole, &panel, config)?;
    if !whole.is_empty() {
        panel.combat = layers::attach(&mut pieces, whole, &panel.selected, config, &mut ledger)?;
    }
    neighbours::attach(&mut pieces, config);
    niches::attach(&mut pieces, config)?;
    note_padded(&pieces, &crops, &mut ledger);
    tracing::info!(
        genes = panel.genes.len(),
        selected = panel.selected.len(),
        obs = pieces.iter().map(Piece::n_obs).sum::<usize>(),
        pieces = pieces.len(),
        "processed"
    );
    let summary = summary(&sections, &pieces, missing_before);
    tracing::info!(%summary);
    let sections = sections.into_iter().zip(crops).map(|(section, crops)| facts(section, crops)).collect();
    Ok(Processed { panel, sections, pieces, ledger, summary, covariates, reference: None, holdout: None })
}

/// TPM is per base; counts need no lengths.
fn uses_lengths(config: &ProcessConfig) -> bool {
    config.normalize == Normalize::Tpm && !config.layers.is_empty()
}

/// The genes of the layers and those after them, by Moran's I on the completed layer.
fn choose_by_moran(
    panel: &mut Panel,
    pieces: &[Piece],
    whole: &[layers::WholeLayers],
    filter: &FilterConfig,
    config: &ProcessConfig,
) {
    let scores = layers::moran_scores(pieces, whole, config.moran_graph);
    for (gene, score) in panel.genes.iter_mut().zip(scores.iter()) {
        gene.moran = *score;
    }
    panel.selected = moran::top(&scores, filter.top_moran.resolve(scores.len()));
    panel.context =
        moran::top(&scores, panel.selected.len() + filter.context_genes as usize).split_off(panel.selected.len());
}

/// Windows of every section's pictures: all sections have pictures of the same channels, or none has.
fn plan_crops(sections: &[Section], config: &ProcessConfig) -> Result<Vec<Option<Crops>>, ProcessError> {
    let all: Vec<Option<Crops>> = sections.iter().map(|s| crops::plan(s, config)).collect::<Result<_, _>>()?;
    let channels = |crops: &Option<Crops>| crops.as_ref().map(|c| c.pictures.channels());
    let first = channels(&all[0]);
    match all.iter().position(|crops| channels(crops) != first) {
        None => Ok(all),
        Some(other) => {
            let words = |c: Option<Vec<String>>| c.map_or_else(|| "none".to_owned(), |c| c.join(", "));
            Err(ProcessError::Channels {
                library_id: sections[other].library_id.clone(),
                channels: words(channels(&all[other])),
                first: sections[0].library_id.clone(),
                expected: words(first),
            })
        }
    }
}

/// How many pictures reach over a border: they are padded with 0, which a model can see.
fn note_padded(pieces: &[Piece], crops: &[Option<Crops>], ledger: &mut Ledger) {
    for (ordinal, crops) in crops.iter().enumerate() {
        let Some(crops) = crops else { continue };
        let of_section = || pieces.iter().filter(|p| p.section as usize == ordinal);
        let rows = of_section().flat_map(|p| &p.rows);
        let padded = rows.filter(|&&row| crops.pictures.cover(&crops.windows[row as usize]) == Cover::Part).count();
        if let (1.., Some(piece)) = (padded, of_section().next()) {
            let words = format!("{padded} pictures of cells reach over the border and are padded with 0");
            ledger::note(ledger, &piece.library_id, &words);
        }
    }
}

/// Among all entries but the `n_hidden` that are not there.
fn share_of_zeros(counts: &[Csr], n_hidden: usize) -> f64 {
    let (nonzero, all) = counts.iter().fold((0, 0), |(nonzero, all), c| {
        (nonzero + c.values.iter().filter(|v| **v != 0.0).count(), all + c.n_rows() * c.n_cols)
    });
    1.0 - nonzero as f64 / (all - n_hidden).max(1) as f64
}

fn summary(sections: &[Section], pieces: &[Piece], missing_before: f64) -> Summary {
    let donors: Option<BTreeSet<&str>> = sections.iter().map(|s| s.donor_id.as_deref()).collect();
    let n_obs: usize = pieces.iter().map(Piece::n_obs).sum();
    let genes = match pieces.first() {
        Some(piece) if piece.layers.is_empty() => piece.counts.n_cols,
        Some(piece) => piece.measured.n_cols,
        None => 0,
    };
    let hidden = |p: &Piece, i: usize| match p.hidden.n_cols {
        0 => 0,
        _ => p.hidden.row(i).iter().filter(|h| **h).count(),
    };
    // genes without a value, per observation; what is hidden is not looked at
    let absent = |p: &Piece, i: usize| match p.layers.is_empty() {
        true => genes - p.counts.row(i).0.len() - hidden(p, i),
        false => p.measured.row(i).iter().filter(|m| !**m).count(),
    };
    let absent: Vec<usize> = pieces.iter().flat_map(|p| (0..p.n_obs()).map(move |i| absent(p, i))).collect();
    let missing: usize = absent.iter().sum();
    let n_hidden: usize = pieces.iter().map(|p| p.hidden.values.iter().filter(|h| **h).count()).sum();
    Summary {
        sections: sections.len() as u32,
        donors: donors.map(|d| d.len() as u32),
        observations: n_obs as u64,
        genes: genes as u32,
        missing_before,
        missing_after: missing as f64 / (n_obs * genes - n_hidden).max(1) as f64,
        corrupt: absent.iter().filter(|&&n| n > 0).count() as f64 / n_obs.max(1) as f64,
    }
}

/// Refuses sections whose tables disagree, whose names repeat or whose positions are not finite.
fn check_sections(sections: &[Section]) -> Result<(), ProcessError> {
    if sections.is_empty() {
        return Err(ProcessError::NoSections);
    }
    for (i, section) in sections.iter().enumerate() {
        let library_id = || section.library_id.clone();
        if sections[..i].iter().any(|earlier| earlier.library_id == section.library_id) {
            return Err(ProcessError::DuplicateSection { library_id: library_id() });
        }
        let n_obs = section.n_obs();
        for (what, got) in [("positions", section.xy.len()), ("rows of counts", section.counts.n_rows())] {
            if got != n_obs {
                return Err(ProcessError::Shape { library_id: library_id(), n_obs, got, what });
            }
        }
        if let Some(i) = section.xy.iter().position(|p| !(p[0].is_finite() && p[1].is_finite())) {
            let (obs_id, [x, y]) = (section.obs_ids[i].clone(), section.xy[i]);
            return Err(ProcessError::Position { library_id: library_id(), obs_id, x, y });
        }
    }
    Ok(())
}

/// The chosen genes (`at` = their place in `fractions`) with all that is known before Moran's I.
fn panel_of(
    at: &[u32],
    genes: &[Gene],
    fractions: &fractions::Fractions,
    species: Option<Species>,
    with_lengths: bool,
) -> Panel {
    let genes = std::iter::zip(at, genes).map(|(&at, gene)| PanelGene {
        id: gene.id.clone(),
        symbol: gene.symbol.clone(),
        length: species.and_then(|s| s.length_of(&gene.id)),
        exp_frac: fractions.exp_frac[at as usize],
        glob_exp_frac: fractions.glob_exp_frac[at as usize],
        moran: None,
    });
    Panel {
        species: species.map_or("unknown", Species::as_str).to_string(),
        annotation: species.filter(|_| with_lengths).map(|s| s.annotation().to_string()),
        genes: genes.collect(),
        selected: Vec::new(),
        context: Vec::new(),
        combat: None,
    }
}

fn facts(section: Section, crops: Option<Crops>) -> SectionFacts {
    SectionFacts {
        n_obs_ingested: section.n_obs() as u64,
        library_id: section.library_id,
        donor_id: section.donor_id,
        source: section.source.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        format: section.format.to_string(),
        um_per_unit: section.um_per_unit,
        image: section.image,
        crops,
    }
}

#[cfg(test)]
mod tests;
