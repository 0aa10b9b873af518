//! Proves that a shard folder is what was written: every checksum, every row, every rule of the layout.
//!
//! Reads everything; what the reader checks on the way to a batch is a part of this.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use arrow_array::types::{Int32Type, UInt32Type};
use rayon::prelude::*;

use crate::durable::FileError;
use crate::error::StoreError;
use crate::holdout::Protocol;
use crate::manifest::{Manifest, RowGroupEntry, TableKind};
use crate::processed::Split;
use crate::reader::Shards;
use crate::row_group::Columns;
use crate::schema::NO_ROW;
use crate::tables::held;

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyReport {
    /// Parquet files and images.
    pub n_files: usize,
    /// Row groups.
    pub n_row_groups: usize,
    /// Records, halos not counted.
    pub n_records: u64,
    /// Bytes hashed.
    pub bytes: u64,
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.bytes as f64 / 1e6;
        write!(
            f,
            "{} records in {} row groups, {} files, {megabytes:.1} MB: every checksum and every rule holds",
            self.n_records, self.n_row_groups, self.n_files
        )
    }
}

/// Verifies a shard folder.
///
/// # Errors
/// The first damage in file order, with its file and row group.
pub fn verify(dir: &Path) -> Result<VerifyReport, StoreError> {
    let shards = Shards::open(dir)?;
    let manifest = shards.manifest();
    let images: Vec<_> = manifest.sections.iter().filter_map(|s| s.image.as_ref()).collect();
    for image in &images {
        check_file(dir, &image.file, image.bytes, &image.blake3)?;
    }
    let obs = manifest.obs();
    let per_file: Vec<Result<Vec<Ids>, StoreError>> =
        (0..obs.files.len()).into_par_iter().map(|file| check_shard(&shards, file)).collect();
    let mut groups = Vec::new();
    for ids in per_file {
        groups.extend(ids?);
    }
    check_ids(manifest, &groups)?;
    check_niches(&shards, &groups)?;
    check_held(&shards)?;
    shards.reference()?;
    let files = || manifest.tables.iter().flat_map(|t| &t.files);
    for file in manifest.tables.iter().filter(|t| t.kind != TableKind::Obs).flat_map(|t| &t.files) {
        check_file(dir, &file.name, file.bytes, &file.blake3)?;
    }
    Ok(VerifyReport {
        n_files: files().count() + images.len(),
        n_row_groups: manifest.tables.iter().map(|t| t.row_groups.len()).sum(),
        n_records: manifest.splits.iter().map(|s| s.n_records).sum(),
        bytes: files().map(|f| f.bytes).chain(images.iter().map(|i| i.bytes)).sum(),
    })
}

/// No record shows what it hides, and every hidden value belongs to an entry that a record hides.
fn check_held(shards: &Shards) -> Result<(), StoreError> {
    if shards.manifest().protocol() != Protocol::Entries {
        return Ok(());
    }
    let columns = Columns { counts: true, hidden: true, ..Columns::default() };
    for split in [Split::Train, Split::Val, Split::Test] {
        for entry in shards.row_groups(split) {
            let group = shards.decode(entry, &columns)?;
            let counts = group.counts.as_ref().expect("asked for");
            let shows = |&row: &usize| counts.row(row).0.iter().any(|&gene| group.hidden.row(row)[gene as usize]);
            if let Some(row) = (0..group.n_rows()).find(shows) {
                let file = &shards.manifest().obs().files[entry.file as usize].name;
                let what = format!("record {} shows a value that is hidden", group.record_ids[row]);
                return Err(StoreError::damaged(file, Some(entry.index), what));
            }
        }
        held::read(shards, split, None)?;
    }
    Ok(())
}

