//! A run of SpotDiff beside every simple fill: hidden values, of a share of the entries or of one fold of genes after the other,
//! against what the model and the fills make of what was visible. The only command that reads what is hidden.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use syncytia_shards::matrix::Matrix;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::vectors::VectorsOf;

use super::beside::{self, Beside};
use super::embedding::labels;
use super::folds::{MODEL, SAMPLED, SMOOTHED, Whole, impute_all};
use super::{Args, Evaluated, UsageError, shards_of_run, sparse};
use crate::cmd::imputed::{Imputed, SMOOTH, check_text_encoder, folds_of, imputation_of};
use crate::cmd::trained::Trained;
use crate::config;
use crate::evaluate::embedding::Classes;
use crate::evaluate::entry_fills::{EntryFill, Given as OfEntries};
use crate::evaluate::imputation::{Judged, Protocol, Truth, judge, raw_clusters};
use crate::evaluate::reference_fills::{self, EFFORT, Given as OfReference, ReferenceFill, columns};
use crate::model::spotdiff::sampler::{Readout, Solver};
use crate::report::imputation::Report;
use crate::train::config::ViewConfig;
use crate::train::error::TrainError;
use crate::train::run_folder::RunFolder;

/// Arguments for an imputation.
#[derive(Debug, clap::Args)]
pub struct ImputationArgs {
    /// Of spotdiff: genes whose maps and distributions are shown; the three that vary most if none is given.
    #[arg(long, value_name = "SYMBOL")]
    marker: Vec<String>,
    /// Of spotdiff: name of the data set, whose published figures are shown where the paper has it (FISH, osmFISH, …).
    #[arg(long, value_name = "NAME")]
    data_set: Option<String>,
    /// Of spotdiff: leave out the fills that take minutes (perceptron, blends of it, Tangram).
    #[arg(long)]
    fast: bool,
    /// Of spotdiff with prompts read by a T5: where its folder lies now, if not where the run was trained with it.
    #[arg(long, value_name = "DIR")]
    text_encoder: Option<PathBuf>,
    /// Of spotdiff: other runs of the same shards and folds, trained here as well, judged beside it; named after their folders.
    #[arg(long, value_name = "[NAME=]RUN", value_delimiter = ',')]
    beside: Vec<String>,
}

impl ImputationArgs {
    /// Where the T5 lies now.
    pub fn text_encoder(&self) -> Option<&Path> {
        self.text_encoder.as_deref()
    }

    /// The first of its arguments that was given.
    pub fn given(&self) -> Option<&'static str> {
        let own = [
            (!self.marker.is_empty(), "--marker"),
            (self.data_set.is_some(), "--data-set"),
            (self.fast, "--fast"),
            (self.text_encoder.is_some(), "--text-encoder"),
            (!self.beside.is_empty(), "--beside"),
        ];
        own.into_iter().find(|(given, _)| *given).map(|(_, name)| name)
    }
}

/// Markers where none is asked for.
const MARKERS: usize = 3;

