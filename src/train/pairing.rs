//! Spots beside the cells of a reference: which cells speak of which spot, and both as SpotDiff's tasks read them
//! (`spotdiff.md` §3, §5). Everything is made of what a [`View`] shows, so no hidden value is in it.
//!
//! Pairs are folders of vectors, made once for a stage ([`write()`]) and read by it ([`paired()`]): `PAIRS/spots` has the mean of the
//! cells nearest to each spot; `PAIRS/cells` and `PAIRS/others`, where the stage learns from cells as well, the cells themselves and
//! the mean of the others nearest to each.

use std::path::Path;
use std::sync::Arc;

use syncytia_shards::error::StoreError;
use syncytia_shards::holdout::Transform;
use syncytia_shards::manifest::Manifest;
use syncytia_shards::matrix::Matrix;
use syncytia_shards::process::pairing::{Queries, Seen};
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::paired::{self, PairedError, Pairing};
use syncytia_shards::tables::vectors::{Vectors, VectorsFacts, VectorsOf, VectorsWriter};
use syncytia_shards::visible::{Scale, ScaleKind, View, Visible, VisibleCells};

use super::config::{TrainConfig, ViewConfig};
use super::error::TrainError;
use super::text_encoder;
use crate::model::spotdiff::psi_config::AROUND;
use crate::model::{Model, ModelConfig};
use crate::task::alignment;
use crate::task::paired::{Paired, Side, around};
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

/// The network and the view of a producer; none of one that made no pairs. A digest of the inputs may stand behind them.
fn parts(producer: &str) -> Option<(&str, &str)> {
    let (network, rest) = producer.split_once("; ")?;
    Some((network, rest.split_once("; ").map_or(rest, |(view, _)| view)))
}

/// The network that moved the cells of a producer's pairs.
pub fn network(producer: &str) -> Option<&str> {
    parts(producer).map(|(network, _)| network).filter(|network| *network != AS_THEY_ARE)
}

/// Whether two folders of pairs are of one network and one view.
pub fn belong_together(a: &VectorsFacts, b: &VectorsFacts) -> bool {
    parts(&a.producer) == parts(&b.producer)
}

/// What keeps pairs from this config, in words: another view.
pub fn other_view(facts: &VectorsFacts, view: &ViewConfig) -> Option<String> {
    let (_, theirs) = parts(&facts.producer)?;
    (theirs != view.to_string()).then(|| format!("was made for {theirs}, the config's data.view is {view}"))
}

/// The shards as this config sees them.
///
/// # Errors
/// As [`View::open`].
pub fn view<'a>(shards: &'a Shards, config: &TrainConfig) -> Result<View<'a>, StoreError> {
    let view = config.view();
    View::open(shards, view.fold, view.scale)
}

