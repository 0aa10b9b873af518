//! Checkpoints: a folder with the weights, what a resume needs, and the digest of everything. Written whole or not at
//! all, verified whole before use. Knows plain values only: no tensor library, no model, no rank.
//!
//! `model.safetensors` holds the weights evaluation uses, under the reference implementation's names; `train_state/`
//! holds what only a resume needs (raw weights, optimizer, EMA) and `state.json`; `manifest.json`, written last, holds
//! the BLAKE3 of every file and tensor and of itself. [`save`] publishes a folder by a rename after everything is on
//! the disk; [`load`] accepts nothing that differs by a bit from what was saved.

mod error;
mod manifest;
mod publish;
mod select;
mod tensors;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use error::CheckpointError;
pub use manifest::{FORMAT_VERSION, FileEntry, Manifest, TensorEntry};
pub use publish::recover;
pub use select::{Newest, Which, newest_valid, resolve, steps};
pub use tensors::{NamedTensor, encode as encode_tensors};

use crate::train::run_folder::{CheckpointFolder, RunFolder};
use manifest::{ManifestFault, hex};

/// A manifest above this is not one of ours: some hundred bytes per tensor.
const MAX_MANIFEST_BYTES: u64 = 256 << 20;

/// What a checkpoint holds, as plain values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CheckpointContents {
    /// The weights evaluation uses: EMA when on, else raw.
    pub model: Vec<NamedTensor>,
    /// Free text in the header of `model.safetensors`.
    pub model_metadata: BTreeMap<String, String>,
    /// Groups of training-state tensors by file stem: `raw`, `adam_m`, `adam_v`, `ema`.
    pub train_state: BTreeMap<String, Vec<NamedTensor>>,
    /// Steps, exponents, best value, data identity, step version, config: whatever the trainer needs back. JSON numbers
    /// may lose the last bit of an f64: give those as [`f64_to_state`].
    pub state: Value,
}

impl CheckpointContents {
    /// About how many bytes it takes on the disk: its values.
    pub fn n_bytes(&self) -> usize {
        let tensors = self.model.iter().chain(self.train_state.values().flatten());
        tensors.map(|tensor| 4 * tensor.values.len()).sum()
    }
}

/// A checkpoint as loaded: everything in it has been verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Its folder.
    pub dir: PathBuf,
    /// Its manifest; [`Manifest::digest`] is its identity.
    pub manifest: Manifest,
    /// Its contents, tensors in the order they were saved in.
    pub contents: CheckpointContents,
}

/// Writes the checkpoint of a step and returns its folder. One that exists for the step is replaced: after a fall back
/// past a damaged checkpoint the run comes by its step again. The caller holds the run's lock.
///
/// # Errors
/// [`CheckpointError::Io`] (disk full and the like) and [`CheckpointError::Contents`]; nothing with a checkpoint's name
/// has then changed.
pub fn save(run: &RunFolder, step: u64, contents: &CheckpointContents) -> Result<PathBuf, CheckpointError> {
    write(run, &RunFolder::checkpoint_name(step), step, contents)
}

/// Replaces the best checkpoint; at every moment there is a whole one. `step` is the step it was best at.
///
/// # Errors
/// As [`save`].
pub fn write_best(run: &RunFolder, step: u64, contents: &CheckpointContents) -> Result<PathBuf, CheckpointError> {
    write(run, RunFolder::BEST_NAME, step, contents)
}

