//! Writes a processed data set as a shard folder: images, Parquet files, the manifest last.
//!
//! Every file is encoded in memory, then written under a temporary name, synced and renamed. Until the manifest stands,
//! `partial.json` lists what is finished; a resumed run keeps those files whose BLAKE3 still holds and ends at the same
//! bytes. Knows no instrument format and no training.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::durable::{self, FileError, write_atomic};
use crate::encode::{EncodedFile, encode_file};
use crate::error::StoreError;
use crate::layout::{FilePlan, plan, shape_of};
use crate::manifest::{
    CountFacts, CropFacts, FileEntry, ImageEntry, MANIFEST_FILE, Manifest, ORDER_VERSION, RowGroupEntry,
    SCHEMA_VERSION, STEP_VERSION, SectionEntry, SplitEntry, Table, TableKind,
};
use crate::processed::{Processed, Split};
use crate::tables;
use crate::verify::verify;

/// Name of the list of finished files, there until the manifest is.
pub const PARTIAL_FILE: &str = "partial.json";

/// How to write; all but `resume` and `jobs` enter the identity of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOptions {
    /// Own records per row group, at most (`data.row_group_records`).
    pub row_group_records: usize,
    /// Row groups per file, at most. A file is encoded in memory.
    pub row_groups_per_file: usize,
    /// The rule that made the splits, in words, for the manifest.
    pub split_rule: String,
    /// Whether to go on where an interrupted run stopped.
    pub resume: bool,
    /// Files encoded at once; 0 takes one per core.
    pub jobs: usize,
}

impl Default for WriteOptions {
    fn default() -> WriteOptions {
        WriteOptions {
            row_group_records: 1024,
            row_groups_per_file: 16,
            split_rule: "not told".to_owned(),
            resume: false,
            jobs: 0,
        }
    }
}

/// Writes `processed` into the folder `out` and returns the manifest as a reader sees it.
///
/// `config_toml` is the resolved config, kept in the manifest. `out` must be absent or empty; with `options.resume` it
/// may hold an interrupted run of the same data, or a finished one, which is then verified and left alone.
///
/// # Errors
/// Contradictions in `processed` and bad options, before anything is written; folders in use; the system's errors.
/// After an error `out` has no manifest and `--resume` can go on.
pub fn write(
    processed: &Processed,
    config_toml: &str,
    out: &Path,
    options: &WriteOptions,
) -> Result<Manifest, StoreError> {
    write_watched(processed, config_toml, out, options, &|_| Ok(()))
}

