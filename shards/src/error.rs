//! What can go wrong when shards are written, read or verified.

use std::path::PathBuf;

use parquet::errors::ParquetError;

use crate::durable::FileError;
use crate::pictures::PictureError;

/// An error of the shard store. Messages say what, where (file, row group), and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused (missing, permission, disk full); `source()` is the `io::Error`.
    #[error(transparent)]
    File(#[from] FileError),
    /// An image that pictures of cells are cut from is not what it was when it was read first.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The folder has no manifest.
    #[error("{} has no manifest.json: it is no shard folder, or `syncytia shard` did not finish there (run it again with --resume)", path.display())]
    NotShards {
        /// The folder.
        path: PathBuf,
    },
    /// The manifest is not what this build writes.
    #[error("{} is damaged or was edited: {source}; run `syncytia shard` again", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Line, column and key.
        source: serde_json::Error,
    },
    /// The manifest contradicts itself.
    #[error("{} contradicts itself: {what}; run `syncytia shard` again", path.display())]
    ManifestContent {
        /// The manifest.
        path: PathBuf,
        /// The contradiction.
        what: String,
    },
    /// The manifest was written by a newer version.
    #[error("{} was written by a newer version of syncytia (schema {found}, this build reads up to {supported}); update syncytia or write the shards again", path.display())]
    NewerSchema {
        /// The manifest.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// The newest schema version that this build reads.
        supported: u32,
    },
    /// Bytes or values on disk are not those that were written.
    #[error("{file}{}: {what}; copy the file again or run `syncytia shard` again", row_group_words(*row_group))]
    Damaged {
        /// File, relative to the shard folder.
        file: String,
        /// Row group of the file, where the damage has one.
        row_group: Option<u32>,
        /// What is wrong.
        what: String,
    },
    /// The Parquet library refused.
    #[error("{file}{}: {source}", row_group_words(*row_group))]
    Parquet {
        /// File, relative to the shard folder.
        file: String,
        /// Row group of the file, where known.
        row_group: Option<u32>,
        /// What the library said.
        source: ParquetError,
    },
    /// What was handed to the writer contradicts itself.
    #[error("section {library_id:?}, split {split}: {what}")]
    Inconsistent {
        /// Section.
        library_id: String,
        /// Split.
        split: &'static str,
        /// The contradiction.
        what: String,
    },
    /// Nothing to write.
    #[error("no observation is left to write: see the filters' ledger and the split")]
    Empty,
    /// An option is out of range.
    #[error("{key} = {value} is out of range: {why}")]
    BadOption {
        /// Key as the user writes it.
        key: &'static str,
        /// Its value.
        value: String,
        /// The range.
        why: &'static str,
    },
    /// The output folder holds finished shards.
    #[error("{} already holds finished shards: choose another --out or remove it", path.display())]
    Finished {
        /// The folder.
        path: PathBuf,
    },
    /// The output folder holds the start of an interrupted run.
    #[error("{} holds an interrupted run: add --resume to go on, or remove it", path.display())]
    Unfinished {
        /// The folder.
        path: PathBuf,
    },
    /// The output folder holds something else.
    #[error("{} is not empty (it holds {found:?}): choose another --out", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// One of the names in it.
        found: String,
    },
    /// `--resume` on shards of other data or another config.
    #[error("{} was begun from other input, config or version: nothing to resume; choose another --out or remove it", path.display())]
    OtherContent {
        /// The folder.
        path: PathBuf,
    },
    /// A layer was asked for that the shards do not have.
    #[error("the shards have no layer {name:?}; they have {have:?}")]
    NoLayer {
        /// The layer asked for.
        name: String,
        /// The layers there are.
        have: Vec<String>,
    },
    /// Pictures were asked for that the shards do not have.
    #[error("the shards have no pictures of cells: write them again with input.images = \"auto\"")]
    NoImages,
    /// Niches were asked for that the shards do not have.
    #[error("the shards have no niches and no tissues: write them again with process.niches = \"grid\" or \"nearest\"")]
    NoNiches,
    /// The folder holds no vectors.
    #[error("{} has no vectors.json: it holds no vectors, or `syncytia embed --shards` did not finish there; make them first", path.display())]
    NotVectors {
        /// The folder.
        path: PathBuf,
    },
    /// Vectors on disk are not those that were written.
    #[error("{}: {what}; copy the folder again or make them again with `syncytia embed … --out`", path.display())]
    DamagedVectors {
        /// The folder.
        path: PathBuf,
        /// What is wrong, and in which file.
        what: String,
    },
    /// The folder holds other vectors.
    #[error("{} holds {what}: make them with `syncytia embed --shards` of these shards", path.display())]
    OtherVectors {
        /// The folder.
        path: PathBuf,
        /// How they differ.
        what: String,
    },
    /// Counts were asked for of shards that hide some.
    #[error(
        "the shards hide values from training (data.holdout = \"{protocol}\"), and this command would read them as zeros or see them: \
         write shards with data.holdout = \"none\" for it"
    )]
    HeldOut {
        /// `entries` or `gene_folds`.
        protocol: &'static str,
    },
    /// A fold was named where there is none, or none where there are some, or one too many.
    #[error("data.holdout = \"{protocol}\" with {folds} folds of genes: {}", match fold {
        Some(fold) if *folds > 0 => format!("there is no fold {fold}, they count from 0"),
        Some(fold) => format!("there is no fold {fold}, name none"),
        None => "name the fold whose genes are hidden".to_owned(),
    })]
    Fold {
        /// Protocol of the shards.
        protocol: &'static str,
        /// Folds they have.
        folds: u32,
        /// The fold asked for.
        fold: Option<u32>,
    },
    /// A section has too few spots to be near each other.
    #[error(
        "section {library_id:?}, split {split}: {n} spots have a visible value, 7 are needed (each has its 6 nearest); hide less, or \
         leave the section out"
    )]
    TooFewNear {
        /// Section.
        library_id: String,
        /// Split.
        split: &'static str,
        /// Spots with a visible value.
        n: usize,
    },
    /// A (section, split) was asked for that has no records.
    #[error("the shards have no record of section {section} in split {split}")]
    NoPiece {
        /// Ordinal of the section.
        section: u32,
        /// Split.
        split: &'static str,
    },
    /// A record was asked for that the split does not have.
    #[error("split {split} has no record at row group {row_group}, row {row}")]
    NoRecord {
        /// Split.
        split: &'static str,
        /// Row group, counted in the split.
        row_group: u32,
        /// Row among the own records.
        row: u32,
    },
}

impl StoreError {
    /// An adapter for `map_err` on what the Parquet library says.
    pub(crate) fn parquet(file: &str, row_group: Option<u32>) -> impl FnOnce(ParquetError) -> StoreError + use<> {
        let file = file.to_owned();
        move |source| StoreError::Parquet { file, row_group, source }
    }

    /// Damage at a file and row group.
    pub(crate) fn damaged(file: &str, row_group: Option<u32>, what: impl Into<String>) -> StoreError {
        StoreError::Damaged { file: file.to_owned(), row_group, what: what.into() }
    }
}

fn row_group_words(row_group: Option<u32>) -> String {
    row_group.map(|i| format!(", row group {i}")).unwrap_or_default()
}
