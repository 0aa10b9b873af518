//! Where a split's records come from: row groups of `obs`, read on demand, or niches and tissues with the vectors of their
//! members, held in memory; or cells, and where they stand.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use syncytia_shards::error::StoreError;
use syncytia_shards::loader::{Loader, Slot};
use syncytia_shards::manifest::TableKind;
use syncytia_shards::order::{RowRef, Window};
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::row_group::Columns;
use syncytia_shards::tables::places::Places;
use syncytia_shards::tables::vectors::{Vectors, VectorsFacts, VectorsOf};

use super::config::TrainConfig;
use super::error::TrainError;
use super::pairing;
use crate::model::ModelConfig;
use crate::task::completion::GeneMeans;
use crate::task::paired::Paired;
use crate::task::places::{PlaceRows, lacking};
use crate::task::surroundings::{Level, Surroundings};
use crate::task::{Records, Task};

/// Which vectors a run reads: part of what a step is a function of, like the identity of the shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorsIdentity {
    /// What they are of.
    pub of: VectorsOf,
    /// Hash of the checkpoint that made them.
    pub producer: String,
    /// Digest of the folder: what they are of, their width, their values.
    pub digest: String,
}

impl VectorsIdentity {
    /// Of a folder of vectors.
    pub fn of(vectors: &Vectors) -> Self {
        Self { of: vectors.facts.of, producer: vectors.facts.producer.clone(), digest: vectors.facts.digest() }
    }

    /// For a message.
    pub fn in_words(all: &[Self]) -> String {
        let one = |this: &Self| format!("{} (of {}, made by {})", this.digest, this.of.plural(), this.producer);
        if all.is_empty() { "none".to_owned() } else { all.iter().map(one).collect::<Vec<_>>().join(", ") }
    }
}

/// The vectors that the task reads, in its order, from the folders that were given in any; none for a task on records.
///
/// # Errors
/// [`TrainError::Config`] where a folder is given and not read; [`TrainError::Data`] where one is missing, of another width
/// than the model's, or made of others than those given; as [`Vectors::read`].
pub fn vectors(dirs: &[PathBuf], config: &TrainConfig, shards: &Shards) -> Result<Vec<Arc<Vectors>>, TrainError> {
    let kind = config.task.kind();
    let refuse =
        |what: String| Err(TrainError::Config(vec![format!("--vectors: task.kind = \"{kind}\" reads {what}")]));
    let reads = reads(config, shards);
    if reads.is_empty() && !dirs.is_empty() {
        return refuse("no vectors".to_owned());
    }
    let paired = config.task.is_paired();
    if !paired && !reads.is_empty() && shards.manifest().table(TableKind::Niche).is_none() {
        return Err(StoreError::NoNiches.into());
    }
    let mut given = Vec::new();
    for dir in dirs {
        given.push((dir, VectorsFacts::read(dir)?.of));
    }
    let mut read: Vec<Arc<Vectors>> = Vec::new();
    for of in reads {
        let at = given.iter().position(|&(_, theirs)| theirs == of).or((!given.is_empty()).then_some(0));
        let make = match paired {
            true => "make them with `syncytia pair CONFIG --shards SHARDS --out PAIRS`, for the last stage with --moved-by OMEGA_RUN,".to_owned(),
            false => {
                format!("make them with `syncytia embed CHECKPOINT --shards SHARDS --level {} --out V`", of.level())
            }
        };
        let Some(at) = at else {
            let what = format!("task.kind = \"{kind}\" learns from vectors of {}", of.plural());
            return Err(TrainError::Data(format!("{what} and none are given: {make} and add --vectors V")));
        };
        let (dir, _) = given.remove(at);
        let vectors = Vectors::read(dir, of, &shards.manifest().data_hash())?;
        if let ModelConfig::Spatia(model) = &config.model {
            let (key, width) =
                if of == VectorsOf::Region { ("image.width", model.image.width) } else { ("h", model.h) };
            if vectors.facts.width as usize != width {
                return Err(TrainError::Data(format!(
                    "{} has vectors of {} values and model.spatia.{key} = {width}: {make} by a model of that width, or give \
                     [model] its sizes",
                    dir.display(),
                    vectors.facts.width,
                )));
            }
        }
        if let Some(what) = vectors.facts.no_members() {
            return Err(TrainError::Data(format!(
                "{} has {what}, task.kind = \"{kind}\" learns from whole vectors of {}: {make}",
                dir.display(),
                of.plural()
            )));
        }
        if let Some(what) = pairing::other_view(&vectors.facts, &config.view()).filter(|_| paired) {
            return Err(TrainError::Data(format!("{} {what}: {make}", dir.display())));
        }
        if paired && read.first().is_some_and(|first| !pairing::belong_together(&first.facts, &vectors.facts)) {
            let what = format!("{} was made by another network than the pairs beside it: {make}", dir.display());
            return Err(TrainError::Data(what));
        }
        let below =
            read.last().filter(|_| !paired).map(|below| below.facts.digest()).filter(|_| of != VectorsOf::Region);
        let encoder = |vectors: &Vectors| vectors.facts.producer.split(' ').next().map(str::to_owned);
        let cells = read.first().filter(|cells| of == VectorsOf::Region && cells.facts.of == VectorsOf::Obs);
        if let Some(cells) = cells.filter(|cells| encoder(cells) != encoder(&vectors)) {
            return Err(TrainError::Data(format!(
                "{} was made by {}, the vectors of cells beside it by {}: {make} with the checkpoint that made those",
                dir.display(),
                vectors.facts.producer,
                cells.facts.producer
            )));
        }
        if below.is_some() && vectors.facts.members != below {
            let what = format!("{} was made of other vectors than those given beside it: {make}", dir.display());
            return Err(TrainError::Data(what));
        }
        read.push(Arc::new(vectors));
    }
    match given.first() {
        Some((dir, of)) => refuse(format!("no further vectors of {}: leave {} out", of.plural(), dir.display())),
        None => Ok(read),
    }
}

