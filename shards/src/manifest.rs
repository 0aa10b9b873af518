//! The manifest of a shard folder: what the data is, where every row group lies, and how to tell damage.
//!
//! Written last, so a folder with a manifest is finished. Knows no Parquet and no record; `writer` fills it, `reader`
//! and `verify` trust nothing that it does not say.

mod display;
mod table;

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use self::table::is_plain_name;
pub use self::table::{FileEntry, RowGroupEntry, Table, TableKind};
use crate::durable::FileError;
use crate::error::StoreError;
use crate::holdout::{Holdout, Protocol};
use crate::panel::{Ledger, Panel};
use crate::processed::{Split, Summary};
use crate::schema::RecordShape;

/// Version of the record schema and of the manifest. The columns `image` and `niche` and the tables `niche`,
/// `tissue` and `region` are there where asked for; other kinds are reserved and need no new version.
pub const SCHEMA_VERSION: u32 = 1;
/// Version of how records are laid out in row groups: space-filling curve, own records, then halos.
pub const ORDER_VERSION: u32 = 1;
/// Version of `docs/step.md`.
pub use crate::draw::STEP_VERSION;
/// Name of the manifest in its folder.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Everything a shard folder says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// [`ORDER_VERSION`] of the writer.
    pub order_version: u32,
    /// [`STEP_VERSION`] of the writer.
    pub step_version: u32,
    /// Program and version that wrote the folder.
    pub producer: String,
    /// BLAKE3 of all that was handed to the writer, before encoding; what `--resume` compares.
    pub input_hash: String,
    /// The resolved shard config, TOML.
    pub config: String,
    /// The rule that made the splits, in words.
    pub split_rule: String,
    /// Type of the stored counts.
    pub counts: CountFacts,
    /// Neighbours per record.
    pub n_neighbours: u32,
    /// Names of the layers, ascending.
    pub layers: Vec<String>,
    /// Names of the label columns, ascending.
    pub labels: Vec<String>,
    /// Covariates in column order: ids of context genes, then features.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub covariates: Vec<String>,
    /// Pictures of the records, where there are some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crops: Option<CropFacts>,
    /// What is hidden until it is judged, and what values become; absent where nothing was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout: Option<Holdout>,
    /// Genes, lengths, fractions.
    pub panel: Panel,
    /// The data set in one line, as SpaRED's Table 1 has it.
    pub summary: Summary,
    /// Sections in ordinal order.
    pub sections: Vec<SectionEntry>,
    /// The splits that have records, in the order train, val, test.
    pub splits: Vec<SplitEntry>,
    /// Tables: one of kind `obs`, and `niche`, `tissue`, `region`, `held` and `reference` where asked for.
    pub tables: Vec<Table>,
    /// What was dropped and why.
    pub ledger: Ledger,
}

/// How counts are stored and what they were seen to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountFacts {
    /// Type of the column: `float32`.
    pub dtype: String,
    /// Whether every value is a whole number.
    pub integer: bool,
}

/// A section as the manifest keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SectionEntry {
    /// Name.
    pub library_id: String,
    /// Donor, where known.
    pub donor_id: Option<String>,
    /// File or folder name it came from.
    pub source: String,
    /// Format it was read as.
    pub format: String,
    /// Observations as ingested.
    pub n_obs_ingested: u64,
    /// µm per native unit, where known.
    pub um_per_unit: Option<f64>,
    /// Whether its places have a third coordinate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_z: bool,
    /// Low-resolution picture.
    pub image: Option<ImageEntry>,
}

/// A section's low-resolution picture, a file beside the shards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageEntry {
    /// `images/<section ordinal>.{png,jpg}`.
    pub file: String,
    /// Size.
    pub bytes: u64,
    /// BLAKE3 of the file.
    pub blake3: String,
    /// Image pixel = native coordinate × scale.
    pub scale: f64,
}

/// The pictures of the records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CropFacts {
    /// Names of the channels.
    pub channels: Vec<String>,
    /// How a window was chosen in each section, in words.
    pub rules: Vec<String>,
    /// How pixels are stored: `raw`.
    pub encoding: String,
}

/// How much of the data a split has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitEntry {
    /// Split.
    pub split: Split,
    /// Records, halos not counted.
    pub n_records: u64,
    /// Row groups.
    pub n_row_groups: u32,
}

impl Manifest {
    /// Reads and checks `dir/manifest.json`.
    ///
    /// # Errors
    /// [`StoreError::NotShards`] without one; [`StoreError::NewerSchema`]; damage.
    pub fn read(dir: &Path) -> Result<Manifest, StoreError> {
        let path = dir.join(MANIFEST_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !path.exists() => {
                return Err(StoreError::NotShards { path: dir.to_path_buf() });
            }
            Err(e) => return Err(FileError::at("read", &path)(e).into()),
        };
        // The version first: a newer manifest may have fields that we would only call unknown.
        #[derive(Deserialize)]
        struct Version {
            schema_version: u32,
        }
        let damaged = |source| StoreError::Manifest { path: path.clone(), source };
        let version: Version = serde_json::from_slice(&bytes).map_err(damaged)?;
        if version.schema_version > SCHEMA_VERSION {
            return Err(StoreError::NewerSchema { path, found: version.schema_version, supported: SCHEMA_VERSION });
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(damaged)?;
        manifest.check().map_err(|what| StoreError::ManifestContent { path, what })?;
        Ok(manifest)
    }

    /// The bytes of `manifest.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("strings, numbers and lists always serialise");
        json.push(b'\n');
        json
    }

