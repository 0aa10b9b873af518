//! A section that a trained model is applied to: windows, niches and tissues by the rules of the model's shards. Nothing is
//! fitted and nothing split: the whole section is one piece.

use super::config::{FilterConfig, ProcessConfig};
use super::error::ProcessError;
use super::{crops, filter, niches};
use crate::matrix::Matrix;
use crate::processed::{Crops, Niches, Piece, Split};
use crate::section::{Csr, Section};

/// The windows of a section's cells; `None` without pictures.
///
/// # Errors
/// As [`super::process`] where the windows' rule does not fit the section.
pub fn windows(section: &Section, config: &ProcessConfig) -> Result<Option<Crops>, ProcessError> {
    crops::plan(section, config)
}

/// Rows whose window shows nothing or does not decode, ascending, with the reason.
pub fn without_picture(crops: &Crops) -> Vec<(u32, String)> {
    crops::without_picture(crops)
}

/// Rows whose total count passes the filter of cells.
pub fn rows_that_pass(counts: &Csr, config: &FilterConfig) -> Vec<u32> {
    filter::rows_between(counts, config.cell_min, config.cell_max)
}

/// The rows named as one piece with its niches and tissues. `counts`: of all rows.
///
/// # Errors
/// [`ProcessError`] where the section has no scale or no niche has cells enough.
pub fn piece(section: &Section, counts: &Csr, rows: Vec<u32>, config: &ProcessConfig) -> Result<Piece, ProcessError> {
    let piece = Piece {
        section: 0,
        library_id: section.library_id.clone(),
        donor_id: section.donor_id.clone(),
        split: Split::Test,
        obs_ids: rows.iter().map(|&row| section.obs_ids[row as usize].clone()).collect(),
        xy: rows.iter().map(|&row| section.xy[row as usize]).collect(),
        z: section.z.as_ref().map_or(Vec::new(), |z| rows.iter().map(|&row| z[row as usize]).collect()),
        um_per_unit: section.um_per_unit,
        counts: counts.select_rows(&rows),
        hidden: Matrix::default(),
        held: Csr::default(),
        measured: Matrix::default(),
        layers: Default::default(),
        covariates: Matrix::default(),
        neighbours: Matrix::default(),
        labels: Vec::new(),
        niches: Niches::default(),
        rows,
    };
    let mut pieces = [piece];
    niches::attach(&mut pieces, config)?;
    let [piece] = pieces;
    Ok(piece)
}
