//! Cells of shards with their pictures as a generator paints them: resized as in training, in bytes.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow};
use rayon::prelude::*;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::row_group::{Columns, RowGroup};

use crate::evaluate::generation::Pictures;
use crate::model::spatia::pixels;
use crate::task::painting::to_byte;

/// The size in which a network paints.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// Pixels of a side.
    pub side: usize,
    /// Channels.
    pub channels: usize,
}

/// A cell.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Record id.
    pub id: u64,
    /// Name.
    pub name: String,
    /// Expressed genes, ascending.
    pub genes: Vec<u32>,
    /// Their counts.
    pub counts: Vec<f32>,
    /// `[side, side, channels]`.
    pub picture: Vec<u8>,
}

impl Frame {
    /// Bytes of a picture.
    pub fn values(self) -> usize {
        self.side * self.side * self.channels
    }

    /// The pictures of these cells.
    pub fn pictures<'a>(self, cells: impl Iterator<Item = &'a Cell>) -> Pictures {
        let bytes = cells.flat_map(|cell| &cell.picture).copied().collect();
        Pictures { side: self.side, channels: self.channels, bytes }
    }
}

/// The cells of these numbers, counted over the own records of a split in stored order, in the order asked for.
pub fn chosen(shards: &Shards, split: Split, numbers: &[usize], frame: Frame) -> anyhow::Result<Vec<Cell>> {
    let mut rows: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new(); // row group: (own row, place in the answer)
    let firsts = firsts(shards, split);
    for (place, &number) in numbers.iter().enumerate() {
        let group = firsts.partition_point(|&first| first <= number) - 1;
        rows.entry(group).or_default().push((number - firsts[group], place));
    }
    let read = |(group, rows): (usize, Vec<(usize, usize)>)| {
        let group = read(shards, split, group)?;
        rows.into_iter().map(|(row, place)| Ok((place, cell(&group, row, frame)?))).collect::<anyhow::Result<Vec<_>>>()
    };
    let mut cells: Vec<(usize, Cell)> = rows.into_par_iter().map(read).collect::<anyhow::Result<Vec<_>>>()?.concat();
    cells.sort_by_key(|(place, _)| *place);
    Ok(cells.into_iter().map(|(_, cell)| cell).collect())
}

/// Calls `each(number of the first, cells)` for every row group of a split, one after another.
pub fn all_of(shards: &Shards, split: Split, frame: Frame, mut each: impl FnMut(usize, &[Cell])) -> anyhow::Result<()> {
    for (k, first) in firsts(shards, split).into_iter().enumerate() {
        let group = read(shards, split, k)?;
        let cells: Vec<Cell> =
            (0..group.n_own).into_par_iter().map(|row| cell(&group, row, frame)).collect::<anyhow::Result<_>>()?;
        each(first, &cells);
    }
    Ok(())
}

/// How many own records come before each row group.
fn firsts(shards: &Shards, split: Split) -> Vec<usize> {
    let before = |n: &mut usize, own: usize| {
        *n += own;
        Some(*n - own)
    };
    shards.row_groups(split).iter().map(|entry| entry.n_own as usize).scan(0, before).collect()
}

fn read(shards: &Shards, split: Split, group: usize) -> anyhow::Result<RowGroup> {
    let columns = Columns { counts: true, names: true, images: true, ..Columns::default() };
    Ok(shards.read_row_group(&shards.row_groups(split)[group], &columns)?)
}

fn cell(group: &RowGroup, row: usize, frame: Frame) -> anyhow::Result<Cell> {
    let (genes, counts) = group.counts.as_ref().expect("counts were asked for").row(row);
    let id = group.record_ids[row];
    let image = group.image(row).ok_or_else(|| anyhow!("record {id} has no picture"))?;
    let shape = [image.height as usize, image.width as usize, usize::from(image.channels)];
    let mut values = Vec::with_capacity(frame.values());
    pixels::push_signed(&mut values, image.bytes, shape, frame.channels, frame.side)
        .with_context(|| format!("record {id}"))?;
    Ok(Cell {
        id,
        name: group.obs_ids[row].clone(),
        genes: genes.to_vec(),
        counts: counts.to_vec(),
        picture: values.into_iter().map(to_byte).collect(),
    })
}