/// Whose vectors a run reads: from below, and those of regions last.
fn reads(config: &TrainConfig, shards: &Shards) -> Vec<VectorsOf> {
    if config.task.is_paired() {
        return pairing::reads(config, shards.manifest());
    }
    let mut reads = config.task.reads();
    let niches = reads.first() == Some(&VectorsOf::Obs);
    reads.extend((niches && config.model.reads_regions()).then_some(VectorsOf::Region));
    reads
}

/// A split's records.
#[derive(Debug)]
pub enum Source {
    /// Spots or cells.
    Obs {
        /// Brings them.
        loader: Loader,
        /// Own records of each row group.
        sizes: Vec<u32>,
        /// Where they stand, if the task reads that.
        surroundings: Option<Box<Surroundings>>,
    },
    /// Spots beside cells.
    Paired(Box<Paired>),
    /// Niches or tissues.
    Places {
        /// With their members.
        places: Places,
        /// Of their members.
        vectors: Arc<Vectors>,
        /// Of niches: of the pictures of their regions, if the model reads them.
        regions: Option<Arc<Vectors>>,
    },
}

impl Source {
    /// Opens a split for a task; decodes it when it is one window.
    pub fn open(
        shards: &Arc<Shards>,
        vectors: &[Arc<Vectors>],
        split: Split,
        config: &TrainConfig,
        task: &Task,
    ) -> Result<Source, TrainError> {
        if config.task.is_paired() {
            return Ok(Source::Paired(Box::new(pairing::paired(
                &pairing::view(shards, config)?,
                split,
                config,
                vectors,
            )?)));
        }
        let (vectors, regions) = match vectors {
            [vectors @ .., regions] if regions.facts.of == VectorsOf::Region => (vectors, Some(Arc::clone(regions))),
            vectors => (vectors, None),
        };
        match (task.table(), vectors) {
            (VectorsOf::Obs, vectors) => {
                let sizes = shards.row_groups(split).iter().map(|g| g.n_own).collect();
                every_label(shards, split, task)?;
                let loader = Loader::new(Arc::clone(shards), split, task.columns(), config.data.window_bytes)?;
                let level = |of, vectors: &Arc<Vectors>| -> Result<Level, TrainError> {
                    let regions = regions.clone().filter(|_| of == VectorsOf::Niche);
                    Ok(Level { places: whole(shards, of, split, vectors)?, vectors: Arc::clone(vectors), regions })
                };
                let surroundings = match vectors {
                    [] => None,
                    [cells, niches @ ..] => {
                        let tissues = niches.first().map(|niches| level(VectorsOf::Tissue, niches)).transpose()?;
                        Some(Box::new(Surroundings::new(level(VectorsOf::Niche, cells)?, tissues)))
                    }
                };
                Ok(Source::Obs { loader, sizes, surroundings })
            }
            (of, [vectors]) => {
                let places = whole(shards, of, split, vectors)?;
                Ok(Source::Places { places, vectors: Arc::clone(vectors), regions })
            }
            (of, _) => Err(TrainError::Data(format!("the {} are learned from vectors: add --vectors", of.plural()))),
        }
    }