/// Writes the pairs that a stage of this config reads into the folder `out`, block by block; what is there whole is kept, so that
/// what was interrupted goes on. `omega`: the network that moves the cells and the digest of its checkpoint, from the second stage
/// on. `stop`: asked before each block.
///
/// # Errors
/// [`TrainError::Data`]: no reference, fewer cells than are asked for, pairs of others in `out`; as [`View::visible`]; the system's.
pub fn write(
    seen: &View<'_>,
    config: &TrainConfig,
    omega: Option<(&Model, &str)>,
    out: &Path,
    stop: &dyn Fn() -> bool,
) -> Result<Written, TrainError> {
    let (view, shards) = (config.view(), seen.shards());
    let (producer, hash) = (producer(omega.map(|omega| omega.1), &view), shards.manifest().data_hash());
    let wanted = reads(config, shards.manifest());
    let cells = cells(seen, &view)?.ok_or_else(|| TrainError::Data(no_reference(config)))?;
    let values = balanced(view.scale, cells.values);
    let moved = match omega {
        Some((Model::Spotdiff(model), _)) => alignment::moved(&model.omega, &values, &cpu()),
        Some(_) => unreachable!("only SpotDiff moves cells"),
        None => values,
    };
    let shown: Vec<bool> = seen.hidden_genes().iter().map(|hidden| !hidden).collect();
    let pair = |(name, of): (&str, VectorsOf), ids: &[u64], queries: Queries<'_>| -> Result<Written, TrainError> {
        let pairing = Pairing {
            of,
            producer: &producer,
            ids,
            queries,
            compared: &moved,
            averaged: &moved,
            n_nearest: view.nearest_cells,
            weighting: view.weighting,
            block: BLOCK,
        };
        let mut stopped = false;
        let made = paired::pair(&out.join(name), &pairing, &hash, |_| {
            stopped = stop();
            if stopped { Err(StoreError::Empty) } else { Ok(()) }
        });
        match made {
            Ok(_) => Ok(Written::Whole),
            Err(_) if stopped => Ok(Written::Stopped),
            Err(PairedError::Store(error)) => Err(error.into()),
            Err(PairedError::Pairing(error)) => {
                Err(TrainError::Data(format!("data.view.nearest_cells = {}: {error}", view.nearest_cells)))
            }
        }
    };
    for folder @ (name, of) in FOLDERS.into_iter().filter(|(_, of)| wanted.contains(of)) {
        let written = match of {
            VectorsOf::Pair => {
                let (mut ids, mut bits) = (Vec::new(), Vec::new());
                let mut values = Matrix { n_cols: moved.n_cols, values: Vec::new() };
                for split in [Split::Train, Split::Val, Split::Test] {
                    if !shards.row_groups(split).is_empty() {
                        let spots = seen.visible(split)?;
                        values.values.extend(balanced_visible(view.scale, &spots).values);
                        ids.extend(spots.ids);
                        bits.extend(spots.bits);
                    }
                }
                pair(folder, &ids, Queries { values: &values, seen: Seen::Entries(&bits), are_cells: false })?
            }
            VectorsOf::Moved => {
                let dir = out.join(name);
                let whole = |facts: VectorsFacts| facts.producer == producer && facts.data_hash == hash;
                if !VectorsFacts::read(&dir).is_ok_and(whole) {
                    if dir.exists() {
                        let path = dir.display().to_string();
                        let failed = |source| TrainError::Storage { what: "cannot remove", path, source };
                        std::fs::remove_dir_all(&dir).map_err(failed)?; // cut short, or of another network
                    }
                    let mut writer = VectorsWriter::create(&dir, of, moved.n_cols, &producer, &hash)?;
                    writer.push(&cells.ids, &moved.values)?;
                    writer.finish()?;
                }
                Written::Whole
            }
            _ => pair(folder, &cells.ids, Queries { values: &moved, seen: Seen::Genes(&shown), are_cells: true })?,
        };
        if written == Written::Stopped {
            return Ok(written);
        }
    }
    Ok(Written::Whole)
}

/// The cells that a stage reads.
fn cells(seen: &View<'_>, view: &ViewConfig) -> Result<Option<VisibleCells>, TrainError> {
    let raise = view.raised_cells;
    let cells = if raise > 0.0 { seen.reference_and_raised(raise)? } else { seen.reference()? };
    match &cells {
        Some(cells) if raise > 0.0 && cells.scale.transform == Transform::None => Err(TrainError::Data(format!(
            "data.view.raised_cells = {raise} is added to counts, and the reference's values are taken as they are: leave it out"
        ))),
        _ => Ok(cells),
    }
}

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// All.
    Whole,
    /// Some blocks: `stop` said so; the same call goes on.
    Stopped,
}

/// Spots of a block.
const BLOCK: usize = 4096;

