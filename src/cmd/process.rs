//! `syncytia process`: instrument files → one processed AnnData, for those who go on in Python.

use std::path::PathBuf;

use syncytia_launch::ExitCode;
use syncytia_shards::ingest::h5ad_write;
use syncytia_shards::process::{self, Layer, SplitKind};
use syncytia_shards::processed::{Matrix, Piece, Processed};

use super::exit::UsageError;
use super::out;
use super::shard::{self, ShardConfig};
use super::trained::Trained;
use crate::config;
use crate::export::processed::{Completed, ann_data};
use crate::model::{DataShape, Model};
use crate::task::inference::{self, Visible};
use crate::tensor::cpu;
use crate::train::checkpoint::Which;

/// Arguments of `process`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// `.h5ad` files and Space Ranger `outs` folders; NAME=PATH names a section.
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
    /// Shard config; its defaults without one. Every layer that its batch correction allows is written.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The `.h5ad` to write.
    #[arg(long)]
    out: PathBuf,
    /// A run or checkpoint of a SpaCKLE trained on these genes: adds its completed layer (`c_t_log1p` or `t_log1p`).
    #[arg(long)]
    model: Option<PathBuf>,
    /// `val=NAME` or `test=NAME` (section or donor), repeatable.
    #[arg(long, value_name = "SPLIT=NAME")]
    split: Vec<String>,
    /// A key of the config, repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let inputs: Vec<PathBuf> = args.inputs.iter().map(|given| shard::named(given).1).collect();
    out::check_file(&args.out, &inputs)?;
    let mut config: ShardConfig = match &args.config {
        Some(path) => config::load(path, &args.set)?,
        None => config::parse("", "the default shard config", &args.set)?,
    };
    shard::name_splits(&mut config.split, &args.split)?;
    config.split.kind.get_or_insert(SplitKind::Section); // blocks would leave the guard bands out
    let possible = |layer: &Layer| !layer.is_corrected() || config.process.combat != process::Combat::None;
    config.process.layers = Layer::ALL.into_iter().filter(possible).collect();
    let sections = shard::read(&args.inputs, &config)?;
    let places: Vec<_> = sections.iter().map(|s| s.array_row_col.clone()).collect();
    let processed = process::process(sections, &config.filter, &config.process, &config.split)?;
    shard::describe(&processed);
    let completed = match &args.model {
        Some(path) => Some(complete(path, &processed)?),
        None => None,
    };
    let adata = ann_data(&processed, &config.process, &places, completed.as_ref());
    h5ad_write::write(&args.out, &adata)?;
    let layers: Vec<&String> = adata.layers.keys().collect();
    if args.json {
        out::json(&serde_json::json!({ "out": args.out, "summary": processed.summary, "layers": layers }))?;
    } else {
        out::line(format_args!("{}: {}\nlayers {layers:?}", args.out.display(), processed.summary))?;
    }
    Ok(ExitCode::Done)
}

/// The model's layer: no random mask, missing values enter as 0, measured ones come back as they are.
fn complete(path: &std::path::Path, processed: &Processed) -> anyhow::Result<Completed> {
    let trained = Trained::open(path, Which::default())?;
    let layer = &trained.completion("process --model")?.layer;
    if !processed.pieces.iter().all(|p| p.layers.contains_key(layer)) {
        return Err(UsageError(format!(
            "--model {}: it learned {layer}, which needs the batch correction it was trained with: set process.combat",
            path.display()
        ))
        .into());
    }
    let spots = 1 + processed.pieces.first().map_or(0, |piece| piece.neighbours.n_cols);
    let shape = DataShape { genes: processed.panel.n_selected(), spots, covariates: processed.covariates.len() };
    if let Some(what) = trained.misfit(&processed.panel, shape) {
        return Err(UsageError(format!(
            "--model {}: {what}; process the inputs it was trained on with the same config, or use `syncytia impute`",
            path.display()
        ))
        .into());
    }
    let model = trained.model()?;
    let values = processed.pieces.iter().map(|piece| complete_piece(&model, layer, piece)).collect();
    Ok(Completed { values, corrected: layer == Layer::CDLog1p.as_str() })
}

fn complete_piece(model: &Model, layer: &str, piece: &Piece) -> Matrix<f32> {
    let layer = &piece.layers[layer];
    let visible = |(&v, &m): (&f32, &bool)| if m { v } else { 0.0 };
    let values: Vec<f32> = layer.values.iter().zip(&piece.measured.values).map(visible).collect();
    let values = Matrix { n_cols: layer.n_cols, values };
    let seen = Visible {
        values: &values,
        visible: &piece.measured,
        covariates: &piece.covariates,
        neighbours: &piece.neighbours,
    };
    inference::fill_missing(model, &seen, &cpu())
}
