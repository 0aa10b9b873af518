//! Opens a shard folder and decodes row groups and pieces.
//!
//! `open` reads the manifest and nothing else. Every byte range is checked against its CRC-32C before it is decoded.
//! Knows no order and no batch.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use rayon::prelude::*;

use crate::decode::{FilePart, Source};
use crate::durable::FileError;
use crate::error::StoreError;
use crate::holdout::Protocol;
use crate::manifest::{FileEntry, Manifest, RowGroupEntry, TableKind};
use crate::processed::{Matrix, NO_NEIGHBOUR, Niches, Piece, Split};
use crate::row_group::{Columns, RowGroup};
use crate::schema::{NO_ROW, RecordShape};
use crate::section::{Csr, ObsLabels};

/// An open shard folder; share it between threads.
#[derive(Debug)]
pub struct Shards {
    dir: PathBuf,
    manifest: Manifest,
    shape: RecordShape,
    /// Of every file of every table.
    footers: Vec<Vec<OnceLock<ArrowReaderMetadata>>>,
}

impl Shards {
    /// Opens a folder by its manifest.
    ///
    /// # Errors
    /// As [`Manifest::read`].
    pub fn open(dir: &Path) -> Result<Shards, StoreError> {
        let manifest = Manifest::read(dir)?;
        let shape = manifest.shape();
        let footers = manifest.tables.iter().map(|t| t.files.iter().map(|_| OnceLock::new()).collect()).collect();
        Ok(Shards { dir: dir.to_path_buf(), manifest, shape, footers })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Row groups of a split, in stored order.
    pub fn row_groups(&self, split: Split) -> &[RowGroupEntry] {
        self.manifest.row_groups(split)
    }

    /// Every column there is.
    pub fn all_columns(&self) -> Columns {
        let layers = self.manifest.layers.clone();
        Columns {
            counts: true,
            names: true,
            labels: Vec::new(),
            layers,
            hidden: true,
            covariates: true,
            images: self.shape.images,
        }
    }

    /// Decodes one row group.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with file and row group when the checksum or the content is wrong;
    /// [`StoreError::NoLayer`]; [`StoreError::HeldOut`] where counts are asked for and some are hidden; the system's errors.
    pub fn read_row_group(&self, entry: &RowGroupEntry, columns: &Columns) -> Result<RowGroup, StoreError> {
        if columns.counts && self.manifest.protocol() != Protocol::None {
            return Err(StoreError::HeldOut { protocol: self.manifest.protocol().as_str() });
        }
        self.decode(entry, columns)
    }

    /// As [`Shards::read_row_group`], counts with hidden genes among them: for [`crate::visible`], which takes them out, for
    /// [`crate::tables::held`] and for the proof of the folder.
    pub(crate) fn decode(&self, entry: &RowGroupEntry, columns: &Columns) -> Result<RowGroup, StoreError> {
        let (source, part) = self.read_checked(entry)?;
        source.decode(part, columns)
    }

    /// Record ids of the own records of every row group of a split, in stored order: what an order over records sorted
    /// by id needs. Decodes ids, places, `measured` and neighbours only.
    ///
    /// # Errors
    /// As [`Shards::read_row_group`].
    pub fn record_ids(&self, split: Split) -> Result<Vec<Vec<u64>>, StoreError> {
        let own = |entry| {
            let group = self.read_row_group(entry, &Columns::default())?;
            Ok(group.record_ids[..group.n_own].to_vec())
        };
        self.row_groups(split).par_iter().map(own).collect()
    }

    /// All own records of one section in one split, in record-id order, with every column but pictures: the piece as
    /// it was processed (label columns that the section lacks come back as missing; niches are [`Shards::niches`]).
    ///
    /// # Errors
    /// [`StoreError::NoPiece`]; as [`Shards::read_row_group`].
    pub fn read_piece(&self, section: u32, split: Split) -> Result<Piece, StoreError> {
        let entries: Vec<&RowGroupEntry> = self.row_groups(split).iter().filter(|g| g.section == section).collect();
        if entries.is_empty() {
            return Err(StoreError::NoPiece { section, split: split.as_str() });
        }
        let columns = Columns { images: false, ..self.all_columns() };
        let groups: Vec<RowGroup> =
            entries.par_iter().map(|entry| self.read_row_group(entry, &columns)).collect::<Result<_, _>>()?;
        self.join(&entries, &groups)
    }

    fn join(&self, entries: &[&RowGroupEntry], groups: &[RowGroup]) -> Result<Piece, StoreError> {
        let (section, split) = (groups[0].section, groups[0].split);
        let mut order: Vec<(u64, usize, usize)> = Vec::new(); // record id, row group, row
        for (k, group) in groups.iter().enumerate() {
            order.extend((0..group.n_own).map(|row| (group.record_ids[row], k, row)));
        }
        order.sort_unstable();
        let mut neighbours = Vec::with_capacity(order.len() * self.shape.n_neighbours);
        for &(_, k, row) in &order {
            for &other in groups[k].neighbours.row(row) {
                if other == NO_ROW {
                    neighbours.push(NO_NEIGHBOUR);
                    continue;
                }
                let id = groups[k].record_ids[other as usize];
                let position = order.binary_search_by_key(&id, |o| o.0).map_err(|_| {
                    let file = &self.manifest.obs().files[entries[k].file as usize].name;
                    StoreError::damaged(file, Some(entries[k].index), format!("neighbour {id} is in no row group"))
                })?;
                neighbours.push(position as u32);
            }
        }
        let mut counts = Csr { n_cols: self.manifest.panel.genes.len(), indptr: vec![0], ..Csr::default() };
        for &(_, k, row) in &order {
            let (genes, values) = groups[k].counts.as_ref().expect("asked for").row(row);
            counts.indices.extend_from_slice(genes);
            counts.values.extend_from_slice(values);
            counts.indptr.push(counts.indices.len());
        }
        let g = self.shape.n_selected;
        let layer = |name: &String| {
            let values = order.iter().flat_map(|&(_, k, row)| groups[k].layers[name].row(row)).copied().collect();
            (name.clone(), Matrix { n_cols: g, values })
        };
        let label = |(i, name): (usize, &String)| ObsLabels {
            name: name.clone(),
            values: order.iter().map(|&(_, k, row)| groups[k].labels[i].values[row].clone()).collect(),
        };
        let e = self.shape.n_covariates;
        let covariates = order.iter().flat_map(|&(_, k, row)| groups[k].covariates.row(row)).copied().collect();
        let facts = &self.manifest.sections[section as usize];
        let measured = order.iter().flat_map(|&(_, k, row)| groups[k].measured.row(row)).copied().collect();
        Ok(Piece {
            section,
            library_id: facts.library_id.clone(),
            donor_id: facts.donor_id.clone(),
            split,
            rows: order.iter().map(|o| o.0 as u32).collect(),
            obs_ids: order.iter().map(|&(_, k, row)| groups[k].obs_ids[row].clone()).collect(),
            xy: order.iter().map(|&(_, k, row)| groups[k].xy[row]).collect(),
            z: match facts.has_z {
                true => order.iter().map(|&(_, k, row)| groups[k].z[row]).collect(),
                false => Vec::new(),
            },
            um_per_unit: facts.um_per_unit,
            counts,
            hidden: Matrix::default(), // shards that hide something are not read so
            held: Csr::default(),
            measured: Matrix { n_cols: g, values: measured },
            layers: self.shape.layers.iter().map(layer).collect(),
            covariates: Matrix { n_cols: e, values: covariates },
            neighbours: Matrix { n_cols: self.shape.n_neighbours, values: neighbours },
            labels: self.shape.labels.iter().enumerate().map(label).collect(),
            niches: Niches::default(),
        })
    }

    /// A row group's bytes, checksum passed, and what is needed to decode them.
    pub(crate) fn read_checked<'a>(&'a self, entry: &'a RowGroupEntry) -> Result<(Source<'a>, FilePart), StoreError> {
        self.read_checked_of(TableKind::Obs, entry)
    }