/// Evaluates a run, or all folds of one, and writes the report.
pub fn evaluate(args: &Args, runs: &[Trained], root: &Path) -> anyhow::Result<Evaluated> {
    let first = &runs[0];
    let dir = match (&args.shards, RunFolder::at(root).checkpoints().exists()) {
        (Some(dir), _) => dir.clone(),
        (None, true) => shards_of_run(root)?,
        (None, false) => shards_of_run(&first.checkpoint.dir.join("../.."))?,
    };
    let shards = Shards::open(&dir)?;
    let split = match args.split.as_deref() {
        Some(name) => super::split_named(name)?,
        None => usual_split(&shards),
    };
    if shards.row_groups(split).is_empty() {
        return Err(UsageError(format!("the shards have no {} split", split.as_str())).into());
    }
    let protocol = match shards.manifest().holdout.as_ref() {
        Some(holdout) => match (holdout.folds, holdout.fraction) {
            (Some(folds), _) => Protocol::GeneFolds(folds),
            (None, Some(fraction)) => Protocol::Entries(fraction),
            (None, None) => return Err(nothing_hidden()),
        },
        None => return Err(nothing_hidden()),
    };
    let fractions = if args.sweep { sparse::fractions(protocol)? } else { Vec::new() };
    let others = beside::open(&args.imputation.beside, runs, &shards, args.imputation.text_encoder())?;
    let all = runs.iter().chain(others.iter().flat_map(|other| &other.runs));
    check_text_encoder(args.imputation.text_encoder(), all)?;
    let found = impute_all(runs, &shards, split, true)?;
    let whole = Whole::of(&shards, split, &found)?;
    let genes: Vec<String> = shards.manifest().panel.genes.iter().map(|gene| gene.symbol.clone()).collect();
    let markers = markers(&args.imputation.marker, &genes, &whole.truth)?;
    let column = labels::column(&shards, VectorsOf::Obs, args.label.as_deref())?;
    let classes = match &column {
        Some(column) => classes(&shards, split, column, &whole.ids)?,
        None => None,
    };
    let folded = matches!(protocol, Protocol::GeneFolds(_));
    let truth = Truth {
        values: &whole.truth,
        genes: &genes,
        protocol,
        hidden: (!folded).then_some(&whole.hidden),
        markers: &markers,
        classes: classes.as_deref(),
    };
    let (task, _) = imputation_of(first)?;
    let readout = serde_json::to_string(&task.readout).expect("a plain enum");
    let mut methods = vec![
        judge(&truth, MODEL, &format!("the model, readout {readout}"), &whole.imputed),
        judge(&truth, SMOOTHED, &format!("the same, averaged over a spot and its {SMOOTH} nearest"), &whole.smooth),
    ];
    if let Readout::OneStep(n) = task.readout {
        let what = format!("the mean of {n} samples by {}", solver_in_words(task.solver));
        methods.push(judge(&truth, SAMPLED, &what, &whole.sampled));
    }
    let own = methods.len();
    for other in &others {
        methods.push(other.judge(&truth, &shards, split, &whole.ids)?);
    }
    eprintln!("simple fills");
    methods.extend(fills(&truth, &whole.ids, &found, args.imputation.fast));
    let mut notes = notes(&shards, &whole, &found, args.imputation.fast);
    notes.extend(beside::depends_on_others(MODEL, first)?);
    for other in &others {
        notes.extend(other.depends_on_others()?);
    }
    let sweep = match fractions.as_slice() {
        [] => Vec::new(),
        fractions => sparse::sweep(first, &shards, split, fractions, &mut notes)?,
    };
    let report = Report {
        truth,
        data_set: args.imputation.data_set.as_deref().unwrap_or(&shards.manifest().sections[0].library_id),
        split: split.as_str(),
        methods: &methods,
        own,
        beside: others.len(),
        imputed: &whole.imputed,
        raw: raw_clusters(&truth),
        sweep: &sweep,
        xy: &whole.xy,
        lead: lead(runs, &shards, split, &found)?,
        notes,
        provenance: provenance(runs, &others, &shards),
    };
    Evaluated::of(&report.findings(), &folder(root, &first.checkpoint.dir, split, &shards))
}

fn solver_in_words(solver: Solver) -> String {
    match solver {
        Solver::Ddim(steps) => format!("DDIM in {steps} steps"),
        Solver::Ancestral => "ancestral sampling in all steps".to_owned(),
    }
}

fn nothing_hidden() -> anyhow::Error {
    let what = "the shards hide nothing, so there is no truth to judge by: shard with --set data.holdout=entries or gene_folds";
    TrainError::Data(what.to_owned()).into()
}

/// Test, else val, else train: of one section all trains, and its hidden values judge.
fn usual_split(shards: &Shards) -> Split {
    let all = [Split::Test, Split::Val, Split::Train];
    all.into_iter().find(|&split| !shards.row_groups(split).is_empty()).expect("shards have records")
}

fn folder(root: &Path, checkpoint: &Path, split: Split, shards: &Shards) -> PathBuf {
    let is_run = RunFolder::at(root).checkpoints().exists() || !folds_of(root).is_empty();
    let base = RunFolder::at(if is_run { root } else { checkpoint });
    if split == usual_split(shards) { base.report() } else { base.split_report(split.as_str()) }
}

