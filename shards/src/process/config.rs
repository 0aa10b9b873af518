//! The tables `[filter]`, `[process]` and `[split]` of a shard config: every number that changes the result, with its default.
//!
//! Knows no file: reading TOML is the caller's.

use serde::{Deserialize, Serialize};

use super::combat::Combat;
use super::error::ProcessError;
use super::moran::TopMoran;
use crate::ingest::OnBadCell;

/// `[filter]`: which observations and genes stay (`spared.md` §1, §2, §5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilterConfig {
    /// An observation stays if its total count is above this. Default 10.
    pub cell_min: f64,
    /// An observation stays if its total count is below this. Default 1,000,000.
    pub cell_max: f64,
    /// A gene stays if its total over all kept observations is above this. Default 10.
    pub gene_min: f64,
    /// A gene stays if its total over all kept observations is below this. Default 1,000,000.
    pub gene_max: f64,
    /// A gene stays if at least this many kept observations have a count of it. Default 0.
    pub gene_min_obs: u32,
    /// Genes, sorted by expressed fraction, stay while the mean global fraction of those kept is at least this; 0 keeps all.
    /// Default 0.7.
    pub real_data_percentage: f64,
    /// Whether genes without a length leave before that prefix is taken; the published pipeline drops them at TPM, after it
    /// (muscle Vis5A: 566 genes chosen and 551 left, of a mean fraction below the bound, against 533). Default true.
    pub lengths_before_prefix: bool,
    /// Genes in the layers: `"auto"` (128 when more than 320 remain, else 32) or a number. Default `"auto"`.
    pub top_moran: TopMoran,
    /// Genes after those, in Moran order, that are given to models and never predicted. Default 0.
    pub context_genes: u32,
    /// Largest share of a section's genes that may be lost because another section lacks them. Default 0.75: the DLPFC
    /// sections 151673 and 151674 come as 5,000 genes each, chosen per section, and share 2,340 (0.532 lost).
    pub max_genes_lost: f64,
}

impl Default for FilterConfig {
    fn default() -> Self {
        FilterConfig {
            cell_min: 10.0,
            cell_max: 1_000_000.0,
            gene_min: 10.0,
            gene_max: 1_000_000.0,
            gene_min_obs: 0,
            real_data_percentage: 0.7,
            lengths_before_prefix: true,
            top_moran: TopMoran::Auto,
            context_genes: 0,
            max_genes_lost: 0.75,
        }
    }
}

/// `[process]`: how counts become layers and who is whose neighbour.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessConfig {
    /// `"tpm"` (needs gene lengths) or `"cp10k"`. Default `"tpm"`.
    pub normalize: Normalize,
    /// Hops of the median completion. Default 4.
    pub hops: u32,
    /// Whose hops make the windows of the median completion. Default `"symmetrised"`.
    pub completion_graph: NearestGraph,
    /// The graph of Moran's I. Default `"own"`.
    pub moran_graph: NearestGraph,
    /// Batch correction: `"none"`, `"standard"` or `"combat_0_3_3"`, for the layers that begin with `c_`. Default `"none"`.
    pub combat: Combat,
    /// What a batch is: `"section"` or `"donor"`. Default `"section"`.
    pub combat_key: CombatKey,
    /// Neighbours stored per observation; 0 stores none. Default 18.
    pub n_neighbours: u32,
    /// `"knn"`: the nearest ones; `"hex_hops"`: those within two lattice steps, padded. Default `"knn"`.
    pub neighbourhood: Neighbourhood,
    /// Features of every observation's picture by random convolutions (a stand-in for a trained encoder, `process::picture`).
    /// Default 0: none.
    pub picture_features: u32,
    /// Layers stored. Default `log1p` and `d_log1p`. Empty: counts are all that is stored, no gene is chosen, nothing is
    /// normalised or completed.
    pub layers: Vec<Layer>,
    /// Side of a cell's picture, µm. Without it and `crop_px` it follows the cell's boundary, or is 64 pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop_um: Option<f64>,
    /// Side of a cell's picture, pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop_px: Option<u32>,
    /// What to do with a cell that its picture does not show: `"stop"` or `"skip"`. Default `"stop"`.
    pub on_bad_crop: OnBadCell,
    /// Niches: `"none"`, `"grid"` or `"nearest"`. Default `"none"`.
    pub niches: NicheKind,
    /// Side of a niche's square, µm. Default 54.4 (256 pixels of a Xenium image).
    pub niche_um: f64,
    /// Side of a tissue's square, µm, a multiple of `niche_um`. Default 217.6.
    pub tissue_um: f64,
    /// Cells of a niche of the nearest. Default 16.
    pub niche_cells: u32,
    /// A niche has at least this many cells. Default 1.
    pub niche_min_cells: u32,
    /// Whether the picture of a niche's region is cut: the square of `niche_um` around its centre. Default false.
    pub niche_pictures: bool,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        ProcessConfig {
            normalize: Normalize::Tpm,
            hops: 4,
            completion_graph: NearestGraph::Symmetrised,
            moran_graph: NearestGraph::Own,
            combat: Combat::None,
            combat_key: CombatKey::Section,
            n_neighbours: 18,
            neighbourhood: Neighbourhood::Knn,
            picture_features: 0,
            layers: vec![Layer::Log1p, Layer::DLog1p],
            crop_um: None,
            crop_px: None,
            on_bad_crop: OnBadCell::Stop,
            niches: NicheKind::None,
            niche_um: 54.4,
            tissue_um: 217.6,
            niche_cells: 16,
            niche_min_cells: 1,
            niche_pictures: false,
        }
    }
}

