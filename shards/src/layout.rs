//! Where each record goes: pieces are cut into spatially compact row groups, row groups are dealt into files.
//!
//! Pure functions. A row group holds own records of one piece, ascending by record id, then its halo: the records of
//! the piece that they name as neighbours and that are not among them, ascending (`step.md` §2). A niche of a grid lies in
//! one row group.

use std::collections::BTreeSet;

use crate::error::StoreError;
use crate::processed::{NO_NEIGHBOUR, Piece, Processed, Split};
use crate::schema::RecordShape;

/// One file to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePlan {
    /// `train-00000.parquet`.
    pub name: String,
    /// Its row groups.
    pub groups: Vec<GroupPlan>,
}

/// One row group to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPlan {
    /// Position in `Processed::pieces`.
    pub piece: usize,
    /// Own records: positions in the piece, ascending.
    pub own: Vec<u32>,
    /// Halo records: positions in the piece, ascending.
    pub halo: Vec<u32>,
}

/// Deals all records into files; empty pieces give none.
pub fn plan(processed: &Processed, row_group_records: usize, row_groups_per_file: usize) -> Vec<FilePlan> {
    assert!(row_group_records > 0 && row_groups_per_file > 0, "checked by the writer");
    let mut files = Vec::new();
    for split in [Split::Train, Split::Val, Split::Test] {
        let mut pieces: Vec<usize> =
            (0..processed.pieces.len()).filter(|&i| processed.pieces[i].split == split).collect();
        pieces.sort_by_key(|&i| processed.pieces[i].section);
        let groups: Vec<GroupPlan> =
            pieces.iter().flat_map(|&i| row_groups(i, &processed.pieces[i], row_group_records)).collect();
        for (k, chunk) in groups.chunks(row_groups_per_file).enumerate() {
            files.push(FilePlan { name: format!("{}-{k:05}.parquet", split.as_str()), groups: chunk.to_vec() });
        }
    }
    files
}

/// Cuts a piece along a Hilbert curve into row groups of at most `at_most` own records.
fn row_groups(piece_index: usize, piece: &Piece, at_most: usize) -> Vec<GroupPlan> {
    let groups = if piece.niches.units.is_empty() { equal(piece, at_most) } else { whole_units(piece, at_most) };
    groups
        .into_iter()
        .map(|mut own| {
            own.sort_unstable();
            let mut halo: Vec<u32> = own
                .iter()
                .flat_map(|&i| piece.neighbours.row(i as usize))
                .copied()
                .filter(|&n| n != NO_NEIGHBOUR && own.binary_search(&n).is_err())
                .collect();
            halo.sort_unstable();
            halo.dedup();
            GroupPlan { piece: piece_index, own, halo }
        })
        .collect()
}

/// The fewest row groups, equal to within one.
fn equal(piece: &Piece, at_most: usize) -> Vec<Vec<u32>> {
    let along = hilbert_order(&piece.xy);
    let n_groups = along.len().div_ceil(at_most);
    (0..n_groups).map(|k| along[k * along.len() / n_groups..(k + 1) * along.len() / n_groups].to_vec()).collect()
}

/// Row groups filled with whole niches, in their order; a niche beyond `at_most` has one of its own.
fn whole_units(piece: &Piece, at_most: usize) -> Vec<Vec<u32>> {
    let mut groups: Vec<Vec<u32>> = Vec::new();
    for unit in &piece.niches.units {
        match groups.last_mut() {
            Some(group) if group.len() + unit.len() <= at_most => group.extend(unit),
            _ => groups.push(unit.clone()),
        }
    }
    groups
}

/// Positions ordered along a Hilbert curve over the bounding square; ties by position.
pub(crate) fn hilbert_order(xy: &[[f64; 2]]) -> Vec<u32> {
    let mut low = [f64::INFINITY; 2];
    let mut high = [f64::NEG_INFINITY; 2];
    for p in xy {
        for a in 0..2 {
            low[a] = low[a].min(p[a]);
            high[a] = high[a].max(p[a]);
        }
    }
    let side = (high[0] - low[0]).max(high[1] - low[1]);
    let cell = |v: f64, low: f64| if side > 0.0 { ((v - low) / side * 65535.0) as u32 } else { 0 };
    let mut keyed: Vec<(u64, u32)> =
        xy.iter().zip(0u32..).map(|(p, i)| (hilbert_index(cell(p[0], low[0]), cell(p[1], low[1])), i)).collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, i)| i).collect()
}

