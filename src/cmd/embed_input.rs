//! `syncytia embed --input`: vectors of a file's cells where scanpy finds them. obsm["X_spatia"], and by a run of niches or
//! tissues also the vectors of the niche and the tissue that each cell lies in; NaN where a cell has none.
//!
//! Genes are aligned to the model's panel by id, windows, niches and tissues are made by the rules of the model's shards. A
//! run of a later stage holds the networks of the stages before it, so one checkpoint is enough.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rayon::prelude::*;
use syncytia_launch::ExitCode;
use syncytia_shards::ingest::h5ad_write::{self, AnnData, Uns};
use syncytia_shards::ingest::{self, Images as ImagesFrom, IngestError, IngestOptions};
use syncytia_shards::pictures::{Cutter, Window};
use syncytia_shards::process::{NicheKind, applied};
use syncytia_shards::processed::{Crops, Matrix, Piece, Split};
use syncytia_shards::row_group::{Images, RowGroup};
use syncytia_shards::section::{Csr, Section};
use syncytia_shards::tables::places::Places;
use syncytia_shards::tables::vectors::{Modality, Vectors, VectorsOf};

use super::exit::UsageError;
use super::model_genes::aligned;
use super::out;
use super::shard::ShardConfig;
use super::trained::Trained;
use crate::config;
use crate::model::Model;
use crate::model::spatia::SpatiaConfig;
use crate::task::embedding::{self, BATCH, CellEncoder};
use crate::task::places::{PlaceRows, most_members};
use crate::tensor::cpu;
use crate::train::checkpoint::Which;
use crate::train::error::TrainError;

/// Cells whose pictures are in memory at once.
const AT_ONCE: usize = 1024;
/// Niches whose regions' pictures are in memory at once.
const REGIONS_AT_ONCE: usize = 128;

/// The checkpoint, once it is clear that the file can be written.
pub fn open(path: &Path, which: Which, input: &Path, output: &Path) -> anyhow::Result<Trained> {
    out::check_file(output, &[input.to_owned()])?;
    Trained::open(path, which)
}

/// Runs the command.
pub fn run(
    trained: &Trained,
    input: &Path,
    output: &PathBuf,
    modality: Modality,
    max_genes_lost: f64,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let run = &trained.run;
    let config = trained.encoder(VectorsOf::Obs)?;
    let shard_config: ShardConfig = config::parse(&run.shard_config, "the checkpoint's shard config", &[])?;
    let (section, modality) = read(input, &shard_config, modality)?;
    let counts = aligned(&section, run, max_genes_lost)?;
    let crops = match modality {
        Modality::Genes => None,
        _ => applied::windows(&section, &shard_config.process)?,
    };
    let cells = Cells { section: &section, counts: &counts, crops: crops.as_ref() };
    let rows = cells.rows(&crops.as_ref().map_or_else(Vec::new, applied::without_picture));
    let channels = cells.crops.map_or_else(Vec::new, |crops| crops.pictures.channels());
    let (model, seed) = (trained.model()?, run.config.train.seed);
    let encoder = CellEncoder::of_panel(&model, config, run.panel.genes.len(), &channels, seed, modality);
    let encoder = encoder.map_err(TrainError::Data)?;
    let z = cells.vectors(&rows, &encoder, config.h)?;
    let mut found = vec![("X_spatia", by_row(&section, config.h, |row| z.get(u64::from(row))))];
    let level = run.config.task.highest();
    if level != VectorsOf::Obs {
        let passed = applied::rows_that_pass(&counts, &shard_config.filter);
        let members: Vec<u32> = rows.iter().copied().filter(|row| passed.binary_search(row).is_ok()).collect();
        let higher = Higher {
            model: &model,
            config,
            seed,
            shard_config: &shard_config,
            encoder: &encoder,
            crops: crops.as_ref(),
        };
        found.extend(higher.levels(&section, &counts, members, &z, level)?);
    }
    if run.config.task.fuses() {
        found.push(("X_spatia_fused", fused(&model, &found)));
    }
    let n_without = |of: &Matrix<f64>| (0..of.n_rows()).filter(|&i| of.row(i)[0].is_nan()).count();
    let said: Vec<(&str, usize)> = found.iter().map(|(name, of)| (*name, n_without(of))).collect();
    h5ad_write::write(output, &ann_data(&section, trained, modality, found))?;
    if json {
        let none: BTreeMap<&str, usize> = said.iter().copied().collect();
        out::json(&serde_json::json!({
            "output": output, "cells": section.n_obs(), "width": config.h, "modality": modality, "without": none,
        }))?;
    } else {
        let words: Vec<String> = said
            .iter()
            .map(|(name, none)| {
                format!("obsm[\"{name}\"]{}", if *none > 0 { format!(" ({none} without)") } else { String::new() })
            })
            .collect();
        let (n, h) = (section.n_obs(), config.h);
        out::line(format_args!("{}: {n} cells × {h} values in {}", output.display(), words.join(", ")))?;
    }
    Ok(ExitCode::Done)
}

