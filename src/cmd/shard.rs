//! `syncytia shard`: instrument files → sections → processed pieces → Parquet; with a single-cell reference and hidden values where asked for.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use syncytia_launch::ExitCode;
use syncytia_shards::holdout::{GeneCase, HoldoutRule, Protocol, Transform};
use syncytia_shards::ingest::{self, IngestOptions};
use syncytia_shards::process::{self, FilterConfig, ProcessConfig, SplitConfig};
use syncytia_shards::processed::{Piece, Processed, Split};
use syncytia_shards::section::{Cells, Section};
use syncytia_shards::writer::{self, WriteOptions};

use super::exit::UsageError;
use super::out;
use crate::config;

/// Arguments of `shard`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// `.h5ad` files, Space Ranger `outs` and MERSCOPE folders, folders of `.h5ad` files, text tables (with input.coordinates), in
    /// the order of their ordinals; NAME=PATH names a section.
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
    /// Single cells of the same tissue: an `.h5ad`, a 10x `.h5` matrix or a text table; `[reference]` of the config says how it is read.
    #[arg(long, value_name = "PATH")]
    reference: Option<PathBuf>,
    /// Shard config; its defaults without one.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where to write; absent or empty.
    #[arg(long)]
    out: PathBuf,
    /// `val=NAME` or `test=NAME` (section or donor), repeatable.
    #[arg(long, value_name = "SPLIT=NAME")]
    split: Vec<String>,
    /// A key of the config, repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Process and print, write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Go on where an interrupted run stopped.
    #[arg(long)]
    resume: bool,
    /// Files encoded at once; one per core without it.
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// A shard config file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShardConfig {
    /// How input files are read.
    pub input: IngestOptions,
    /// How the single-cell reference is read.
    pub reference: IngestOptions,
    /// Which observations and genes stay.
    pub filter: FilterConfig,
    /// Layers and neighbourhoods.
    pub process: ProcessConfig,
    /// What trains, selects and judges.
    pub split: SplitConfig,
    /// How records are laid out.
    pub data: LayoutConfig,
}

/// `[data]` of a shard config.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LayoutConfig {
    /// Own records per row group.
    pub row_group_records: usize,
    /// What is hidden until it is judged: `"none"`, `"entries"` or `"gene_folds"`.
    pub holdout: Protocol,
    /// `entries`: share of all entries, zeros included.
    pub holdout_fraction: f64,
    /// `gene_folds`: number of folds.
    pub folds: u32,
    /// Of the draw of what is hidden.
    pub seed: u64,
    /// What becomes of a value: `"auto"`, `"total_log1p"`, `"log1p"` or `"none"`.
    pub transform: Transform,
    /// The same for the reference's cells.
    pub reference_transform: Transform,
    /// How names of genes meet those of the reference: `"exact"`, or `"ignore"` case.
    pub gene_case: GeneCase,
}

impl LayoutConfig {
    fn rule(&self) -> HoldoutRule {
        HoldoutRule {
            protocol: self.holdout,
            fraction: self.holdout_fraction,
            folds: self.folds,
            seed: self.seed,
            transform: self.transform,
            reference_transform: self.reference_transform,
            gene_case: self.gene_case,
        }
    }
}

