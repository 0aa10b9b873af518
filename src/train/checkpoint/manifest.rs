//! A checkpoint's manifest: the BLAKE3 of every file and every tensor, and of itself. Written last; a folder without one
//! is not a checkpoint. Must not know what the state means.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::tensors::NamedTensor;

/// Version of the checkpoint format. Readers refuse newer ones.
pub const FORMAT_VERSION: u32 = 1;

/// What `manifest.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// Version of the program that wrote it.
    pub syncytia: String,
    /// Batches consumed.
    pub global_step: u64,
    /// Every file but this one, by name relative to the checkpoint.
    pub files: BTreeMap<String, FileEntry>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 of its bytes, hex.
    pub blake3: String,
    /// Its tensors in the order they were given; empty for the state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<TensorEntry>,
}

/// One tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorEntry {
    /// Its name.
    pub name: String,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// BLAKE3 of its values as little-endian f32, hex.
    pub blake3: String,
}

/// The file as it lies on the disk: the manifest and its own digest.
#[derive(Serialize, Deserialize)]
struct Sealed {
    blake3: String,
    manifest: Manifest,
}

/// Only the version, which must be readable whatever else a newer format holds.
#[derive(Deserialize)]
struct Version {
    manifest: VersionField,
}

#[derive(Deserialize)]
struct VersionField {
    format_version: u32,
}

/// Why a manifest was not accepted.
#[derive(Debug, PartialEq)]
pub(super) enum ManifestFault {
    /// Not what was written.
    Damaged(String),
    /// Of a newer format.
    Newer(u32),
}

impl Manifest {
    /// BLAKE3 over everything the manifest says, hex: the identity of the checkpoint.
    pub fn digest(&self) -> String {
        let body = serde_json::to_vec(self).expect("a manifest is plain data");
        blake3::hash(&body).to_hex().to_string()
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let sealed = Sealed { blake3: self.digest(), manifest: self.clone() };
        let mut bytes = serde_json::to_vec_pretty(&sealed).expect("a manifest is plain data");
        bytes.push(b'\n');
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Manifest, ManifestFault> {
        let damaged = |e: serde_json::Error| ManifestFault::Damaged(e.to_string());
        let version: Version = serde_json::from_slice(bytes).map_err(damaged)?;
        if version.manifest.format_version > FORMAT_VERSION {
            return Err(ManifestFault::Newer(version.manifest.format_version));
        }
        let sealed: Sealed = serde_json::from_slice(bytes).map_err(damaged)?;
        // The only byte that neither JSON nor the digest needs.
        if !bytes.ends_with(b"}\n") {
            return Err(ManifestFault::Damaged("its end is missing".to_owned()));
        }
        if sealed.manifest.digest() != sealed.blake3 {
            return Err(ManifestFault::Damaged("its content does not match its own digest".to_owned()));
        }
        Ok(sealed.manifest)
    }
}

impl FileEntry {
    pub(super) fn of(bytes: &[u8], tensors: &[NamedTensor]) -> FileEntry {
        let tensors = tensors
            .iter()
            .map(|t| TensorEntry { name: t.name.clone(), shape: t.shape.clone(), blake3: hex(&t.bytes()) })
            .collect();
        FileEntry { bytes: bytes.len() as u64, blake3: hex(bytes), tensors }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(format_version: u32) -> Manifest {
        let files = [("model.safetensors".to_owned(), FileEntry::of(b"abc", &[]))].into();
        Manifest { format_version, syncytia: "0.1.0".into(), global_step: 7, files }
    }

    #[test]
    fn any_changed_fact_is_noticed() {
        let text = String::from_utf8(manifest(1).to_bytes()).unwrap();
        assert_eq!(Manifest::from_bytes(text.as_bytes()), Ok(manifest(1)));
        for (old, new) in
            [("\"global_step\": 7", "\"global_step\": 8"), ("\"bytes\": 3", "\"bytes\": 4"), ("0.1.0", "0.1.1")]
        {
            assert!(text.contains(old));
            let changed = text.replace(old, new);
            assert!(matches!(Manifest::from_bytes(changed.as_bytes()), Err(ManifestFault::Damaged(_))), "{old}");
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        assert_eq!(Manifest::from_bytes(&manifest(2).to_bytes()), Err(ManifestFault::Newer(2)));
    }
}
