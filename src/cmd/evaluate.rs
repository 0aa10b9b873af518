//! `syncytia evaluate`: a trained model beside every simple fill, under both protocols, and the report.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use syncytia_launch::ExitCode;
use syncytia_shards::panel::Panel;
use syncytia_shards::process::{Layer, Normalize};
use syncytia_shards::processed::{Matrix, Piece, Split};
use syncytia_shards::reader::Shards;

use super::exit::UsageError;
use super::out;
use super::shard::ShardConfig;
use super::train_view::new_events;
use super::trained::Trained;
use crate::config;
use crate::evaluate::block::{Block, Pipeline, Seen};
use crate::evaluate::completion::{self, Protocol, Setting};
use crate::evaluate::correction::Correction;
use crate::evaluate::sweep;
use crate::model::Model;
use crate::report::curves::Curves;
use crate::report::evaluation::{Evaluation, Facts, MethodScores};
use crate::report::gene_map::{self, GeneMap};
use crate::report::scatter::Scatter;
use crate::report::{self, verdict};
use crate::task::completion::{Completion, CompletionConfig, MaskRule};
use crate::task::inference::{self, Visible};
use crate::tensor::cpu;
use crate::train::checkpoint::Which;
use crate::train::run_folder::RunFolder;
use crate::train::state::RunState;

/// Arguments of `evaluate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A run folder or a checkpoint.
    path: PathBuf,
    /// Shard folder.
    #[arg(long)]
    shards: Option<PathBuf>,
    /// `val` or `test`; test where the shards have it, else val.
    #[arg(long)]
    split: Option<String>,
    /// `best`, `last` or `step-N`; best where there is one, else the newest.
    #[arg(long)]
    checkpoint: Option<Which>,
    /// Score too where 10 to 80 % of the measured values are hidden (rule `uniform`, three assays each).
    #[arg(long)]
    sweep: bool,
    /// Print report.json instead of the table.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let shards = args.shards.clone().map_or_else(|| shards_of_run(&args.path), Ok)?;
    let split = args.split.as_deref().map(split_named).transpose()?;
    let evaluated = evaluate(&args.path, args.checkpoint.unwrap_or_default(), &shards, split, args.sweep)?;
    evaluated.show(args.json)?;
    Ok(ExitCode::Done)
}

/// What an evaluation leaves.
pub struct Evaluated {
    /// `report.json`.
    pub json: serde_json::Value,
    /// The table as text.
    pub table: String,
    /// One sentence: whether the model beats every simple fill.
    pub verdict: String,
    /// The page.
    pub page: PathBuf,
}

impl Evaluated {
    /// The table, the verdict and where the page is; or `report.json`.
    pub fn show(&self, json: bool) -> anyhow::Result<()> {
        if json {
            return out::json(&self.json);
        }
        out::line(format_args!("{}{}\nreport: {}", self.table, self.verdict, self.page.display()))
    }
}

/// Evaluates a checkpoint on a split and writes the report.
///
/// `with_sweep`: score at every hidden fraction too.
pub fn evaluate(
    path: &Path,
    which: Which,
    shards: &Path,
    split: Option<Split>,
    with_sweep: bool,
) -> anyhow::Result<Evaluated> {
    let trained = Trained::open(path, which)?;
    let task_config = trained.completion("evaluate")?;
    let (run, checkpoint) = (&trained.run, &trained.checkpoint);
    let shards = Shards::open(shards)?;
    if shards.manifest().data_hash() != run.data_hash {
        eprintln!("warning: these are not the shards the model was trained on; its genes are looked up by id");
    }
    trained.check_shards(&shards)?;
    let split = split.unwrap_or(if shards.row_groups(Split::Test).is_empty() { Split::Val } else { Split::Test });
    let model = trained.model()?;
    let fractions: Vec<f64> = shards.manifest().panel.selected_genes().map(|g| g.glob_exp_frac).collect();
    let task = Completion::new(task_config.clone(), &fractions, run.config.train.seed);
    let shard_config: ShardConfig = config::parse(&shards.manifest().config, "the manifest's config", &[])?;
    let mut pipeline = pipeline(&shards.manifest().panel, &shard_config)?;
    if task_config.layer == Layer::CDLog1p.as_str() {
        let (combat, key) = (shard_config.process.combat, shard_config.process.combat_key);
        pipeline.correction = Some(Correction::new(combat, key, &pieces_of(&shards, Split::Train)?, &pipeline)?);
    }
    let blocks = blocks_of(&shards, split, &task_config.layer, &pipeline)?;
    if blocks.is_empty() {
        return Err(UsageError(format!("the shards have no {} split", split.as_str())).into());
    }
    let train = blocks_of(&shards, Split::Train, &task_config.layer, &pipeline)?;
    let complete = |block: &Block, seen: &Seen| predict(&model, block, seen);
    let mask = |assay: u32, id: u64, out: &mut [bool]| task.assay_mask(assay, id, out);
    let setting = Setting {
        blocks: &blocks,
        train: &train,
        pipeline: &pipeline,
        assays: completion::ASSAYS,
        mask: &mask,
        model: &complete,
    };
    eprintln!("scoring {} spots of {} under both protocols, 10 assays each", n_obs(&blocks), split.as_str());
    let paper = completion::run(&setting, Protocol::Paper);
    let strict = completion::run(&setting, Protocol::Strict);
    let hidden_at = |rho: f64| {
        let config = CompletionConfig { mask_rule: MaskRule::Uniform, rho, ..task_config.clone() };
        let task = Completion::new(config, &fractions, run.config.train.seed);
        let mask = move |assay: u32, id: u64, out: &mut [bool]| task.assay_mask(assay, id, out);
        Box::new(mask) as Box<dyn Fn(u32, u64, &mut [bool]) + Sync>
    };
    let sweep = if with_sweep { sweep::run(&setting, run.config.model.name(), hidden_at) } else { Vec::new() };
    let folder = report_folder(path, &checkpoint.dir, split, &shards);
    let evaluation = Evaluation {
        facts: facts(run, &shards, split, &blocks, &checkpoint.dir),
        paper: MethodScores::of(&paper),
        strict: MethodScores::of(&strict),
        genes: run.symbols.iter().cloned().zip(paper.pcc_per_gene.iter().copied()).collect(),
        scatter: Scatter::of_first_assay(&blocks, &paper),
        maps: gene_map::maps_of(&blocks, &paper, &run.symbols),
        curves: Curves::of(&metrics_beside(path)),
        sweep,
    };
    let written = report::write(&evaluation, &folder)?;
    if let Err(error) = show_maps(path, run.global_step, &evaluation.maps) {
        eprintln!("warning: no maps for TensorBoard in {}: {error}", path.display());
    }
    let (table, verdict) = (report::text_table(&evaluation), verdict::verdict(&evaluation));
    Ok(Evaluated { json: written.json, table, verdict, page: written.page })
}