/// The cells, and what of them can be read: genes alone where there is no picture beside them.
fn read(input: &Path, config: &ShardConfig, modality: Modality) -> anyhow::Result<(Section, Modality)> {
    let options = |images| IngestOptions { library_id: None, images, ..config.input.clone() };
    if modality == Modality::Genes {
        return Ok((ingest::read_section(input, &options(ImagesFrom::None))?, modality));
    }
    let section = match ingest::read_section(input, &options(config.input.images)) {
        Err(IngestError::Absent { node, .. }) if modality == Modality::Both => {
            let without = ingest::read_section(input, &options(ImagesFrom::None))?;
            eprintln!("warning: {}: no {node}; the vectors are of genes alone", input.display());
            return Ok((without, Modality::Genes));
        }
        section => section?,
    };
    match (&section.pictures, modality) {
        (Some(_), _) => Ok((section, modality)),
        (None, Modality::Image) => {
            Err(UsageError(format!("{} has no pictures: --modality image reads nothing else", input.display())).into())
        }
        (None, _) => {
            eprintln!("warning: {} has no pictures; the vectors are of genes alone", input.display());
            Ok((section, Modality::Genes))
        }
    }
}

/// The cells of a file, in the model's panel.
struct Cells<'a> {
    section: &'a Section,
    counts: &'a Csr,
    crops: Option<&'a Crops>,
}

impl Cells<'_> {
    /// Rows that have a vector: all but those whose picture cannot be cut, which are counted.
    fn rows(&self, without: &[(u32, String)]) -> Vec<u32> {
        if let Some((row, reason)) = without.first() {
            let name = &self.section.obs_ids[*row as usize];
            eprintln!("warning: {} cells have no picture and get NaN, the first {name}: {reason}", without.len());
        }
        let has = |row: &u32| without.binary_search_by_key(row, |w| w.0).is_err();
        (0..self.section.n_obs() as u32).filter(has).collect()
    }

    fn vectors(&self, rows: &[u32], encoder: &CellEncoder<'_>, width: usize) -> anyhow::Result<Vectors> {
        let mut cutter = self.crops.map(|crops| Cutter::open(&crops.pictures)).transpose()?;
        let mut values = Vec::with_capacity(rows.len() * width);
        for rows in rows.chunks(AT_ONCE) {
            let images = match (self.crops, &mut cutter) {
                (Some(crops), Some(cutter)) => {
                    let windows: Vec<Window> = rows.iter().map(|&row| crops.windows[row as usize]).collect();
                    Some(cut(&windows, crops, cutter).context("cannot cut the cells' pictures")?)
                }
                _ => None,
            };
            let group = self.group(rows, images);
            let starts: Vec<usize> = (0..rows.len()).step_by(BATCH).collect();
            let encode = |&first: &usize| encoder.encode(&group, first..rows.len().min(first + BATCH), &cpu());
            let of_batches: Vec<Vec<f32>> = starts.par_iter().map(encode).collect();
            values.extend(of_batches.concat());
        }
        let ids = rows.iter().map(|&row| u64::from(row)).collect();
        Ok(Vectors::in_memory(VectorsOf::Obs, ids, Matrix { n_cols: width, values }))
    }

    /// As a row group of shards would hold them; a cell's record id is its row.
    fn group(&self, rows: &[u32], images: Option<Images>) -> RowGroup {
        RowGroup {
            section: 0,
            split: Split::Test,
            n_own: rows.len(),
            record_ids: rows.iter().map(|&row| u64::from(row)).collect(),
            obs_ids: Vec::new(),
            xy: rows.iter().map(|&row| self.section.xy[row as usize]).collect(),
            z: Vec::new(),
            hidden: Matrix::default(),
            counts: Some(self.counts.select_rows(rows)),
            layers: BTreeMap::new(),
            covariates: Matrix::default(),
            measured: Matrix::default(),
            neighbours: Matrix::default(),
            labels: Vec::new(),
            niches: Vec::new(),
            images,
        }
    }
}

