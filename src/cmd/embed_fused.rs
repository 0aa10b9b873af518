//! `syncytia embed --level fused`: a vector of every cell with its niche and tissue, from frozen vectors of the three. No
//! count and no picture is read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use syncytia_shards::error::StoreError;
use syncytia_shards::manifest::TableKind;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::row_group::{Columns, RowGroup};
use syncytia_shards::tables::vectors::{Vectors, VectorsFacts, VectorsOf};

use super::exit::UsageError;
use super::trained::Trained;
use super::vectors::{SPLITS, whole};
use crate::model::ModelConfig;
use crate::task::TaskConfig;
use crate::task::embedding::{self, BATCH};
use crate::tensor::cpu;
use crate::train::error::TrainError;

/// Ids of a cell, its niche and its tissue.
type Ids = [Option<u64>; 3];

/// Writes the folder `out` of the vectors in the folders `dirs`, which may come in any order.
///
/// # Errors
/// A checkpoint that fuses nothing; vectors that are missing, too many, or of another model than it learned with.
pub fn run(trained: &Trained, shards: &Path, dirs: &[PathBuf], out: &Path) -> anyhow::Result<VectorsFacts> {
    let (ModelConfig::Spatia(model), TaskConfig::Fusion(task)) = (&trained.run.config.model, &trained.run.config.task)
    else {
        let (dir, kind) = (trained.checkpoint.dir.display(), trained.run.config.task.kind());
        let what = format!(
            "{dir} has not learned to fuse levels: its task is \"{kind}\", see configs/spatia/tiny-fusion.toml"
        );
        return Err(UsageError(what).into());
    };
    let shards = Shards::open(shards)?;
    trained.check_shards(&shards)?;
    let levels = levels(trained, &task.up_to.fuses(), dirs, model.h, &shards)?;
    let network = trained.model()?;
    whole(out, VectorsOf::Obs, model.h, &producer(trained), &shards, |writer| {
        writer.made_of(&levels[levels.len() - 1].facts);
        for split in SPLITS {
            let tissue_of = if levels.len() > 2 { tissues(&shards, split)? } else { BTreeMap::new() };
            for entry in shards.row_groups(split) {
                let group = shards.read_row_group(entry, &Columns::default())?;
                let ids = ids(&group, &tissue_of);
                let fuse = |ids: &[Ids]| embedding::fused(&network, &levels, ids, &cpu());
                let vectors: Result<Vec<Vec<f32>>, String> = ids.par_chunks(BATCH).map(fuse).collect();
                writer.push(&group.record_ids[..group.n_own], &vectors.map_err(TrainError::Data)?.concat())?;
            }
        }
        Ok(())
    })
}

/// What a folder of this checkpoint's fused vectors says of who made it.
pub fn producer(trained: &Trained) -> String {
    format!("{} fused", trained.checkpoint.manifest.digest())
}

/// The vectors of these levels, from below.
fn levels(
    trained: &Trained,
    fuses: &[VectorsOf],
    dirs: &[PathBuf],
    width: usize,
    shards: &Shards,
) -> anyhow::Result<Vec<Vectors>> {
    if dirs.len() > fuses.len() {
        let names: Vec<&str> = fuses.iter().map(|of| of.plural()).collect();
        return Err(UsageError(format!("too many --vectors: the model fuses those of {}", names.join(", "))).into());
    }
    if fuses.len() > 1 && shards.manifest().table(TableKind::Niche).is_none() {
        return Err(StoreError::NoNiches.into());
    }
    let mut given = Vec::new();
    for dir in dirs {
        given.push((dir, VectorsFacts::read(dir)?.of));
    }
    let mut levels: Vec<Vectors> = Vec::new();
    for &of in fuses {
        let again = format!("make them with `syncytia embed … --level {}` of these shards", of.level());
        let at = given.iter().position(|&(_, theirs)| theirs == of).or((!given.is_empty()).then_some(0));
        let Some(at) = at else {
            let what = format!("--level fused reads vectors of {}: {again} and add --vectors DIR", of.plural());
            return Err(TrainError::Data(what).into());
        };
        let (dir, _) = given.remove(at);
        let vectors = Vectors::read(dir, of, &shards.manifest().data_hash())?;
        if let Some(what) = misfit(&vectors.facts, width, trained, levels.last()) {
            return Err(TrainError::Data(format!("{} {what}: {again}", dir.display())).into());
        }
        levels.push(vectors);
    }
    Ok(levels)
}

/// What keeps vectors from the model, or from those of the level below, in words.
fn misfit(facts: &VectorsFacts, width: usize, trained: &Trained, below: Option<&Vectors>) -> Option<String> {
    if facts.width as usize != width {
        return Some(format!("has vectors of {} values, the model reads {width}", facts.width));
    }
    if below.is_some_and(|below| facts.members != Some(below.facts.digest())) {
        return Some("was made of other vectors than those given beside it".to_owned());
    }
    let learned_on = trained.run.vectors.iter().find(|learned_on| learned_on.of == facts.of);
    if let Some(learned_on) = learned_on.filter(|learned_on| learned_on.producer != facts.producer) {
        let (theirs, ours) = (&facts.producer, &learned_on.producer);
        return Some(format!("was made by checkpoint {theirs}, the model learned from those of {ours}"));
    }
    facts.no_members().map(|what| format!("has {what}, the model fuses whole ones"))
}

/// The tissue of each niche of a split.
fn tissues(shards: &Shards, split: Split) -> Result<BTreeMap<u64, u64>, StoreError> {
    let tissues = shards.places(VectorsOf::Tissue, split)?;
    let of_row = |row: usize| {
        let niches = tissues.members(row).0;
        niches.iter().map(|&niche| (niche, tissues.ids[row])).collect::<Vec<_>>()
    };
    Ok((0..tissues.n()).flat_map(of_row).collect())
}

/// Of the own records of a row group.
fn ids(group: &RowGroup, tissue_of: &BTreeMap<u64, u64>) -> Vec<Ids> {
    let of_row = |row: usize| {
        let niche = group.niches.get(row).copied().flatten();
        [Some(group.record_ids[row]), niche, niche.and_then(|niche| tissue_of.get(&niche).copied())]
    };
    (0..group.n_own).map(of_row).collect()
}