impl Default for LayoutConfig {
    fn default() -> Self {
        Self {
            row_group_records: WriteOptions::default().row_group_records,
            holdout: Protocol::None,
            holdout_fraction: 0.3,
            folds: 5,
            seed: 0,
            transform: Transform::Auto,
            reference_transform: Transform::Auto,
            gene_case: GeneCase::Exact,
        }
    }
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let mut config: ShardConfig = match &args.config {
        Some(path) => config::load(path, &args.set)?,
        None => config::parse("", "the default shard config", &args.set)?,
    };
    name_splits(&mut config.split, &args.split)?;
    let sections = read(&args.inputs, &config)?;
    let processed = match &args.reference {
        None if config.data.holdout == Protocol::None => {
            process::process(sections, &config.filter, &config.process, &config.split)?
        }
        reference => {
            let cells = reference.as_deref().map(|path| read_cells(path, &sections, &config)).transpose()?;
            let steps = (&config.filter, &config.process, &config.split);
            process::hide(sections, cells, steps, &config.data.rule(), config.input.on_bad_cell)?
        }
    };
    describe(&processed);
    if args.dry_run {
        eprintln!("dry run: nothing written ({:.1} s)", started.elapsed().as_secs_f64());
        return Ok(ExitCode::Done);
    }
    let manifest = write(&processed, &config, &args.out, args.resume, args.jobs)?;
    eprintln!("written in {:.1} s", started.elapsed().as_secs_f64());
    if args.json {
        let count = |split| manifest.n_records(split);
        let json = serde_json::json!({
            "out": args.out, "data_hash": manifest.data_hash(), "genes": manifest.panel.n_selected(),
            "train": count(Split::Train), "val": count(Split::Val), "test": count(Split::Test),
        });
        out::json(&json)?;
    } else {
        out::line(&manifest)?;
    }
    Ok(ExitCode::Done)
}

/// Writes processed sections under their config.
pub fn write(
    processed: &Processed,
    config: &ShardConfig,
    out: &std::path::Path,
    resume: bool,
    jobs: usize,
) -> anyhow::Result<syncytia_shards::manifest::Manifest> {
    let options = WriteOptions {
        row_group_records: config.data.row_group_records,
        split_rule: rule_in_words(&config.split, processed),
        resume,
        jobs,
        ..WriteOptions::default()
    };
    writer::write(processed, &config::to_toml(config), out, &options)
        .with_context(|| format!("cannot write shards to {}", out.display()))
}

/// Reads the inputs in order, saying what each is.
pub fn read(inputs: &[PathBuf], config: &ShardConfig) -> anyhow::Result<Vec<Section>> {
    let mut sections = Vec::new();
    for (name, input) in given_sections(inputs)? {
        let options =
            IngestOptions { library_id: name.or_else(|| config.input.library_id.clone()), ..config.input.clone() };
        let section = ingest::read_section(&input, &options)?;
        eprintln!(
            "read {}: section {}, {} observations × {} genes",
            input.display(),
            section.library_id,
            section.n_obs(),
            section.genes.len()
        );
        sections.push(section);
    }
    Ok(sections)
}

/// Reads the reference, saying what it is.
fn read_cells(path: &Path, sections: &[Section], config: &ShardConfig) -> anyhow::Result<Cells> {
    let cells = ingest::read_cells(path, &config.reference, &sections[0].genes)?;
    let labels = cells.label.as_ref().map_or(String::new(), |l| format!(", labels `{}`", l.name));
    eprintln!(
        "read {}: reference, {} cells × {} genes{labels}",
        path.display(),
        cells.obs_ids.len(),
        cells.genes.len()
    );
    Ok(cells)
}

/// The inputs, a folder of `.h5ad` files taken apart.
fn given_sections(inputs: &[PathBuf]) -> anyhow::Result<Vec<(Option<String>, PathBuf)>> {
    let mut found = Vec::new();
    for (name, input) in inputs.iter().map(|given| named(given)) {
        match ingest::h5ad_files(&input)? {
            files if files.is_empty() || name.is_some() => found.push((name, input)),
            files => found.extend(files.into_iter().map(|file| (None, file))),
        }
    }
    Ok(found)
}

/// `NAME=PATH` where no file is called that.
pub fn named(given: &Path) -> (Option<String>, PathBuf) {
    match given.to_str().and_then(|text| text.split_once('=')) {
        Some((name, path)) if !name.is_empty() && !name.contains('/') && !given.exists() => {
            (Some(name.into()), path.into())
        }
        _ => (None, given.to_owned()),
    }
}

