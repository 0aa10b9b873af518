//! Completion: a trained model beside every simple fill, under both protocols.

use std::path::Path;

use anyhow::anyhow;
use syncytia_shards::panel::Panel;
use syncytia_shards::process::{Layer, Normalize};
use syncytia_shards::processed::{Matrix, Piece, Split};
use syncytia_shards::reader::Shards;

use super::{Evaluated, UsageError, metrics_beside, report_folder, usual_split};
use crate::cmd::shard::ShardConfig;
use crate::cmd::train_view::new_events;
use crate::cmd::trained::Trained;
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
use crate::train::run_folder::RunFolder;
use crate::train::state::RunState;

/// Evaluates a checkpoint on a split and writes the report.
///
/// `with_sweep`: score at every hidden fraction too.
pub fn evaluate(
    path: &Path,
    trained: &Trained,
    shards: &Path,
    split: Option<Split>,
    with_sweep: bool,
) -> anyhow::Result<Evaluated> {
    let task_config = trained.completion("evaluate")?;
    let (run, checkpoint) = (&trained.run, &trained.checkpoint);
    let shards = Shards::open(shards)?;
    trained.check_shards(&shards)?;
    if shards.manifest().data_hash() != run.data_hash {
        eprintln!("warning: these are not the shards the model was trained on; they have its genes");
    }
    let split = split.unwrap_or_else(|| usual_split(&shards));
    let model = trained.model()?;
    let fractions: Vec<f64> = shards.manifest().panel.selected_genes().map(|g| g.glob_exp_frac).collect();
    let task = Completion::new(task_config.clone(), &fractions, run.config.train.seed);
    let shard_config: ShardConfig = config::parse(&shards.manifest().config, "the manifest's config", &[])?;
    let mut pipeline = pipeline(&shards.manifest().panel, &shard_config)?;
    if task_config.layer == Layer::CDLog1p.as_str() {
        let (combat, key) = (shard_config.process.combat, shard_config.process.combat_key);
        let pieces = pieces_of(&shards, Split::Train)?;
        pipeline.correction = Some(Correction::new(combat, key, &pieces, |piece| pipeline.completed(piece))?);
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
fn predict(model: &Model, block: &Block, seen: &Seen) -> Matrix<f32> {
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
        sums: run.config.train.reduction.precision().to_owned(),
        config: config::to_toml(&run.config),
        panel_annotation: manifest.panel.annotation.clone(),
    }
}