/// Distance of cell (x, y) along the Hilbert curve of order 16: quadrant by quadrant, each turned as the curve enters it.
fn hilbert_index(mut x: u32, mut y: u32) -> u64 {
    let mut distance = 0u64;
    for bit in (0..16).rev() {
        let (right, upper) = ((x >> bit) & 1, (y >> bit) & 1);
        distance = (distance << 2) | u64::from((3 * right) ^ upper);
        let mask = (1u32 << bit) - 1;
        (x, y) = (x & mask, y & mask);
        if upper == 0 {
            if right == 1 {
                (x, y) = (mask - x, mask - y);
            }
            (x, y) = (y, x);
        }
    }
    distance
}

/// Checks that what processing hands over holds together, and says what its records look like.
///
/// # Errors
/// [`StoreError::Inconsistent`] names the piece; [`StoreError::Empty`] if there is no record at all.
pub fn shape_of(processed: &Processed) -> Result<RecordShape, StoreError> {
    let Some(first) = processed.pieces.iter().find(|p| p.n_obs() > 0) else { return Err(StoreError::Empty) };
    let mut labels: Vec<String> =
        processed.pieces.iter().flat_map(|p| p.labels.iter().map(|l| l.name.clone())).collect();
    labels.sort();
    labels.dedup();
    let shape = RecordShape {
        n_selected: processed.panel.n_selected(),
        n_neighbours: first.neighbours.n_cols,
        n_covariates: processed.covariates.len(),
        layers: first.layers.keys().cloned().collect(),
        labels,
        niches: processed.pieces.iter().any(|p| !p.niches.niche_of.is_empty()),
        images: processed.sections.iter().any(|s| s.crops.is_some()),
        z: processed.pieces.iter().any(|p| !p.z.is_empty()),
        n_hidden: first.hidden.n_cols,
    };
    for piece in &processed.pieces {
        check_piece(piece, processed, &shape).map_err(|what| StoreError::Inconsistent {
            library_id: piece.library_id.clone(),
            split: piece.split.as_str(),
            what,
        })?;
    }
    let mut ids: Vec<u64> = processed.pieces.iter().flat_map(|p| (0..p.n_obs()).map(|i| p.record_id(i))).collect();
    ids.sort_unstable();
    if let Some(pair) = ids.windows(2).find(|w| w[0] == w[1]) {
        let section = (pair[0] >> 32) as usize;
        return Err(StoreError::Inconsistent {
            library_id: processed.sections[section].library_id.clone(),
            split: "any",
            what: format!("row {} is in two splits", pair[0] as u32),
        });
    }
    Ok(shape)
}