fn cut(windows: &[Window], crops: &Crops, cutter: &mut Cutter<'_>) -> anyhow::Result<Images> {
    let pixels = windows.iter().map(|window| Ok(cutter.cut(window)?)).collect::<anyhow::Result<Vec<Vec<u8>>>>()?;
    let sides: Vec<u32> = windows.iter().map(|window| window.side).collect();
    Ok(Images::of_crops(&pixels, crops.pictures.channels().len() as u8, &sides, crops.um_per_pixel))
}

/// The levels above cells.
struct Higher<'a> {
    model: &'a Model,
    config: &'a SpatiaConfig,
    seed: u64,
    shard_config: &'a ShardConfig,
    encoder: &'a CellEncoder<'a>,
    crops: Option<&'a Crops>,
}

impl Higher<'_> {
    /// Vectors of each cell's niche and, if the run has come to them, its tissue.
    fn levels(
        &self,
        section: &Section,
        counts: &Csr,
        members: Vec<u32>,
        z: &Vectors,
        level: VectorsOf,
    ) -> anyhow::Result<Vec<(&'static str, Matrix<f64>)>> {
        let process = &self.shard_config.process;
        if process.niches == NicheKind::None {
            let what = "the shards that the model learned from had no niches, so there is no rule to make them by";
            return Err(TrainError::Data(what.to_owned()).into());
        }
        let piece = applied::piece(section, counts, members, process)?;
        let regions = if self.config.regions { self.regions(&piece)? } else { None };
        let niches = self.vectors(VectorsOf::Niche, &piece, z, regions.as_ref());
        let niche_of: BTreeMap<u32, u64> =
            piece.rows.iter().zip(&piece.niches.niche_of).filter_map(|(&row, id)| Some((row, (*id)?))).collect();
        let h = self.config.h;
        let of_niches = by_row(section, h, |row| niches.get(*niche_of.get(&row)?));
        let mut found = vec![("X_spatia_niche", of_niches)];
        if level == VectorsOf::Tissue {
            let tissues = self.vectors(VectorsOf::Tissue, &piece, &niches, None);
            let tissue_of: BTreeMap<u64, u64> = piece.niches.niches.iter().map(|n| (n.niche_id, n.tissue_id)).collect();
            let of_tissues = by_row(section, h, |row| tissues.get(*tissue_of.get(niche_of.get(&row)?)?));
            found.push(("X_spatia_tissue", of_tissues));
        }
        Ok(found)
    }

    /// Of the pictures of the niches' regions; `None`, with a warning, where the file has no pictures.
    fn regions(&self, piece: &Piece) -> anyhow::Result<Option<Vectors>> {
        let Some(crops) = self.crops else {
            eprintln!("warning: the model's niches were learned with pictures of their regions, here they have none");
            return Ok(None);
        };
        let regions: Vec<(u64, Window)> = crops.regions(piece).collect();
        let mut cutter = Cutter::open(&crops.pictures)?;
        let (width, mut values) = (self.config.image.width, Vec::new());
        for some in regions.chunks(REGIONS_AT_ONCE) {
            let windows: Vec<Window> = some.iter().map(|region| region.1).collect();
            let pictures = cut(&windows, crops, &mut cutter).context("cannot cut the regions' pictures")?;
            let starts: Vec<usize> = (0..some.len()).step_by(BATCH).collect();
            let encode = |&first: &usize| self.encoder.regions(&pictures, first..some.len().min(first + BATCH), &cpu());
            let of_batches: Vec<Vec<f32>> = starts.par_iter().map(encode).collect();
            values.extend(of_batches.concat());
        }
        let mut rows: Vec<(u64, usize)> = regions.iter().enumerate().map(|(row, region)| (region.0, row)).collect();
        rows.sort_unstable();
        let sorted = rows.iter().flat_map(|&(_, row)| values[row * width..(row + 1) * width].iter().copied()).collect();
        let ids = rows.iter().map(|row| row.0).collect();
        Ok(Some(Vectors::in_memory(VectorsOf::Region, ids, Matrix { n_cols: width, values: sorted })))
    }

    fn vectors(&self, of: VectorsOf, piece: &Piece, below: &Vectors, regions: Option<&Vectors>) -> Vectors {
        let places = Places::of_piece(of, piece);
        let most = most_members(self.config, of);
        let starts: Vec<usize> = (0..places.n()).step_by(BATCH).collect();
        let encode = |&first: &usize| {
            let rows = (first..places.n().min(first + BATCH)).collect();
            let from = PlaceRows { places: &places, vectors: below, regions, rows };
            embedding::places(self.model, &from, most, self.seed, &cpu())
        };
        let values: Vec<Vec<f32>> = starts.par_iter().map(encode).collect();
        let values = Matrix { n_cols: self.config.h, values: values.concat() };
        Vectors::in_memory(of, places.ids.clone(), values)
    }
}

