//! Spots beside the cells of a reference: which cells speak of which spot, and both as SpotDiff's tasks read them
//! (`spotdiff.md` §3, §5). Everything is made of what a [`View`] shows, so no hidden value is in it.
//!
//! Pairs are folders of vectors, made once for a stage ([`write`]) and read by it ([`paired`]): `PAIRS/spots` has the mean of the
//! cells nearest to each spot; `PAIRS/cells` and `PAIRS/others`, where the stage learns from cells as well, the cells themselves and
//! the mean of the others nearest to each.

use std::path::Path;
use std::sync::Arc;

use syncytia_shards::holdout::Transform;
use syncytia_shards::manifest::Manifest;
use syncytia_shards::matrix::Matrix;
use syncytia_shards::process::pairing::{Seen, nearest_cells, nearest_other_cells};
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::vectors::{Vectors, VectorsFacts, VectorsOf, VectorsWriter};
use syncytia_shards::visible::{Scale, ScaleKind, View, Visible};

use super::config::{TrainConfig, ViewConfig};
use super::error::TrainError;
use crate::model::Model;
use crate::task::alignment;
use crate::task::paired::{Paired, Side};
use crate::tensor::cpu;

/// The folders of pairs, and what is in them.
const FOLDERS: [(&str, VectorsOf); 3] =
    [("spots", VectorsOf::Pair), ("cells", VectorsOf::Moved), ("others", VectorsOf::MovedPair)];

/// Who made pairs of cells that no network moved.
const AS_THEY_ARE: &str = "cells as they are";

/// The folders of vectors in a folder of pairs.
pub fn folders(pairs: &Path) -> Vec<std::path::PathBuf> {
    FOLDERS.iter().map(|(name, _)| pairs.join(name)).filter(|dir| dir.exists()).collect()
}

/// Whether a task of this config reads cells of a reference.
pub fn reads_cells(config: &TrainConfig, manifest: &Manifest) -> bool {
    let has = manifest.holdout.as_ref().is_some_and(|holdout| holdout.reference.is_some());
    has && (config.task.kind() == "alignment" || config.model.reads_reference() || hides_genes(config))
}

fn hides_genes(config: &TrainConfig) -> bool {
    config.view().fold.is_some()
}

/// Whose vectors it reads.
pub fn reads(config: &TrainConfig, manifest: &Manifest) -> Vec<VectorsOf> {
    match (reads_cells(config, manifest), config.task.kind() != "alignment" && hides_genes(config)) {
        (false, _) => Vec::new(),
        (true, false) => vec![VectorsOf::Pair],
        (true, true) => FOLDERS.iter().map(|folder| folder.1).collect(),
    }
}

/// What a folder of pairs says of who made it: the network that moved the cells, `None` where none did, and the view.
pub fn producer(network: Option<&str>, view: &ViewConfig) -> String {
    format!("{}; {view}", network.unwrap_or(AS_THEY_ARE))
}

/// The network that moved the cells of a producer's pairs.
pub fn network(producer: &str) -> Option<&str> {
    let (network, _) = producer.split_once("; ")?;
    (network != AS_THEY_ARE).then_some(network)
}

/// What keeps pairs from this config, in words: another view.
pub fn other_view(facts: &VectorsFacts, view: &ViewConfig) -> Option<String> {
    let (_, theirs) = facts.producer.split_once("; ")?;
    (theirs != view.to_string()).then(|| format!("was made for {theirs}, the config's data.view is {view}"))
}