/// The unit counts are brought to before the logarithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalize {
    /// Transcripts per million: per base of merged exon length, then per 10⁶.
    Tpm,
    /// Counts per 10⁴.
    Cp10k,
}

/// A graph of the six nearest, for the windows of the median completion (`spared.md` §4) and for Moran's I (§5). Inside a
/// lattice all three are one; at the borders of a tissue they differ, and with them the completed layer, Moran's I and the genes chosen by it (DLPFC: one
/// gene of 32, and 2.45 against 1.96 for the median completion's MSE).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NearestGraph {
    /// Each observation points to its own six nearest.
    Own,
    /// It points to those that have it among their six nearest (the published data were made so).
    Reverse,
    /// Both: the graph of the rings and of the guard bands, on which the yardsticks of `evaluation.md` §10 were measured.
    Symmetrised,
}

/// What ComBat takes for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CombatKey {
    /// A section.
    Section,
    /// A donor.
    Donor,
}

/// Which observations are stored as neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Neighbourhood {
    /// The nearest by distance, ties by position in the piece.
    Knn,
    /// Those within two steps on the lattice, padded with `u32::MAX`.
    HexHops,
}

/// What a niche is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NicheKind {
    /// None are made.
    #[default]
    None,
    /// The cells of a square of `process.niche_um`; every cell is in one.
    Grid,
    /// A cell and its nearest, `process.niche_cells` in all; niches overlap.
    Nearest,
}

/// A stored layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// log2(normalised + 1).
    #[serde(rename = "log1p")]
    Log1p,
    /// The same after median completion.
    #[serde(rename = "d_log1p")]
    DLog1p,
    /// `log1p`, batch-corrected.
    #[serde(rename = "c_log1p")]
    CLog1p,
    /// `d_log1p`, batch-corrected.
    #[serde(rename = "c_d_log1p")]
    CDLog1p,
    /// `log1p` less its mean over the training observations.
    Deltas,
    /// `d_log1p` less its mean over the training observations.
    DDeltas,
    /// `c_log1p` less its mean over the training observations.
    CDeltas,
    /// `c_d_log1p` less its mean over the training observations.
    CDDeltas,
}

impl Layer {
    /// All, in the order of the pipeline.
    pub const ALL: [Layer; 8] = [
        Layer::Log1p,
        Layer::DLog1p,
        Layer::CLog1p,
        Layer::CDLog1p,
        Layer::Deltas,
        Layer::DDeltas,
        Layer::CDeltas,
        Layer::CDDeltas,
    ];

    /// Whether it exists only with a batch correction.
    pub fn is_corrected(self) -> bool {
        matches!(self, Layer::CLog1p | Layer::CDLog1p | Layer::CDeltas | Layer::CDDeltas)
    }

    /// Name in `Piece::layers` and in the shards.
    pub fn as_str(self) -> &'static str {
        match self {
            Layer::Log1p => "log1p",
            Layer::DLog1p => "d_log1p",
            Layer::Deltas => "deltas",
            Layer::DDeltas => "d_deltas",
            Layer::CLog1p => "c_log1p",
            Layer::CDLog1p => "c_d_log1p",
            Layer::CDeltas => "c_deltas",
            Layer::CDDeltas => "c_d_deltas",
        }
    }
}

