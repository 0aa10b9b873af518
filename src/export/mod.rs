//! A checkpoint for other tools: `model.safetensors`, `config.json`, `panel.tsv`, a card (`README.md`) and
//! `provenance.json`. What is exported needs neither this program nor the run folder to be used. Knows no rank and no
//! optimizer.

mod card;
mod layout;
pub mod processed;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use syncytia_launch::ExitCode;
use syncytia_shards::durable::{AtomicDir, FileError};

pub use layout::Layout;

use crate::train::checkpoint::{self, Checkpoint};
use crate::train::run_folder::{CheckpointFolder, RunFolder};
use crate::train::state::{self, RunState};

/// Files of an export, in the order a reader meets them.
pub const FILES: [&str; 5] = ["README.md", CheckpointFolder::MODEL, "config.json", "panel.tsv", "provenance.json"];

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The output is there already.
    #[error("{} exists and is not an empty folder; choose another --out, or remove it", out.display())]
    OutputExists {
        /// The output.
        out: PathBuf,
    },
    /// The checkpoint's state is of another kind.
    #[error("cannot export {}: {what}", checkpoint.display())]
    State {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// The model is not the one that layout is for.
    #[error(
        "--layout {layout} is the paper's model only, and {} has {what}; export without --layout",
        checkpoint.display()
    )]
    Layout {
        /// The layout asked for.
        layout: &'static str,
        /// The checkpoint.
        checkpoint: PathBuf,
        /// What the layout has no place for.
        what: String,
    },
    /// The system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

impl ExportError {
    /// The exit code a command ends with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            ExportError::OutputExists { .. } | ExportError::Layout { .. } => ExitCode::Usage,
            ExportError::State { .. } => ExitCode::Checkpoint,
            ExportError::File(_) => ExitCode::Storage,
        }
    }
}

/// Writes the export of a verified checkpoint to `out`, whole or not at all.
///
/// # Errors
/// [`ExportError`]; `out` is then as it was.
pub fn export(checkpoint: &Checkpoint, out: &Path, layout: Layout) -> Result<(), ExportError> {
    let of_state = |what| ExportError::State { checkpoint: checkpoint.dir.clone(), what };
    let run = state::run_state(&checkpoint.contents).map_err(of_state)?;
    let stray = run.panel.selected.iter().any(|&g| g as usize >= run.panel.genes.len());
    let in_panel = if stray { run.panel.n_selected() } else { run.config.model.genes(&run.panel).len() };
    if stray || run.shape.genes != in_panel {
        return Err(of_state(format!("its panel selects {in_panel} genes and the model has {}", run.shape.genes)));
    }
    let tensors = layout.tensors(checkpoint)?;
    let model = checkpoint::encode_tensors(&tensors, &checkpoint.contents.model_metadata).map_err(of_state)?;
    let config = config(&run, layout);
    let provenance = provenance(checkpoint, &run, layout, &model);
    let report = report(&checkpoint.dir);
    let card = card::render(&card::Card {
        run: &run,
        layout,
        n_parameters: tensors.iter().map(|t| t.values.len()).sum(),
        tensors: &tensors,
        digest: &checkpoint.manifest.digest(),
        report: report.as_ref(),
    });

    make_way(out)?;
    let parent = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(FileError::at("make", parent))?;
    let name = out.file_name().ok_or_else(|| ExportError::OutputExists { out: out.to_owned() })?;
    let dir = AtomicDir::create(parent, &name.to_string_lossy())?;
    let contents = [card.into_bytes(), model, pretty(&config), panel(&run).into_bytes(), pretty(&provenance)];
    for (name, bytes) in FILES.iter().zip(contents) {
        let path = dir.path().join(name);
        fs::write(&path, bytes).map_err(FileError::at("write", &path))?;
    }
    dir.commit()?;
    Ok(())
}

/// An empty folder gives way; anything else stays and is refused.
fn make_way(out: &Path) -> Result<(), ExportError> {
    match fs::remove_dir(out) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(FileError::at("replace", out)(e).into()),
        Err(_) => Err(ExportError::OutputExists { out: out.to_owned() }),
    }
}

/// What is needed to build the network and to prepare its input.
fn config(run: &RunState, layout: Layout) -> Value {
    json!({
        "format_version": 1,
        "model_type": run.config.model.name(),
        "model": run.config.model.sizes(),
        "n_genes": run.shape.genes,
        "n_spots": run.shape.spots,
        "n_covariates": run.shape.covariates,
        "context_genes": run.panel.context.iter().map(|&gene| &run.panel.genes[gene as usize].id).collect::<Vec<_>>(),
        "layer": run.config.task.layer(),
        "task": run.config.task,
        "layout": layout.name(),
        "weights": CheckpointFolder::MODEL,
        "panel": "panel.tsv",
        "species": run.panel.species,
        "annotation": run.panel.annotation,
        "processing": run.shard_config,
        "linear_weights": "[out, in]",
    })
}

/// The genes in column order with what processing learned about them; an empty cell is "not defined".
fn panel(run: &RunState) -> String {
    let mut text = String::from("index\tgene_id\tsymbol\tlength\texp_frac\tglob_exp_frac\tmoran\n");
    let number = |value: Option<f64>| value.map_or_else(String::new, |v| v.to_string());
    for (index, gene) in run.config.model.genes(&run.panel).into_iter().enumerate() {
        let (id, symbol) = (cell(&gene.id), cell(&gene.symbol));
        let (length, moran) = (number(gene.length), number(gene.moran));
        text.push_str(&format!(
            "{index}\t{id}\t{symbol}\t{length}\t{}\t{}\t{moran}\n",
            gene.exp_frac, gene.glob_exp_frac
        ));
    }
    text
}

/// A tab or line end in a name would shift the table.
fn cell(text: &str) -> String {
    text.replace(['\t', '\n', '\r'], " ")
}

fn provenance(checkpoint: &Checkpoint, run: &RunState, layout: Layout, model: &[u8]) -> Value {
    let best = run.best.map(|b| json!({"global_step": b.global_step, "validation": b.value}));
    json!({
        "exported_by": format!("syncytia {}", env!("CARGO_PKG_VERSION")),
        "trained_by": format!("syncytia {}", run.version),
        "checkpoint": {
            "name": checkpoint.dir.file_name().map(|n| n.to_string_lossy()),
            "blake3": checkpoint.manifest.digest(),
            "global_step": run.global_step,
            "optim_step": run.optim_step,
        },
        "best_so_far": best,
        "step_version": run.step_version,
        "data_hash": run.data_hash,
        "seed": run.config.train.seed,
        "sums": run.config.train.reduction.precision(),
        "train_config": run.config,
        "layout": layout.name(),
        "model_blake3": blake3::hash(model).to_hex().as_str(),
    })
}

/// The report of the run the checkpoint lies in, if there is one that can be read.
fn report(checkpoint: &Path) -> Option<Value> {
    let bytes = fs::read(RunFolder::of_checkpoint(checkpoint)?.report_json()).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("a JSON value is JSON");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests;
