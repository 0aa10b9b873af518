//! `syncytia embed`: a folder of vectors of every cell, niche or tissue of a shard folder, for the next stage or for a map;
//! or a file of cells with their vectors where scanpy finds them (`embed_input`). A cell's vector with its niche and tissue
//! (`--level fused`) is `embed_fused`'s.
//!
//! Genes and pictures without masks, every split, whole row groups at a time in stored order.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use syncytia_launch::ExitCode;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::vectors::{Modality, VectorsFacts, VectorsOf, VectorsWriter};

use super::embed_fused;
use super::embed_input;
use super::exit::UsageError;
use super::out;
use super::trained::Trained;
use super::vectors::{Below, SPLITS, vectors_below, whole};
use crate::model::Model;
use crate::model::spatia::SpatiaConfig;
use crate::task::embedding::{self, BATCH, CellEncoder};
use crate::task::places::{PlaceRows, lacking, most_members};
use crate::tensor::cpu;
use crate::train::checkpoint::Which;
use crate::train::error::TrainError;

/// Arguments of `embed`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A run folder or a checkpoint of SPATIA.
    path: PathBuf,
    /// Shard folder.
    #[arg(long, required_unless_present = "input", conflicts_with = "input", requires = "out")]
    shards: Option<PathBuf>,
    /// Of shards: folder of vectors to write; must be absent or empty.
    #[arg(long, requires = "shards")]
    out: Option<PathBuf>,
    /// Cells: an `.h5ad` file or a folder of an instrument.
    #[arg(long, requires = "output")]
    input: Option<PathBuf>,
    /// Of a file of cells: the `.h5ad` to write, with obsm["X_spatia"] and, where the run has learned them, X_spatia_niche,
    /// X_spatia_tissue and X_spatia_fused.
    #[arg(long, requires = "input")]
    output: Option<PathBuf>,
    /// Of a file of cells: largest share of the model's genes that it may lack.
    #[arg(long, default_value_t = 0.25, requires = "input")]
    max_genes_lost: f64,
    /// Of shards: whose vectors.
    #[arg(long, value_enum, default_value_t = Level::Cell, requires = "shards")]
    level: Level,
    /// Vectors of the level below, for niches (those of cells, and of regions where the model reads them) and tissues (those of
    /// niches); for fused ones, in a folder each,
    /// those of cells, niches and tissues as far as the model fuses them.
    #[arg(long, value_name = "DIR", requires = "shards")]
    vectors: Vec<PathBuf>,
    /// Cells: what is read of them.
    #[arg(long, value_enum, default_value_t = ModalityArg::Both)]
    modality: ModalityArg,
    /// `best`, `last` or `step-N`; best where there is one, else the newest.
    #[arg(long)]
    checkpoint: Option<Which>,
    /// Print what was written as JSON.
    #[arg(long)]
    json: bool,
}

/// `--level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Level {
    Cell,
    Niche,
    Tissue,
    /// Pictures of niches' regions, for the niches of a model with `regions = true`.
    Region,
    /// Cells with their niches and tissues.
    Fused,
}

/// `--modality`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ModalityArg {
    Both,
    Genes,
    Image,
}

impl Level {
    fn of(self) -> VectorsOf {
        match self {
            Level::Cell | Level::Fused => VectorsOf::Obs,
            Level::Niche => VectorsOf::Niche,
            Level::Tissue => VectorsOf::Tissue,
            Level::Region => VectorsOf::Region,
        }
    }
}

impl ModalityArg {
    fn of(self) -> Modality {
        match self {
            ModalityArg::Both => Modality::Both,
            ModalityArg::Genes => Modality::Genes,
            ModalityArg::Image => Modality::Image,
        }
    }
}