fn check_piece(piece: &Piece, processed: &Processed, shape: &RecordShape) -> Result<(), String> {
    let n = piece.n_obs();
    let g = shape.n_selected;
    let n_genes = processed.panel.genes.len();
    if piece.section as usize >= processed.sections.len() {
        return Err(format!("section ordinal {} of {} sections", piece.section, processed.sections.len()));
    }
    if (g == 0) != shape.layers.is_empty() {
        return Err(format!("{g} selected genes in the layers {:?}", shape.layers));
    }
    let facts = &processed.sections[piece.section as usize];
    if shape.images != facts.crops.is_some() {
        return Err("other sections have pictures of cells, or this one alone".to_owned());
    }
    let last = piece.rows.last().map_or(0, |&row| row as usize + 1);
    if facts.crops.as_ref().is_some_and(|crops| crops.windows.len() < last) {
        return Err(format!("fewer windows of pictures than the {last} rows"));
    }
    if n == 0 {
        return Ok(());
    }
    let z = if piece.z.is_empty() { 0 } else { n };
    let held = if shape.n_hidden > 0 { n } else { 0 };
    let lengths = [
        ("third coordinates", piece.z.len(), z),
        ("hidden bits", piece.hidden.values.len(), n * shape.n_hidden),
        ("rows of hidden counts", piece.held.n_rows(), held),
        ("names", piece.obs_ids.len(), n),
        ("coordinates", piece.xy.len(), n),
        ("rows of counts", piece.counts.n_rows(), n),
        ("genes in counts", piece.counts.n_cols, n_genes),
        ("measured entries", piece.measured.values.len(), n * g),
        ("genes in measured", piece.measured.n_cols, g),
        ("covariate values", piece.covariates.values.len(), n * shape.n_covariates),
        ("covariates per record", piece.covariates.n_cols, shape.n_covariates),
        ("neighbour entries", piece.neighbours.values.len(), n * shape.n_neighbours),
        ("neighbours per record", piece.neighbours.n_cols, shape.n_neighbours),
    ];
    for (what, found, expected) in lengths {
        if found != expected {
            return Err(format!("{found} {what}, {expected} expected"));
        }
    }
    let niche_of = piece.niches.niche_of.len();
    if niche_of != if shape.niches { n } else { 0 } {
        return Err(format!("niches of {niche_of} observations, {n} expected"));
    }
    let mut in_units: Vec<u32> = piece.niches.units.concat();
    in_units.sort_unstable();
    if !in_units.is_empty() && !in_units.into_iter().eq(0..n as u32) {
        return Err("niches' squares do not hold every observation once".to_owned());
    }
    if piece.niches.niches.iter().flat_map(|niche| &niche.members).any(|&i| i as usize >= n) {
        return Err("a niche has a member that is no observation".to_owned());
    }
    let ids: BTreeSet<u64> = piece.niches.niches.iter().map(|niche| niche.niche_id).collect();
    if let Some(id) = piece.niches.tissues.iter().flat_map(|t| &t.niches).find(|&id| !ids.contains(id)) {
        return Err(format!("a tissue names niche {id}, which is not of the piece"));
    }
    if piece.rows.windows(2).any(|w| w[0] >= w[1]) {
        return Err("rows do not ascend".to_owned());
    }
    if let Some(i) = piece.xy.iter().position(|p| !p[0].is_finite() || !p[1].is_finite()) {
        return Err(format!("observation {:?} has no finite place", piece.obs_ids[i]));
    }
    if let Some(bad) = piece.neighbours.values.iter().find(|&&v| v != NO_NEIGHBOUR && v as usize >= n) {
        return Err(format!("neighbour {bad} of {n} observations"));
    }
    let gap = |i: &usize| piece.neighbours.row(*i).windows(2).any(|w| w[0] == NO_NEIGHBOUR && w[1] != NO_NEIGHBOUR);
    if let Some(i) = (0..n).find(gap) {
        return Err(format!("observation {:?} has a neighbour after padding", piece.obs_ids[i]));
    }
    for i in 0..n {
        let (genes, counts) = piece.counts.row(i);
        let ascends = genes.windows(2).all(|w| w[0] < w[1]) && genes.last().is_none_or(|&l| (l as usize) < n_genes);
        if !ascends || counts.iter().any(|c| !c.is_finite()) {
            return Err(format!("counts of observation {:?} are out of order or not finite", piece.obs_ids[i]));
        }
    }
    if shape.n_hidden > 0 {
        let hidden = |i: usize, gene: &u32| piece.hidden.row(i)[*gene as usize];
        let wrong = |&i: &usize| {
            piece.counts.row(i).0.iter().any(|gene| hidden(i, gene))
                || !piece.held.row(i).0.iter().all(|gene| hidden(i, gene))
        };
        if let Some(i) = (0..n).find(wrong) {
            return Err(format!("observation {:?} shows what is hidden, or hides what is not", piece.obs_ids[i]));
        }
    }
    let names: Vec<&String> = piece.layers.keys().collect();
    if !names.iter().copied().eq(shape.layers.iter()) {
        return Err(format!("layers {names:?}, other pieces have {:?}", shape.layers));
    }
    for (name, layer) in &piece.layers {
        if layer.n_cols != g || layer.values.len() != n * g {
            return Err(format!("layer {name} has {} values of {g} genes × {n} observations", layer.values.len()));
        }
        if let Some(at) = layer.values.iter().position(|v| !v.is_finite()) {
            return Err(format!("layer {name} of observation {:?} is not finite", piece.obs_ids[at / g]));
        }
    }
    if let Some(at) = piece.covariates.values.iter().position(|v| !v.is_finite()) {
        let name = &piece.obs_ids[at / shape.n_covariates];
        return Err(format!("a covariate of observation {name:?} is not finite"));
    }
    match piece.labels.iter().find(|l| l.values.len() != n) {
        Some(label) => Err(format!("label {:?} has {} values for {n} observations", label.name, label.values.len())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_visits_every_cell_by_single_steps() {
        // the order-16 curve restricted to its first 4^5 cells is the order-5 curve (up to a turn)
        let mut cells: Vec<(u64, u32, u32)> =
            (0..32).flat_map(|x| (0..32).map(move |y| (hilbert_index(x, y), x, y))).collect();
        cells.sort_unstable();
        for (i, w) in cells.windows(2).enumerate() {
            assert_eq!(w[0].0, i as u64, "no gap before the last cell");
            assert_eq!(w[0].1.abs_diff(w[1].1) + w[0].2.abs_diff(w[1].2), 1, "{:?} → {:?}", w[0], w[1]);
        }
    }
}
