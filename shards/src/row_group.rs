//! One row group in memory: typed columns of own records, then of their halo.
//!
//! Knows no file: `decode` fills it.

use std::collections::BTreeMap;

use arrow_array::BinaryArray;

use crate::matrix::Matrix;
use crate::pictures::CellImage;
use crate::processed::Split;
use crate::section::{Csr, ObsLabels};

/// Which columns to decode; ids, places, `measured` and neighbours always are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Columns {
    /// Counts of all panel genes.
    pub counts: bool,
    /// Names of observations and all of their labels.
    pub names: bool,
    /// These labels.
    pub labels: Vec<String>,
    /// Layers.
    pub layers: Vec<String>,
    /// Which entries are hidden.
    pub hidden: bool,
    /// Covariates.
    pub covariates: bool,
    /// Pictures.
    pub images: bool,
}

/// One row group, decoded: own records first, then the halo.
#[derive(Debug, Clone, PartialEq)]
pub struct RowGroup {
    /// Section of all records.
    pub section: u32,
    /// Split of all records.
    pub split: Split,
    /// Own records; rows `n_own..` are halo.
    pub n_own: usize,
    /// Record ids `[n_rows]`, ascending among the own and among the halo rows.
    pub record_ids: Vec<u64>,
    /// Names `[n_rows]`; empty unless asked for.
    pub obs_ids: Vec<String>,
    /// Native coordinates `[n_rows]`.
    pub xy: Vec<[f64; 2]>,
    /// Third coordinate `[n_rows]`, 0 where the section has none; empty where no section has one.
    pub z: Vec<f64>,
    /// Which entries are hidden `[n_rows, n_genes]`, if asked for; no columns where none is.
    pub hidden: Matrix<bool>,
    /// Counts `[n_rows, n_genes]`, if asked for.
    pub counts: Option<Csr>,
    /// The layers asked for, `[n_rows, G]`.
    pub layers: BTreeMap<String, Matrix<f32>>,
    /// `[n_rows, E]`, if asked for; no columns where there are none.
    pub covariates: Matrix<f32>,
    /// Count > 0, `[n_rows, G]`; no columns without layers.
    pub measured: Matrix<bool>,
    /// Rows of this row group, nearest first, `[n_own, n_neighbours]`; [`NO_ROW`](crate::schema::NO_ROW) is padding.
    pub neighbours: Matrix<i32>,
    /// The labels asked for, `[n_rows]` each.
    pub labels: Vec<ObsLabels>,
    /// Niche of each row; empty where there are none.
    pub niches: Vec<Option<u64>>,
    /// Pictures, if asked for.
    pub images: Option<Images>,
}

/// The pictures of a row group.
#[derive(Debug, Clone, PartialEq)]
pub struct Images {
    /// As stored: no copy is made of a picture until somebody resizes it.
    pub(crate) bytes: BinaryArray,
    pub(crate) channels: Vec<u8>,
    pub(crate) sizes: Vec<[u32; 2]>,
    pub(crate) um_per_pixel: Vec<Option<f64>>,
}

impl Images {
    /// Square pictures of the same channels, just cut.
    pub fn of_crops(crops: &[Vec<u8>], channels: u8, sides: &[u32], um_per_pixel: Option<f64>) -> Images {
        let n = crops.len();
        Images {
            bytes: BinaryArray::from_iter_values(crops),
            channels: vec![channels; n],
            sizes: sides.iter().map(|&side| [side, side]).collect(),
            um_per_pixel: vec![um_per_pixel; n],
        }
    }

    /// The picture of row `i` (of an own record).
    pub fn get(&self, i: usize) -> CellImage<'_> {
        let [height, width] = self.sizes[i];
        let (channels, um_per_pixel) = (self.channels[i], self.um_per_pixel[i]);
        CellImage { bytes: self.bytes.value(i), channels, height, width, um_per_pixel }
    }
}

impl RowGroup {
    /// Rows, own and halo.
    pub fn n_rows(&self) -> usize {
        self.record_ids.len()
    }

    /// The picture of an own row; `None` where pictures were not asked for.
    pub fn image(&self, row: usize) -> Option<CellImage<'_>> {
        assert!(row < self.n_own, "halo rows have no picture");
        self.images.as_ref().map(|images| images.get(row))
    }
}
