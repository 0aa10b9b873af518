//! X_rna^pair as a folder of vectors: each spot's (or cell's) weighted mean of its nearest cells, made block by block.
//!
//! A block is a part of the folder ([`super::vectors`]), encoded and renamed into place when it is whole; its rows are searched in
//! parallel. `pairing.json` (written first) says of what the parts are made, so that an interrupted run goes on behind its last whole
//! block and ends at the same bytes, and one of other inputs is refused. Knows no model.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::vectors::{VECTORS_FILE, Vectors, VectorsFacts, VectorsOf, VectorsWriter};
use crate::durable::{FileError, write_atomic};
use crate::error::StoreError;
use crate::matrix::Matrix;
use crate::process::pairing::{PairingError, Queries, Seen, Weighting, nearest_of_rows};

/// What the parts of an unfinished folder are made of.
pub const PAIRING_FILE: &str = "pairing.json";

/// Why spots could not be paired.
#[derive(Debug, Error)]
pub enum PairedError {
    /// Too few cells, or other genes.
    #[error(transparent)]
    Pairing(#[from] PairingError),
    /// The folder.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is to be paired.
#[derive(Debug, Clone, Copy)]
pub struct Pairing<'a> {
    /// Whose vectors they become.
    pub of: VectorsOf,
    /// Who moved the cells and how all was seen, in words: the vectors' producer, with a digest of the inputs behind it.
    pub producer: &'a str,
    /// Ids of the rows `[n]`: of records, or of cells.
    pub ids: &'a [u64],
    /// The rows.
    pub queries: Queries<'a>,
    /// What they are compared with `[n_cells, G]`.
    pub compared: &'a Matrix<f32>,
    /// What is averaged `[n_cells, width]`: the same, or cells that a network moved.
    pub averaged: &'a Matrix<f32>,
    /// Cells per row.
    pub n_nearest: usize,
    /// How similarities become weights.
    pub weighting: Weighting,
    /// Rows of a block.
    pub block: usize,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Journal {
    /// Digest of everything that decides the vectors.
    inputs: String,
}

/// Makes the folder `dir` for the shards with this `data_hash`, or finishes it. `before` is called with the number of each block
/// that is about to be made and may refuse (a stop vote).
///
/// # Errors
/// [`PairedError`]; [`StoreError::OtherContent`] where the folder holds others.
pub fn pair(
    dir: &Path,
    pairing: &Pairing<'_>,
    data_hash: &str,
    mut before: impl FnMut(usize) -> Result<(), StoreError>,
) -> Result<Vectors, PairedError> {
    assert!(pairing.block > 0 && pairing.ids.len() == pairing.queries.values.n_rows(), "blocks of one id per row");
    let inputs = digest(pairing, data_hash);
    let (of, producer) = (pairing.of, format!("{}; {inputs}", pairing.producer));
    if dir.join(VECTORS_FILE).exists() {
        return finished(dir, of, &producer, data_hash);
    }
    fs::create_dir_all(dir).map_err(|e| StoreError::from(FileError::at("create the folder", dir)(e)))?;
    let journal_path = dir.join(PAIRING_FILE);
    match fs::read(&journal_path) {
        Ok(bytes) if serde_json::from_slice::<Journal>(&bytes).is_ok_and(|j| j.inputs == inputs) => {}
        Ok(_) => return Err(other(dir).into()),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            // refuses a folder in use before anything is written there
            VectorsWriter::create(dir, of, pairing.averaged.n_cols, &producer, data_hash)?;
            let journal = serde_json::to_vec_pretty(&Journal { inputs: inputs.clone() }).expect("a string serialises");
            write_atomic(&journal_path, &journal).map_err(StoreError::from)?;
        }
        Err(e) => return Err(StoreError::from(FileError::at("read", &journal_path)(e)).into()),
    }
    let mut writer = VectorsWriter::go_on(dir, of, pairing.averaged.n_cols, &producer, data_hash);
    let n = pairing.ids.len();
    for (number, start) in (0..n).step_by(pairing.block).enumerate() {
        let rows = start..(start + pairing.block).min(n);
        let ids = &pairing.ids[rows.clone()];
        if writer.keep_part(ids)? {
            continue;
        }
        before(number)?;
        let nearest = nearest_of_rows(&pairing.queries, rows, pairing.compared, pairing.n_nearest)?;
        let mean = nearest.aggregate(pairing.weighting, pairing.averaged);
        writer.push(ids, &mean.values)?;
        writer.end_part()?;
    }
    writer.finish()?;
    fs::remove_file(&journal_path).map_err(|e| StoreError::from(FileError::at("remove", &journal_path)(e)))?;
    Ok(Vectors::read(dir, of, data_hash)?)
}

fn finished(dir: &Path, of: VectorsOf, producer: &str, data_hash: &str) -> Result<Vectors, PairedError> {
    if VectorsFacts::read(dir)?.producer != producer {
        return Err(other(dir).into());
    }
    let _ = fs::remove_file(dir.join(PAIRING_FILE)); // a crash behind the last part
    Ok(Vectors::read(dir, of, data_hash)?)
}

fn other(dir: &Path) -> StoreError {
    StoreError::OtherContent { path: dir.into() }
}

/// BLAKE3 of everything that decides the vectors, hex.
fn digest(pairing: &Pairing<'_>, data_hash: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    let Pairing { of, producer, ids, queries, compared, averaged, n_nearest, weighting, block } = pairing;
    let header =
        format!("{data_hash} {of:?} {producer} {n_nearest} {weighting:?} {block} {} {}", queries.are_cells, ids.len());
    hasher.update(header.as_bytes());
    for id in *ids {
        hasher.update(&id.to_le_bytes());
    }
    for matrix in [queries.values, compared, averaged] {
        hasher.update(&(matrix.n_cols as u64).to_le_bytes());
        for value in &matrix.values {
            hasher.update(&value.to_le_bytes());
        }
    }
    let (Seen::Genes(bits) | Seen::Entries(bits)) = queries.seen;
    let bits: Vec<u8> = bits.iter().map(|&b| u8::from(b)).collect();
    hasher.update(&bits);
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::{DrawKey, Purpose, uniform};
    use crate::process::pairing::{nearest_cells, nearest_other_cells};

    fn matrix(n: usize, site: u32) -> Matrix<f32> {
        let key = DrawKey::new(9, Purpose::Synthetic);
        Matrix { n_cols: 5, values: (0..n as u32 * 5).map(|i| uniform(key.word(i, [0, 0, site])) - 0.3).collect() }
    }

    struct Data {
        ids: Vec<u64>,
        spots: Matrix<f32>,
        bits: Vec<bool>,
        cells: Matrix<f32>,
    }

    fn data() -> Data {
        let bits = matrix(23, 2).values.iter().map(|v| *v > -0.1).collect();
        Data { ids: (100..123).collect(), spots: matrix(23, 0), bits, cells: matrix(17, 1) }
    }

    fn pairing(data: &Data, block: usize) -> Pairing<'_> {
        Pairing {
            of: VectorsOf::Pair,
            producer: "cells",
            ids: &data.ids,
            queries: Queries { values: &data.spots, seen: Seen::Entries(&data.bits), are_cells: false },
            compared: &data.cells,
            averaged: &data.cells,
            n_nearest: 4,
            weighting: Weighting::Positive,
            block,
        }
    }

    fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        let mut files: Vec<(String, Vec<u8>)> = entries
            .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
            .collect();
        files.sort();
        files
    }

    #[test]
    fn blocks_change_nothing_and_cells_are_paired_with_others() {
        let (data, dir) = (data(), tempfile::tempdir().unwrap());
        let nearest = nearest_cells(&data.spots, Seen::Entries(&data.bits), &data.cells, 4).unwrap();
        let expected = nearest.aggregate(Weighting::Positive, &data.cells);
        for block in [1, 5, 23, 100] {
            let vectors = pair(&dir.path().join(block.to_string()), &pairing(&data, block), "h", |_| Ok(())).unwrap();
            assert_eq!((&vectors.values, &vectors.ids), (&expected, &data.ids), "blocks of {block}");
            assert_eq!(vectors.facts.parts.len(), 23usize.div_ceil(block));
        }
        let ids: Vec<u64> = (0..17).collect();
        let seen = Seen::Genes(&[true, true, false, true, true]);
        let queries = Queries { values: &data.cells, seen, are_cells: true };
        let of_cells = Pairing { ids: &ids, queries, ..pairing(&data, 4) };
        let expected = nearest_other_cells(&data.cells, seen, 4).unwrap().aggregate(Weighting::Positive, &data.cells);
        assert_eq!(pair(&dir.path().join("cells"), &of_cells, "h", |_| Ok(())).unwrap().values, expected);
    }

    #[test]
    fn a_run_that_was_cut_short_goes_on_and_ends_at_the_same_bytes() {
        let (data, dir) = (data(), tempfile::tempdir().unwrap());
        let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
        pair(&whole, &pairing(&data, 4), "h", |_| Ok(())).unwrap();
        let stop = |at: usize| move |block: usize| if block == at { Err(StoreError::Empty) } else { Ok(()) };
        assert!(pair(&cut, &pairing(&data, 4), "h", stop(2)).is_err());
        assert!(Vectors::read(&cut, VectorsOf::Pair, "h").is_err(), "unfinished");
        // a part that was damaged meanwhile is made again
        fs::write(cut.join("part-00001.parquet"), "half a part").unwrap();
        let mut made = Vec::new();
        pair(&cut, &pairing(&data, 4), "h", |block| {
            made.push(block);
            Ok(())
        })
        .unwrap();
        assert_eq!(made, [1, 2, 3, 4, 5], "block 0 stood");
        assert_eq!(files(&cut), files(&whole));
        pair(&cut, &pairing(&data, 4), "h", stop(0)).unwrap(); // finished: nothing is made
    }

    #[test]
    fn another_pairing_does_not_go_on_in_the_folder() {
        let (data, dir) = (data(), tempfile::tempdir().unwrap());
        let cut = dir.path().join("cut");
        assert!(pair(&cut, &pairing(&data, 4), "h", |b| if b == 1 { Err(StoreError::Empty) } else { Ok(()) }).is_err());
        let other = Pairing { n_nearest: 5, ..pairing(&data, 4) };
        for refused in [pair(&cut, &other, "h", |_| Ok(())), pair(&cut, &pairing(&data, 4), "g", |_| Ok(()))] {
            let words = refused.unwrap_err().to_string();
            assert!(words.contains("other input"), "{words}");
        }
        pair(&cut, &pairing(&data, 4), "h", |_| Ok(())).unwrap();
        assert!(pair(&cut, &other, "h", |_| Ok(())).is_err());
        let many = Pairing { n_nearest: 18, ..pairing(&data, 4) };
        let words = pair(&dir.path().join("many"), &many, "h", |_| Ok(())).unwrap_err().to_string();
        assert!(words.contains("18 nearest cells"), "{words}");
    }
}