/// Every simple fill on the same masks.
fn fills(truth: &Truth<'_>, ids: &[u64], found: &[Imputed], fast: bool) -> Vec<Judged> {
    if let [only] = found
        && only.fold.is_none()
    {
        let visible = Matrix { n_cols: only.hides.len(), values: only.seen.bits.clone() };
        let given = OfEntries { values: &only.seen.levels, visible: &visible, xyz: &only.seen.xyz };
        return EntryFill::ALL.iter().map(|fill| judge(truth, fill.name(), fill.what(), &fill.fill(&given))).collect();
    }
    let slow = [ReferenceFill::Mlp, ReferenceFill::Blend, ReferenceFill::BlendSmooth, ReferenceFill::Tangram];
    let which: Vec<ReferenceFill> = ReferenceFill::ALL.into_iter().filter(|f| !(fast && slow.contains(f))).collect();
    let (n, g) = (truth.values.n_rows(), truth.values.n_cols);
    let mut all: BTreeMap<ReferenceFill, Matrix<f32>> = BTreeMap::new();
    for of in found {
        let Some(cells) = &of.cells else { continue };
        let genes = |hidden: bool| (0..g).filter(|&gene| of.hides[gene] == hidden).collect::<Vec<_>>();
        let (hidden, visible) = (genes(true), genes(false));
        let (spots, own) = (columns(&of.seen.levels, &visible), columns(&cells.levels, &visible));
        let unseen = columns(&cells.levels, &hidden);
        let given = OfReference { spots: &spots, xyz: &of.seen.xyz, cells: &own, unseen: &unseen };
        for (fill, told) in reference_fills::fills(&given, &which, &EFFORT) {
            let whole = all.entry(fill).or_insert_with(|| Matrix { n_cols: g, values: vec![f32::NAN; n * g] });
            // rows of the spots that are judged: a fold may show something of others as well
            for (row, id) in whole.values.chunks_mut(g).zip(ids) {
                let there = of.seen.ids.binary_search(id).expect("spots that are judged are in every fold");
                hidden.iter().zip(told.row(there)).for_each(|(&gene, &value)| row[gene] = value);
            }
        }
    }
    all.iter().map(|(fill, values)| judge(truth, fill.name(), fill.what(), values)).collect()
}