/// A niche's members are records of its split, a niche is there once, and every tissue names niches of its split.
fn check_niches(shards: &Shards, groups: &[Ids<'_>]) -> Result<(), StoreError> {
    let Some(table) = shards.manifest().table(TableKind::Niche) else { return Ok(()) };
    let damaged = |what: String| Err(StoreError::damaged(&table.files[0].name, None, what));
    let mut seen = BTreeSet::new();
    for split in [Split::Train, Split::Val, Split::Test] {
        let records: BTreeSet<u64> =
            groups.iter().filter(|g| g.entry.split == split).flat_map(|g| g.own.iter().copied()).collect();
        let niches = shards.niches(split)?;
        if let Some(id) = niches.members.iter().find(|&id| !records.contains(id)) {
            return damaged(format!("member {id} of a niche is no record of split {}", split.as_str()));
        }
        if let Some(id) = niches.niche_ids.iter().find(|&&id| !seen.insert(id)) {
            return damaged(format!("niche {id} is there twice"));
        }
        let of_split: BTreeSet<u64> = niches.niche_ids.iter().copied().collect();
        if let Some(id) = shards.tissues(split)?.niches.iter().find(|&id| !of_split.contains(id)) {
            return damaged(format!("niche {id} of a tissue is not in split {}", split.as_str()));
        }
        let mut pictured = BTreeSet::new();
        for entry in shards.region_groups(split) {
            for id in shards.regions(entry)?.niche_ids {
                if !of_split.contains(&id) || !pictured.insert(id) {
                    let what = format!("region {id} is of no niche of split {}, or there twice", split.as_str());
                    return Err(StoreError::damaged("the table of regions", None, what));
                }
            }
        }
    }
    Ok(())
}

/// Ids of one row group, for the rules that reach over row groups.
struct Ids<'a> {
    entry: &'a RowGroupEntry,
    own: Vec<u64>,
    halo: Vec<u64>,
}

fn check_file(dir: &Path, name: &str, length: u64, blake3: &str) -> Result<Vec<u8>, StoreError> {
    let path = dir.join(name);
    let bytes = fs::read(&path).map_err(FileError::at("read", &path))?;
    if bytes.len() as u64 != length {
        let what = format!("{} bytes long, the manifest says {length}", bytes.len());
        return Err(StoreError::damaged(name, None, what));
    }
    if blake3::hash(&bytes).to_hex().as_str() != blake3 {
        return Err(StoreError::damaged(name, None, "its bytes do not match its BLAKE3"));
    }
    Ok(bytes)
}

fn check_shard(shards: &Shards, file: usize) -> Result<Vec<Ids<'_>>, StoreError> {
    let obs = shards.manifest().obs();
    let entries: Vec<&RowGroupEntry> = obs.row_groups.iter().filter(|g| g.file as usize == file).collect();
    // Row groups before the whole file: they can say more exactly where the damage is.
    let mut ids = Vec::new();
    for &entry in &entries {
        ids.push(check_row_group(shards, entry)?);
    }
    let table = shards.manifest().tables.iter().position(|t| t.kind == TableKind::Obs).expect("checked when read");
    let footer = shards.footer(table, file)?;
    let (name, n) = (&obs.files[file].name, footer.metadata().num_row_groups());
    if n != entries.len() || entries.iter().zip(0u32..).any(|(e, k)| e.index != k) {
        return Err(StoreError::damaged(name, None, format!("{n} row groups, the manifest lists {}", entries.len())));
    }
    check_file(shards.dir(), name, obs.files[file].bytes, &obs.files[file].blake3)?;
    Ok(ids)
}

