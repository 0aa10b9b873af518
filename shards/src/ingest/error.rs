//! What can be wrong with an input, said so that the reader can mend it: what, where, what to do next.

use std::path::PathBuf;

use thiserror::Error;

use crate::pictures::PictureError;

/// Why an input could not be read as a tissue section.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IngestError {
    /// Nothing at the path.
    #[error("{path}: no such file or folder; check the path")]
    Missing {
        /// As given.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{path}: cannot be read: {source}")]
    Io {
        /// File concerned.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// Not a format we know.
    #[error(
        "{path}: {found}; expected an AnnData .h5ad file, a Space Ranger `outs` folder, a MERSCOPE folder or a text table"
    )]
    UnknownFormat {
        /// Input.
        path: PathBuf,
        /// What was found instead.
        found: String,
    },
    /// The name says HDF5, the bytes do not.
    #[error("{path}: not an HDF5 file (no HDF5 signature); was the download complete, or is it compressed?")]
    NotHdf5 {
        /// File.
        path: PathBuf,
    },
    /// HDF5 that contradicts itself or the size of the file.
    #[error("{path}: damaged or truncated at `{node}`: {fact}; copy or download the file again")]
    Damaged {
        /// File.
        path: PathBuf,
        /// Object inside the file.
        node: String,
        /// What does not fit.
        fact: String,
    },
    /// Sound, but not something this reader can decode.
    #[error("{path}: `{node}` {fact}")]
    Unsupported {
        /// File.
        path: PathBuf,
        /// Object inside the file.
        node: String,
        /// What it is, and what to do.
        fact: String,
    },
    /// A part that must be there is not.
    #[error("{path}: no `{node}`; {advice}")]
    Absent {
        /// File or folder.
        path: PathBuf,
        /// Object or file looked for.
        node: String,
        /// What to do.
        advice: String,
    },
    /// A bare 10x matrix: counts without places.
    #[error(
        "{path}: a 10x matrix without positions; give the Space Ranger `outs` folder that holds it together with \
         `spatial/tissue_positions.csv` (or tissue_positions_list.csv)"
    )]
    NoPositions {
        /// The `.h5` file.
        path: PathBuf,
    },
    /// No coordinates in an h5ad.
    #[error(
        "{path}: no spatial coordinates in obsm[\"{key}\"]; obsm holds [{found}]. Set `input.spatial_key` to the one \
         with coordinates or `input.xy_columns` to two columns of obs, or add them"
    )]
    NoSpatial {
        /// File.
        path: PathBuf,
        /// Key asked for.
        key: String,
        /// Keys found.
        found: String,
    },
    /// A coordinate that is no number.
    #[error("{path}: coordinate of `{obs}` is not finite; drop the observation or mend the coordinate")]
    BadCoordinate {
        /// File.
        path: PathBuf,
        /// Observation.
        obs: String,
    },
    /// A count that cannot be one.
    #[error("{path}: `{node}` holds {value} at observation `{obs}`, gene `{gene}`: {fact}")]
    BadCount {
        /// File.
        path: PathBuf,
        /// Matrix.
        node: String,
        /// The value.
        value: f64,
        /// Observation.
        obs: String,
        /// Gene.
        gene: String,
        /// Rule broken and what to do.
        fact: &'static str,
    },
    /// No matrix of counts could be chosen.
    #[error(
        "{path}: no integer counts found (looked at {looked_at}); name the matrix with `input.counts`, or set \
         `input.declared_counts = false` to take X as it is"
    )]
    NoCounts {
        /// File.
        path: PathBuf,
        /// Each matrix with what it holds.
        looked_at: String,
    },
    /// Names that must be unique are not.
    #[error("{path}: {n} duplicate {what} name(s), first: {first}; make them unique (in scanpy: {advice})")]
    Duplicate {
        /// File.
        path: PathBuf,
        /// `observation` or `gene`.
        what: &'static str,
        /// How many names occur more than once.
        n: usize,
        /// The first few.
        first: String,
        /// What to call.
        advice: &'static str,
    },
    /// Lengths that must agree do not.
    #[error("{path}: `{node}` has {found} rows or columns, expected {expected}; the file contradicts itself")]
    Length {
        /// File.
        path: PathBuf,
        /// Object.
        node: String,
        /// Found.
        found: usize,
        /// Expected.
        expected: usize,
    },
    /// Observations in the matrix that the position file does not know.
    #[error(
        "{path}: {n} of {n_obs} barcodes of the matrix are not in {positions}, first: {first}; are matrix and positions \
         of the same section?"
    )]
    UnplacedBarcodes {
        /// Folder.
        path: PathBuf,
        /// Position file.
        positions: PathBuf,
        /// How many.
        n: usize,
        /// Of how many.
        n_obs: usize,
        /// The first few.
        first: String,
    },
    /// A line of a text file that does not parse.
    #[error("{path}: line {line}: {fact}")]
    Text {
        /// File.
        path: PathBuf,
        /// 1-based.
        line: u64,
        /// What is wrong.
        fact: String,
    },
    /// Several sections in one file.
    #[error("{path}: holds {n} sections ({names}); choose one with `input.library_id`{advice}")]
    SeveralSections {
        /// File.
        path: PathBuf,
        /// How many.
        n: usize,
        /// Names.
        names: String,
        /// More to know.
        advice: &'static str,
    },
    /// An image of cells that cannot be read.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// A mosaic's scale that contradicts its extent.
    #[error(
        "{path}: {stated} µm per pixel, but a bounding box of {width_um:.1} × {height_um:.1} µm on {width} × {height} pixels \
         is {measured:.4}; if the mosaics were made smaller after the export, set `input.mosaic_scale = \"bbox\"`"
    )]
    MosaicScale {
        /// Manifest or transform.
        path: PathBuf,
        /// What it says.
        stated: f64,
        /// The box's width.
        width_um: f64,
        /// The box's height.
        height_um: f64,
        /// The mosaic's width.
        width: u32,
        /// The mosaic's height.
        height: u32,
        /// Box over size.
        measured: f64,
    },
    /// Cells of one table that the other lacks.
    #[error(
        "{path}: {n} cell(s) without {what}, first: {first}; are the tables of one export? `input.on_bad_cell = \"skip\"` \
         leaves them out and counts them"
    )]
    CellWithout {
        /// Table that lacks them.
        path: PathBuf,
        /// `counts` or `place`.
        what: &'static str,
        /// How many.
        n: usize,
        /// The first few.
        first: String,
    },
    /// The file could not be written.
    #[error("{path}: cannot be written: {fact}")]
    Write {
        /// File.
        path: PathBuf,
        /// Why.
        fact: String,
    },
}

/// The first few of a list of names, for a message.
pub(crate) fn first_few<S: AsRef<str>>(names: &[S]) -> String {
    let shown: Vec<&str> = names.iter().take(3).map(AsRef::as_ref).collect();
    let more = if names.len() > shown.len() { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}
