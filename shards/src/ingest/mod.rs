//! Instrument files to sections: one file per format, one `match` here.
//!
//! Knows no filter, no layer and no tensor. `h5` reads HDF5 behind guards; `data_frame` and `counts_window` are what
//! formats in HDF5 share; `beside` finds an image beside a file; `checks` is what every section must hold. A new format is one file, a variant of [`Format`]
//! and its lines in [`detect`] and [`read_section`].

mod anndata;
mod beside;
mod checks;
mod counts_window;
mod data_frame;
mod describe;
mod description;
mod error;
mod h5;
mod h5ad;
pub mod h5ad_write;
mod merscope;
mod options;
mod space_ranger;
pub mod synthetic;
pub mod synthetic_cells;
mod tables;
mod tenx_h5;
mod text;
mod visium;

use std::path::{Path, PathBuf};

pub use counts_window::{CountsWindow, Storage, Window};
pub use data_frame::{Column, DataFrame};
pub use describe::describe;
pub use description::Description;
pub use error::IngestError;
pub use h5::{Attr, Element, Extent, H5File, Node};
pub use options::{CountsFrom, GenesIn, Images, IngestOptions, MosaicScale, OnBadCell};

use crate::section::{Cells, Gene, Section};

/// Formats we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// AnnData in HDF5.
    H5ad,
    /// Space Ranger's `outs` folder.
    SpaceRanger,
    /// A MERSCOPE (Vizgen) export: tables of cells and `images/`.
    Merscope,
    /// A 10x matrix alone: has no places, so it is no section, but can be a reference.
    TenxMatrix,
    /// A text table of values; its places are in another.
    Table,
}

impl Format {
    /// `h5ad`, `space_ranger`, `merscope`, `tenx_matrix` or `table`.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::H5ad => "h5ad",
            Format::SpaceRanger => "space_ranger",
            Format::Merscope => "merscope",
            Format::TenxMatrix => "tenx_matrix",
            Format::Table => "table",
        }
    }
}

/// Tells the format of a file or folder by what is in it.
pub fn detect(path: &Path) -> Result<Format, IngestError> {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(IngestError::Missing { path: path.into() }),
        Err(source) => return Err(IngestError::Io { path: path.into(), source }),
    };
    let unknown = |found: String| Err(IngestError::UnknownFormat { path: path.into(), found });
    if meta.is_dir() {
        return match space_ranger::outs_folder(path) {
            Some(_) => Ok(Format::SpaceRanger),
            None if merscope::is_export(path) => Ok(Format::Merscope),
            None => unknown("a folder without `spatial/` beside a matrix, and without `cell_by_gene.csv`".into()),
        };
    }
    if text::is_table(path) {
        return Ok(Format::Table);
    }
    let h5 = H5File::open(path)?;
    let root = h5.list("")?;
    if root.contains_key("obs") && root.contains_key("var") {
        return Ok(Format::H5ad);
    }
    if tenx_h5::is_matrix(&h5)? {
        return Ok(Format::TenxMatrix);
    }
    let names: Vec<String> = root.into_keys().collect();
    unknown(format!("HDF5 with [{}] at its root", names.join(", ")))
}

/// The `.h5ad` files of a folder that is no input by itself, in order of name; none where `path` is something else.
pub fn h5ad_files(path: &Path) -> Result<Vec<PathBuf>, IngestError> {
    if !path.is_dir() || detect(path).is_ok() {
        return Ok(Vec::new());
    }
    let io = |source| IngestError::Io { path: path.into(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        let file = entry.map_err(io)?.path();
        if file.extension().is_some_and(|ending| ending == "h5ad") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a section; see [`IngestOptions`] for what can be chosen. Nothing is dropped without a line in
/// [`Section::notes`].
pub fn read_section(path: &Path, options: &IngestOptions) -> Result<Section, IngestError> {
    match detect(path)? {
        Format::H5ad => h5ad::read(path, options),
        Format::SpaceRanger => space_ranger::read(path, options),
        Format::Merscope => merscope::read(path, options),
        Format::Table => tables::read(path, options),
        Format::TenxMatrix => Err(IngestError::NoPositions { path: path.into() }),
    }
}

/// Reads single cells without places; `known`: genes of the sections they go with, which tell a table's genes from its cells.
pub fn read_cells(path: &Path, options: &IngestOptions, known: &[Gene]) -> Result<Cells, IngestError> {
    match detect(path)? {
        Format::H5ad => h5ad::read_cells(path, options),
        Format::Table => tables::read_cells(path, options, known),
        Format::TenxMatrix => tenx_h5::read_cells(path, options),
        Format::SpaceRanger | Format::Merscope => {
            let section = read_section(path, options)?;
            Ok(Cells {
                source: section.source,
                format: section.format,
                obs_ids: section.obs_ids,
                genes: section.genes,
                counts: section.counts,
                label: None,
                notes: section.notes,
            })
        }
    }
}

#[cfg(test)]
mod tests;
