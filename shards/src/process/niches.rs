//! Niches and tissues of a piece: squares of a grid, or each cell with its nearest (`spatia.md` §1.1, §5).
//!
//! Nothing crosses a piece, so no niche mixes splits. Squares lie on one grid per section, from its origin of coordinates,
//! whatever was filtered; a niche's square lies in one tissue's. Ids are section ordinal ≪ 32 | number: of the square in
//! stored order, or of the central cell's row.

use std::collections::BTreeMap;

use super::config::{NicheKind, ProcessConfig};
use super::error::ProcessError;
use crate::layout::hilbert_order;
use crate::nearest::knn;
use crate::processed::{NO_NEIGHBOUR, Niche, Niches, Piece, Tissue};

/// Fills `Piece::niches` of all pieces.
///
/// # Errors
/// [`ProcessError::Config`] where a section has no scale; [`ProcessError::NothingLeft`] where no niche has cells enough.
pub(super) fn attach(pieces: &mut [Piece], config: &ProcessConfig) -> Result<(), ProcessError> {
    if config.niches == NicheKind::None {
        return Ok(());
    }
    let mut next = BTreeMap::new(); // of a section: numbers of its next niche and tissue
    for piece in pieces.iter_mut() {
        let Some(um) = piece.um_per_unit else {
            let name = &piece.library_id;
            let problem = format!("section `{name}` has no scale, niches are measured in µm: set input.um_per_unit");
            return Err(ProcessError::Config { key: "process.niches", problem });
        };
        let xy_um: Vec<[f64; 2]> = piece.xy.iter().map(|p| p.map(|v| v * um)).collect();
        let numbers = next.entry(piece.section).or_insert([0, 0]);
        piece.niches = match config.niches {
            NicheKind::Grid => grid(piece, &xy_um, config, numbers),
            _ => nearest(piece, &xy_um, config, numbers),
        };
    }
    if pieces.iter().all(|piece| piece.niches.niches.is_empty()) {
        let rule = format!("process.niche_min_cells = {}", config.niche_min_cells);
        let before = pieces.iter().map(|piece| piece.niches.units.len()).sum();
        return Err(ProcessError::NothingLeft { what: "niche", rule, before });
    }
    Ok(())
}

type Square = [i64; 2];

fn square([x, y]: [f64; 2], side: f64) -> Square {
    [(x / side).floor() as i64, (y / side).floor() as i64]
}

fn centre(square: Square, side: f64) -> [f64; 2] {
    square.map(|k| (k as f64 + 0.5) * side)
}

fn grid(piece: &Piece, xy_um: &[[f64; 2]], config: &ProcessConfig, next: &mut [u64; 2]) -> Niches {
    let ratio = (config.tissue_um / config.niche_um).round() as i64;
    // a tissue's square holds whole squares of niches, so it is counted in them
    let mut by_tissue: BTreeMap<Square, BTreeMap<Square, Vec<u32>>> = BTreeMap::new();
    for (i, &place) in (0u32..).zip(xy_um) {
        let niche = square(place, config.niche_um);
        let tissue = niche.map(|k| k.div_euclid(ratio));
        by_tissue.entry(tissue).or_default().entry(niche).or_default().push(i);
    }
    let mut out = Niches { niche_of: vec![None; piece.n_obs()], ..Niches::default() };
    for (tissue, squares) in along_curve(by_tissue, config.tissue_um) {
        let tissue_id = id(piece.section, next[1]);
        let mut of_tissue = Vec::new();
        for (square, cells) in along_curve(squares, config.niche_um) {
            if cells.len() >= config.niche_min_cells as usize {
                let niche_id = id(piece.section, next[0]);
                next[0] += 1;
                let centre_um = centre(square, config.niche_um);
                cells.iter().for_each(|&i| out.niche_of[i as usize] = Some(niche_id));
                out.niches.push(Niche {
                    niche_id,
                    tissue_id,
                    centre_um,
                    members: nearest_first(&cells, xy_um, centre_um),
                });
                of_tissue.push(niche_id);
            }
            out.units.push(cells);
        }
        push_tissue(&mut out, tissue_id, centre(tissue, config.tissue_um), of_tissue, next);
    }
    out
}

/// Squares of a grid in the order in which the row groups store them.
fn along_curve<T>(mut squares: BTreeMap<Square, T>, side: f64) -> Vec<(Square, T)> {
    let keys: Vec<Square> = squares.keys().copied().collect();
    let centres: Vec<[f64; 2]> = keys.iter().map(|&key| centre(key, side)).collect();
    let take = |i: u32| {
        let key = keys[i as usize];
        (key, squares.remove(&key).expect("each key once"))
    };
    hilbert_order(&centres).into_iter().map(take).collect()
}

fn nearest(piece: &Piece, xy_um: &[[f64; 2]], config: &ProcessConfig, next: &mut [u64; 2]) -> Niches {
    let around = knn(&piece.xy, config.niche_cells as usize - 1);
    let mut by_tissue: BTreeMap<Square, Vec<u32>> = BTreeMap::new();
    for (i, &place) in (0u32..).zip(xy_um) {
        by_tissue.entry(square(place, config.tissue_um)).or_default().push(i);
    }
    let mut out = Niches { niche_of: vec![None; piece.n_obs()], ..Niches::default() };
    for (tissue, cells) in along_curve(by_tissue, config.tissue_um) {
        let tissue_id = id(piece.section, next[1]);
        let mut of_tissue = Vec::new();
        for i in cells {
            let others = if around.n_cols > 0 { around.row(i as usize) } else { &[] };
            let members: Vec<u32> =
                std::iter::once(i).chain(others.iter().copied().filter(|&j| j != NO_NEIGHBOUR)).collect();
            if members.len() >= config.niche_min_cells as usize {
                let niche_id = piece.record_id(i as usize);
                out.niche_of[i as usize] = Some(niche_id);
                out.niches.push(Niche { niche_id, tissue_id, centre_um: xy_um[i as usize], members });
                of_tissue.push(niche_id);
            }
        }
        push_tissue(&mut out, tissue_id, centre(tissue, config.tissue_um), of_tissue, next);
    }
    out
}

fn push_tissue(out: &mut Niches, tissue_id: u64, centre_um: [f64; 2], niches: Vec<u64>, next: &mut [u64; 2]) {
    if !niches.is_empty() {
        next[1] += 1;
        out.tissues.push(Tissue { tissue_id, centre_um, niches });
    }
}

fn id(section: u32, number: u64) -> u64 {
    (u64::from(section) << 32) | number
}

fn nearest_first(cells: &[u32], xy_um: &[[f64; 2]], centre: [f64; 2]) -> Vec<u32> {
    let squared = |i: u32| {
        let [x, y] = xy_um[i as usize];
        (x - centre[0]).powi(2) + (y - centre[1]).powi(2)
    };
    let mut members = cells.to_vec();
    members.sort_by(|&a, &b| squared(a).total_cmp(&squared(b)).then(a.cmp(&b)));
    members
}