/// The genes asked for, or those that vary most beside their mean.
fn markers(asked: &[String], genes: &[String], truth: &Matrix<f32>) -> Result<Vec<String>, UsageError> {
    if let Some(unknown) = asked.iter().find(|marker| !genes.contains(marker)) {
        let near = genes.iter().min_by_key(|gene| strsim::levenshtein(gene, unknown));
        let near = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
        return Err(UsageError(format!("--marker {unknown}: no gene of the panel has this symbol{near}")));
    }
    if !asked.is_empty() {
        return Ok(asked.to_vec());
    }
    let varies = |gene: usize| -> f64 {
        let column = || truth.values.iter().skip(gene).step_by(truth.n_cols).filter(|v| v.is_finite());
        let n = column().count().max(1) as f64;
        let mean = column().map(|&v| f64::from(v)).sum::<f64>() / n;
        let variance = column().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        if mean > 0.0 { variance / mean } else { 0.0 }
    };
    let mut order: Vec<(f64, usize)> = (0..genes.len()).map(|gene| (varies(gene), gene)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    Ok(order.into_iter().take(MARKERS).map(|(_, gene)| genes[gene].clone()).collect())
}

/// Classes of the spots; none where one has no label.
fn classes(shards: &Shards, split: Split, column: &str, ids: &[u64]) -> anyhow::Result<Option<Vec<u32>>> {
    let of_records = labels::of_records(shards, split, column)?;
    let labels: Vec<Option<String>> = ids.iter().map(|id| of_records.get(id).cloned().flatten()).collect();
    let classes = Classes::of_labels(&labels);
    let all: Option<Vec<u32>> = classes.of.iter().copied().collect();
    if all.is_none() {
        eprintln!("warning: not every spot has a label in {column}: clusters are not judged");
    }
    Ok(all)
}

/// How genes were hidden, what the scale is, and who read the prompts: the first paragraph.
fn lead(runs: &[Trained], shards: &Shards, split: Split, found: &[Imputed]) -> anyhow::Result<String> {
    let (task, model) = imputation_of(&runs[0])?;
    let run = &runs[0].run;
    let holdout = shards.manifest().holdout.as_ref().expect("it was looked at");
    let how = match (holdout.folds, holdout.n_hidden) {
        (Some(folds), _) => format!("every gene once, in {folds} folds (seed {})", holdout.seed),
        (None, n) => {
            let share = 100.0 * holdout.fraction.unwrap_or(0.0);
            format!("{} entries drawn at random ({share} %, seed {})", n.unwrap_or(0), holdout.seed)
        }
    };
    let view = ViewConfig { fold: None, ..run.config.view() };
    let scale = found[0].seen.scale.transform.as_str();
    let text = match (model.psi.use_text, model.prompt.encoder) {
        (false, _) => "without prompts".to_owned(),
        (true, encoder) => {
            let name = serde_json::to_value(encoder).expect("a plain enum");
            let name = name.as_str().unwrap_or_default().to_owned();
            let no_text =
                if name == "hash" { " (a table of genes: no pretrained text encoder reads them)" } else { "" };
            format!("with prompts read by `{name}`{no_text}")
        }
    };
    let cells = if model.psi.use_rna { "with cells of a reference" } else { "without cells of a reference" };
    let spread: f64 = found.iter().map(|f| f.mean_spread).sum::<f64>() / found.len() as f64;
    let spread = match task.readout.draws() {
        1 => "Of one sample there is no spread.".to_owned(),
        n => format!(
            "Its {n} samples differ by {spread:.4} on average (standard deviation, in the scale that it reads)."
        ),
    };
    Ok(format!(
        "SpotDiff, re-implemented from the paper (no code of it was published), {text}, {cells}; {} steps each{}. Hidden: {how}. Split \
         {}, {} spots × {} genes; errors are measured on values as the transform `{scale}` leaves them, the model reads {}. {spread} \
         Parametrisation {}.",
        run.global_step,
        if runs.len() > 1 { format!(", {} folds", runs.len()) } else { String::new() },
        split.as_str(),
        found[0].seen.ids.len(),
        found[0].hides.len(),
        view,
        serde_json::to_value(task.parametrisation).expect("a plain enum").as_str().unwrap_or_default(),
    ))
}

fn notes(shards: &Shards, whole: &Whole, found: &[Imputed], fast: bool) -> Vec<String> {
    let mut notes = Vec::new();
    let left = found[0].seen.ids.len() + found[0].seen.left_out.len() - whole.ids.len();
    if left > 0 {
        notes.push(format!("{left} spots show nothing in some fold and are not scored."));
    }
    let folds = shards.manifest().holdout.as_ref().and_then(|holdout| holdout.folds).unwrap_or(0) as usize;
    if folds > found.len() {
        let n = (0..whole.truth.n_cols)
            .filter(|&g| !whole.hidden.values.iter().skip(g).step_by(whole.truth.n_cols).any(|h| *h));
        notes.push(format!(
            "{} of {folds} folds are judged: the {} genes of the others are not scored.",
            found.len(),
            n.count()
        ));
    }
    if fast {
        notes.push(
            "The fills that take minutes were left out (--fast): the perceptron, its blends, Tangram.".to_owned(),
        );
    }
    notes.push("`spotdiff_smooth` lets a spot's values depend on those of the nearest spots.".to_owned());
    notes
}

fn provenance(runs: &[Trained], others: &[Beside], shards: &Shards) -> BTreeMap<String, String> {
    let of = |name: &str, value: String| (name.to_owned(), value);
    let digests = |runs: &[Trained]| {
        let all: Vec<String> = runs.iter().map(|run| run.checkpoint.manifest.digest()).collect();
        all.join(", ")
    };
    let run = &runs[0].run;
    let others = others.iter().map(|other| of(&format!("checkpoint_blake3 of {}", other.name), digests(&other.runs)));
    let own = [
        of("model", run.config.model.name().to_owned()),
        of("checkpoint_blake3", digests(runs)),
        of("global_step", run.global_step.to_string()),
        of("data_hash", shards.manifest().data_hash()),
        of("version", run.version.clone()),
        of("sums", run.config.train.reduction.precision().to_owned()),
        of("config", config::to_toml(&run.config)),
    ];
    own.into_iter().chain(others).collect()
}
