//! Cells whose pictures are to be made: from shards or from a file. Their own pictures go to the contact sheet and nowhere
//! else.

use std::path::Path;
use std::sync::Arc;

use syncytia_shards::ingest::{self, IngestOptions};
use syncytia_shards::loader::{Loader, Slot};
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::row_group::Columns;
use syncytia_shards::section::ObsLabels;

use super::exit::UsageError;
use super::model_genes::aligned;
use super::shard::ShardConfig;
use super::trained::Trained;
use crate::config;
use crate::report::generated_sheet;

/// Decoded row groups that are held at once.
const WINDOW_BYTES: u64 = 256 << 20;

/// One cell.
pub struct InputCell {
    /// Record id; of a file its row.
    pub id: u64,
    /// Name.
    pub name: String,
    /// (column, label).
    pub labels: Vec<(String, String)>,
    /// Expressed genes, ascending.
    pub genes: Vec<u32>,
    /// Their counts.
    pub counts: Vec<f32>,
    /// The real picture as PNG, where there is one.
    pub picture: Option<Vec<u8>>,
}

/// `n` cells of a split of shards, evenly spaced in the order of record ids.
pub fn of_shards(trained: &Trained, dir: &Path, split: Option<Split>, n: usize) -> anyhow::Result<Vec<InputCell>> {
    let shards = Arc::new(Shards::open(dir)?);
    trained.check_shards(&shards)?;
    let has = |split: &Split| !shards.row_groups(*split).is_empty();
    let split = split.or_else(|| [Split::Test, Split::Val, Split::Train].into_iter().find(has));
    let split = split.filter(has).ok_or_else(|| UsageError(format!("{}: there is no such split", dir.display())))?;
    let images = shards.manifest().crops.is_some();
    let columns = Columns { counts: true, names: true, images, ..Columns::default() };
    let loader = Loader::new(Arc::clone(&shards), split, columns, WINDOW_BYTES)?;
    let mut rows: Vec<(u64, (u32, u32))> = Vec::new();
    for (group, ids) in shards.record_ids(split)?.into_iter().enumerate() {
        rows.extend(ids.into_iter().enumerate().map(|(row, id)| (id, (group as u32, row as u32))));
    }
    rows.sort_unstable();
    let chosen = evenly(rows.len(), n).map(|i| rows[i].1);
    Ok(loader.batch(chosen)?.iter().map(|slot| of_slot(slot, images)).collect())
}

fn of_slot(slot: &Slot, images: bool) -> InputCell {
    let (group, row) = (&slot.group, slot.row);
    let (genes, counts) = group.counts.as_ref().expect("counts were asked for").row(row);
    let picture = group.image(row).filter(|_| images).map(|picture| {
        let shape = [picture.height as usize, picture.width as usize, usize::from(picture.channels)];
        generated_sheet::png(picture.bytes, shape)
    });
    InputCell {
        id: slot.record_id(),
        name: group.obs_ids[row].clone(),
        labels: labels(&group.labels, row),
        genes: genes.to_vec(),
        counts: counts.to_vec(),
        picture,
    }
}

/// `n` cells of a file, evenly spaced, their counts brought to the panel of the model.
pub fn of_file(trained: &Trained, path: &Path, max_genes_lost: f64, n: usize) -> anyhow::Result<Vec<InputCell>> {
    let run = &trained.run;
    let shard_config: ShardConfig = config::parse(&run.shard_config, "the checkpoint's shard config", &[])?;
    let section = ingest::read_section(path, &IngestOptions { library_id: None, ..shard_config.input })?;
    let counts = aligned(&section, run, max_genes_lost)?;
    let cell = |i: usize| {
        let (genes, counts) = counts.row(i);
        InputCell {
            id: i as u64,
            name: section.obs_ids[i].clone(),
            labels: labels(&section.labels, i),
            genes: genes.to_vec(),
            counts: counts.to_vec(),
            picture: None,
        }
    };
    Ok(evenly(section.n_obs(), n).map(cell).collect())
}

fn labels(columns: &[ObsLabels], row: usize) -> Vec<(String, String)> {
    columns.iter().filter_map(|c| Some((c.name.clone(), c.values[row].clone()?))).collect()
}

/// `n` of `total` places, ascending, all where there are fewer.
fn evenly(total: usize, n: usize) -> impl Iterator<Item = usize> {
    let n = n.min(total);
    (0..n).map(move |i| i * total / n)
}
