//! What processing hands to the writer: pieces of sections with layers, and the panel they share.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::holdout::Holdout;
pub use crate::matrix::Matrix;
use crate::panel::{Ledger, Panel};
use crate::pictures::{Cover, Pictures, Window};
use crate::section::{Csr, ObsLabels, TissueImage};

/// Which part of the data a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Trains the model.
    Train,
    /// Selects it.
    Val,
    /// Judges it.
    Test,
}

impl Split {
    /// `train`, `val` or `test`.
    pub fn as_str(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Test => "test",
        }
    }
}

/// Stands where an observation has fewer neighbours than columns; after the last of them.
pub const NO_NEIGHBOUR: u32 = u32::MAX;

/// The observations of one section in one split: the unit inside which neighbours, completion and baselines live.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Position of the section in the data set; upper half of every record id.
    pub section: u32,
    /// Name of the section.
    pub library_id: String,
    /// Donor, where known.
    pub donor_id: Option<String>,
    /// Split of all its observations.
    pub split: Split,
    /// Row of each observation in the section as ingested, ascending; lower half of its record id.
    pub rows: Vec<u32>,
    /// Names.
    pub obs_ids: Vec<String>,
    /// Native coordinates.
    pub xy: Vec<[f64; 2]>,
    /// Third coordinate; empty where the section has none.
    pub z: Vec<f64>,
    /// µm per native unit.
    pub um_per_unit: Option<f64>,
    /// Counts over `Panel::genes`, `[n_obs, n_genes]`; of entries that are not hidden.
    pub counts: Csr,
    /// Which entries are hidden `[n_obs, n_genes]`; no columns where none is.
    pub hidden: Matrix<bool>,
    /// Counts of the hidden entries, `[n_obs, n_genes]`; for who judges.
    pub held: Csr,
    /// Whether the entry was measured (count > 0) `[n_obs, G]`; no columns without layers.
    pub measured: Matrix<bool>,
    /// Layers over `Panel::selected`: `log1p`, `d_log1p`, ... `[n_obs, G]`; none where counts are all that is asked for.
    pub layers: BTreeMap<String, Matrix<f32>>,
    /// What a model sees beside the layers and never predicts, `[n_obs, covariates]`: values of context genes, then features.
    pub covariates: Matrix<f32>,
    /// `n_neighbours` per observation: positions in this piece, nearest first, ties by position.
    pub neighbours: Matrix<u32>,
    /// Label columns, cut to these observations.
    pub labels: Vec<ObsLabels>,
    /// Niches and tissues, where asked for.
    pub niches: Niches,
}

/// The niches and tissues of a piece.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Niches {
    /// In stored order.
    pub niches: Vec<Niche>,
    /// In stored order.
    pub tissues: Vec<Tissue>,
    /// Niche of each observation (of overlapping ones that of which it is the centre); empty without niches.
    pub niche_of: Vec<Option<u64>>,
    /// Observations that no row group may part, in stored order, each once; empty where niches overlap.
    pub units: Vec<Vec<u32>>,
}

/// A niche: cells near each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Niche {
    /// Section ordinal ≪ 32 | number.
    pub niche_id: u64,
    /// The tissue it lies in.
    pub tissue_id: u64,
    /// Centre, µm.
    pub centre_um: [f64; 2],
    /// Positions in the piece, nearest to the centre first, ties by position.
    pub members: Vec<u32>,
}

/// A tissue: niches near each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Tissue {
    /// Section ordinal ≪ 32 | number.
    pub tissue_id: u64,
    /// Centre, µm.
    pub centre_um: [f64; 2],
    /// Its niches, in stored order.
    pub niches: Vec<u64>,
}

/// Pictures of a section's cells, cut when they are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Crops {
    /// Where from.
    pub pictures: Pictures,
    /// Which window, for every observation as ingested.
    pub windows: Vec<Window>,
    /// µm per pixel, where known.
    pub um_per_pixel: Option<f64>,
    /// The rule of the windows, in words.
    pub rule: String,
    /// Side of the picture of a niche's region, pixels; `None` where none is cut.
    pub region_side: Option<u32>,
}