/// `--split val=NAME` into the config.
pub fn name_splits(config: &mut SplitConfig, named: &[String]) -> Result<(), UsageError> {
    for text in named {
        match text.split_once('=') {
            Some(("val", name)) if !name.is_empty() => config.val.push(name.to_owned()),
            Some(("test", name)) if !name.is_empty() => config.test.push(name.to_owned()),
            _ => return Err(UsageError(format!("--split {text}: write val=NAME or test=NAME"))),
        }
    }
    Ok(())
}

fn rule_in_words(config: &SplitConfig, processed: &Processed) -> String {
    let names = |split: Split| {
        let mut names: Vec<&str> =
            processed.pieces.iter().filter(|p| p.split == split).map(|p| p.library_id.as_str()).collect();
        names.dedup();
        names.join(", ")
    };
    let whole = processed.pieces.len() == processed.sections.len();
    if whole {
        let named = [Split::Train, Split::Val, Split::Test].map(|split| (split.as_str(), names(split)));
        let named: Vec<String> =
            named.into_iter().filter(|(_, n)| !n.is_empty()).map(|(split, n)| format!("{split} {n}")).collect();
        format!("by section: {}", named.join("; "))
    } else {
        let [a, b] = config.cuts;
        format!(
            "by spatial block: slabs along the longer side cut at {:.0} % and {:.0} % of spots, spots within {} hops of \
             a cut left the larger block",
            a * 100.0,
            b * 100.0,
            config.guard_hops
        )
    }
}

/// Whether values are counts, as found, and what becomes of them.
fn say_kind(what: &str, transform: Transform, whole: bool) {
    let found = if whole { "whole numbers" } else { "not whole numbers" };
    let words = match transform.resolve(whole) {
        Transform::TotalLog1p => "ln(1 + 10⁴ · value / total)",
        Transform::Log1p => "ln(1 + value)",
        Transform::None | Transform::Auto => "as they are: neither totalled nor logged",
    };
    let by = if transform == Transform::Auto { "taken so" } else { "as the config says" };
    eprintln!("{what}: {found}; {words} ({by})");
}

/// The ledger, before anything is written.
pub fn describe(processed: &Processed) {
    for entry in &processed.ledger.entries {
        let section = entry.library_id.as_deref().map_or(String::new(), |l| format!("{l}: "));
        match entry.n {
            0 => eprintln!("  {section}{}", entry.reason),
            n => eprintln!("  {section}{n} {}: {}", entry.what, entry.reason),
        }
    }
    for piece in &processed.pieces {
        eprintln!("{} {}: {} observations", piece.library_id, piece.split.as_str(), piece.n_obs());
    }
    if let Some(crops) = processed.sections.first().and_then(|s| s.crops.as_ref()) {
        eprintln!("pictures: {}, {}", crops.pictures.channels().join(" "), crops.rule);
    }
    let niches = || processed.pieces.iter().map(|p| &p.niches);
    match niches().map(|n| n.niches.len()).sum::<usize>() {
        0 => {}
        n => {
            let regions = |piece: &Piece| {
                let crops = processed.sections[piece.section as usize].crops.as_ref();
                crops.filter(|crops| crops.region_side.is_some()).map_or(0, |crops| crops.regions(piece).count())
            };
            let pictures = match processed.pieces.iter().map(regions).sum::<usize>() {
                0 => String::new(),
                with => format!(", {with} of the niches with a picture of their region"),
            };
            eprintln!("{n} niches, {} tissues{pictures}", niches().map(|n| n.tissues.len()).sum::<usize>());
        }
    }
    if let Some(holdout) = &processed.holdout {
        eprintln!("{holdout}");
        let values = || processed.pieces.iter().flat_map(|p| &p.counts.values);
        say_kind("observations", holdout.transform, values().all(|v| v.fract() == 0.0));
        if let Some(reference) = &processed.reference {
            let whole = reference.counts.values.iter().all(|v| v.fract() == 0.0);
            say_kind("reference", holdout.reference_transform, whole);
        }
    }
    eprintln!("{} genes passed, {} in the layers", processed.panel.genes.len(), processed.panel.n_selected());
    eprintln!("{}", processed.summary);
}