fn write(run: &RunFolder, name: &str, step: u64, contents: &CheckpointContents) -> Result<PathBuf, CheckpointError> {
    let parent = run.checkpoints();
    fs::create_dir_all(&parent).map_err(CheckpointError::io("make", &parent))?;
    publish::publish(&parent, name, |dir| {
        let folder = CheckpointFolder::at(dir);
        fs::create_dir(folder.train_state()).map_err(CheckpointError::io("make", &folder.train_state()))?;
        let mut files = BTreeMap::new();
        let mut put = |relative: String, bytes: &[u8], tensors: &[NamedTensor]| {
            let path = folder.file(&relative);
            fs::write(&path, bytes).map_err(CheckpointError::io("write", &path))?;
            files.insert(relative, FileEntry::of(bytes, tensors));
            Ok::<_, CheckpointError>(())
        };
        let model = encode_file(CheckpointFolder::MODEL, &contents.model, &contents.model_metadata)?;
        put(CheckpointFolder::MODEL.to_owned(), &model, &contents.model)?;
        for (stem, tensors) in &contents.train_state {
            let relative = CheckpointFolder::train_tensors(stem);
            if CheckpointFolder::stem_of(&relative) != Some(stem) || stem.is_empty() || stem.contains(['/', '\0']) {
                let what = format!("{stem:?} cannot be a file name");
                return Err(CheckpointError::Contents { file: relative, what });
            }
            let bytes = encode_file(&relative, tensors, &BTreeMap::new())?;
            put(relative, &bytes, tensors)?;
        }
        let state = serde_json::to_vec_pretty(&contents.state).expect("a JSON value is JSON");
        put(CheckpointFolder::STATE.to_owned(), &state, &[])?;
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            syncytia: env!("CARGO_PKG_VERSION").to_owned(),
            global_step: step,
            files,
        };
        let path = folder.manifest();
        fs::write(&path, manifest.to_bytes()).map_err(CheckpointError::io("write", &path))
    })
}

fn encode_file(
    file: &str,
    tensors: &[NamedTensor],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, CheckpointError> {
    tensors::encode(tensors, metadata).map_err(|what| CheckpointError::Contents { file: file.to_owned(), what })
}

/// Reads a checkpoint and checks every digest in it.
///
/// # Errors
/// [`CheckpointError::Damaged`] names the file and the fault; [`CheckpointError::Newer`], [`CheckpointError::Io`].
pub fn load(dir: &Path) -> Result<Checkpoint, CheckpointError> {
    let folder = CheckpointFolder::at(dir);
    let manifest = read_manifest(&folder)?;
    let mut contents = CheckpointContents::default();
    let mut has = (false, false);
    for (relative, entry) in &manifest.files {
        let damaged = |what: String| CheckpointError::Damaged { dir: dir.to_owned(), file: relative.clone(), what };
        let bytes = read_verified(&folder, relative, entry)?;
        if relative == CheckpointFolder::STATE {
            contents.state = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
            has.0 = true;
        } else if relative == CheckpointFolder::MODEL {
            (contents.model, contents.model_metadata) = verified_tensors(&bytes, entry).map_err(damaged)?;
            has.1 = true;
        } else if let Some(stem) = CheckpointFolder::stem_of(relative) {
            let (tensors, _) = verified_tensors(&bytes, entry).map_err(damaged)?;
            contents.train_state.insert(stem.to_owned(), tensors);
        } else {
            return Err(damaged("the manifest lists a file that no checkpoint has".to_owned()));
        }
    }
    for (there, file) in [(has.0, CheckpointFolder::STATE), (has.1, CheckpointFolder::MODEL)] {
        if !there {
            let what = "the manifest does not list it".to_owned();
            return Err(CheckpointError::Damaged { dir: dir.to_owned(), file: file.to_owned(), what });
        }
    }
    Ok(Checkpoint { dir: dir.to_owned(), manifest, contents })
}

fn read_manifest(folder: &CheckpointFolder) -> Result<Manifest, CheckpointError> {
    let dir = folder.root().to_owned();
    let bytes = read(folder, CheckpointFolder::MANIFEST, |n| n <= MAX_MANIFEST_BYTES, "too large for a manifest")?;
    let manifest = Manifest::from_bytes(&bytes).map_err(|fault| match fault {
        ManifestFault::Damaged(what) => {
            CheckpointError::Damaged { dir: dir.clone(), file: CheckpointFolder::MANIFEST.to_owned(), what }
        }
        ManifestFault::Newer(found) => CheckpointError::Newer { dir: dir.clone(), found, known: FORMAT_VERSION },
    })?;
    // a folder copied or renamed by hand must not pass for another step
    let named = dir.file_name().and_then(|n| RunFolder::step_of(&n.to_string_lossy()));
    if named.is_some_and(|step| step != manifest.global_step) {
        let what = format!("it is of step {}, not of the step in the folder's name", manifest.global_step);
        return Err(CheckpointError::Damaged { dir, file: CheckpointFolder::MANIFEST.to_owned(), what });
    }
    Ok(manifest)
}

fn read_verified(folder: &CheckpointFolder, relative: &str, entry: &FileEntry) -> Result<Vec<u8>, CheckpointError> {
    let wrong = format!("its size is not the {} bytes that were written", entry.bytes);
    let bytes = read(folder, relative, |n| n == entry.bytes, &wrong)?;
    if hex(&bytes) != entry.blake3 {
        let what = format!("its BLAKE3 is not {}", entry.blake3);
        return Err(CheckpointError::Damaged { dir: folder.root().to_owned(), file: relative.to_owned(), what });
    }
    Ok(bytes)
}

/// Reads a file whose size passes a test made before a byte is read. A file that is missing or unreadable is damage;
/// one we may not open is a refusal of the system.
fn read(
    folder: &CheckpointFolder,
    relative: &str,
    size_is_right: impl Fn(u64) -> bool,
    otherwise: &str,
) -> Result<Vec<u8>, CheckpointError> {
    let path = folder.file(relative);
    let damaged =
        |what: String| CheckpointError::Damaged { dir: folder.root().to_owned(), file: relative.to_owned(), what };
    let fault = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::OutOfMemory => CheckpointError::io("read", &path)(error),
        _ => damaged(error.to_string()),
    };
    let meta = fs::metadata(&path).map_err(fault)?;
    if !meta.is_file() {
        return Err(damaged("it is no file".to_owned())); // a pipe would be read for ever
    }
    let size = meta.len();
    if !size_is_right(size) {
        return Err(damaged(format!("{otherwise}; it has {size} bytes")));
    }
    fs::read(&path).map_err(fault)
}

