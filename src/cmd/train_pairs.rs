//! `syncytia train` of tasks on spots beside cells: fold by fold where genes are hidden, and in each fold stage by stage, with the
//! pairs that a stage reads made before it. Every part is finished once; the same command goes on with the first that is not.
//!
//! ```text
//! RUN/pairs-omega · RUN/omega/ (a run folder: the first stage) · RUN/pairs · RUN (the run folder of the last stage)
//! RUN/{config.toml, lock} · RUN/fold-0/ · RUN/fold-1/ …  the same of each fold, where genes are hidden
//! ```

use std::path::{Path, PathBuf};

use anyhow::Context;
use syncytia_launch::signals::StopVote;
use syncytia_launch::world::{Job, World};
use syncytia_shards::durable;
use syncytia_shards::manifest::Manifest;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::vectors::VectorsFacts;

use super::exit::UsageError;
use super::train_folder::{ResumeIf, StartFrom, Trained, leave, train_until};
use super::trained;
use crate::config;
use crate::train::checkpoint::Which;
use crate::train::config::{TrainConfig, ViewConfig};
use crate::train::lock::{RunLock, Timing};
use crate::train::pairing::{self, Written};
use crate::train::ready;
use crate::train::run_folder::RunFolder;
use crate::train::stages::FIRST;
use crate::train::state::{self, RunState};
use crate::train::trainer::End;

/// What is trained in one folder: one fold, or the whole.
struct Part {
    dir: PathBuf,
    config: TrainConfig,
}

/// Trains all folds, or one; all stages, or one on the pairs given.
pub fn train(
    config: &TrainConfig,
    shards: &Path,
    run: &Path,
    fold: Option<u32>,
    start: &StartFrom,
) -> anyhow::Result<Trained> {
    let stop = StopVote::on_signals().context("cannot listen to signals")?;
    stages_of(config).iter().try_for_each(TrainConfig::check)?;
    let opened = Shards::open(shards)?;
    let parts = parts(config, opened.manifest(), run, fold)?;
    if !start.vectors.is_empty() || start.parent.is_some() {
        return one_stage(&stop, &parts, shards, start);
    }
    let vars = |name: &str| std::env::var(name).ok();
    let world = World::from_env(vars, start.launcher).map_err(|e| UsageError(e.to_string()))?;
    let n_stages = parts.iter().map(|part| stages_of(&part.config).len()).sum::<usize>();
    if world.world_size > 1 && (n_stages > 1 || !pairing::reads(&parts[0].config, opened.manifest()).is_empty()) {
        return Err(UsageError(
            "several processes train one stage of one fold at a time: make its pairs with `syncytia pair`, then give \
             --fold, --vectors and, for the last stage, --from"
                .to_owned(),
        )
        .into());
    }
    let begun = parts.iter().any(|part| {
        let folder = RunFolder::at(&part.dir);
        folder.checkpoints().exists() || folder.stage(FIRST).exists()
    });
    match start.resume {
        ResumeIf::Never if begun => {
            let what = format!("{} has checkpoints and --resume never was given: choose another --run", run.display());
            return Err(UsageError(what).into());
        }
        ResumeIf::Must if !begun => {
            let what = format!("{} has no checkpoint and --resume must was given", run.display());
            return Err(UsageError(what).into());
        }
        _ => {}
    }
    let _lock = match &parts[..] {
        [part] if part.dir == run => None,
        _ => Some(of_all(config, run, Job::from_env(vars).map_err(|e| UsageError(e.to_string()))?)?),
    }
    .filter(|_| fold.is_none()); // folds may be trained side by side: each has a lock of its own
    let mut last = None;
    for part in &parts {
        let trained = stages(&stop, part, &opened, shards, start)?;
        if matches!(trained.end, End::Stopped { .. }) {
            return Ok(trained);
        }
        if let Some(before) = last.replace(trained) {
            leave(before.engines);
        }
    }
    Ok(last.expect("there is a part"))
}

/// The folds to train, or the whole.
fn parts(config: &TrainConfig, manifest: &Manifest, run: &Path, fold: Option<u32>) -> anyhow::Result<Vec<Part>> {
    let folds = manifest.holdout.as_ref().and_then(|holdout| holdout.folds);
    let of_fold = |fold: u32| {
        let mut config = config.clone();
        config.data.view = Some(ViewConfig { fold: Some(fold), ..config.view() });
        Part { dir: RunFolder::at(run).fold(fold).root().to_owned(), config }
    };
    match (folds, fold.or(config.view().fold)) {
        (None, None) => Ok(vec![Part { dir: run.to_owned(), config: config.clone() }]),
        (Some(folds), Some(fold)) if fold < folds => Ok(vec![of_fold(fold)]),
        (Some(folds), None) => Ok((0..folds).map(of_fold).collect()),
        (Some(folds), Some(fold)) => {
            Err(UsageError(format!("--fold {fold}: the genes are cut into {folds} folds, 0 to {}", folds - 1)).into())
        }
        (None, Some(_)) => {
            let protocol = manifest.protocol().as_str();
            let what = format!("--fold: these shards have data.holdout = \"{protocol}\", not \"gene_folds\"");
            Err(UsageError(what).into())
        }
    }
}