    /// The row groups of a split in a table of niches or tissues.
    pub(crate) fn table_groups(&self, kind: TableKind, split: Split) -> Result<&[RowGroupEntry], StoreError> {
        let table = self.manifest.table(kind).ok_or(StoreError::NoNiches)?;
        Ok(table.row_groups(split))
    }

    /// As [`Shards::read_checked`], in any table that there is.
    pub(crate) fn read_checked_of<'a>(
        &'a self,
        kind: TableKind,
        entry: &'a RowGroupEntry,
    ) -> Result<(Source<'a>, FilePart), StoreError> {
        let table = self.manifest.tables.iter().position(|t| t.kind == kind).expect("its entry was found in it");
        let file = &self.manifest.tables[table].files[entry.file as usize];
        let part = self.read_part(file, entry.offset, entry.length, Some(entry.index), entry.crc32c)?;
        let footer = self.footer(table, entry.file as usize)?;
        let n_genes = self.manifest.panel.genes.len();
        Ok((Source { file: &file.name, footer, entry, shape: &self.shape, n_genes }, part))
    }

    /// The file's own description of itself, read once.
    pub(crate) fn footer(&self, table: usize, file: usize) -> Result<&ArrowReaderMetadata, StoreError> {
        let kept = &self.footers[table][file];
        if let Some(footer) = kept.get() {
            return Ok(footer);
        }
        let entry = &self.manifest.tables[table].files[file];
        let length = entry.bytes - entry.footer_offset;
        let part = self.read_part(entry, entry.footer_offset, length, None, entry.footer_crc32c)?;
        let footer = ArrowReaderMetadata::load(&part, ArrowReaderOptions::new())
            .map_err(StoreError::parquet(&entry.name, None))?;
        Ok(kept.get_or_init(|| footer))
    }

    fn read_part(
        &self,
        file: &FileEntry,
        offset: u64,
        length: u64,
        row_group: Option<u32>,
        crc32c: u32,
    ) -> Result<FilePart, StoreError> {
        let path = self.dir.join(&file.name);
        let mut handle = File::open(&path).map_err(FileError::at("open", &path))?;
        let found = handle.metadata().map_err(FileError::at("look at", &path))?.len();
        if found != file.bytes {
            let what = format!("{found} bytes long, the manifest says {}", file.bytes);
            return Err(StoreError::damaged(&file.name, None, what));
        }
        // The manifest's ranges lie inside of the file (checked when read), so this is no unbounded allocation.
        let mut bytes = Vec::with_capacity(length as usize);
        handle.seek(SeekFrom::Start(offset)).map_err(FileError::at("read", &path))?;
        handle.take(length).read_to_end(&mut bytes).map_err(FileError::at("read", &path))?;
        if crc32c::crc32c(&bytes) != crc32c {
            let place = if row_group.is_some() { "its bytes" } else { "the footer's bytes" };
            let what = format!("{place} do not match their checksum");
            return Err(StoreError::damaged(&file.name, row_group, what));
        }
        Ok(FilePart { file_length: file.bytes, offset, bytes: Bytes::from(bytes) })
    }
}
