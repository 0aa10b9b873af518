//! `syncytia embed`: a folder of vectors of every cell, niche or tissue of a shard folder, for the next stage or for a map;
//! or a file of cells with their vectors where scanpy finds them (`embed_input`). A cell's vector with its niche and tissue
//! (`--level fused`) is `embed_fused`'s.
//!
//! Genes and pictures without masks, every split, whole row groups at a time in stored order.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use rayon::prelude::*;
use syncytia_launch::ExitCode;
use syncytia_shards::error::StoreError;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::vectors::{Modality, Vectors, VectorsFacts, VectorsOf, VectorsWriter};

use super::embed_fused;
use super::embed_input;
use super::exit::UsageError;
use super::out;
use super::trained::Trained;
use crate::model::spatia::SpatiaConfig;
use crate::model::{Model, ModelConfig};
use crate::task::embedding::{self, BATCH, CellEncoder};
use crate::task::fusion::UpTo;
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
    let config = encoder_of(&trained, of)?;
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

/// The encoder's sizes, if the checkpoint has learned this level.
pub(super) fn encoder_of(trained: &Trained, of: VectorsOf) -> anyhow::Result<&SpatiaConfig> {
    let dir = trained.checkpoint.dir.display();
    let ModelConfig::Spatia(config) = &trained.run.config.model else {
        let name = trained.run.config.model.name();
        return Err(UsageError(format!("{dir} is a checkpoint of {name}, and `embed` is for those of spatia")).into());
    };
    let wanted = Some(match of {
        VectorsOf::Niche => UpTo::Niche,
        VectorsOf::Tissue => UpTo::Tissue,
        _ => UpTo::Cell,
    });
    let (task, learned) = (&trained.run.config.task, trained.run.config.task.learned());
    let unlearned = learned < wanted;
    if unlearned || ((learned > wanted || task.fuses()) && trained.run.parent.is_none()) {
        let why = if unlearned { "has not come to them yet" } else { "began without `train --from`" };
        return Err(UsageError(format!(
            "{dir} has not learned {}: its task is \"{}\", which {why}",
            of.plural(),
            task.kind()
        ))
        .into());
    }
    Ok(config)
}

/// What the network of a level reads.
#[derive(Debug)]
pub(super) struct Below {
    /// Vectors of the level below.
    pub members: Vectors,
    /// Of niches of a model that reads them: vectors of the pictures of their regions.
    pub regions: Option<Vectors>,
}

/// The vectors that this level is made of, of the kind that the checkpoint was trained on; none for cells.
pub(super) fn vectors_below(
    dirs: &[PathBuf],
    of: VectorsOf,
    trained: &Trained,
    shards: &Shards,
) -> anyhow::Result<Option<Below>> {
    let Some(members) = of.members() else {
        return match dirs {
            [_, ..] => {
                Err(UsageError("--vectors is for --level niche and tissue: cells are read as they are".into()).into())
            }
            [] => Ok(None),
        };
    };
    let with_regions = of == VectorsOf::Niche && trained.run.config.model.reads_regions();
    let mut dirs: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
    let mut regions = None;
    if with_regions {
        let mut of_regions = None;
        for (at, dir) in dirs.iter().enumerate() {
            if VectorsFacts::read(dir)?.of == VectorsOf::Region {
                of_regions = Some(at);
            }
        }
        let Some(at) = of_regions else {
            let what = "the network of niches reads pictures of their regions: make vectors of them with `syncytia embed STAGE1 \
                        --level region` of these shards and add --vectors DIR";
            return Err(TrainError::Data(what.to_owned()).into());
        };
        regions = Some(read_below(dirs.remove(at), VectorsOf::Region, of, trained, shards)?);
    }
    match dirs[..] {
        [] => Err(lacking_below(members, of)),
        [dir] => Ok(Some(Below { members: read_below(dir, members, of, trained, shards)?, regions })),
        [_, more, ..] => {
            let what =
                format!("--vectors {}: nothing is read beside the vectors of {}", more.display(), members.plural());
            Err(UsageError(what).into())
        }
    }
}

fn lacking_below(members: VectorsOf, of: VectorsOf) -> anyhow::Error {
    let (level, what) = (members.level(), members.plural());
    let what = format!(
        "the network of {} reads vectors of {what}: make them with `syncytia embed … --level {level}` of these shards and add \
         --vectors DIR",
        of.plural()
    );
    TrainError::Data(what).into()
}

/// The vectors of `members` in `dir`, for the network of `of`.
fn read_below(
    dir: &Path,
    members: VectorsOf,
    of: VectorsOf,
    trained: &Trained,
    shards: &Shards,
) -> anyhow::Result<Vectors> {
    let again = format!("make them with `syncytia embed … --level {}` of these shards", members.level());
    if shards.manifest().table(syncytia_shards::manifest::TableKind::Niche).is_none() {
        return Err(StoreError::NoNiches.into());
    }
    let vectors = Vectors::read(dir, members, &shards.manifest().data_hash())?;
    let refuse = |what: String| Err(TrainError::Data(format!("{} {what}: {again}", dir.display())).into());
    let width = width(trained, members);
    if Some(vectors.facts.width as usize) != width {
        return refuse(format!("has vectors of {} values, the model reads {width:?}", vectors.facts.width));
    }
    // What this level was trained on is known where it was trained last.
    let mut learned_on = trained.run.vectors.iter().filter(|_| trained.run.config.task.table() == of);
    let learned_on = learned_on.find(|learned_on| learned_on.of == members);
    if let Some(learned_on) = learned_on.filter(|learned_on| learned_on.producer != vectors.facts.producer) {
        let theirs = &vectors.facts.producer;
        return refuse(format!(
            "was made by checkpoint {theirs}, the model learned from those of {}",
            learned_on.producer
        ));
    }
    if let Some(what) = vectors.facts.no_members() {
        return refuse(format!("has {what}, the network of {} reads whole ones", of.plural()));
    }
    Ok(vectors)
}

fn width(trained: &Trained, members: VectorsOf) -> Option<usize> {
    match &trained.run.config.model {
        ModelConfig::Spatia(config) if members == VectorsOf::Region => Some(config.image.width),
        ModelConfig::Spatia(config) => Some(config.h),
        _ => None,
    }
}

/// Writes a whole folder of vectors, or leaves none.
pub(super) fn whole(
    dir: &Path,
    of: VectorsOf,
    width: usize,
    producer: &str,
    shards: &Shards,
    write: impl FnOnce(&mut VectorsWriter) -> anyhow::Result<()>,
) -> anyhow::Result<VectorsFacts> {
    let was_there = dir.exists();
    let mut writer = VectorsWriter::create(dir, of, width, producer, &shards.manifest().data_hash())?;
    let written = write(&mut writer).and_then(|()| Ok(writer.finish()?));
    if written.is_err() {
        // It was absent or empty: what lies in it is ours.
        let _ = fs::remove_dir_all(dir);
        if was_there {
            let _ = fs::create_dir(dir);
        }
    }
    written.with_context(|| format!("no vectors were written to {}", dir.display()))
}

/// Between two lines of progress.
const EVERY: Duration = Duration::from_secs(2);

pub(super) const SPLITS: [Split; 3] = [Split::Train, Split::Val, Split::Test];

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
