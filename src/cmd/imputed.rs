//! What SpotDiff's networks make of what is hidden of a shard folder: one of all, or one of each fold of genes. Knows no truth.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use syncytia_shards::matrix::Matrix;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::vectors::Vectors;
use syncytia_shards::visible::{View, Visible, VisibleCells};

use super::exit::UsageError;
use super::trained::Trained;
use crate::model::spotdiff::SpotdiffConfig;
use crate::model::spotdiff::psi_config::Tokens;
use crate::model::{Model, ModelConfig};
use crate::task::TaskConfig;
use crate::task::imputation::{Imputation, ImputationConfig, ROWS, Readings, smoothed};
use crate::task::paired::Paired;
use crate::tensor::cpu;
use crate::train::checkpoint::Which;
use crate::train::error::TrainError;
use crate::train::pairing::{self, Written};
use crate::train::run_folder::RunFolder;
use crate::train::text_encoder;

/// Nearest spots over which the smooth readout is averaged.
pub const SMOOTH: usize = 5;

/// Most folds that are looked for.
const MOST_FOLDS: u32 = 1024;

/// Run folders of the folds of a run that has some.
pub fn folds_of(run: &Path) -> Vec<PathBuf> {
    let folder = RunFolder::at(run);
    let of = |fold: u32| Some(folder.fold(fold).root().to_owned()).filter(|dir| dir.exists());
    if folder.checkpoints().exists() { Vec::new() } else { (0..MOST_FOLDS).filter_map(of).collect() }
}

/// The checkpoints of a run: one, or one of each fold that there is. `text_encoder`: where the T5 that reads their prompts lies now,
/// if not where they were trained with it.
pub fn open(run: &Path, which: Which, text_encoder: Option<&Path>) -> anyhow::Result<Vec<Trained>> {
    let mut all = checkpoints(run, which)?;
    all.iter_mut().try_for_each(|trained| reads_by(trained, text_encoder))?;
    Ok(all)
}

/// Refuses a folder of a T5 that no prompt of these runs is read by.
pub fn check_text_encoder<'a>(
    given: Option<&Path>,
    mut runs: impl Iterator<Item = &'a Trained>,
) -> Result<(), UsageError> {
    if given.is_none() || runs.any(|trained| trained.run.text_encoder.is_some()) {
        return Ok(());
    }
    Err(UsageError("--text-encoder: no prompt of this run is read by a text encoder".to_owned()))
}

/// Sets the folder of the T5 and sees that its files are those that the run had.
fn reads_by(trained: &mut Trained, given: Option<&Path>) -> anyhow::Result<()> {
    let run = &mut trained.run;
    let Some(digest) = &run.text_encoder else { return Ok(()) };
    let folder = given.map(Path::to_owned).or_else(|| run.config.data.text_encoder.clone());
    let folder = folder.expect("who has a digest had a folder");
    let found = text_encoder::digest(&folder).map_err(|error| match given {
        Some(_) => error,
        None => TrainError::Data(format!("{error}; --text-encoder DIR says where it lies now")),
    })?;
    if &found != digest {
        return Err(TrainError::Data(format!(
            "{} is another text encoder than the run was trained with: BLAKE3 of its files {found}, not {digest}",
            folder.display()
        ))
        .into());
    }
    run.config.data.text_encoder = Some(folder);
    Ok(())
}

fn checkpoints(run: &Path, which: Which) -> anyhow::Result<Vec<Trained>> {
    let folds = folds_of(run);
    let trained = |dir: &&PathBuf| RunFolder::at(dir.as_path()).checkpoints().exists();
    let (trained, others): (Vec<&PathBuf>, Vec<&PathBuf>) = folds.iter().partition(trained);
    for dir in others {
        eprintln!("warning: {} has no checkpoint yet: the genes it hides are left out", dir.display());
    }
    match &trained[..] {
        [] => Ok(vec![Trained::open(run, which)?]),
        folds => folds.iter().map(|dir| Trained::open(dir, which)).collect(),
    }
}

/// What one network made of one fold, or of all; values are levels of the data.
pub struct Imputed {
    /// Which fold of genes is hidden from it.
    pub fold: Option<u32>,
    /// What it sees.
    pub seen: Visible,
    /// The reference.
    pub cells: Option<VisibleCells>,
    /// Genes that no spot shows `[G]`.
    pub hides: Vec<bool>,
    /// What it makes of every entry `[n, G]`; visible ones as they are.
    pub values: Matrix<f32>,
    /// The same averaged over a spot and its nearest.
    pub smooth: Matrix<f32>,
    /// The mean of samples `[n, G]`.
    pub sampled: Matrix<f32>,
    /// Standard deviation of the samples `[n, G]`.
    pub spread: Matrix<f32>,
    /// Mean of it over what is hidden, in the scale that the model reads.
    pub mean_spread: f64,
}

