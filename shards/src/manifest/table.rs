//! The tables of a shard folder: their files, and where every row group lies.

use serde::{Deserialize, Serialize};

use crate::processed::Split;

/// What a table's rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// Spots or cells.
    Obs,
    /// Cells of a reference without places.
    Reference,
    /// Hidden values of the records.
    Held,
    /// Niches.
    Niche,
    /// Tissues.
    Tissue,
    /// Pictures of niches' regions.
    Region,
    /// Frozen vectors (reserved: they lie in folders of their own, [`crate::tables::vectors`]).
    Vectors,
    /// Pairs of records (reserved).
    Pair,
    /// Gene signatures (reserved).
    Signature,
}

/// One table of the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// What its rows are.
    pub kind: TableKind,
    /// Files, in order.
    pub files: Vec<FileEntry>,
    /// Row groups ordered by split (train, val, test), then section, then along the curve.
    pub row_groups: Vec<RowGroupEntry>,
}

/// One Parquet file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Name in the folder: `train-00000.parquet`.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// BLAKE3 of the file.
    pub blake3: String,
    /// First byte behind the last row group.
    pub footer_offset: u64,
    /// CRC-32C from there to the end.
    pub footer_crc32c: u32,
}

/// One row group: where it lies and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowGroupEntry {
    /// Position in [`Table::files`].
    pub file: u32,
    /// Row group of that file.
    pub index: u32,
    /// Section of all its records.
    pub section: u32,
    /// Split of all its records.
    pub split: Split,
    /// Own records (the first rows).
    pub n_own: u32,
    /// Halo records (the rows after them).
    pub n_halo: u32,
    /// Memory of the decoded row group with every column. A function of the data alone: whether a split fits
    /// `data.window_bytes` decides its order (`step.md` §2) and must not depend on who asks for which column.
    pub decoded_bytes: u64,
    /// First byte in the file.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
    /// CRC-32C of these bytes.
    pub crc32c: u32,
}

impl Table {
    /// Row groups of a split in stored order.
    pub fn row_groups(&self, split: Split) -> &[RowGroupEntry] {
        let start = self.row_groups.partition_point(|g| g.split < split);
        let end = self.row_groups.partition_point(|g| g.split <= split);
        &self.row_groups[start..end]
    }

    /// Refuses what would make a reader panic, allocate without bound or leave the folder.
    pub(super) fn check(&self, n_sections: usize) -> Result<(), String> {
        for file in &self.files {
            if !is_plain_name(&file.name) || file.footer_offset > file.bytes {
                return Err(format!("entry of file {:?}", file.name));
            }
        }
        for pair in self.row_groups.windows(2) {
            if pair[0].split > pair[1].split {
                return Err("row groups are not ordered by split".to_owned());
            }
        }
        for group in &self.row_groups {
            let file = self.files.get(group.file as usize);
            let end = group.offset.checked_add(group.length);
            if file.is_none_or(|f| end.is_none_or(|end| end > f.footer_offset)) {
                return Err(format!("row group {} of file {} lies outside of it", group.index, group.file));
            }
            if group.section as usize >= n_sections {
                return Err(format!("row group of section {}, there are {n_sections}", group.section));
            }
        }
        Ok(())
    }
}

impl RowGroupEntry {
    /// Rows, own and halo.
    pub fn n_rows(&self) -> usize {
        self.n_own as usize + self.n_halo as usize
    }
}

/// A name that stays inside its folder.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_')
}