    /// Own records of each row group; all places are one.
    pub fn sizes(&self) -> Vec<u32> {
        match self {
            Source::Obs { sizes, .. } => sizes.clone(),
            Source::Places { places, .. } => vec![places.n() as u32],
            Source::Paired(paired) => vec![paired.spots.n() as u32],
        }
    }

    /// How far its records are mixed.
    pub fn window(&self, config: &TrainConfig) -> Result<Window, TrainError> {
        Ok(match self {
            Source::Obs { loader, .. } if !loader.holds_all() => Window::RowGroups(config.data.window_row_groups),
            _ => Window::Whole { by_record_id: self.by_id()? },
        })
    }

    /// Every record once, by id.
    pub fn by_id(&self) -> Result<Vec<RowRef>, TrainError> {
        let Source::Obs { loader, .. } = self else {
            // they lie sorted, in one piece
            return Ok((0..self.sizes()[0]).map(|row| RowRef { row_group: 0, row }).collect());
        };
        let mut rows: Vec<(u64, RowRef)> = Vec::new();
        for (row_group, ids) in loader.record_ids()?.into_iter().enumerate() {
            let place = |(row, id)| (id, RowRef { row_group: row_group as u32, row: row as u32 });
            rows.extend(ids.into_iter().enumerate().map(place));
        }
        rows.sort_unstable_by_key(|r| r.0);
        Ok(rows.into_iter().map(|r| r.1).collect())
    }

    /// The records at these places, in that order.
    pub fn records(&self, rows: &[RowRef]) -> Result<Records<'_>, TrainError> {
        Ok(match self {
            Source::Obs { loader, surroundings, .. } => {
                let slots = loader.batch(rows.iter().map(|r| (r.row_group, r.row)))?;
                match surroundings {
                    Some(around) => Records::Surrounded(slots, around),
                    None => Records::Obs(slots),
                }
            }
            Source::Paired(paired) => Records::Paired(paired, rows.iter().map(|r| r.row as usize).collect()),
            Source::Places { places, vectors, regions } => {
                let rows = rows.iter().map(|r| r.row as usize).collect();
                Records::Places(PlaceRows { places, vectors, regions: regions.as_deref(), rows })
            }
        })
    }

    /// What the task learns of a split before the first step: one pass, a row group at a time, in stored order.
    pub fn means(&self, task: &Task, assay: Option<u32>) -> Result<GeneMeans, TrainError> {
        let Source::Obs { loader, sizes, .. } = self else { return Ok(GeneMeans::default()) };
        let mut failed = None;
        let slots = (0..sizes.len() as u32).map_while(|k| match loader.row_group(k) {
            Ok(group) => Some(group),
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        let means = task.gene_means(
            slots.flat_map(|group| (0..group.n_own).map(move |row| Slot { group: Arc::clone(&group), row })),
            assay,
        );
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(means),
        }
    }
}

/// The niches or tissues of a split, all of whose members have a vector.
fn whole(shards: &Shards, of: VectorsOf, split: Split, vectors: &Vectors) -> Result<Places, TrainError> {
    let places = shards.places(of, split)?;
    match lacking(&places, vectors) {
        None => Ok(places),
        Some((place, member)) => Err(TrainError::Data(format!(
            "the vectors have none of {member}, a member of {place} of the {} of split {}: make them again with \
             `syncytia embed`",
            of.plural(),
            split.as_str()
        ))),
    }
}

/// Refuses labels that the task has no number for: one pass over the labels alone.
fn every_label(shards: &Shards, split: Split, task: &Task) -> Result<(), TrainError> {
    let columns = Columns { labels: task.columns().labels, ..Columns::default() };
    if columns.labels.is_empty() {
        return Ok(());
    }
    for entry in shards.row_groups(split) {
        if let Some(what) = task.foreign(&shards.read_row_group(entry, &columns)?) {
            return Err(TrainError::Data(what));
        }
    }
    Ok(())
}