/// A split's spots and the reference's cells with the pairs given, as tasks read them.
///
/// # Errors
/// [`TrainError::Data`] where pairs are missing or of others; as [`View::visible`].
pub fn paired(
    seen: &View<'_>,
    split: Split,
    config: &TrainConfig,
    pairs: &[Arc<Vectors>],
) -> Result<Paired, TrainError> {
    let view = config.view();
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
    let bits = Matrix { n_cols, values: spots.bits };
    let near: Vec<Vec<u32>> = spots.near.iter().map(|near| near.to_vec()).collect();
    let reads_around = config.model.reads_neighbours();
    let side = Side {
        around: reads_around.then(|| around(&values, &bits, &near)),
        expression: expression(&spots.scale, &spots.levels),
        pair: of_ids(VectorsOf::Pair, &spots.ids)?,
        near,
        bits,
        ids: spots.ids,
        values,
        text: None,
    };
    let cells = match (given(VectorsOf::Moved), cells(seen, &view)?) {
        (Some(_), Some(cells)) => {
            let bits = vec![true; cells.values.values.len()];
            Some(Side {
                around: reads_around
                    .then(|| Matrix { n_cols: AROUND * n_cols, values: vec![0.0; cells.ids.len() * AROUND * n_cols] }),
                values: of_ids(VectorsOf::Moved, &cells.ids)?,
                pair: of_ids(VectorsOf::MovedPair, &cells.ids)?,
                expression: expression(&cells.scale, &cells.levels),
                near: vec![Vec::new(); cells.ids.len()],
                bits: Matrix { n_cols, values: bits },
                ids: cells.ids,
                text: None,
            })
        }
        _ => None,
    };
    let (mut side, mut cells) = (side, cells);
    let gene_text = match (&config.data.text_encoder, &config.model) {
        (Some(dir), ModelConfig::Spotdiff(model)) if config.task.kind() != "alignment" => {
            let symbols: Vec<String> = seen.genes().into_iter().map(str::to_owned).collect();
            let t5 = text_encoder::open(dir, &cpu())?;
            if t5.width() != model.prompt.width {
                return Err(TrainError::Data(format!(
                    "the T5 of {} gives vectors of {} values and model.spotdiff.prompt.width = {}: set it to that",
                    dir.display(),
                    t5.width(),
                    model.prompt.width
                )));
            }
            // A cell knows all genes; its prompt may not speak of those that no spot shows.
            let shown: Vec<bool> = seen.hidden_genes().iter().map(|hidden| !hidden).collect();
            side.text = Some(text_encoder::of_side(&t5, &side, &shown, &model.prompt, &symbols)?);
            if let Some(cells) = &mut cells {
                cells.text = Some(text_encoder::of_side(&t5, cells, &shown, &model.prompt, &symbols)?);
            }
            Some(text_encoder::of_genes(&t5, &symbols)?)
        }
        _ => None,
    };
    let hidden = seen.hidden_genes().to_vec();
    Paired::new(side, places, cells, hidden, gene_text).map_err(|error| TrainError::Data(error.to_string()))
}

fn no_reference(config: &TrainConfig) -> String {
    let kind = config.task.kind();
    format!(
        "task.kind = \"{kind}\" pairs spots with cells of a reference, and the shards have none: shard with --reference, or set \
         model.spotdiff.psi.use_rna = false"
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

/// ln(1 + x) of what is visible, else 0.
fn expression(scale: &Scale, levels: &Matrix<f32>) -> Matrix<f32> {
    match scale.transform {
        Transform::TotalLog1p | Transform::Log1p => levels.clone(),
        Transform::None | Transform::Auto => {
            let logged = |&level: &f32| libm::log1p(f64::from(level.max(0.0))) as f32;
            Matrix { n_cols: levels.n_cols, values: levels.values.iter().map(logged).collect() }
        }
    }
}

/// Places of the spots; sections lie side by side, farther from each other than any two spots of one.
fn apart(spots: &Visible) -> Vec<[f32; 3]> {
    let extent = spots.xyz.iter().flatten().fold(0.0f32, |most, v| most.max(v.abs()));
    let moved = |(at, &section): (&[f32; 3], &u32)| [at[0] + section as f32 * 4.0 * extent, at[1], at[2]];
    spots.xyz.iter().zip(&spots.sections).map(moved).collect()
}