/// The task and sizes of a checkpoint of the last stage.
pub fn imputation_of(trained: &Trained) -> anyhow::Result<(&ImputationConfig, &SpotdiffConfig)> {
    match (&trained.run.config.task, &trained.run.config.model) {
        (TaskConfig::Imputation(task), ModelConfig::Spotdiff(model)) => Ok((task, model)),
        (task, _) => {
            let (dir, kind) = (trained.checkpoint.dir.display(), task.kind());
            Err(UsageError(format!(
                "{dir} is of the stage \"{kind}\", which imputes nothing: give the run of the last stage"
            ))
            .into())
        }
    }
}

/// What the network makes of what the shards hide, at the level of the data.
/// `spread`: whether samples are drawn where the readout needs none.
pub fn impute(trained: &Trained, shards: &Shards, split: Split, spread: bool) -> anyhow::Result<Imputed> {
    impute_seen(trained, &pairing::view(shards, &trained.run.config)?, split, spread)
}

/// What it makes of what a view hides: totals, scales, neighbours, pairs and prompts are all made of what that view shows.
/// `spread`: whether samples are drawn where the readout needs none.
pub fn impute_seen(trained: &Trained, opened: &View<'_>, split: Split, spread: bool) -> anyhow::Result<Imputed> {
    let config = &trained.run.config;
    let (task, model_config) = imputation_of(trained)?;
    let view = config.view();
    let (seen, hides) = (opened.visible(split)?, opened.hidden_genes().to_vec());
    let model = trained.model()?;
    let paired = paired(trained, &model, opened, split)?;
    let Model::Spotdiff(network) = &model else { unreachable!("its config is SpotDiff's") };
    let imputation = Imputation::of_shards(*task, model_config, opened.shards().manifest(), config.train.seed);
    let imputation = imputation.map_err(TrainError::Data)?;
    let imputation = if spread { imputation } else { imputation.without_spread() };
    let rows = rows_of_a_forward(trained, model_config);
    let Readings { mean, sampled, spread } = imputation.impute(network, &paired, rows, &cpu());
    let of_hidden = |at: &usize| !paired.spots.bits.values[*at];
    let n_hidden = (0..spread.values.len()).filter(of_hidden).count().max(1);
    let sum: f64 = (0..spread.values.len()).filter(of_hidden).map(|at| f64::from(spread.values[at])).sum();
    let smooth = smoothed(&mean, &paired.spots.near, SMOOTH);
    let level = |values: Matrix<f32>| seen.scale.levels(&pairing::unbalanced(view.scale, values));
    let beyond =
        Matrix { n_cols: mean.n_cols, values: mean.values.iter().zip(&spread.values).map(|(m, s)| m + s).collect() };
    let (values, smooth, sampled, beyond) = (level(mean), level(smooth), level(sampled), level(beyond));
    let spread = beyond.values.iter().zip(&values.values).map(|(beyond, mean)| beyond - mean).collect();
    let spread = Matrix { n_cols: values.n_cols, values: spread };
    let cells = opened.reference()?;
    Ok(Imputed {
        fold: view.fold,
        cells,
        hides,
        values,
        smooth,
        sampled,
        spread,
        mean_spread: sum / n_hidden as f64,
        seen,
    })
}

/// Spots that are imputed together: where the network attends over them, as many as it was trained on.
pub fn rows_of_a_forward(trained: &Trained, model: &SpotdiffConfig) -> usize {
    match model.psi.tokens {
        Tokens::Whole | Tokens::Spot => ROWS,
        Tokens::Batch => trained.run.config.train.micro_batch,
    }
}

/// Spots and cells of a split: by the pairs beside the run where they are of these shards as they are, else made again.
fn paired(trained: &Trained, model: &Model, seen: &View<'_>, split: Split) -> anyhow::Result<Paired> {
    let (config, shards) = (&trained.run.config, seen.shards());
    let reads = pairing::reads(config, shards.manifest());
    let read = |dir: &Path| -> Result<Vec<Arc<Vectors>>, TrainError> {
        let hash = shards.manifest().data_hash();
        let mut all = Vec::new();
        for (dir, &of) in pairing::folders(dir).iter().zip(&reads) {
            all.push(Arc::new(Vectors::read(dir, of, &hash)?));
        }
        Ok(all)
    };
    if reads.is_empty() {
        return Ok(pairing::paired(seen, split, config, &[])?);
    }
    let beside = RunFolder::at(trained.checkpoint.dir.join("../..")).pairs(None);
    let known = (!seen.is_changed()).then(|| read(&beside).ok()).flatten().filter(|pairs| {
        pairs.len() == reads.len()
            && pairs.iter().zip(&trained.run.vectors).all(|(ours, theirs)| ours.facts.producer == theirs.producer)
    });
    if let Some(pairs) = known {
        return Ok(pairing::paired(seen, split, config, &pairs)?);
    }
    let made = tempfile::tempdir()?;
    let network =
        trained.run.vectors.first().and_then(|vectors| pairing::network(&vectors.producer).map(str::to_owned));
    let omega = network.as_deref().map(|network| (model, network));
    assert_eq!(pairing::write(seen, config, omega, made.path(), &|| false)?, Written::Whole);
    Ok(pairing::paired(seen, split, config, &read(made.path())?)?)
}
