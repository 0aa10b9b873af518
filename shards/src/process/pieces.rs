//! Cuts what the filters left into pieces.

use super::config::{Neighbourhood, ProcessConfig, SplitConfig};
use super::error::ProcessError;
use super::neighbours::BASE_NEIGHBOURS;
use super::split::{self, Rule};
use super::{Kept, ledger};
use crate::panel::Ledger;
use crate::processed::{Matrix, Niches, Piece, Split};
use crate::section::{Csr, ObsLabels, Section};

/// Pieces ordered by (section, split), without layers and neighbours; guard bands go to the ledger.
pub(super) fn cut(
    sections: &[Section],
    kept: &Kept,
    rule: &Rule,
    config: &SplitConfig,
    ledger: &mut Ledger,
) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (at, section) in sections.iter().enumerate() {
        let rows = &kept.rows[at];
        let splits = match rule {
            Rule::Whole(of_sections) => vec![Some(of_sections[at]); rows.len()],
            Rule::Blocks => {
                let xy: Vec<[f64; 2]> = rows.iter().map(|&row| section.xy[row as usize]).collect();
                split::blocks(&xy, config.cuts, config.guard_hops as usize)
            }
        };
        let guard = rows.iter().zip(&splits).filter(|(_, split)| split.is_none());
        let names = guard.map(|(&row, _)| section.obs_ids[row as usize].clone()).collect();
        let reason = format!("guard band: within {} hops of a smaller block", config.guard_hops);
        ledger::record(ledger, "obs", Some(&section.library_id), reason, names);
        for split in [Split::Train, Split::Val, Split::Test] {
            let own: Vec<u32> = (0..rows.len() as u32).filter(|&i| splits[i as usize] == Some(split)).collect();
            if !own.is_empty() {
                pieces.push(piece(at, section, kept, split, &own));
            }
        }
    }
    pieces
}

/// `own` are positions among the kept rows of the section.
fn piece(at: usize, section: &Section, kept: &Kept, split: Split, own: &[u32]) -> Piece {
    let rows: Vec<u32> = own.iter().map(|&i| kept.rows[at][i as usize]).collect();
    let labels = section.labels.iter().map(|column| ObsLabels {
        name: column.name.clone(),
        values: rows.iter().map(|&row| column.values.get(row as usize).cloned().flatten()).collect(),
    });
    Piece {
        section: at as u32,
        library_id: section.library_id.clone(),
        donor_id: section.donor_id.clone(),
        split,
        obs_ids: rows.iter().map(|&row| section.obs_ids[row as usize].clone()).collect(),
        xy: rows.iter().map(|&row| section.xy[row as usize]).collect(),
        z: section.z.as_ref().map_or(Vec::new(), |z| rows.iter().map(|&row| z[row as usize]).collect()),
        um_per_unit: section.um_per_unit,
        counts: kept.counts[at].select_rows(own),
        hidden: Matrix::default(),
        held: Csr::default(),
        measured: Matrix::default(),
        layers: Default::default(),
        covariates: Matrix::default(),
        neighbours: Matrix::default(),
        labels: labels.collect(),
        niches: Niches::default(),
        rows,
    }
}

/// Refuses a piece that cannot fill its neighbourhoods.
pub(super) fn check_sizes(pieces: &[Piece], config: &ProcessConfig) -> Result<(), ProcessError> {
    let wanted = match config.neighbourhood {
        Neighbourhood::Knn => config.n_neighbours as usize,
        Neighbourhood::HexHops => 0,
    };
    let base = if config.layers.is_empty() { 0 } else { BASE_NEIGHBOURS }; // of completion and Moran's I
    let n_neighbours = wanted.max(base);
    match pieces.iter().find(|piece| piece.n_obs() <= n_neighbours) {
        None => Ok(()),
        Some(piece) => Err(ProcessError::TooFewObs {
            library_id: piece.library_id.clone(),
            split: piece.split.as_str(),
            n_obs: piece.n_obs(),
            needed: n_neighbours + 1,
            n_neighbours,
        }),
    }
}