/// Writes the pairs that a stage of this config reads into the folder `out`; what is there whole already is kept. `omega`: the
/// network that moves the cells and the digest of its checkpoint, from the second stage on.
///
/// # Errors
/// [`TrainError::Data`]: no reference, fewer cells than are asked for; as [`View::open`]; the system's errors.
pub fn write(
    shards: &Shards,
    config: &TrainConfig,
    omega: Option<(&Model, &str)>,
    out: &Path,
) -> Result<(), TrainError> {
    let view = config.view();
    let (producer, hash) = (producer(omega.map(|omega| omega.1), &view), shards.manifest().data_hash());
    let wanted: Vec<(&str, VectorsOf)> = {
        let reads = reads(config, shards.manifest());
        FOLDERS.iter().copied().filter(|(_, of)| reads.contains(of)).collect()
    };
    let there = |(name, _): &(&str, VectorsOf)| {
        VectorsFacts::read(&out.join(name)).is_ok_and(|facts| facts.producer == producer && facts.data_hash == hash)
    };
    if wanted.iter().all(there) {
        return Ok(());
    }
    let seen = View::open(shards, view.fold, view.scale)?;
    let cells = seen.reference()?.ok_or_else(|| TrainError::Data(no_reference(config)))?;
    let values = balanced(view.scale, cells.values);
    let moved = match omega {
        Some((Model::Spotdiff(model), _)) => alignment::moved(&model.omega, &values, &cpu()),
        Some(_) => unreachable!("only SpotDiff moves cells"),
        None => values,
    };
    let too_few = |error: syncytia_shards::process::pairing::PairingError| {
        TrainError::Data(format!("data.view.nearest_cells = {}: {error}", view.nearest_cells))
    };
    for (name, of) in wanted {
        let dir = out.join(name);
        if dir.exists() {
            let failed =
                |source| TrainError::Storage { what: "cannot remove", path: dir.display().to_string(), source };
            std::fs::remove_dir_all(&dir).map_err(failed)?;
        }
        let mut writer = VectorsWriter::create(&dir, of, moved.n_cols, &producer, &hash)?;
        match of {
            VectorsOf::Pair => {
                for split in [Split::Train, Split::Val, Split::Test] {
                    if shards.row_groups(split).is_empty() {
                        continue;
                    }
                    let spots = seen.visible(split)?;
                    let by = balanced_visible(view.scale, &spots);
                    let nearest = nearest_cells(&by, Seen::Entries(&spots.bits), &moved, view.nearest_cells);
                    let pairs = nearest.map_err(too_few)?.aggregate(view.weighting, &moved);
                    writer.push(&spots.ids, &pairs.values)?;
                }
            }
            VectorsOf::Moved => writer.push(&cells.ids, &moved.values)?,
            _ => {
                let shown: Vec<bool> = seen.hidden_genes().iter().map(|hidden| !hidden).collect();
                let nearest = nearest_other_cells(&moved, Seen::Genes(&shown), view.nearest_cells);
                writer.push(&cells.ids, &nearest.map_err(too_few)?.aggregate(view.weighting, &moved).values)?;
            }
        }
        writer.finish()?;
    }
    Ok(())
}

/// A split's spots and the reference's cells with the pairs given, as tasks read them.
///
/// # Errors
/// [`TrainError::Data`] where pairs are missing or of others; as [`View::open`].
pub fn paired(
    shards: &Shards,
    split: Split,
    config: &TrainConfig,
    pairs: &[Arc<Vectors>],
) -> Result<Paired, TrainError> {
    let view = config.view();
    let seen = View::open(shards, view.fold, view.scale)?;
    let spots = seen.visible(split)?;
    let given = |of: VectorsOf| pairs.iter().find(|pairs| pairs.facts.of == of);
    let n_cols = seen.hidden_genes().len();
    let of_ids = |of: VectorsOf, ids: &[u64]| -> Result<Matrix<f32>, TrainError> {
        let Some(vectors) = given(of) else {
            return Ok(Matrix { n_cols, values: vec![0.0; ids.len() * n_cols] });
        };
        let mut values = Vec::with_capacity(ids.len() * n_cols);
        for &id in ids {
            let none = || TrainError::Data(format!("the {} given have none of {id}: make them again", of.plural()));
            values.extend_from_slice(vectors.get(id).ok_or_else(none)?);
        }
        Ok(Matrix { n_cols, values })
    };
    let places = apart(&spots);
    let values = balanced_visible(view.scale, &spots);
    let side = Side {
        expression: expression(&spots.scale, &spots.values, &spots.bits),
        pair: of_ids(VectorsOf::Pair, &spots.ids)?,
        near: spots.near.iter().map(|near| near.to_vec()).collect(),
        bits: Matrix { n_cols, values: spots.bits },
        ids: spots.ids,
        values,
        text: None,
    };
    let cells = match (given(VectorsOf::Moved), seen.reference()?) {
        (Some(_), Some(cells)) => {
            let bits = vec![true; cells.values.values.len()];
            Some(Side {
                values: of_ids(VectorsOf::Moved, &cells.ids)?,
                pair: of_ids(VectorsOf::MovedPair, &cells.ids)?,
                expression: expression(&cells.scale, &cells.values, &bits),
                near: vec![Vec::new(); cells.ids.len()],
                bits: Matrix { n_cols, values: bits },
                ids: cells.ids,
                text: None,
            })
        }
        _ => None,
    };
    let hidden = seen.hidden_genes().to_vec();
    Paired::new(side, places, cells, hidden, None).map_err(|error| TrainError::Data(error.to_string()))
}

