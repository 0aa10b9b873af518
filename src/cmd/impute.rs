//! `syncytia impute`: a section's missing values completed, back where scanpy finds them.
//!
//! No random mask: every missing entry enters as 0, measured values are never changed (`spackle.md` §7, inference).

use std::collections::BTreeMap;
use std::path::PathBuf;

use syncytia_launch::ExitCode;
use syncytia_shards::ingest::h5ad_write::{self, AnnData, Uns, X};
use syncytia_shards::ingest::{self, IngestOptions};
use syncytia_shards::nearest::knn;
use syncytia_shards::process::{self, Layer, Neighbourhood, batch_name, combat, median, neighbours};
use syncytia_shards::processed::Matrix;
use syncytia_shards::section::{Csr, Section};

use super::evaluate::{pipeline, shards_of_run};
use super::model_genes::{aligned, annotated};
use super::out;
use super::shard::ShardConfig;
use super::{impute_spots, imputed};
use crate::config;
use crate::task::inference::{self, Visible};
use crate::tensor::cpu;
use crate::train::checkpoint::Which;
use crate::train::state::RunState;

/// Arguments of `impute`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A run folder or a checkpoint.
    path: PathBuf,
    /// The section: an `.h5ad` file or a Space Ranger folder.
    #[arg(long)]
    input: PathBuf,
    /// The `.h5ad` to write.
    #[arg(long)]
    output: PathBuf,
    /// Of spotdiff: the shards that hold the file's spots; those that the run notes if not given.
    #[arg(long)]
    shards: Option<PathBuf>,
    /// Of spotdiff with prompts read by a T5: where its folder lies now, if not where the run was trained with it.
    #[arg(long, value_name = "DIR")]
    text_encoder: Option<PathBuf>,
    /// Of spackle: largest share of the model's genes that the input may lack.
    #[arg(long, default_value_t = 0.25)]
    max_genes_lost: f64,
    /// `best`, `last` or `step-N`; best where there is one, else the newest.
    #[arg(long)]
    checkpoint: Option<Which>,
    /// Print what was completed as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    out::check_file(&args.output, std::slice::from_ref(&args.input))?;
    let mut runs = imputed::open(&args.path, args.checkpoint.unwrap_or_default(), args.text_encoder.as_deref())?;
    imputed::check_text_encoder(args.text_encoder.as_deref(), runs.iter())?;
    if runs[0].run.config.model.name() == "spotdiff" {
        let shards = args.shards.clone().map_or_else(|| shards_of_run(&runs[0].checkpoint.dir.join("../..")), Ok)?;
        return impute_spots::run(&runs, &shards, &args.input, &args.output, args.json);
    }
    if args.shards.is_some() {
        return Err(super::exit::UsageError("--shards is for spotdiff: spackle reads the file alone".to_owned()).into());
    }
    let trained = runs.remove(0);
    let layer = trained.completion("impute")?.layer.clone();
    let (model, run) = (trained.model()?, trained.run);
    let shard_config: ShardConfig = config::parse(&run.shard_config, "the checkpoint's shard config", &[])?;
    let section = ingest::read_section(&args.input, &IngestOptions { library_id: None, ..shard_config.input.clone() })?;
    let counts = aligned(&section, &run, args.max_genes_lost)?;
    let mut values = pipeline(&run.panel, &shard_config)?.log1p(&counts);
    let measured =
        Matrix { n_cols: values.n_cols, values: values.values.iter().map(|&v| v != 0.0).collect::<Vec<bool>>() };
    if layer == Layer::CDLog1p.as_str() {
        values = corrected(&section, &run, &shard_config, values, &measured)?;
    }
    let k = run.shape.spots - 1;
    if section.n_obs() <= k {
        return Err(syncytia_shards::process::ProcessError::Config {
            key: "process.n_neighbours",
            problem: format!("the section has {} spots, the model looks at {k} neighbours", section.n_obs()),
        }
        .into());
    }
    let neighbours = match shard_config.process.neighbourhood {
        Neighbourhood::Knn => knn(&section.xy, k),
        Neighbourhood::HexHops => neighbours::hex_hops(&section.xy, k),
    };
    let covariates = covariates(&section, &run, &shard_config, &counts)?;
    let seen = Visible { values: &values, visible: &measured, covariates: &covariates, neighbours: &neighbours };
    let completed = inference::fill_missing(&model, &seen, &cpu());
    let n_missing = measured.values.iter().filter(|m| !**m).count();
    h5ad_write::write(&args.output, &ann_data(&section, &run, values, completed))?;
    if args.json {
        out::json(&serde_json::json!({
            "output": args.output, "spots": section.n_obs(), "genes": run.genes.len(), "completed": n_missing,
        }))?;
    } else {
        out::line(format_args!(
            "{}: {} spots × {} genes, {n_missing} missing values completed in layers[\"{}\"]",
            args.output.display(),
            section.n_obs(),
            run.genes.len(),
            run.config.model.name()
        ))?;
    }
    Ok(ExitCode::Done)
}

