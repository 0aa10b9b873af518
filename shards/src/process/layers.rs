//! The layers of every piece: normalised, completed, batch-corrected, less the training mean (`spared.md` §3–§7).
//!
//! Nothing but the batch correction and the training mean crosses a piece.

use super::combat::{self, Combat};
use super::config::{CombatKey, Layer, NearestGraph, Normalize, ProcessConfig};
use super::error::ProcessError;
use super::neighbours;
use super::{deltas, ledger, median, moran, tpm};
use crate::panel::{Ledger, Panel, PanelCombat};
use crate::processed::{Matrix, Piece, Split};

/// `log1p` and `d_log1p` of a piece over all genes of the panel, `[n_obs, n_genes]`.
pub(super) struct WholeLayers {
    log1p: Matrix<f32>,
    pub(super) d_log1p: Matrix<f32>,
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

/// Moran's I of every gene on `d_log1p`, mean over pieces; no edge crosses a cut.
pub(super) fn moran_scores(pieces: &[Piece], layers: &[WholeLayers], graph: NearestGraph) -> Vec<Option<f64>> {
    let of_pieces: Vec<_> = std::iter::zip(pieces, layers)
        .map(|(piece, layers)| moran::per_gene(&layers.d_log1p, &neighbours::nearest_graph(&piece.xy, graph)))
        .collect();
    moran::mean_over_pieces(&of_pieces)
}

/// Cuts the layers to the selected genes and adds what the configuration asks for and `measured`; gives the
/// batch correction, where there is one.
pub(super) fn attach(
    pieces: &mut [Piece],
    whole: Vec<WholeLayers>,
    selected: &[u32],
    config: &ProcessConfig,
    ledger: &mut Ledger,
) -> Result<Option<PanelCombat>, ProcessError> {
    let log1p: Vec<_> = whole.iter().map(|layers| select_columns(&layers.log1p, selected)).collect();
    let d_log1p: Vec<_> = whole.iter().map(|layers| select_columns(&layers.d_log1p, selected)).collect();
    let correction = Correction::estimate(pieces, &log1p, &d_log1p, config, ledger)?;
    for &layer in &config.layers {
        let values = match layer {
            Layer::Log1p => log1p.clone(),
            Layer::DLog1p => d_log1p.clone(),
            Layer::CLog1p => correction.apply(&log1p, |c| &c.log1p),
            Layer::CDLog1p => correction.apply(&d_log1p, |c| &c.d_log1p),
            Layer::Deltas => less_training_mean(pieces, log1p.clone()),
            Layer::DDeltas => less_training_mean(pieces, d_log1p.clone()),
            Layer::CDeltas => less_training_mean(pieces, correction.apply(&log1p, |c| &c.log1p)),
            Layer::CDDeltas => less_training_mean(pieces, correction.apply(&d_log1p, |c| &c.d_log1p)),
        };
        for (piece, values) in pieces.iter_mut().zip(values) {
            piece.layers.insert(layer.as_str().to_string(), values);
        }
    }
    for (piece, log1p) in pieces.iter_mut().zip(&log1p) {
        piece.measured = Matrix { n_cols: selected.len(), values: log1p.values.iter().map(|&v| v != 0.0).collect() };
    }
    Ok(correction.0.map(|(panel, _)| panel))
}

fn less_training_mean(pieces: &[Piece], values: Vec<Matrix<f32>>) -> Vec<Matrix<f32>> {
    let train = std::iter::zip(pieces, &values).filter(|(piece, _)| piece.split == Split::Train);
    let means = deltas::column_means(&train.map(|(_, values)| values).collect::<Vec<_>>());
    values.iter().map(|values| deltas::subtract(values, &means)).collect()
}

/// ComBat over all pieces and the batch of each; `None` where none is asked for, or where there is one batch only.
struct Correction(Option<(PanelCombat, Vec<usize>)>);

impl Correction {
    fn estimate(
        pieces: &[Piece],
        log1p: &[Matrix<f32>],
        d_log1p: &[Matrix<f32>],
        config: &ProcessConfig,
        ledger: &mut Ledger,
    ) -> Result<Correction, ProcessError> {
        if config.combat == Combat::None {
            return Ok(Correction(None));
        }
        let mut batches: Vec<String> = Vec::new();
        let mut batch_of = Vec::new();
        for piece in pieces {
            let name = batch_name(&piece.library_id, piece.donor_id.as_deref(), config.combat_key)?;
            batch_of.push(batches.iter().position(|b| b == name).unwrap_or(batches.len()));
            if batch_of.last() == Some(&batches.len()) {
                batches.push(name.to_string());
            }
        }
        let estimate =
            |layers: &[Matrix<f32>]| combat::estimate(&layers.iter().collect::<Vec<_>>(), &batch_of, config.combat);
        let (Some(log1p), Some(d_log1p)) = (estimate(log1p), estimate(d_log1p)) else {
            let words = format!("ComBat: one batch ({}), so c_ layers equal the others", batches.join(", "));
            ledger::note(ledger, &pieces[0].library_id, &words);
            return Ok(Correction(None));
        };
        Ok(Correction(Some((PanelCombat { batches, log1p, d_log1p }, batch_of))))
    }

    fn apply(&self, layers: &[Matrix<f32>], of: fn(&PanelCombat) -> &combat::CombatParameters) -> Vec<Matrix<f32>> {
        match &self.0 {
            None => layers.to_vec(),
            Some((panel, batch_of)) => {
                layers.iter().zip(batch_of).map(|(layer, &batch)| combat::apply(of(panel), layer, batch)).collect()
            }
        }
    }
}

/// The batch an observation of this section belongs to.
pub fn batch_name<'a>(library_id: &'a str, donor_id: Option<&'a str>, key: CombatKey) -> Result<&'a str, ProcessError> {
    match key {
        CombatKey::Section => Ok(library_id),
        CombatKey::Donor => donor_id
            .ok_or_else(|| ProcessError::NoDonor { key: "process.combat_key", library_id: library_id.to_string() }),
    }
}

fn select_columns(x: &Matrix<f32>, columns: &[u32]) -> Matrix<f32> {
    let rows = (0..x.n_rows()).flat_map(|i| columns.iter().map(move |&c| x.row(i)[c as usize]));
    Matrix { n_cols: columns.len(), values: rows.collect() }
}