    /// Identity of the data for checkpoints, hex: BLAKE3 over versions, input and every file. Two folders with one
    /// identity give a training run the same bits.
    pub fn data_hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let versions = [self.schema_version, self.order_version, self.step_version];
        hasher.update(format!("syncytia shards {versions:?}\n{}\n", self.input_hash).as_bytes());
        for table in &self.tables {
            hasher.update(format!("{:?}\n", table.kind).as_bytes());
            for file in &table.files {
                hasher.update(format!("{} {}\n", file.name, file.blake3).as_bytes());
            }
            for group in &table.row_groups {
                hasher.update(format!("{group:?}\n").as_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    /// The table of spots or cells.
    pub fn obs(&self) -> &Table {
        self.tables.iter().find(|t| t.kind == TableKind::Obs).expect("checked when read")
    }

    /// Records of a split, halos not counted.
    pub fn n_records(&self, split: Split) -> u64 {
        self.splits.iter().find(|s| s.split == split).map_or(0, |s| s.n_records)
    }

    /// Memory of a whole split, decoded.
    pub fn decoded_bytes(&self, split: Split) -> u64 {
        self.row_groups(split).iter().map(|g| g.decoded_bytes).sum()
    }

    /// The table of a kind, where there is one.
    pub fn table(&self, kind: TableKind) -> Option<&Table> {
        self.tables.iter().find(|t| t.kind == kind)
    }

    /// What the records look like.
    pub fn shape(&self) -> RecordShape {
        RecordShape {
            n_selected: self.panel.n_selected(),
            n_neighbours: self.n_neighbours as usize,
            n_covariates: self.covariates.len(),
            layers: self.layers.clone(),
            labels: self.labels.clone(),
            niches: self.table(TableKind::Niche).is_some(),
            images: self.crops.is_some(),
            z: self.sections.iter().any(|s| s.has_z),
            n_hidden: if self.protocol() == Protocol::Entries { self.panel.genes.len() } else { 0 },
        }
    }

    /// Which values are hidden.
    pub fn protocol(&self) -> Protocol {
        self.holdout.as_ref().map_or(Protocol::None, |h| h.protocol)
    }

    /// The genes that no record may show when the shards are read for `fold` `[n_genes]`: none but under `gene_folds`.
    ///
    /// # Errors
    /// [`StoreError::Fold`] where there is a fold to name and none is named, or the other way round, or no such fold.
    pub fn hidden_genes(&self, fold: Option<u32>) -> Result<Vec<bool>, StoreError> {
        let n_genes = self.panel.genes.len();
        let folds = self.holdout.as_ref().and_then(|h| h.folds);
        match (folds, fold) {
            (None, None) => Ok(vec![false; n_genes]),
            (Some(folds), Some(fold)) if fold < folds => {
                let of_gene = self.holdout.iter().flat_map(|h| &h.fold_of_gene);
                Ok(of_gene.map(|&f| f == fold).collect())
            }
            _ => Err(StoreError::Fold { protocol: self.protocol().as_str(), folds: folds.unwrap_or(0), fold }),
        }
    }

    /// Row groups of a split in stored order; a `row_group` number elsewhere is a position in this slice.
    pub fn row_groups(&self, split: Split) -> &[RowGroupEntry] {
        self.obs().row_groups(split)
    }

    /// Refuses what would make a reader panic, allocate without bound or leave the folder.
    fn check(&self) -> Result<(), String> {
        let at_most_one =
            [TableKind::Niche, TableKind::Tissue, TableKind::Region, TableKind::Held, TableKind::Reference];
        for kind in [TableKind::Obs].into_iter().chain(at_most_one) {
            let n = self.tables.iter().filter(|t| t.kind == kind).count();
            if n > 1 || (n == 0 && kind == TableKind::Obs) {
                return Err(format!("{n} tables of kind {kind:?}, 1 expected"));
            }
        }
        if let Some(&gene) = self.panel.selected.iter().find(|&&g| g as usize >= self.panel.genes.len()) {
            return Err(format!("selected gene {gene} of {} genes", self.panel.genes.len()));
        }
        let has_table = self.table(TableKind::Held).is_some();
        if has_table != (self.protocol() == Protocol::Entries) {
            return Err(format!("holdout {}, a table of hidden values: {has_table}", self.protocol().as_str()));
        }
        self.holdout.as_ref().map_or(Ok(()), |holdout| holdout.check(self.panel.genes.len()))?;
        for image in self.sections.iter().filter_map(|s| s.image.as_ref()) {
            if !image.file.strip_prefix("images/").is_some_and(is_plain_name) {
                return Err(format!("{:?} is no image file of the folder", image.file));
            }
        }
        self.tables.iter().try_for_each(|table| table.check(self.sections.len()))?;
        for split in [Split::Train, Split::Val, Split::Test] {
            let n: u64 = self.row_groups(split).iter().map(|g| u64::from(g.n_own)).sum();
            if n != self.n_records(split) {
                return Err(format!(
                    "split {} has {} records, its row groups {n}",
                    split.as_str(),
                    self.n_records(split)
                ));
            }
        }
        Ok(())
    }
}
