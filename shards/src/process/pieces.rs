//! Cuts what the filters left into pieces and gives each its layers and neighbours: nothing here crosses a piece.

use super::config::{Layer, Neighbourhood, Normalize, ProcessConfig, SplitConfig};
use super::error::ProcessError;
use super::neighbours::{self, BASE_NEIGHBOURS, Graph};
use super::split::{self, Rule};
use super::{Kept, deltas, ledger, median, moran, tpm};
use crate::panel::{Ledger, Panel};
use crate::processed::{Matrix, Piece, Split};
use crate::section::{ObsLabels, Section};

/// `log1p` and `d_log1p` of a piece over all genes of the panel, `[n_obs, n_genes]`.
pub(super) struct WholeLayers {
    log1p: Matrix<f32>,
    d_log1p: Matrix<f32>,
}

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
        um_per_unit: section.um_per_unit,
        counts: kept.counts[at].select_rows(own),
        measured: Matrix::default(),
        layers: Default::default(),
        neighbours: Matrix::default(),
        labels: labels.collect(),
        rows,
    }
}

/// Refuses a piece that cannot fill its neighbourhoods.
pub(super) fn check_sizes(pieces: &[Piece], config: &ProcessConfig) -> Result<(), ProcessError> {
    let wanted = match config.neighbourhood {
        Neighbourhood::Knn => config.n_neighbours as usize,
        Neighbourhood::HexHops => 0,
    };
    let n_neighbours = wanted.max(BASE_NEIGHBOURS);
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

/// Normalises and completes every piece over the whole panel: Moran's I chooses among all genes.
pub(super) fn complete(pieces: &[Piece], panel: &Panel, config: &ProcessConfig) -> Vec<WholeLayers> {
    let all: Vec<u32> = (0..panel.genes.len() as u32).collect();
    let lengths: Vec<f64> = panel.genes.iter().filter_map(|gene| gene.length).collect();
    pieces
        .iter()
        .map(|piece| {
            let log1p = match config.normalize {
                Normalize::Tpm => tpm::tpm_log2(&piece.counts, &lengths, &all),
                Normalize::Cp10k => tpm::cp10k_log2(&piece.counts, &all),
            };
            let hops = neighbours::completion_hops(&piece.xy, config.hops as usize, config.completion_graph);
            let d_log1p = median::complete(&log1p, &hops);
            WholeLayers { log1p, d_log1p }
        })
        .collect()
}

/// Moran's I of every gene on `d_log1p`, mean over pieces; own six nearest, no edge crosses a cut.
pub(super) fn moran_scores(pieces: &[Piece], layers: &[WholeLayers]) -> Vec<Option<f64>> {
    let of_pieces: Vec<_> = std::iter::zip(pieces, layers)
        .map(|(piece, layers)| {
            let own = Graph::from_knn(&neighbours::knn(&piece.xy, BASE_NEIGHBOURS));
            moran::per_gene(&layers.d_log1p, &own)
        })
        .collect();
    moran::mean_over_pieces(&of_pieces)
}

/// Cuts the layers to the selected genes and adds what the configuration asks for, `measured` and the neighbours.
pub(super) fn attach(pieces: &mut [Piece], whole: Vec<WholeLayers>, selected: &[u32], config: &ProcessConfig) {
    let layers: Vec<WholeLayers> = whole
        .into_iter()
        .map(|layer| WholeLayers {
            log1p: select_columns(&layer.log1p, selected),
            d_log1p: select_columns(&layer.d_log1p, selected),
        })
        .collect();
    let train_means = |of: fn(&WholeLayers) -> &Matrix<f32>| {
        let train = std::iter::zip(pieces.iter(), &layers).filter(|(piece, _)| piece.split == Split::Train);
        deltas::train_means(&train.map(|(_, layers)| of(layers)).collect::<Vec<_>>())
    };
    let (log1p_means, d_log1p_means) = (train_means(|l| &l.log1p), train_means(|l| &l.d_log1p));
    for (piece, own) in pieces.iter_mut().zip(layers) {
        let n = config.n_neighbours as usize;
        piece.neighbours = match config.neighbourhood {
            Neighbourhood::Knn => neighbours::knn(&piece.xy, n),
            Neighbourhood::HexHops => neighbours::hex_hops(&piece.xy, n),
        };
        piece.measured =
            Matrix { n_cols: selected.len(), values: own.log1p.values.iter().map(|&v| v != 0.0).collect() };
        for &layer in &config.layers {
            let values = match layer {
                Layer::Log1p => own.log1p.clone(),
                Layer::DLog1p => own.d_log1p.clone(),
                Layer::Deltas => deltas::subtract(&own.log1p, &log1p_means),
                Layer::DDeltas => deltas::subtract(&own.d_log1p, &d_log1p_means),
            };
            piece.layers.insert(layer.as_str().to_string(), values);
        }
    }
}

fn select_columns(x: &Matrix<f32>, columns: &[u32]) -> Matrix<f32> {
    let rows = (0..x.n_rows()).flat_map(|i| columns.iter().map(move |&c| x.row(i)[c as usize]));
    Matrix { n_cols: columns.len(), values: rows.collect() }
}