/// Measured values as the model was trained on them: by the correction of the section's batch, or, for a section that was not
/// there, by one of its own under the mean and deviation of the others.
fn corrected(
    section: &Section,
    run: &RunState,
    config: &ShardConfig,
    values: Matrix<f32>,
    measured: &Matrix<bool>,
) -> anyhow::Result<Matrix<f32>> {
    let Some(combat) = &run.panel.combat else { return Ok(values) }; // of one batch: nothing was corrected
    let process = &config.process;
    let windows = neighbours::completion_hops(&section.xy, process.hops as usize, process.completion_graph);
    let completed = median::complete(&values, &windows);
    let name = batch_name(&section.library_id, section.donor_id.as_deref(), process.combat_key)?;
    let mut corrected = match combat.batches.iter().position(|b| b == name) {
        Some(batch) => combat::apply(&combat.d_log1p, &completed, batch),
        None => combat::apply_to_new_batch(&combat.d_log1p, &completed, process.combat),
    };
    for (value, &measured) in corrected.values.iter_mut().zip(&measured.values) {
        if !measured {
            *value = 0.0;
        }
    }
    Ok(corrected)
}

/// What the model sees beside its genes, made of this section as its shards were made.
fn covariates(section: &Section, run: &RunState, config: &ShardConfig, counts: &Csr) -> anyhow::Result<Matrix<f32>> {
    let (names, features) = process::covariates::features_of(section, &config.process)?;
    let n_context = run.panel.context.len();
    if n_context + names.len() != run.shape.covariates {
        return Err(super::exit::UsageError(format!(
            "the model was trained with {} feature columns, the input carries {}: its obsm must have {:?}",
            run.shape.covariates - n_context,
            names.len(),
            config.input.features
        ))
        .into());
    }
    let row = |i: usize| std::iter::repeat_n(0.0, n_context).chain(features.row(i).iter().copied());
    let room = Matrix { n_cols: n_context + names.len(), values: (0..section.n_obs()).flat_map(row).collect() };
    let process = &config.process;
    let windows = neighbours::completion_hops(&section.xy, process.hops as usize, process.completion_graph);
    Ok(pipeline(&run.panel, config)?.covariates(counts, &windows, &room))
}

/// What the numbers are, in words.
fn scale(run: &RunState) -> &'static str {
    match run.config.task.layer() == Some(Layer::CDLog1p.as_str()) && run.panel.combat.is_some() {
        true => "log2(normalised count + 1), batch-corrected (ComBat)",
        false => "log2(normalised count + 1)",
    }
}

fn ann_data(section: &Section, run: &RunState, values: Matrix<f32>, completed: Matrix<f32>) -> AnnData {
    let provenance = BTreeMap::from([
        ("scale".to_owned(), Uns::Text(scale(run).into())),
        ("model".to_owned(), Uns::Text(run.config.model.name().into())),
        ("global_step".to_owned(), Uns::I64(run.global_step as i64)),
        ("data_hash".to_owned(), Uns::Text(run.data_hash.clone())),
        ("version".to_owned(), Uns::Text(run.version.clone())),
    ]);
    annotated(
        section,
        run,
        provenance,
        values,
        BTreeMap::from([(run.config.model.name().to_owned(), X::Dense(completed))]),
    )
}