fn check_row_group<'a>(shards: &'a Shards, entry: &'a RowGroupEntry) -> Result<Ids<'a>, StoreError> {
    let manifest = shards.manifest();
    let file = &manifest.obs().files[entry.file as usize];
    let damaged = |what: String| Err(StoreError::damaged(&file.name, Some(entry.index), what));
    let group = shards.decode(entry, &shards.all_columns())?;
    let (own, halo) = group.record_ids.split_at(group.n_own);
    if own.is_empty() {
        return damaged("it has no own record".to_owned());
    }
    for (what, ids) in [("own", own), ("halo", halo)] {
        if ids.windows(2).any(|w| w[0] >= w[1]) {
            return damaged(format!("{what} record ids do not ascend"));
        }
    }
    if let Some(id) = group.record_ids.iter().find(|&&id| (id >> 32) as u32 != entry.section) {
        return damaged(format!("record {id} is not of section {}", entry.section));
    }
    for (name, layer) in &group.layers {
        if let Some(at) = layer.values.iter().position(|v| !v.is_finite()) {
            return damaged(format!("layer {name} of record {} is not finite", group.record_ids[at / layer.n_cols]));
        }
    }
    if group.counts.as_ref().is_some_and(|c| c.values.iter().any(|v| !v.is_finite())) {
        return damaged("a count is not finite".to_owned());
    }

    let identity = ["section", "library_id", "split", "halo"].map(str::to_owned);
    let (source, part) = shards.read_checked(entry)?;
    let batch = source.batch(part, &identity)?;
    let library_id = manifest.sections[entry.section as usize].library_id.as_str();
    let same = |found: Vec<Option<String>>, expected: &str| found.iter().all(|v| v.as_deref() == Some(expected));
    if source.numbers::<UInt32Type>(&batch, "section")?.iter().any(|&s| s != entry.section)
        || !same(source.strings(&batch, "library_id")?, library_id)
        || !same(source.strings(&batch, "split")?, entry.split.as_str())
    {
        return damaged(format!("records are not all of section {library_id:?}, split {}", entry.split.as_str()));
    }
    if source.booleans(&batch, "halo")?.iter().enumerate().any(|(row, &flag)| flag != (row >= group.n_own)) {
        return damaged(format!("rows marked halo are not those behind the {} own records", group.n_own));
    }
    let n_neighbours = manifest.n_neighbours as usize;
    if n_neighbours == 0 {
        return Ok(Ids { entry, own: own.to_vec(), halo: halo.to_vec() });
    }
    let (source, part) = shards.read_checked(entry)?;
    let batch = source.batch(part, &["neighbours".to_owned()])?;
    let neighbours = source.fixed_numbers::<Int32Type>(&batch, "neighbours", n_neighbours)?;
    let gap = |row: &[i32]| row.windows(2).any(|w| w[0] == NO_ROW && w[1] != NO_ROW);
    if let Some(row) = neighbours.chunks(n_neighbours).position(gap) {
        return damaged(format!("row {row} has a neighbour after padding"));
    }
    if neighbours[group.n_own * n_neighbours..].iter().any(|&row| row != NO_ROW) {
        return damaged("a halo row has neighbours".to_owned());
    }
    Ok(Ids { entry, own: own.to_vec(), halo: halo.to_vec() })
}

/// Over the whole folder: a record is own once, so splits are disjoint; a halo is an own record of the same piece.
fn check_ids(manifest: &Manifest, groups: &[Ids<'_>]) -> Result<(), StoreError> {
    let damaged = |entry: &RowGroupEntry, what: String| {
        let file = &manifest.obs().files[entry.file as usize].name;
        Err(StoreError::damaged(file, Some(entry.index), what))
    };
    let mut owner: BTreeMap<u64, Split> = BTreeMap::new();
    for group in groups {
        for &id in &group.own {
            if let Some(split) = owner.insert(id, group.entry.split) {
                return damaged(group.entry, format!("record {id} is also own elsewhere, in split {}", split.as_str()));
            }
        }
    }
    for group in groups {
        for id in &group.halo {
            let found = owner.get(id).copied();
            if found != Some(group.entry.split) || group.own.binary_search(id).is_ok() {
                return damaged(
                    group.entry,
                    format!("halo record {id} is not an own record of another row group of the split"),
                );
            }
        }
    }
    Ok(())
}