fn no_reference(config: &TrainConfig) -> String {
    let kind = config.task.kind();
    format!(
        "task.kind = \"{kind}\" pairs spots with cells of a reference, and the shards have none: shard with --reference, or set \
         model.spotdiff.psi.use_rna = false and rna_channel = false"
    )
}

/// Values in [−1, 1]: those of the scale `maximum` are in [0, 1] (`spotdiff.md` §1).
fn balanced(scale: ScaleKind, values: Matrix<f32>) -> Matrix<f32> {
    match scale {
        ScaleKind::Standardised => values,
        ScaleKind::Maximum => {
            Matrix { n_cols: values.n_cols, values: values.values.into_iter().map(|v| 2.0 * v - 1.0).collect() }
        }
    }
}

fn balanced_visible(scale: ScaleKind, spots: &Visible) -> Matrix<f32> {
    let mut values = balanced(scale, spots.values.clone());
    values.values.iter_mut().zip(&spots.bits).filter(|(_, bit)| !**bit).for_each(|(value, _)| *value = 0.0);
    values
}

/// What a model says, in the scale of a view's values again.
pub fn unbalanced(scale: ScaleKind, values: Matrix<f32>) -> Matrix<f32> {
    match scale {
        ScaleKind::Standardised => values,
        ScaleKind::Maximum => {
            Matrix { n_cols: values.n_cols, values: values.values.into_iter().map(|v| (v + 1.0) / 2.0).collect() }
        }
    }
}

/// Below it a level is what rounding left of 0.
const NOTHING: f64 = 1e-6;

/// ln(1 + x) of what is visible, else 0.
fn expression(scale: &Scale, values: &Matrix<f32>, bits: &[bool]) -> Matrix<f32> {
    let g = values.n_cols;
    let one = |(at, (&value, &bit)): (usize, (&f32, &bool))| {
        let level = scale.unscaled(at / g, at % g, value);
        match scale.transform {
            _ if !bit || level.abs() < NOTHING => 0.0,
            Transform::TotalLog1p | Transform::Log1p => level as f32,
            Transform::None | Transform::Auto => libm::log1p(level.max(0.0)) as f32,
        }
    };
    Matrix { n_cols: g, values: values.values.iter().zip(bits).enumerate().map(one).collect() }
}

/// Places of the spots; sections lie side by side, farther from each other than any two spots of one.
fn apart(spots: &Visible) -> Vec<[f32; 3]> {
    let extent = spots.xyz.iter().flatten().fold(0.0f32, |most, v| most.max(v.abs()));
    let moved = |(at, &section): (&[f32; 3], &u32)| [at[0] + section as f32 * 4.0 * extent, at[1], at[2]];
    spots.xyz.iter().zip(&spots.sections).map(moved).collect()
}
