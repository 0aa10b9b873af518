//! Folders of vectors as commands read and write them: those that a level is made of, and a new one, whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use syncytia_shards::error::StoreError;
use syncytia_shards::manifest::TableKind;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::vectors::{Vectors, VectorsFacts, VectorsOf, VectorsWriter};

use super::exit::UsageError;
use super::trained::Trained;
use crate::model::ModelConfig;
use crate::train::error::TrainError;

/// A folder holds vectors of every split, in this order.
pub const SPLITS: [Split; 3] = [Split::Train, Split::Val, Split::Test];

/// What the network of a level reads.
#[derive(Debug)]
pub struct Below {
    /// Vectors of the level below.
    pub members: Vectors,
    /// Of niches of a model that reads them: vectors of the pictures of their regions.
    pub regions: Option<Vectors>,
}

/// The vectors that this level is made of, of the kind that the checkpoint was trained on; none for cells.
pub fn vectors_below(
    dirs: &[PathBuf],
    of: VectorsOf,
    trained: &Trained,
    shards: &Shards,
) -> anyhow::Result<Option<Below>> {
    let Some(members) = of.members() else {
        return match dirs {
            [_, ..] => {
                Err(UsageError("--vectors is for --level niche and tissue: cells are read as they are".into()).into())
            }
            [] => Ok(None),
        };
    };
    let with_regions = of == VectorsOf::Niche && trained.run.config.model.reads_regions();
    let mut dirs: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
    let mut regions = None;
    if with_regions {
        let mut of_regions = None;
        for (at, dir) in dirs.iter().enumerate() {
            if VectorsFacts::read(dir)?.of == VectorsOf::Region {
                of_regions = Some(at);
            }
        }
        let Some(at) = of_regions else {
            let what = "the network of niches reads pictures of their regions: make vectors of them with `syncytia embed STAGE1 \
                        --level region` of these shards and add --vectors DIR";
            return Err(TrainError::Data(what.to_owned()).into());
        };
        regions = Some(read_below(dirs.remove(at), VectorsOf::Region, of, trained, shards)?);
    }
    match dirs[..] {
        [] => Err(lacking_below(members, of)),
        [dir] => Ok(Some(Below { members: read_below(dir, members, of, trained, shards)?, regions })),
        [_, more, ..] => {
            let what =
                format!("--vectors {}: nothing is read beside the vectors of {}", more.display(), members.plural());
            Err(UsageError(what).into())
        }
    }
}

fn lacking_below(members: VectorsOf, of: VectorsOf) -> anyhow::Error {
    let (level, what) = (members.level(), members.plural());
    let what = format!(
        "the network of {} reads vectors of {what}: make them with `syncytia embed … --level {level}` of these shards and add \
         --vectors DIR",
        of.plural()
    );
    TrainError::Data(what).into()
}

/// The vectors of `members` in `dir`, for the network of `of`.
fn read_below(
    dir: &Path,
    members: VectorsOf,
    of: VectorsOf,
    trained: &Trained,
    shards: &Shards,
) -> anyhow::Result<Vectors> {
    let again = format!("make them with `syncytia embed … --level {}` of these shards", members.level());
    if shards.manifest().table(TableKind::Niche).is_none() {
        return Err(StoreError::NoNiches.into());
    }
    let vectors = Vectors::read(dir, members, &shards.manifest().data_hash())?;
    let refuse = |what: String| Err(TrainError::Data(format!("{} {what}: {again}", dir.display())).into());
    let width = width(trained, members);
    if Some(vectors.facts.width as usize) != width {
        return refuse(format!("has vectors of {} values, the model reads {width:?}", vectors.facts.width));
    }
    // What this level was trained on is known where it was trained last.
    let mut learned_on = trained.run.vectors.iter().filter(|_| trained.run.config.task.table() == of);
    let learned_on = learned_on.find(|learned_on| learned_on.of == members);
    if let Some(learned_on) = learned_on.filter(|learned_on| learned_on.producer != vectors.facts.producer) {
        let theirs = &vectors.facts.producer;
        return refuse(format!(
            "was made by checkpoint {theirs}, the model learned from those of {}",
            learned_on.producer
        ));
    }
    if let Some(what) = vectors.facts.no_members() {
        return refuse(format!("has {what}, the network of {} reads whole ones", of.plural()));
    }
    Ok(vectors)
}

fn width(trained: &Trained, members: VectorsOf) -> Option<usize> {
    match &trained.run.config.model {
        ModelConfig::Spatia(config) if members == VectorsOf::Region => Some(config.image.width),
        ModelConfig::Spatia(config) => Some(config.h),
        _ => None,
    }
}

/// Writes a whole folder of vectors, or leaves none.
pub fn whole(
    dir: &Path,
    of: VectorsOf,
    width: usize,
    producer: &str,
    shards: &Shards,
    write: impl FnOnce(&mut VectorsWriter) -> anyhow::Result<()>,
) -> anyhow::Result<VectorsFacts> {
    let was_there = dir.exists();
    let mut writer = VectorsWriter::create(dir, of, width, producer, &shards.manifest().data_hash())?;
    let written = write(&mut writer).and_then(|()| Ok(writer.finish()?));
    if written.is_err() {
        // It was absent or empty: what lies in it is ours.
        let _ = fs::remove_dir_all(dir);
        if was_there {
            let _ = fs::create_dir(dir);
        }
    }
    written.with_context(|| format!("no vectors were written to {}", dir.display()))
}
