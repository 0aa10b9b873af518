//! Other trained runs beside a run of SpotDiff: the same shards, folds, hidden values and scores. stDiff is one, of SpotDiff's network.

use std::path::Path;

use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;

use super::UsageError;
use super::folds::{MODEL, SAMPLED, SMOOTHED, impute_all, together};
use crate::cmd::imputed::{self, imputation_of, rows_of_a_forward};
use crate::cmd::trained::Trained;
use crate::evaluate::entry_fills::EntryFill;
use crate::evaluate::imputation::{Judged, Truth, judge};
use crate::evaluate::reference_fills::ReferenceFill;
use crate::model::spotdiff::psi_config::Tokens;
use crate::train::checkpoint::Which;

/// One of them.
pub struct Beside {
    /// Its name on the page.
    pub name: String,
    /// One, or one of each fold.
    pub runs: Vec<Trained>,
}

/// Opens what `--beside` names, and holds it against the run that is judged.
pub fn open(
    given: &[String],
    judged: &[Trained],
    shards: &Shards,
    text_encoder: Option<&Path>,
) -> anyhow::Result<Vec<Beside>> {
    let mut all: Vec<Beside> = Vec::new();
    for given in given {
        let (name, path) = match given.split_once('=') {
            Some((name, path)) => (name.to_owned(), Path::new(path)),
            None => {
                let folder = Path::new(given).file_name().unwrap_or_default();
                (folder.to_string_lossy().into_owned(), Path::new(given))
            }
        };
        if name.is_empty() || is_taken(&name) || all.iter().any(|other| other.name == name) {
            let what = format!("--beside {given}: the page needs a name of its own for it: write --beside NAME=RUN");
            return Err(UsageError(what).into());
        }
        let runs = imputed::open(path, Which::Usual, text_encoder)?;
        runs.iter().try_for_each(|run| imputation_of(run).map(|_| ()))?;
        runs.iter().try_for_each(|run| run.check_shards(shards))?;
        let folds = |runs: &[Trained]| runs.iter().map(|run| run.run.config.view().fold).collect::<Vec<_>>();
        let (theirs, ours) = (folds(&runs), folds(judged));
        if theirs != ours {
            let list = |folds: &[Option<u32>]| match folds {
                [None] => "no fold".to_owned(),
                folds => folds.iter().flatten().map(u32::to_string).collect::<Vec<_>>().join(", "),
            };
            let what = format!(
                "--beside {given} has learned fold {}, the run that is judged {}: train the same folds, or give two folders fold-K",
                list(&theirs),
                list(&ours)
            );
            return Err(UsageError(what).into());
        }
        all.push(Beside { name, runs });
    }
    Ok(all)
}

/// Whether a row of the page has this name.
fn is_taken(name: &str) -> bool {
    let fills = EntryFill::ALL.map(EntryFill::name).into_iter().chain(ReferenceFill::ALL.map(ReferenceFill::name));
    fills.chain([MODEL, SMOOTHED, SAMPLED, "measured"]).any(|taken| taken == name)
}

impl Beside {
    /// Its values of the same spots, judged as the others.
    pub fn judge(&self, truth: &Truth<'_>, shards: &Shards, split: Split, ids: &[u64]) -> anyhow::Result<Judged> {
        eprintln!("{}", self.name);
        let run = &self.runs[0];
        let (task, _) = imputation_of(run)?;
        let readout = serde_json::to_string(&task.readout).expect("a plain enum");
        let (steps, rows) = (run.run.global_step, run.run.config.train.micro_batch * run.run.config.train.lanes);
        let what = format!("trained here: {steps} steps of {rows} records each; readout {readout}");
        let found = impute_all(&self.runs, shards, split, false)?;
        Ok(judge(truth, &self.name, &what, &together(ids, &found, |of| &of.values)))
    }

    /// See [`depends_on_others()`].
    pub fn depends_on_others(&self) -> anyhow::Result<Option<String>> {
        depends_on_others(&self.name, &self.runs[0])
    }
}

/// That a network reads other spots, in words.
pub fn depends_on_others(name: &str, run: &Trained) -> anyhow::Result<Option<String>> {
    let (_, model) = imputation_of(run)?;
    let rows = rows_of_a_forward(run, model);
    let of_neighbours = model.psi.neighbours.then(|| {
        format!(
            "`{name}` reads what the nearest spots show (`psi.neighbours`): a spot's values depend on other spots'."
        )
    });
    let of_batch = (model.psi.tokens == Tokens::Batch).then(|| {
        format!(
            "`{name}` attends over the spots that are imputed together, {rows} in the order of their records (the last ones fewer): its \
             values, and so its scores, depend on which those are."
        )
    });
    Ok(of_neighbours.into_iter().chain(of_batch).reduce(|a, b| format!("{a} {b}")))
}