impl Crops {
    /// The window of the region of each niche of a `piece` that the picture shows and that decodes, with the niche's id.
    pub fn regions<'a>(&'a self, piece: &'a Piece) -> impl Iterator<Item = (u64, Window)> + 'a {
        let scale = self.region_side.zip(piece.um_per_unit);
        piece.niches.niches.iter().filter_map(move |niche| {
            let (side, um) = scale?;
            let at = self.pictures.pixel(niche.centre_um.map(|v| v / um));
            let window = self.pictures.window(at, side);
            let shown = self.pictures.cover(&window) != Cover::None && self.pictures.bad_tile(&window).is_none();
            shown.then_some((niche.niche_id, window))
        })
    }
}

impl Piece {
    /// Number of observations.
    pub fn n_obs(&self) -> usize {
        self.rows.len()
    }

    /// Record id of observation `i`: section ordinal ≪ 32 | row as ingested.
    pub fn record_id(&self, i: usize) -> u64 {
        (u64::from(self.section) << 32) | u64::from(self.rows[i])
    }
}

/// A reference: single cells without places, over the genes of the panel.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reference {
    /// Row of each cell as ingested `[n]`, ascending.
    pub ids: Vec<u64>,
    /// Names `[n]`.
    pub names: Vec<String>,
    /// Types `[n]`, `None` where missing.
    pub labels: Vec<Option<String>>,
    /// Sum of each cell over all genes of the file `[n]`: what counts are normalised by.
    pub totals: Vec<f64>,
    /// Values `[n, n_genes]` as ingested.
    pub counts: Csr,
}

impl Reference {
    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.ids.len()
    }
}

/// A section's facts that the manifest keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct SectionFacts {
    /// Name.
    pub library_id: String,
    /// Donor, where known.
    pub donor_id: Option<String>,
    /// File or folder name it came from (not the machine's path).
    pub source: String,
    /// Format it was read as.
    pub format: String,
    /// Observations as ingested.
    pub n_obs_ingested: u64,
    /// µm per native unit.
    pub um_per_unit: Option<f64>,
    /// Low-resolution picture for reports.
    pub image: Option<TissueImage>,
    /// Pictures of its cells.
    pub crops: Option<Crops>,
}

/// A data set in one line, as SpaRED's Table 1 has it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Sections.
    pub sections: u32,
    /// Donors, where every section names one.
    pub donors: Option<u32>,
    /// Observations kept.
    pub observations: u64,
    /// Genes of the layers; without layers those of the panel.
    pub genes: u32,
    /// Share of zeros among all ingested observations and shared genes.
    pub missing_before: f64,
    /// Share of zeros among the kept observations and these genes.
    pub missing_after: f64,
    /// Share of kept observations with at least one missing value in these genes.
    pub corrupt: f64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let donors = self.donors.map_or("donors unknown".to_owned(), |n| format!("{n} donors"));
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        write!(
            f,
            "{} sections, {donors}, {} observations, {} genes; missing {} before, {} after; {} of observations corrupt",
            self.sections,
            self.observations,
            self.genes,
            percent(self.missing_before),
            percent(self.missing_after),
            percent(self.corrupt)
        )
    }
}

/// A processed data set, ready to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Processed {
    /// Genes.
    pub panel: Panel,
    /// Sections in ordinal order.
    pub sections: Vec<SectionFacts>,
    /// Pieces, ordered by (section, split).
    pub pieces: Vec<Piece>,
    /// What was dropped.
    pub ledger: Ledger,
    /// The data set in one line.
    pub summary: Summary,
    /// Names of the covariates: ids of context genes, then features as `key[column]`.
    pub covariates: Vec<String>,
    /// Single cells of the same genes, where given.
    pub reference: Option<Reference>,
    /// What is hidden and by which rule; `None` where nothing was asked for.
    pub holdout: Option<Holdout>,
}
