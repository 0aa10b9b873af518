//! `syncytia impute` by SpotDiff: a section's hidden or unseen values in layers["spotdiff"], their spread in layers["spotdiff_spread"].
//!
//! SpotDiff imputes the spots that it learned with: the file's observations are looked up in the run's shards by name, what was visible
//! there stays as it is, and of folds every gene is taken from the fold that did not show it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use syncytia_launch::ExitCode;
use syncytia_shards::ingest::h5ad_write::{self, AnnData, Uns, X};
use syncytia_shards::ingest::{self, IngestOptions};
use syncytia_shards::matrix::Matrix;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::row_group::Columns;
use syncytia_shards::section::Section;

use super::imputed::{Imputed, imputation_of, impute};
use super::model_genes::{aligned, annotated};
use super::out;
use super::shard::ShardConfig;
use super::trained::Trained;
use crate::config;
use crate::train::config::ViewConfig;
use crate::train::error::TrainError;

/// Layers of the file.
const LAYERS: [&str; 2] = ["spotdiff", "spotdiff_spread"];

/// What the numbers are.
const SCALE: &str = "levels: values as the shards' transform leaves them, X of what is visible; a gene that no spot showed (gene_folds) has \
                     no unit of its own: its layer tells its shape, at the place and spread of a typical gene";

/// Runs the command on the networks of a run.
pub fn run(runs: &[Trained], shards: &Path, input: &Path, output: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let shards = Shards::open(shards)?;
    let first = &runs[0].run;
    let shard_config: ShardConfig = config::parse(&first.shard_config, "the checkpoint's shard config", &[])?;
    let section = ingest::read_section(input, &IngestOptions { library_id: None, ..shard_config.input.clone() })?;
    let row_of: BTreeMap<&str, usize> =
        section.obs_ids.iter().enumerate().map(|(row, id)| (id.as_str(), row)).collect();
    let names = names(&shards, &section)?;
    let measured = aligned(&section, first, 1.0)?;
    let n_cols = first.genes.len();
    let empty = || Matrix { n_cols, values: vec![f32::NAN; section.n_obs() * n_cols] };
    let (mut x, mut layers) = (empty(), [empty(), empty()]);
    let mut placed = vec![false; section.n_obs()];
    if imputation_of(&runs[0])?.0.readout.draws() == 1 {
        eprintln!("warning: task.readout draws one sample: layers[\"{}\"] is 0", LAYERS[1]);
    }
    for run in runs {
        run.check_shards(&shards)?;
        for split in [Split::Train, Split::Val, Split::Test] {
            if shards.row_groups(split).is_empty() {
                continue;
            }
            let of = impute(run, &shards, split, true)?;
            for (from, id) in of.seen.ids.iter().enumerate() {
                if let Some(&to) = names.get(id).and_then(|name| row_of.get(name.as_str())) {
                    if let Some(gene) = another(&of, from, measured.row(to)) {
                        return Err(TrainError::Data(format!(
                            "{}: {} of {} is not what the shards have of an observation of that name: is it another section?",
                            input.display(),
                            first.symbols[gene],
                            section.obs_ids[to]
                        ))
                        .into());
                    }
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

/// A gene whose visible value in the shards is not that of the file.
fn another(of: &Imputed, from: usize, (genes, values): (&[u32], &[f32])) -> Option<usize> {
    let n_cols = of.seen.levels.n_cols;
    let in_file = |gene: usize| genes.binary_search(&(gene as u32)).map_or(0.0, |at| f64::from(values[at]));
    (0..n_cols).find(|&gene| {
        let at = from * n_cols + gene;
        let ours = of.seen.scale.raw(from, f64::from(of.seen.levels.values[at]));
        of.seen.bits[at] && (ours - in_file(gene)).abs() > 1e-3 * (1.0 + ours.abs())
    })
}

/// Names of the shards' records: of the section of the file's name where there is one, else of all, each of which must be there once.
fn names(shards: &Shards, section: &Section) -> anyhow::Result<BTreeMap<u64, String>> {
    let sections = &shards.manifest().sections;
    let own = sections.iter().position(|s| s.library_id == section.library_id).map(|at| at as u64);
    let mut names = BTreeMap::new();
    for split in [Split::Train, Split::Val, Split::Test] {
        for entry in shards.row_groups(split) {
            let group = shards.read_row_group(entry, &Columns { names: true, ..Columns::default() })?;
            names.extend(group.record_ids.iter().copied().zip(group.obs_ids.iter().cloned()).take(group.n_own));
        }
    }
    match own {
        Some(own) => names.retain(|id, _| id >> 32 == own),
        None => {
            let mut seen = BTreeSet::new();
            if let Some(name) = names.values().find(|name| !seen.insert(name.as_str())) {
                return Err(TrainError::Data(format!(
                    "{name} is an observation of several sections of the shards and none is called {}: give the file the name of \
                     its section ({})",
                    section.library_id,
                    sections.iter().map(|s| s.library_id.as_str()).collect::<Vec<_>>().join(", ")
                ))
                .into());
            }
        }
    }
    Ok(names)
}

fn ann_data(section: Section, runs: &[Trained], x: Matrix<f32>, layers: [Matrix<f32>; 2]) -> AnnData {
    let run = &runs[0].run;
    let digests: Vec<String> = runs.iter().map(|run| run.checkpoint.manifest.digest()).collect();
    let provenance = BTreeMap::from([
        ("scale".to_owned(), Uns::Text(SCALE.to_owned())),
        ("model".to_owned(), Uns::Text(run.config.model.name().into())),
        ("checkpoint_digests".to_owned(), Uns::Text(digests.join(", "))),
        ("view".to_owned(), Uns::Text(ViewConfig { fold: None, ..run.config.view() }.to_string())),
        ("global_step".to_owned(), Uns::I64(run.global_step as i64)),
        ("data_hash".to_owned(), Uns::Text(run.data_hash.clone())),
        ("version".to_owned(), Uns::Text(run.version.clone())),
    ]);
    let layers = LAYERS.iter().map(|name| (*name).to_owned()).zip(layers.map(X::Dense)).collect();
    annotated(&section, run, provenance, x, layers)
}