/// What is needed to make vectors.
struct Embedding<'a> {
    model: Model,
    config: &'a SpatiaConfig,
    seed: u64,
    shards: &'a Shards,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (of, modality) = (args.level.of(), args.modality.of());
    let (shards, out) = match (&args.shards, &args.out, &args.input, &args.output) {
        (_, _, Some(input), Some(output)) => {
            let trained = embed_input::open(&args.path, args.checkpoint.unwrap_or_default(), input, output)?;
            return embed_input::run(&trained, input, output, modality, args.max_genes_lost, args.json);
        }
        (Some(shards), Some(out), ..) => (shards, out),
        _ => return Err(UsageError("give --shards and --out, or --input and --output".to_owned()).into()),
    };
    if args.level != Level::Cell && modality != Modality::Both {
        return Err(UsageError("--modality is for --level cell: higher levels read vectors".into()).into());
    }
    let trained = Trained::open(&args.path, args.checkpoint.unwrap_or_default())?;
    if args.level == Level::Fused {
        let facts = embed_fused::run(&trained, shards, &args.vectors, out)?;
        return said(args, out, &facts);
    }
    let config = trained.encoder(of)?;
    let shards = Shards::open(shards)?;
    trained.check_shards(&shards)?;
    let below = vectors_below(&args.vectors, of, &trained, &shards)?;
    let with = Embedding { model: trained.model()?, config, seed: trained.run.config.train.seed, shards: &shards };
    let digest = trained.checkpoint.manifest.digest();
    let producer = match modality {
        Modality::Both => digest,
        Modality::Genes => format!("{digest} genes"),
        Modality::Image => format!("{digest} image"),
    };
    // Everything that may be refused was; what follows writes.
    let facts = match below {
        None if of == VectorsOf::Region => {
            if SPLITS.iter().all(|&split| shards.region_groups(split).is_empty()) {
                let what = "the shards have no pictures of regions: make them with --set process.niche_pictures=true";
                return Err(TrainError::Data(what.to_owned()).into());
            }
            let encoder = CellEncoder::new(&with.model, config, shards.manifest(), with.seed, Modality::Image);
            let encoder = encoder.map_err(TrainError::Data)?;
            whole(out, of, config.image.width, &producer, &shards, |writer| with.regions(&encoder, writer))?
        }
        None => {
            let cells = CellEncoder::new(&with.model, config, shards.manifest(), with.seed, modality);
            let cells = cells.map_err(TrainError::Data)?;
            whole(out, of, config.h, &producer, &shards, |writer| {
                writer.made_with(modality);
                with.cells(&cells, writer)
            })?
        }
        Some(below) => whole(out, of, config.h, &producer, &shards, |writer| {
            writer.made_of(&below.members.facts);
            with.places(of, &below, writer)
        })?,
    };
    said(args, out, &facts)
}

/// What was written.
fn said(args: &Args, out: &Path, facts: &VectorsFacts) -> anyhow::Result<ExitCode> {
    let of = args.level.of();
    if args.json {
        let level = if args.level == Level::Fused { "fused" } else { of.level() };
        out::json(&serde_json::json!({
            "out": out, "level": level, "n": facts.n, "width": facts.width, "producer": facts.producer,
            "digest": facts.digest(),
        }))?;
    } else {
        let (out, n, what, width) = (out.display(), facts.n, of.plural(), facts.width);
        out::line(format_args!("{out}: vectors of {n} {what}, {width} values each"))?;
    }
    Ok(ExitCode::Done)
}

/// Between two lines of progress.
const EVERY: Duration = Duration::from_secs(2);

impl Embedding<'_> {
    fn cells(&self, cells: &CellEncoder<'_>, writer: &mut VectorsWriter) -> anyhow::Result<()> {
        let all: u64 = SPLITS.iter().map(|&split| self.shards.manifest().n_records(split)).sum();
        let (mut done, mut said) = (0, Instant::now());
        for entry in SPLITS.into_iter().flat_map(|split| self.shards.row_groups(split)) {
            let group = self.shards.read_row_group(entry, &cells.columns())?;
            let batches: Vec<usize> = (0..group.n_own).step_by(BATCH).collect();
            let encode = |&first: &usize| cells.encode(&group, first..group.n_own.min(first + BATCH), &cpu());
            let vectors: Vec<Vec<f32>> = batches.par_iter().map(encode).collect();
            writer.push(&group.record_ids[..group.n_own], &vectors.concat())?;
            done += group.n_own;
            if said.elapsed() > EVERY {
                eprintln!("{done} of {all} cells");
                said = Instant::now();
            }
        }
        Ok(())
    }

    fn regions(&self, encoder: &CellEncoder<'_>, writer: &mut VectorsWriter) -> anyhow::Result<()> {
        for entry in SPLITS.into_iter().flat_map(|split| self.shards.region_groups(split)) {
            let regions = self.shards.regions(entry)?;
            let n = regions.niche_ids.len();
            let starts: Vec<usize> = (0..n).step_by(BATCH).collect();
            let encode = |&first: &usize| encoder.regions(&regions.images, first..n.min(first + BATCH), &cpu());
            let vectors: Vec<Vec<f32>> = starts.par_iter().map(encode).collect();
            writer.push(&regions.niche_ids, &vectors.concat())?;
        }
        Ok(())
    }

    fn places(&self, of: VectorsOf, below: &Below, writer: &mut VectorsWriter) -> anyhow::Result<()> {
        let most = most_members(self.config, of);
        for split in SPLITS {
            let places = self.shards.places(of, split)?;
            if let Some((place, member)) = lacking(&places, &below.members) {
                let what = format!("the vectors given have none of {member}, a member of {place}: make them again");
                return Err(TrainError::Data(what).into());
            }
            let batches: Vec<usize> = (0..places.n()).step_by(BATCH).collect();
            let encode = |&first: &usize| {
                let rows = (first..places.n().min(first + BATCH)).collect();
                let regions = below.regions.as_ref();
                let from = PlaceRows { places: &places, vectors: &below.members, regions, rows };
                embedding::places(&self.model, &from, most, self.seed, &cpu())
            };
            let vectors: Vec<Vec<f32>> = batches.par_iter().map(encode).collect();
            writer.push(&places.ids, &vectors.concat())?;
        }
        Ok(())
    }
}