/// The completed maps as TensorBoard images of the run; a checkpoint outside a run has none.
fn show_maps(run: &Path, global_step: u64, maps: &[GeneMap]) -> std::io::Result<()> {
    let folder = RunFolder::at(run);
    if !folder.metrics().exists() {
        return Ok(());
    }
    let mut events = new_events(&folder)?;
    for map in maps {
        events.image(global_step, &format!("completed/{} {}", map.section, map.gene), map.completed_png())?;
    }
    events.sync()
}

/// Predictions for a block from what is visible in it.
pub fn predict(model: &Model, block: &Block, seen: &Seen) -> Matrix<f32> {
    let visible = Visible {
        values: &seen.input,
        visible: &seen.visible,
        covariates: &seen.covariates,
        neighbours: &block.piece.neighbours,
    };
    inference::complete(model, &visible, &cpu())
}

/// How counts became layers.
pub fn pipeline(panel: &Panel, config: &ShardConfig) -> anyhow::Result<Pipeline> {
    let lengths = panel
        .genes
        .iter()
        .map(|gene| match config.process.normalize {
            Normalize::Cp10k => Ok(1.0),
            Normalize::Tpm => gene.length.ok_or_else(|| anyhow!("gene {} of the panel has no length", gene.id)),
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(Pipeline {
        normalize: config.process.normalize,
        lengths,
        selected: panel.selected.clone(),
        context: panel.context.clone(),
        hops: config.process.hops as usize,
        completion_graph: config.process.completion_graph,
        correction: None,
    })
}

fn pieces_of(shards: &Shards, split: Split) -> anyhow::Result<Vec<Piece>> {
    let mut sections: Vec<u32> = shards.row_groups(split).iter().map(|g| g.section).collect();
    sections.dedup();
    sections.into_iter().map(|section| Ok(shards.read_piece(section, split)?)).collect()
}

fn blocks_of(shards: &Shards, split: Split, layer: &str, pipeline: &Pipeline) -> anyhow::Result<Vec<Block>> {
    Ok(pieces_of(shards, split)?.into_iter().map(|piece| Block::new(piece, layer, pipeline)).collect())
}

/// A split by its name.
pub(super) fn split_named(name: &str) -> Result<Split, UsageError> {
    match name {
        "train" => Ok(Split::Train),
        "val" => Ok(Split::Val),
        "test" => Ok(Split::Test),
        _ => Err(UsageError(format!("--split {name}: write val, test or train"))),
    }
}

/// The shards a run was trained on, as `world.json` notes them.
pub fn shards_of_run(path: &Path) -> anyhow::Result<PathBuf> {
    std::fs::read(RunFolder::at(path).world())
        .ok()
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
        .and_then(|world| world["shards"].as_str().map(PathBuf::from))
        .ok_or_else(|| {
            UsageError(format!("{} does not say where its shards are: give --shards", path.display())).into()
        })
}

/// `RUN/report` for the usual split, `RUN/report-<split>` otherwise; beside a bare checkpoint in its own folder.
fn report_folder(path: &Path, checkpoint: &Path, split: Split, shards: &Shards) -> PathBuf {
    let usual = if shards.row_groups(Split::Test).is_empty() { Split::Val } else { Split::Test };
    let run = RunFolder::at(path);
    let base = if run.checkpoints().exists() { run } else { RunFolder::at(checkpoint) };
    if split == usual { base.report() } else { base.split_report(split.as_str()) }
}

fn metrics_beside(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(RunFolder::at(path).metrics()).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn n_obs(blocks: &[Block]) -> usize {
    blocks.iter().map(Block::n_obs).sum()
}

fn facts(run: &RunState, shards: &Shards, split: Split, blocks: &[Block], checkpoint: &Path) -> Facts {
    let manifest = shards.manifest();
    Facts {
        model: run.config.model.name().to_owned(),
        split: split.as_str().to_owned(),
        split_rule: manifest.split_rule.clone(),
        sections: blocks.iter().map(|b| b.piece.library_id.clone()).collect(),
        n_spots: n_obs(blocks) as u64,
        n_train_spots: manifest.n_records(Split::Train),
        n_genes: run.shape.genes as u64,
        global_step: run.global_step,
        best: run.best.map(|b| (b.global_step, b.value)),
        checkpoint: checkpoint.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        data_hash: manifest.data_hash(),
        version: run.version.clone(),
        config: config::to_toml(&run.config),
        panel_annotation: manifest.panel.annotation.clone(),
    }
}
