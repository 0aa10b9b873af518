//! A T5 from a user's Hugging Face folder, and what it makes of genes and spots: vectors made once, before training.

use std::path::Path;

use rayon::prelude::*;
use syncytia_shards::matrix::Matrix;

use super::error::TrainError;
use super::run_folder::CheckpointFolder;
use crate::model::spotdiff::prompt::{PromptConfig, named, sentence};
use crate::model::spotdiff::t5::{T5, T5Error, T5Files, Vocabulary};
use crate::task::paired::Side;
use crate::tensor::Device;

/// Names of the files.
const CONFIG: &str = "config.json";
const WEIGHTS: &str = CheckpointFolder::MODEL; // as ours: both are safetensors of one model
const VOCABULARIES: [&str; 2] = ["tokenizer.json", "spiece.model"];

/// Reads the encoder of a folder.
///
/// # Errors
/// [`TrainError::Data`]: a file is not there or is not what it should be, with its path and what is expected.
pub fn open(dir: &Path, device: &Device) -> Result<T5, TrainError> {
    let read = |name: &str| -> Result<(Vec<u8>, String), TrainError> {
        let path = dir.join(name);
        let bytes = std::fs::read(&path).map_err(|e| lacking(&path, &e))?;
        Ok((bytes, path.display().to_string()))
    };
    let (config, config_path) = read(CONFIG)?;
    let config = String::from_utf8_lossy(&config).into_owned();
    let vocabulary = vocabulary(dir)?;
    let (vocabulary_bytes, vocabulary_path) = read(vocabulary)?;
    let (weight_bytes, weights_path) = read(WEIGHTS)?;
    let kind = if vocabulary == VOCABULARIES[0] { Vocabulary::Json } else { Vocabulary::SentencePiece };
    let files = T5Files {
        config: (&config, &config_path),
        weights: (&weight_bytes, &weights_path),
        vocabulary: (kind(&vocabulary_bytes), &vocabulary_path),
    };
    T5::read(&files, device).map_err(refused)
}

/// What the files of a folder are, wherever it lies: BLAKE3 of those that are read.
///
/// # Errors
/// [`TrainError::Data`]: a file is not there.
pub fn digest(dir: &Path) -> Result<String, TrainError> {
    let mut hasher = blake3::Hasher::new();
    for name in [CONFIG, vocabulary(dir)?, WEIGHTS] {
        let path = dir.join(name);
        let bytes = std::fs::read(&path).map_err(|e| lacking(&path, &e))?;
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Name of the vocabulary's file.
fn vocabulary(dir: &Path) -> Result<&'static str, TrainError> {
    VOCABULARIES.into_iter().find(|name| dir.join(name).is_file()).ok_or_else(|| {
        TrainError::Data(format!(
            "{} has no vocabulary; expected is {} or {} of the same T5 beside {CONFIG}",
            dir.display(),
            VOCABULARIES[0],
            VOCABULARIES[1]
        ))
    })
}

/// Mean of the tokens of each gene's name, `[G, width]`.
///
/// # Errors
/// As [`T5::mean`].
pub fn of_genes(t5: &T5, symbols: &[String]) -> Result<Matrix<f32>, TrainError> {
    rows(t5, symbols)
}

/// Mean of the tokens of each row's prompt, `[n, width]`, made of what is visible.
///
/// # Errors
/// As [`T5::mean`].
pub fn of_side(
    t5: &T5,
    side: &Side,
    shown: &[bool],
    prompt: &PromptConfig,
    symbols: &[String],
) -> Result<Matrix<f32>, TrainError> {
    let say = |row: usize| {
        let expression = side.expression.row(row);
        let visible: Vec<bool> = side.bits.row(row).iter().zip(shown).map(|(bit, shown)| *bit && *shown).collect();
        sentence(expression, &named(expression, &visible, prompt.most, prompt.least), symbols)
    };
    rows(t5, &(0..side.n()).map(say).collect::<Vec<_>>())
}

fn rows(t5: &T5, texts: &[String]) -> Result<Matrix<f32>, TrainError> {
    let vectors: Result<Vec<Vec<f32>>, T5Error> = texts.par_iter().map(|text| t5.mean(text)).collect();
    Ok(Matrix { n_cols: t5.width(), values: vectors.map_err(refused)?.concat() })
}

fn refused(error: T5Error) -> TrainError {
    TrainError::Data(error.to_string())
}

fn lacking(path: &Path, error: &std::io::Error) -> TrainError {
    TrainError::Data(format!(
        "{}: {error}; expected is the folder of a T5 from Hugging Face: config.json, model.safetensors, and tokenizer.json or \
         spiece.model",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::cpu;

    const CONFIG_TEXT: &str = include_str!("../../tests/golden/t5/v1_1/config.json");
    const MODEL: &[u8] = include_bytes!("../../tests/golden/t5/v1_1/model.safetensors");
    const SPIECE: &[u8] = include_bytes!("../../tests/golden/t5/spiece.model");

    #[test]
    fn a_folder_is_read_and_what_it_lacks_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let lacks = |word: &str| {
            let error = open(dir.path(), &cpu()).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("expected"), "no {word:?} in {error}");
        };
        lacks("config.json");
        std::fs::write(dir.path().join(CONFIG), CONFIG_TEXT).unwrap();
        lacks("no vocabulary");
        std::fs::write(dir.path().join("spiece.model"), SPIECE).unwrap();
        lacks(WEIGHTS);
        std::fs::write(dir.path().join(WEIGHTS), MODEL).unwrap();
        let t5 = open(dir.path(), &cpu()).unwrap();
        let genes = of_genes(&t5, &["eve".to_owned(), "Kr".to_owned()]).unwrap();
        assert_eq!((genes.n_cols, genes.n_rows()), (12, 2));
        assert_ne!(genes.row(0), genes.row(1));
        assert_eq!(genes.row(0), t5.mean("eve").unwrap());
    }
}
