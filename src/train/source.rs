//! Where a split's records come from: row groups of `obs`, read on demand, or niches and tissues with the vectors of their
//! members, held in memory.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use syncytia_shards::error::StoreError;
use syncytia_shards::loader::{Loader, Slot};
use syncytia_shards::manifest::TableKind;
use syncytia_shards::order::{RowRef, Window};
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::places::Places;
use syncytia_shards::tables::vectors::{Vectors, VectorsOf};

use super::config::TrainConfig;
use super::error::TrainError;
use crate::model::ModelConfig;
use crate::task::completion::GeneMeans;
use crate::task::places::{PlaceRows, lacking};
use crate::task::{Records, Task};

/// Which vectors a run reads: part of what a step is a function of, like the identity of the shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorsIdentity {
    /// Hash of the checkpoint that made them.
    pub producer: String,
    /// Digest of the folder: what they are of, their width, their values.
    pub digest: String,
}

impl VectorsIdentity {
    /// Of a folder of vectors.
    pub fn of(vectors: &Vectors) -> Self {
        Self { producer: vectors.facts.producer.clone(), digest: vectors.facts.digest() }
    }

    /// For a message.
    pub fn in_words(this: Option<&Self>) -> String {
        this.map_or("none".to_owned(), |this| format!("{} (made by {})", this.digest, this.producer))
    }
}

/// The vectors that the task reads, from the folder that was given; none for a task on records.
///
/// # Errors
/// [`TrainError::Config`] where a folder is given and not read; [`TrainError::Data`] without one, or of another width than
/// the model's; as [`Vectors::read`].
pub fn vectors(dir: Option<&Path>, config: &TrainConfig, shards: &Shards) -> Result<Option<Arc<Vectors>>, TrainError> {
    let (kind, of) = (config.task.kind(), config.task.table());
    let Some(members) = of.members() else {
        return match dir {
            Some(_) => Err(TrainError::Config(vec![format!("--vectors: task.kind = \"{kind}\" reads no vectors")])),
            None => Ok(None),
        };
    };
    if shards.manifest().table(TableKind::Niche).is_none() {
        return Err(StoreError::NoNiches.into());
    }
    let make =
        format!("make them with `syncytia embed CHECKPOINT --shards SHARDS --level {} --out V`", members.level());
    let what = format!("task.kind = \"{kind}\" learns from vectors of {}", members.plural());
    let Some(dir) = dir else {
        return Err(TrainError::Data(format!("{what} and none are given: {make} and add --vectors V")));
    };
    let vectors = Vectors::read(dir, members, &shards.manifest().data_hash())?;
    if let ModelConfig::Spatia(model) = &config.model
        && vectors.facts.width as usize != model.h
    {
        return Err(TrainError::Data(format!(
            "{} has vectors of {} values and model.spatia.h = {}: {make} by a model of that width, or give [model] its sizes",
            dir.display(),
            vectors.facts.width,
            model.h
        )));
    }
    Ok(Some(Arc::new(vectors)))
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
    },
    /// Niches or tissues.
    Places {
        /// With their members.
        places: Places,
        /// Of their members.
        vectors: Arc<Vectors>,
    },
}

impl Source {
    /// Opens a split for a task; decodes it when it is one window.
    pub fn open(
        shards: &Arc<Shards>,
        vectors: Option<&Arc<Vectors>>,
        split: Split,
        config: &TrainConfig,
        task: &Task,
    ) -> Result<Source, TrainError> {
        match (task.table(), vectors) {
            (VectorsOf::Obs, _) => {
                let sizes = shards.row_groups(split).iter().map(|g| g.n_own).collect();
                let loader = Loader::new(Arc::clone(shards), split, task.columns(), config.data.window_bytes)?;
                Ok(Source::Obs { loader, sizes })
            }
            (of, Some(vectors)) => {
                let places = shards.places(of, split)?;
                if let Some((place, member)) = lacking(&places, vectors) {
                    return Err(TrainError::Data(format!(
                        "the vectors have none of {member}, a member of {place} of the {} of split {}: make them again with \
                         `syncytia embed`",
                        of.plural(),
                        split.as_str()
                    )));
                }
                Ok(Source::Places { places, vectors: Arc::clone(vectors) })
            }
            (of, None) => Err(TrainError::Data(format!("the {} are learned from vectors: add --vectors", of.plural()))),
        }
    }

    /// Own records of each row group; all places are one.
    pub fn sizes(&self) -> Vec<u32> {
        match self {
            Source::Obs { sizes, .. } => sizes.clone(),
            Source::Places { places, .. } => vec![places.n() as u32],
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
        let loader = match self {
            Source::Places { places, .. } => {
                return Ok((0..places.n() as u32).map(|row| RowRef { row_group: 0, row }).collect());
            }
            Source::Obs { loader, .. } => loader,
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
            Source::Obs { loader, .. } => Records::Obs(loader.batch(rows.iter().map(|r| (r.row_group, r.row)))?),
            Source::Places { places, vectors } => {
                Records::Places(PlaceRows { places, vectors, rows: rows.iter().map(|r| r.row as usize).collect() })
            }
        })
    }

    /// What the task learns of a split before the first step: one pass, a row group at a time, in stored order.
    pub fn means(&self, task: &Task, assay: Option<u32>) -> Result<GeneMeans, TrainError> {
        let Source::Obs { loader, sizes } = self else { return Ok(GeneMeans::default()) };
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