/// `[split]`: what trains, selects and judges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplitConfig {
    /// `"section"`, `"donor"` or `"block"`. Absent: `section` where val or test name something or there are several
    /// sections (the last is val when none is named), `block` for a single section.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<SplitKind>,
    /// Sections or donors of the validation split.
    pub val: Vec<String>,
    /// Sections or donors of the test split.
    pub test: Vec<String>,
    /// Blocks: shares of the observations, along the longer side, where train and val end. Default 0.70 and 0.85.
    pub cuts: [f64; 2],
    /// Blocks: observations this many hops from a cut leave the larger block. Default 3.
    pub guard_hops: u32,
}

impl Default for SplitConfig {
    fn default() -> Self {
        SplitConfig { kind: None, val: Vec::new(), test: Vec::new(), cuts: [0.70, 0.85], guard_hops: 3 }
    }
}

/// The unit that a split keeps whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SplitKind {
    /// Whole sections.
    Section,
    /// Whole donors.
    Donor,
    /// Three slabs of every section.
    Block,
}

/// Refuses keys outside their meaning.
pub(super) fn check(filter: &FilterConfig, config: &ProcessConfig, split: &SplitConfig) -> Result<(), ProcessError> {
    let refuse = |key, problem: String| Err(ProcessError::Config { key, problem });
    if !(0.0..=1.0).contains(&filter.real_data_percentage) {
        let problem = format!("{} is not a share from 0 to 1", filter.real_data_percentage);
        return refuse("filter.real_data_percentage", problem);
    }
    if !(0.0..=1.0).contains(&filter.max_genes_lost) {
        return refuse("filter.max_genes_lost", format!("{} is not a share from 0 to 1", filter.max_genes_lost));
    }
    let ascend = |low: f64, high: f64| low < high; // NaN does not
    if !ascend(filter.cell_min, filter.cell_max) {
        return refuse("filter.cell_min", format!("{} is not below cell_max = {}", filter.cell_min, filter.cell_max));
    }
    if !ascend(filter.gene_min, filter.gene_max) {
        return refuse("filter.gene_min", format!("{} is not below gene_max = {}", filter.gene_min, filter.gene_max));
    }
    if config.hops == 0 || config.hops > 16 {
        return refuse("process.hops", format!("{} is not from 1 to 16", config.hops));
    }
    if config.n_neighbours > 1024 {
        return refuse("process.n_neighbours", format!("{} is not from 0 to 1024", config.n_neighbours));
    }
    if config.layers.is_empty() && filter.context_genes > 0 {
        let problem = "are chosen after the genes of the layers, and there are no layers".to_string();
        return refuse("filter.context_genes", problem);
    }
    if config.crop_um.is_some() && config.crop_px.is_some() {
        return refuse("process.crop_px", "and process.crop_um are two words for one thing: set one".to_string());
    }
    check_niches(config)?;
    if let Some(layer) = config.layers.iter().find(|layer| layer.is_corrected() && config.combat == Combat::None) {
        let problem = format!("{} needs process.combat = \"standard\" or \"combat_0_3_3\"", layer.as_str());
        return refuse("process.layers", problem);
    }
    let [train_end, val_end] = split.cuts;
    if !(0.0 < train_end && train_end < val_end && val_end <= 1.0) {
        return refuse("split.cuts", format!("[{train_end}, {val_end}] do not ascend between 0 and 1"));
    }
    if split.kind == Some(SplitKind::Block) && !(split.val.is_empty() && split.test.is_empty()) {
        return refuse("split.kind", "blocks are cut by split.cuts; val and test name sections or donors".to_string());
    }
    Ok(())
}

/// Refuses sizes of niches without a meaning.
fn check_niches(config: &ProcessConfig) -> Result<(), ProcessError> {
    let refuse = |key, problem: String| Err(ProcessError::Config { key, problem });
    let positive = |um: f64| um.is_finite() && um > 0.0;
    if !positive(config.niche_um) {
        return refuse("process.niche_um", format!("{} is no length", config.niche_um));
    }
    let ratio = config.tissue_um / config.niche_um;
    if !positive(config.tissue_um) || ratio.round() < 1.0 || (ratio - ratio.round()).abs() > 1e-9 * ratio {
        let problem = format!("{} is no multiple of niche_um = {}", config.tissue_um, config.niche_um);
        return refuse("process.tissue_um", problem);
    }
    if config.niche_pictures && config.niches == NicheKind::None {
        return refuse("process.niche_pictures", "and process.niches = \"none\": there are no niches".to_owned());
    }
    if config.niche_cells == 0 || config.niche_min_cells == 0 {
        return refuse("process.niche_cells", "a niche has at least one cell".to_owned());
    }
    Ok(())
}