/// The last stage alone, on pairs that were given.
fn one_stage(stop: &StopVote, parts: &[Part], shards: &Path, start: &StartFrom) -> anyhow::Result<Trained> {
    let [part] = parts else {
        return Err(UsageError("--vectors and --from are of one fold: give --fold K as well".to_owned()).into());
    };
    let mut stage = part.config.last_stage();
    let begins_anew = start.parent.is_none() && !RunFolder::at(&part.dir).checkpoints().exists();
    for dir in start.vectors.iter().filter(|_| begins_anew) {
        let producer = VectorsFacts::read(dir)?.producer;
        if part.config.first.is_some() || pairing::network(&producer).is_some() {
            let what = format!(
                "{} is for a stage that begins with the one before: give its run by --from, or a config without [first] and \
                 pairs of cells as they are",
                dir.display()
            );
            return Err(UsageError(what).into());
        }
    }
    stage.train.freeze_untrained |= start.parent.is_none();
    train_until(stop, &stage, shards, &part.dir, start)
}

/// The config and lock of a run of several folds.
fn of_all(config: &TrainConfig, run: &Path, job: Option<Job>) -> anyhow::Result<std::sync::Arc<RunLock>> {
    let folder = RunFolder::at(run);
    std::fs::create_dir_all(run).with_context(|| format!("cannot make the run folder {}", run.display()))?;
    let lock = RunLock::acquire(&folder, job, Timing::default())?;
    if let Ok(text) = std::fs::read_to_string(folder.config()) {
        let theirs: TrainConfig = config::parse(&text, &folder.config().display().to_string(), &[])?;
        let changes = config.changed_on_resume(&theirs);
        if !changes.is_empty() {
            let what = format!("the folds of {} have another config: {}", run.display(), changes.join(", "));
            return Err(UsageError(format!("{what}; choose another --run")).into());
        }
    }
    durable::write_atomic(&folder.config(), config::to_toml(config).as_bytes())?;
    Ok(std::sync::Arc::new(lock))
}

/// All stages of a part.
fn stages(stop: &StopVote, part: &Part, shards: &Shards, dir: &Path, start: &StartFrom) -> anyhow::Result<Trained> {
    let mut last = part.config.last_stage();
    let folder = RunFolder::at(&part.dir);
    let mut parent = None;
    let here = StartFrom { resume: ResumeIf::Auto, min_genes: 1.0, vectors: Vec::new(), ..start.clone() };
    if let Some(stage) = part.config.first_stage() {
        let run = folder.stage(FIRST);
        if !pairing::reads_cells(&last, shards.manifest()) {
            eprintln!("no cells of a reference are read: the stage \"{}\" is left out", stage.task.kind());
            last.train.freeze_untrained = true;
        } else {
            if !is_finished(&run, &stage, &part.dir)? {
                eprintln!("{}: stage {}", part.dir.display(), stage.task.kind());
                let pairs = folder.pairs(Some(FIRST));
                if pairing::write(&pairing::view(shards, &stage)?, &stage, None, &pairs, &|| stop.is_cast())?
                    == Written::Stopped
                {
                    return Ok(Trained::before_a_step());
                }
                let start = StartFrom { vectors: pairing::folders(&pairs), ..here.clone() };
                let trained = train_until(stop, &stage, dir, &run, &start)?;
                if matches!(trained.end, End::Stopped { .. }) {
                    return Ok(trained);
                }
                leave(trained.engines);
            }
            parent = Some(run);
        }
    }
    eprintln!("{}: stage {}", part.dir.display(), last.task.kind());
    let pairs = folder.pairs(None);
    if !pairing::reads(&last, shards.manifest()).is_empty() {
        let omega = parent.as_deref().map(|run| trained::Trained::open(run, Which::Usual)).transpose()?;
        let omega = omega.map(|omega| Ok::<_, anyhow::Error>((omega.model()?, omega.checkpoint.manifest.digest())));
        let omega = omega.transpose()?;
        let omega = omega.as_ref().map(|(model, digest)| (model, digest.as_str()));
        if pairing::write(&pairing::view(shards, &last)?, &last, omega, &pairs, &|| stop.is_cast())? == Written::Stopped
        {
            return Ok(Trained::before_a_step());
        }
    }
    let start = StartFrom { vectors: pairing::folders(&pairs), parent, ..here };
    train_until(stop, &last, dir, &part.dir, &start)
}

/// Whether a run has consumed all batches of its config.
///
/// # Errors
/// The config is another one than it was begun with, and `later`, which was begun with its weights, has saved already.
fn is_finished(run: &Path, config: &TrainConfig, later: &Path) -> anyhow::Result<bool> {
    let saved = |run: &Path| -> anyhow::Result<Option<RunState>> {
        let folder = RunFolder::at(run);
        if !folder.checkpoints().exists() {
            return Ok(None);
        }
        let Some(newest) = ready::newest(&folder)?.0 else { return Ok(None) };
        let state = state::run_state(&newest.contents);
        state.map(Some).map_err(|e| anyhow::anyhow!("{}: {e}", run.display()))
    };
    let Some(state) = saved(run)? else { return Ok(false) };
    let mut changes = config.changed_on_resume(&state.config);
    if config.train.max_steps != state.config.train.max_steps {
        changes.push(format!("max_steps: {} → {}", state.config.train.max_steps, config.train.max_steps));
    }
    if !changes.is_empty() && saved(later)?.is_some() {
        return Err(UsageError(format!(
            "[first] is not what {} was trained with, and {} has begun with it: {}; choose another --run",
            run.display(),
            later.display(),
            changes.join(", ")
        ))
        .into());
    }
    Ok(changes.is_empty() && state.global_step >= config.train.max_steps)
}

/// The stages of a config.
fn stages_of(config: &TrainConfig) -> Vec<TrainConfig> {
    config.first_stage().into_iter().chain([config.last_stage()]).collect()
}