/// The vector of every cell that has one with its niche and tissue, of the levels that were `found`.
fn fused(model: &Model, found: &[(&str, Matrix<f64>)]) -> Matrix<f64> {
    let mut fused = found[0].1.clone();
    let rows: Vec<usize> = (0..fused.n_rows()).filter(|&row| !fused.row(row)[0].is_nan()).collect();
    for rows in rows.chunks(BATCH) {
        let present = |&v: &f64| if v.is_nan() { 0.0 } else { v as f32 };
        let level = |of: &Matrix<f64>| rows.iter().flat_map(|&row| of.row(row).iter().map(present)).collect();
        let levels: Vec<Vec<f32>> = found.iter().map(|(_, of)| level(of)).collect();
        let z = embedding::fused_values(model, &levels, rows.len(), &cpu());
        for (&row, z) in rows.iter().zip(z.chunks(fused.n_cols)) {
            let to = &mut fused.values[row * fused.n_cols..][..z.len()];
            to.iter_mut().zip(z).for_each(|(to, &v)| *to = f64::from(v));
        }
    }
    fused
}

/// `[n_obs, width]`: NaN in rows without a vector.
fn by_row<'a>(section: &Section, width: usize, vector: impl Fn(u32) -> Option<&'a [f32]>) -> Matrix<f64> {
    let mut values = vec![f64::NAN; section.n_obs() * width];
    for (row, values) in (0u32..).zip(values.chunks_mut(width)) {
        if let Some(vector) = vector(row) {
            values.iter_mut().zip(vector).for_each(|(to, &from)| *to = f64::from(from));
        }
    }
    Matrix { n_cols: width, values }
}

fn ann_data(
    section: &Section,
    trained: &Trained,
    modality: Modality,
    found: Vec<(&'static str, Matrix<f64>)>,
) -> AnnData {
    let mut whole = AnnData::from_section(section);
    let run = &trained.run;
    let text = |text: &str| Uns::Text(text.to_owned());
    let read = match modality {
        Modality::Both => "genes and picture",
        Modality::Genes => "genes alone",
        Modality::Image => "the picture alone",
    };
    let provenance = BTreeMap::from([
        ("model".to_owned(), text(run.config.model.name())),
        ("task".to_owned(), text(run.config.task.kind())),
        ("read".to_owned(), text(read)),
        ("scale".to_owned(), text("layer-normalised vectors without unit; NaN: the cell has none")),
        ("global_step".to_owned(), Uns::I64(run.global_step as i64)),
        ("checkpoint".to_owned(), Uns::Text(trained.checkpoint.manifest.digest())),
        ("data_hash".to_owned(), Uns::Text(run.data_hash.clone())),
        ("version".to_owned(), Uns::Text(run.version.clone())),
    ]);
    whole.uns.insert("syncytia".to_owned(), Uns::Dict(provenance));
    whole.obsm.extend(found.into_iter().map(|(name, values)| (name.to_owned(), values)));
    whole
}