/// As [`write`]; `before` is called with the name of every file that is about to be written and may refuse.
pub(crate) fn write_watched(
    processed: &Processed,
    config_toml: &str,
    out: &Path,
    options: &WriteOptions,
    before: &(dyn Fn(&str) -> io::Result<()> + Sync),
) -> Result<Manifest, StoreError> {
    check_options(options)?;
    let shape = shape_of(processed)?;
    let sections = section_entries(processed);
    let input_hash = input_hash(processed, &sections, config_toml, options);
    let journal = match open_folder(out, &input_hash, options.resume)? {
        Found::Finished(manifest) => return Ok(*manifest),
        Found::Unfinished(journal) => journal,
        Found::Fresh => Journal { version: SCHEMA_VERSION, input_hash: input_hash.clone(), files: BTreeMap::new() },
    };
    let write_file = |name: &str, bytes: &[u8]| -> Result<(), StoreError> {
        let path = out.join(name);
        before(name).map_err(FileError::at("write", &path))?;
        Ok(write_atomic(&path, bytes)?)
    };
    write_file(PARTIAL_FILE, &journal.to_json())?;
    for (section, entry) in processed.sections.iter().zip(&sections) {
        if let (Some(image), Some(entry)) = (&section.image, &entry.image) {
            let folder = out.join("images");
            fs::create_dir_all(&folder).map_err(FileError::at("create the folder", &folder))?;
            write_file(&entry.file, &image.encoded)?;
        }
    }

    let files = plan(processed, options.row_group_records, options.row_groups_per_file);
    let journal = Mutex::new(journal);
    let finish = |(ordinal, file): (usize, &FilePlan)| -> Result<(), StoreError> {
        let known = journal.lock().expect("no writer panics").files.get(&file.name).cloned();
        if known.is_some_and(|known| still_holds(out, &known.file)) {
            tracing::info!(file = file.name, "kept");
            return Ok(());
        }
        let EncodedFile { bytes, file: entry, row_groups } = encode_file(file, ordinal as u32, processed, &shape)?;
        write_file(&file.name, &bytes)?;
        tracing::info!(file = file.name, bytes = entry.bytes, row_groups = row_groups.len(), "written");
        let mut journal = journal.lock().expect("no writer panics");
        journal.files.insert(file.name.clone(), FinishedFile { file: entry, row_groups });
        write_file(PARTIAL_FILE, &journal.to_json())
    };
    let pool =
        rayon::ThreadPoolBuilder::new().num_threads(options.jobs).build().map_err(|e| StoreError::BadOption {
            key: "--jobs",
            value: format!("{} ({e})", options.jobs),
            why: "threads could not start",
        })?;
    pool.install(|| files.par_iter().enumerate().try_for_each(finish))?;

    let journal = journal.into_inner().expect("no writer panics");
    let table = obs_table(&files, journal);
    let splits = split_entries(&table);
    let mut tables = vec![table];
    for (kind, files) in tables::encode(processed)? {
        let mut table = Table { kind, files: Vec::new(), row_groups: Vec::new() };
        for EncodedFile { bytes, file, row_groups } in files {
            write_file(&file.name, &bytes)?;
            table.files.push(file);
            table.row_groups.extend(row_groups);
        }
        tables.push(table);
    }
    let mut regions = Table { kind: TableKind::Region, files: Vec::new(), row_groups: Vec::new() };
    tables::region::encode(processed, |EncodedFile { bytes, file, row_groups }| {
        write_file(&file.name, &bytes)?;
        regions.files.push(file);
        regions.row_groups.extend(row_groups);
        Ok(())
    })?;
    tables.extend((!regions.files.is_empty()).then_some(regions));
    let manifest = Manifest {
        schema_version: SCHEMA_VERSION,
        order_version: ORDER_VERSION,
        step_version: STEP_VERSION,
        producer: format!("syncytia {}", env!("CARGO_PKG_VERSION")),
        input_hash,
        config: config_toml.to_owned(),
        split_rule: options.split_rule.clone(),
        counts: count_facts(processed),
        n_neighbours: shape.n_neighbours as u32,
        layers: shape.layers.clone(),
        labels: shape.labels.clone(),
        covariates: processed.covariates.clone(),
        crops: crop_facts(processed),
        holdout: processed.holdout.clone(),
        panel: processed.panel.clone(),
        summary: processed.summary,
        sections,
        splits,
        tables,
        ledger: processed.ledger.clone(),
    };
    write_file(MANIFEST_FILE, &manifest.to_json())?;
    remove(&out.join(PARTIAL_FILE))?;
    Manifest::read(out)
}

/// What is finished of an interrupted run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Journal {
    version: u32,
    input_hash: String,
    files: BTreeMap<String, FinishedFile>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FinishedFile {
    file: FileEntry,
    row_groups: Vec<RowGroupEntry>,
}

impl Journal {
    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("strings, numbers and lists always serialise")
    }
}

enum Found {
    Fresh,
    Unfinished(Journal),
    Finished(Box<Manifest>),
}

/// Decides by what lies in `out` whether and how this run may write there; removes left-overs of writes cut short.
fn open_folder(out: &Path, input_hash: &str, resume: bool) -> Result<Found, StoreError> {
    let path = out.to_path_buf();
    if out.join(MANIFEST_FILE).exists() {
        if !resume {
            return Err(StoreError::Finished { path });
        }
        let manifest = Manifest::read(out)?;
        if manifest.input_hash != input_hash {
            return Err(StoreError::OtherContent { path });
        }
        verify(out)?;
        remove(&out.join(PARTIAL_FILE))?; // a crash between the manifest and the end of the run
        return Ok(Found::Finished(Box::new(manifest)));
    }
    fs::create_dir_all(out).map_err(FileError::at("create the folder", out))?;
    if let Some(parent) = out.parent().filter(|p| !p.as_os_str().is_empty()) {
        durable::sync_dir(parent)?;
    }
    let journal_path = out.join(PARTIAL_FILE);
    if !journal_path.exists() {
        for name in names_in(out)? {
            if !durable::is_left_over(&name) {
                return Err(StoreError::NotEmpty { path, found: name });
            }
        }
        remove_left_overs(out)?;
        return Ok(Found::Fresh);
    }
    if !resume {
        return Err(StoreError::Unfinished { path });
    }
    let bytes = fs::read(&journal_path).map_err(FileError::at("read", &journal_path))?;
    match serde_json::from_slice::<Journal>(&bytes) {
        Ok(journal) if journal.version == SCHEMA_VERSION && journal.input_hash == input_hash => {
            remove_left_overs(out)?;
            remove_left_overs(&out.join("images"))?;
            Ok(Found::Unfinished(journal))
        }
        _ => Err(StoreError::OtherContent { path }),
    }
}