#[allow(clippy::type_complexity)] // as in `tensors::decode`
fn verified_tensors(bytes: &[u8], entry: &FileEntry) -> Result<(Vec<NamedTensor>, BTreeMap<String, String>), String> {
    let (mut by_name, metadata) = tensors::decode(bytes)?;
    let mut tensors = Vec::with_capacity(entry.tensors.len());
    for listed in &entry.tensors {
        let tensor = by_name.remove(&listed.name).ok_or_else(|| format!("tensor {} is missing", listed.name))?;
        if tensor.shape != listed.shape || hex(&tensor.bytes()) != listed.blake3 {
            return Err(format!("tensor {} is not the one that was written", listed.name));
        }
        tensors.push(tensor);
    }
    match by_name.keys().next() {
        Some(name) => Err(format!("tensor {name} is not in the manifest")),
        None => Ok((tensors, metadata)),
    }
}

/// Deletes all but the newest `keep` checkpoints of steps (`keep` = 0 keeps one: a run never deletes its only way
/// back). The best one is not counted. Returns the steps deleted. Call it after a successful [`save`]: the newest one is
/// then whole.
///
/// # Errors
/// [`CheckpointError::Io`].
pub fn prune(run: &RunFolder, keep: usize) -> Result<Vec<u64>, CheckpointError> {
    let mut steps = steps(run)?;
    steps.truncate(steps.len().saturating_sub(keep.max(1)));
    for &step in &steps {
        publish::retire(&run.checkpoints(), &RunFolder::checkpoint_name(step))?;
    }
    Ok(steps)
}

/// An f64 for [`CheckpointContents::state`] that comes back with the same bits, infinities and NaN included.
pub fn f64_to_state(value: f64) -> Value {
    Value::String(format!("f64:{:016x}", value.to_bits()))
}

/// The inverse of [`f64_to_state`]; `None` for anything else.
pub fn f64_from_state(value: &Value) -> Option<f64> {
    let bits = value.as_str()?.strip_prefix("f64:")?;
    u64::from_str_radix(bits, 16).ok().map(f64::from_bits)
}

#[cfg(test)]
mod tests;
