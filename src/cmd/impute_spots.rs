//! `syncytia impute` by SpotDiff: a section's hidden or unseen values in layers["spotdiff"], their spread in layers["spotdiff_spread"].
//!
//! SpotDiff imputes the spots that it learned with: the file's observations are looked up in the run's shards by name, what was visible
//! there stays as it is, and of folds every gene is taken from the fold that did not show it.

use std::collections::BTreeMap;
use std::path::Path;

use syncytia_launch::ExitCode;
use syncytia_shards::ingest::h5ad_write::{self, AnnData, Raw, Uns, Values, X};
use syncytia_shards::ingest::{self, IngestOptions};
use syncytia_shards::matrix::Matrix;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::row_group::Columns;
use syncytia_shards::section::Section;

use super::exit::UsageError;
use super::imputed::{Imputed, impute};
use super::out;
use super::shard::ShardConfig;
use super::trained::Trained;
use crate::config;
use crate::train::error::TrainError;

/// Layers of the file.
const LAYERS: [&str; 2] = ["spotdiff", "spotdiff_spread"];

/// Runs the command on the networks of a run.
pub fn run(runs: &[Trained], shards: &Path, input: &Path, output: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let shards = Shards::open(shards)?;
    let first = &runs[0].run;
    let shard_config: ShardConfig = config::parse(&first.shard_config, "the checkpoint's shard config", &[])?;
    let section = ingest::read_section(input, &IngestOptions { library_id: None, ..shard_config.input.clone() })?;
    let row_of: BTreeMap<&str, usize> =
        section.obs_ids.iter().enumerate().map(|(row, id)| (id.as_str(), row)).collect();
    let names = names(&shards)?;
    let n_cols = first.genes.len();
    let empty = || Matrix { n_cols, values: vec![f32::NAN; section.n_obs() * n_cols] };
    let (mut x, mut layers) = (empty(), [empty(), empty()]);
    let mut placed = vec![false; section.n_obs()];
    for run in runs {
        run.check_shards(&shards)?;
        for split in [Split::Train, Split::Val, Split::Test] {
            if shards.row_groups(split).is_empty() {
                continue;
            }
            let of = impute(run, &shards, split)?;
            for (from, id) in of.seen.ids.iter().enumerate() {
                if let Some(&to) = names.get(id).and_then(|name| row_of.get(name.as_str())) {
                    placed[to] = true;
                    place(&of, from, to, &mut x, &mut layers);
                }
            }
        }
    }
    let n_placed = placed.iter().filter(|placed| **placed).count();
    if n_placed == 0 {
        return Err(TrainError::Data(format!(
            "none of the {} observations of {} is in the shards ({}): SpotDiff imputes the spots that it learned with; shard this \
             file and train on it",
            section.n_obs(),
            input.display(),
            shards.dir().display()
        ))
        .into());
    }
    if n_placed < section.n_obs() {
        eprintln!("warning: {} observations are not in the shards and get NaN", section.n_obs() - n_placed);
    }
    h5ad_write::write(output, &ann_data(section, runs, x, layers))?;
    if json {
        out::json(&serde_json::json!({"output": output, "spots": n_placed, "genes": n_cols, "layers": LAYERS}))?;
    } else {
        let [layer, spread] = LAYERS;
        out::line(format_args!(
            "{}: {n_placed} spots × {n_cols} genes in layers[\"{layer}\"], their spread in layers[\"{spread}\"]",
            output.display()
        ))?;
    }
    Ok(ExitCode::Done)
}

/// What this network has to say of a spot: of a fold its genes, else all.
fn place(of: &Imputed, from: usize, to: usize, x: &mut Matrix<f32>, layers: &mut [Matrix<f32>; 2]) {
    let n_cols = x.n_cols;
    for gene in 0..n_cols {
        let (at, there) = (to * n_cols + gene, from * n_cols + gene);
        let visible = of.seen.bits[there];
        if visible {
            x.values[at] = of.seen.levels.values[there];
        }
        if of.fold.is_none() || of.hides[gene] {
            layers[0].values[at] = if visible { of.seen.levels.values[there] } else { of.values.values[there] };
            layers[1].values[at] = if visible { 0.0 } else { of.spread.values[there] };
        }
    }
}

/// Names of the shards' records.
fn names(shards: &Shards) -> anyhow::Result<BTreeMap<u64, String>> {
    let mut names = BTreeMap::new();
    for split in [Split::Train, Split::Val, Split::Test] {
        for entry in shards.row_groups(split) {
            let group = shards.read_row_group(entry, &Columns { names: true, ..Columns::default() })?;
            names.extend(group.record_ids.iter().copied().zip(group.obs_ids.iter().cloned()).take(group.n_own));
        }
    }
    Ok(names)
}

/// Shards beside a run of folds are noted in each of them.
pub fn shards_of(runs: &[Trained]) -> Result<std::path::PathBuf, UsageError> {
    let world = runs[0].checkpoint.dir.join("../../world.json");
    let noted = std::fs::read(&world).ok().and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    let noted = noted.and_then(|world| world["shards"].as_str().map(std::path::PathBuf::from));
    noted.ok_or_else(|| UsageError("the run does not say where its shards are: give --shards".to_owned()))
}

fn ann_data(section: Section, runs: &[Trained], x: Matrix<f32>, layers: [Matrix<f32>; 2]) -> AnnData {
    let whole = AnnData::from_section(&section);
    let run = &runs[0].run;
    let digests: Vec<String> = runs.iter().map(|run| run.checkpoint.manifest.digest()).collect();
    let provenance = BTreeMap::from([
        (
            "scale".to_owned(),
            Uns::Text("levels: values as the shards' transform leaves them; X is NaN where hidden".to_owned()),
        ),
        ("model".to_owned(), Uns::Text(run.config.model.name().into())),
        ("checkpoints".to_owned(), Uns::Text(digests.join(", "))),
        ("view".to_owned(), Uns::Text(run.config.view().to_string())),
        ("global_step".to_owned(), Uns::I64(run.global_step as i64)),
        ("data_hash".to_owned(), Uns::Text(run.data_hash.clone())),
        ("version".to_owned(), Uns::Text(run.version.clone())),
    ]);
    let mut uns = whole.uns;
    uns.insert("syncytia".to_owned(), Uns::Dict(provenance));
    let raw = match whole.x {
        Some(X::Sparse(x)) => Some(Raw { x, var_names: whole.var_names, var: whole.var }),
        _ => None,
    };
    AnnData {
        obs_names: whole.obs_names,
        obs: whole.obs,
        var_names: run.genes.clone(),
        var: vec![("symbol".to_owned(), Values::Text(run.symbols.clone()))],
        x: Some(X::Dense(x)),
        layers: LAYERS.iter().map(|name| (*name).to_owned()).zip(layers.map(X::Dense)).collect(),
        obsm: whole.obsm,
        uns,
        raw,
    }
}