fn names_in(dir: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(FileError::at("list", dir))? {
        names.push(entry.map_err(FileError::at("list", dir))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn remove_left_overs(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        for name in names_in(dir)?.iter().filter(|name| durable::is_left_over(name)) {
            remove(&dir.join(name))?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::at("remove", path)(e).into()),
        _ => Ok(()),
    }
}

fn still_holds(out: &Path, file: &FileEntry) -> bool {
    fs::read(out.join(&file.name)).is_ok_and(|bytes| blake3::hash(&bytes).to_hex().as_str() == file.blake3)
}

fn check_options(options: &WriteOptions) -> Result<(), StoreError> {
    // 2^20 records of 10,000 counts are still addressable by Parquet's 32-bit list offsets in Arrow.
    let limits = [
        ("data.row_group_records", options.row_group_records, 1 << 20, "from 1 to 1048576"),
        ("data.row_groups_per_file", options.row_groups_per_file, 1 << 14, "from 1 to 16384"),
    ];
    for (key, value, most, why) in limits {
        if value == 0 || value > most {
            return Err(StoreError::BadOption { key, value: value.to_string(), why });
        }
    }
    Ok(())
}

fn section_entries(processed: &Processed) -> Vec<SectionEntry> {
    let image_entry = |ordinal: usize, image: &crate::section::TissueImage| ImageEntry {
        file: format!("images/{ordinal:05}.{}", if image.encoded.starts_with(b"\x89PNG") { "png" } else { "jpg" }),
        bytes: image.encoded.len() as u64,
        blake3: blake3::hash(&image.encoded).to_hex().to_string(),
        scale: image.scale,
    };
    let entry = |(ordinal, s): (usize, &crate::processed::SectionFacts)| SectionEntry {
        library_id: s.library_id.clone(),
        donor_id: s.donor_id.clone(),
        source: s.source.clone(),
        format: s.format.clone(),
        n_obs_ingested: s.n_obs_ingested,
        um_per_unit: s.um_per_unit,
        has_z: processed.pieces.iter().any(|p| p.section as usize == ordinal && !p.z.is_empty()),
        image: s.image.as_ref().map(|image| image_entry(ordinal, image)),
    };
    processed.sections.iter().enumerate().map(entry).collect()
}

fn crop_facts(processed: &Processed) -> Option<CropFacts> {
    let crops: Vec<_> = processed.sections.iter().filter_map(|s| s.crops.as_ref()).collect();
    let channels = crops.first()?.pictures.channels();
    Some(CropFacts { channels, rules: crops.iter().map(|c| c.rule.clone()).collect(), encoding: "raw".to_owned() })
}

fn count_facts(processed: &Processed) -> CountFacts {
    let integer = processed.pieces.iter().all(|p| p.counts.values.iter().all(|v| v.fract() == 0.0));
    CountFacts { dtype: "float32".to_owned(), integer }
}

fn obs_table(plan: &[FilePlan], mut journal: Journal) -> Table {
    let mut table = Table { kind: TableKind::Obs, files: Vec::new(), row_groups: Vec::new() };
    for file in plan {
        let finished = journal.files.remove(&file.name).expect("every planned file is finished");
        table.files.push(finished.file);
        table.row_groups.extend(finished.row_groups);
    }
    table
}

fn split_entries(table: &Table) -> Vec<SplitEntry> {
    let entry = |split: Split| {
        let groups: Vec<&RowGroupEntry> = table.row_groups.iter().filter(|g| g.split == split).collect();
        let n_records = groups.iter().map(|g| u64::from(g.n_own)).sum();
        SplitEntry { split, n_records, n_row_groups: groups.len() as u32 }
    };
    [Split::Train, Split::Val, Split::Test].into_iter().map(entry).filter(|s| s.n_row_groups > 0).collect()
}

/// BLAKE3 of everything that decides the bytes of the folder, hex.
fn input_hash(processed: &Processed, sections: &[SectionEntry], config_toml: &str, options: &WriteOptions) -> String {
    let mut hasher = blake3::Hasher::new();
    let header = (
        [SCHEMA_VERSION, ORDER_VERSION, STEP_VERSION],
        (config_toml, &options.split_rule, options.row_group_records, options.row_groups_per_file),
        (&processed.panel, sections, &processed.ledger, &processed.holdout),
    );
    text(&mut hasher, &serde_json::to_string(&header).expect("strings, numbers and lists always serialise"));
    for crops in processed.sections.iter().filter_map(|s| s.crops.as_ref()) {
        crops.pictures.files().iter().for_each(|file| text(&mut hasher, &format!("{} {:?}", file.blake3, file.range)));
        text(&mut hasher, &format!("{:?} {:?}", crops.pictures.channels(), crops.um_per_pixel));
        numbers(&mut hasher, crops.windows.iter().flat_map(|w| [w.row, w.column, w.side.into()]).map(i64::to_le_bytes));
    }
    for piece in &processed.pieces {
        text(&mut hasher, &format!("{} {} {:?}", piece.section, piece.split.as_str(), piece.donor_id));
        numbers(&mut hasher, piece.rows.iter().map(|v| v.to_le_bytes()));
        piece.obs_ids.iter().for_each(|name| text(&mut hasher, name));
        numbers(&mut hasher, piece.xy.iter().flatten().map(|v| v.to_le_bytes()));
        numbers(&mut hasher, piece.um_per_unit.iter().map(|v| v.to_le_bytes()));
        numbers(&mut hasher, piece.counts.indptr.iter().map(|&v| (v as u64).to_le_bytes()));
        numbers(&mut hasher, piece.counts.indices.iter().map(|v| v.to_le_bytes()));
        numbers(&mut hasher, piece.counts.values.iter().map(|v| v.to_le_bytes()));
        numbers(&mut hasher, piece.z.iter().map(|v| v.to_le_bytes()));
        numbers(&mut hasher, piece.hidden.values.iter().map(|&v| [u8::from(v)]));
        numbers(&mut hasher, piece.held.indices.iter().map(|v| v.to_le_bytes()));
        numbers(&mut hasher, piece.held.values.iter().map(|v| v.to_le_bytes()));
        numbers(&mut hasher, piece.measured.values.iter().map(|&v| [u8::from(v)]));
        for (name, layer) in &piece.layers {
            text(&mut hasher, name);
            numbers(&mut hasher, layer.values.iter().map(|v| v.to_le_bytes()));
        }
        numbers(&mut hasher, piece.neighbours.values.iter().map(|v| v.to_le_bytes()));
        for label in &piece.labels {
            text(&mut hasher, &label.name);
            // a missing label is one byte that no UTF-8 string holds
            let values = label.values.iter().map(|v| v.as_deref().map_or(&b"\xff"[..], str::as_bytes));
            values.for_each(|bytes| counted(&mut hasher, bytes));
        }
    }
    if let Some(reference) = &processed.reference {
        reference.names.iter().for_each(|name| text(&mut hasher, name));
        let labels = reference.labels.iter().map(|v| v.as_deref().map_or(&b"\xff"[..], str::as_bytes));
        labels.for_each(|bytes| counted(&mut hasher, bytes));
        numbers(&mut hasher, reference.ids.iter().map(|v| v.to_le_bytes()));
        numbers(&mut hasher, reference.totals.iter().map(|v| v.to_le_bytes()));
        numbers(&mut hasher, reference.counts.indptr.iter().map(|&v| (v as u64).to_le_bytes()));
        numbers(&mut hasher, reference.counts.indices.iter().map(|v| v.to_le_bytes()));
        numbers(&mut hasher, reference.counts.values.iter().map(|v| v.to_le_bytes()));
    }
    hasher.finalize().to_hex().to_string()
}

fn text(hasher: &mut blake3::Hasher, text: &str) {
    counted(hasher, text.as_bytes());
}

fn counted(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

fn numbers<const N: usize>(hasher: &mut blake3::Hasher, values: impl Iterator<Item = [u8; N]>) {
    let bytes: Vec<u8> = values.flatten().collect();
    counted(hasher, &bytes);
}
