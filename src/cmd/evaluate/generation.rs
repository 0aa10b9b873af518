//! A generator's pictures beside the real ones of the same cells, and beside simple fills.

use std::collections::BTreeMap;

use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;

use super::cell_pictures::{Cell, Frame, all_of, chosen};
use super::{Args, Evaluated, UsageError, report_folder, shards_of_run, split_named, usual_split};
use crate::cmd::sampler::SamplerArgs;
use crate::cmd::trained::Trained;
use crate::config;
use crate::evaluate::generation::mean_image::MeanImage;
use crate::evaluate::generation::nearest_by_genes::{NearestByGenes, Offered};
use crate::evaluate::generation::scores::{Measured, score};
use crate::evaluate::generation::{Pictures, order_of_records, other_cells, training_records};
use crate::evaluate::random_features::{self, RandomFeatures};
use crate::model::Model;
use crate::model::dit::sampler::SamplerConfig;
use crate::model::generator::Counts;
use crate::report::generation::{Compared, Judged, Method};
use crate::task::generate::Generate;
use crate::task::painting::{Painter, to_byte};
use crate::tensor::cpu;

/// Cells that are painted where no number is asked for.
const CELLS: usize = 512;

/// Arguments for a generator.
#[derive(Debug, clap::Args)]
pub struct GenerationArgs {
    /// Of a generator: how many cells are painted. Default 512, or all where there are fewer.
    #[arg(long)]
    cells: Option<usize>,
    /// Of a generator: seed of the noise, and of which cells and training pictures are taken. Default 0.
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    sampler: SamplerArgs,
}

impl GenerationArgs {
    /// The first of its arguments that was given.
    pub fn given(&self) -> Option<&'static str> {
        let own = [(self.cells.is_some(), "--cells"), (self.seed.is_some(), "--seed")];
        own.into_iter().find(|(given, _)| *given).map(|(_, name)| name).or_else(|| self.sampler.given())
    }
}

/// Evaluates a checkpoint of a generator and writes the report.
pub fn evaluate(args: &Args, trained: &Trained) -> anyhow::Result<Evaluated> {
    let (model_config, task) = trained.generator()?;
    let (run, checkpoint) = (&trained.run, &trained.checkpoint);
    let sampler = args.generation.sampler.config(task.objective, &model_config.dit)?;
    let seed = args.generation.seed.unwrap_or(0);
    let dir = args.shards.clone().map_or_else(|| shards_of_run(&args.path), Ok)?;
    let shards = Shards::open(&dir)?;
    trained.check_shards(&shards)?;
    // What training asks of shards: pictures, and of channels that the network paints.
    Generate::new(*task, model_config, shards.manifest(), seed).map_err(UsageError)?;
    let split = args.split.as_deref().map(split_named).transpose()?.unwrap_or_else(|| usual_split(&shards));
    let order = order_of_records(seed, shards.manifest().n_records(split) as usize);
    let n = n_cells(args.generation.cells, order.len(), split)?;
    let frame = Frame { side: model_config.dit.image, channels: model_config.dit.channels };

    let cells = chosen(&shards, split, &order[..n], frame)?;
    eprintln!("reading the training cells: their mean picture, and the nearest to each of {n} cells");
    let training = Training::of(&shards, &cells, frame, seed)?;
    let others = if order.len() >= 2 * n { &order[n..2 * n] } else { &[] };
    let others = frame.pictures(chosen(&shards, split, others, frame)?.iter());
    eprintln!("painting {n} cells of {} from their genes, and from other cells' genes", split.as_str());
    let Model::Generator(model) = trained.model()? else { unreachable!("its config is a generator's") };
    let painter = Painter {
        model: &model,
        objective: task.objective,
        sampler,
        context: model_config.encoder.gene.context,
        genes: run.panel.genes.len(),
        seed,
    };
    let given = other_cells(seed, n);
    let painted = paint(&painter, &cells, &mut cells.iter(), frame)?;
    let shuffled = paint(&painter, &cells, &mut given.iter().map(|&other| &cells[other]), frame)?;

    let network = RandomFeatures::new(frame.channels);
    let measure = |pictures: Pictures| Measured::of(pictures, &network);
    let (real, painted) = (measure(frame.pictures(cells.iter())), measure(painted));
    let method = |name, what: &str, compared, measured: &Measured| Method {
        name,
        what: what.to_owned(),
        compared,
        scores: score(&real, measured, seed),
    };
    let fill = |name, what, pictures| method(name, what, Compared::All, &measure(pictures));
    let methods = vec![
        method(run.config.model.name(), "painted from the cell's genes", Compared::All, &painted),
        fill("nearest_by_genes", "training cell of most similar log-normalised counts", training.nearest.clone()),
        method(
            "shuffled_condition",
            "same network and noise, another cell's genes",
            Compared::CellByCell,
            &measure(shuffled.clone()),
        ),
        fill("mean_image", "mean training picture", training.mean),
        fill("random_training", "random training picture: the floor of a set", training.random),
    ];
    let noise = real_beside_real(&real, &others, &network, seed);
    let names: Vec<String> = cells.iter().map(|cell| cell.name.clone()).collect();
    let judged = Judged {
        methods,
        noise,
        names: &names,
        real: &real,
        painted: &painted,
        beside: vec![("other cell's genes", &shuffled), ("nearest by genes", &training.nearest)],
        split: split.as_str().to_owned(),
        n_records: order.len(),
        lead: lead(trained, &shards, split, n, order.len(), training.n),
        notes: notes(trained, &shards, n),
        provenance: provenance(trained, &shards, &sampler, seed),
    };
    Evaluated::of(&judged.findings(), &report_folder(&args.path, &checkpoint.dir, split, &shards))
}

fn n_cells(asked: Option<usize>, there: usize, split: Split) -> Result<usize, UsageError> {
    let split = split.as_str();
    match asked {
        _ if there < 2 => Err(UsageError(format!("the {split} split has {there} cells: at least two are compared"))),
        Some(n) if n < 2 => Err(UsageError(format!("--cells {n}: at least two are compared"))),
        Some(n) if n > there => Err(UsageError(format!("--cells {n}: the {split} split has {there}"))),
        Some(n) => Ok(n),
        None => Ok(CELLS.min(there)),
    }
}

/// What the training split gives.
struct Training {
    /// Its cells.
    n: usize,
    /// The mean picture, once for every cell.
    mean: Pictures,
    /// The nearest cell's picture.
    nearest: Pictures,
    /// Pictures drawn at random.
    random: Pictures,
}

impl Training {
    fn of(shards: &Shards, cells: &[Cell], frame: Frame, seed: u64) -> anyhow::Result<Training> {
        let n = shards.manifest().n_records(Split::Train) as usize;
        let genes = shards.manifest().panel.genes.len();
        let mut mean = MeanImage::new(frame.values());
        let queries = cells.iter().map(|cell| (cell.id, &cell.genes[..], &cell.counts[..]));
        let mut nearest: NearestByGenes<usize> = NearestByGenes::new(genes, queries);
        all_of(shards, Split::Train, frame, |first, group| {
            group.iter().for_each(|cell| mean.add(&cell.picture));
            let offered = group.iter().enumerate();
            let offered: Vec<Offered<'_, usize>> =
                offered.map(|(i, cell)| (cell.id, first + i, &cell.genes[..], &cell.counts[..])).collect();
            nearest.offer(&offered);
        })?;
        let found: Option<Vec<usize>> = nearest.found().into_iter().map(|cell| Some(cell?.place)).collect();
        let (Some(mean), Some(found)) = (mean.mean(), found) else {
            let what = "the shards have too few training cells: mean_image and nearest_by_genes are made from them";
            return Err(UsageError(what.into()).into());
        };
        let read = |numbers: &[usize]| -> anyhow::Result<Pictures> {
            Ok(frame.pictures(chosen(shards, Split::Train, numbers, frame)?.iter()))
        };
        let random = training_records(seed, n, cells.len());
        Ok(Training {
            n,
            mean: Pictures { bytes: mean.repeat(cells.len()), ..frame.pictures(std::iter::empty()) },
            nearest: read(&found)?,
            random: read(&random)?,
        })
    }
}

/// Pictures of `cells`, each from the counts of the cell that `conditions` gives in its place.
fn paint(
    painter: &Painter<'_>,
    cells: &[Cell],
    conditions: &mut dyn Iterator<Item = &Cell>,
    frame: Frame,
) -> anyhow::Result<Pictures> {
    let ids: Vec<u64> = cells.iter().map(|cell| cell.id).collect();
    let counts: Vec<Counts<'_>> = conditions.map(|cell| (&cell.genes[..], &cell.counts[..])).collect();
    let values = painter.paint(&ids, &counts, &cpu()).map_err(|e| UsageError(e.to_string()))?;
    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
        let cell = &cells[at / frame.values()];
        anyhow::bail!("the picture of {} has a pixel that is no number: the network's weights are broken", cell.name);
    }
    Ok(Pictures { bytes: values.into_iter().map(to_byte).collect(), ..frame.pictures(std::iter::empty()) })
}

/// The noise of the figures: other real pictures of the split beside those that are judged with; where it has too few, one half
/// of those beside the other.
fn real_beside_real(real: &Measured, others: &Pictures, network: &RandomFeatures, seed: u64) -> Method {
    let n = real.pictures.n();
    let half = |first: usize| Measured::of(real.pictures.at(first..first + n / 2), network);
    let (what, scores) = if others.n() == n {
        ("other real cells: the noise", score(real, &Measured::of(others.clone(), network), seed))
    } else {
        ("one half of the real pictures beside the other", score(&half(0), &half(n / 2), seed))
    };
    Method { name: "real_other", what: what.to_owned(), compared: Compared::All, scores }
}

fn lead(trained: &Trained, shards: &Shards, split: Split, n: usize, there: usize, n_train: usize) -> String {
    let mut sections: Vec<u32> = shards.row_groups(split).iter().map(|group| group.section).collect();
    sections.dedup();
    let library = |&at: &u32| shards.manifest().sections[at as usize].library_id.as_str();
    let sections: Vec<&str> = sections.iter().map(library).collect();
    format!(
        "Trained for {} steps. {n} of the {there} cells of split {} ({}; sections {}) are painted from their genes alone, from \
         noise drawn by the seed and the cell, and compared with their real pictures; fills are made from {n_train} training cells. \
         Shapes are measured by one code in all pictures: Otsu's threshold on the mean over channels, the largest region.",
        trained.run.global_step,
        split.as_str(),
        shards.manifest().split_rule,
        sections.join(", "),
    )
}

fn notes(trained: &Trained, shards: &Shards, n: usize) -> Vec<String> {
    let run = &trained.run;
    let features = RandomFeatures::new(1).n_features();
    let mut notes = Vec::new();
    if run.config.optim.ema.is_none() {
        notes.push(
            "This run kept no average of its weights (optim.ema): it is judged by those of its last step, which paint worse than an \
             average as a rule."
                .to_owned(),
        );
    }
    if shards.manifest().data_hash() != run.data_hash {
        notes.push("These are not the shards that the model was trained on; mean_image, nearest_by_genes and random_training are \
             made from the training split of these."
            .to_owned());
    }
    if n <= features {
        notes.push(format!(
            "n = {n} is no more than the {features} random features: their covariance has no full rank and FID-rand says little."
        ));
    }
    notes
}

fn provenance(trained: &Trained, shards: &Shards, sampler: &SamplerConfig, seed: u64) -> BTreeMap<String, String> {
    let run = &trained.run;
    let of = |name: &str, value: String| (name.to_owned(), value);
    let digest = trained.checkpoint.manifest.digest();
    BTreeMap::from([
        of("model", run.config.model.name().to_owned()),
        of("checkpoint", trained.checkpoint.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()),
        of("checkpoint_blake3", digest),
        of("global_step", run.global_step.to_string()),
        of("data_hash", shards.manifest().data_hash()),
        of("split_rule", shards.manifest().split_rule.clone()),
        of("sampler", serde_json::to_string(sampler).expect("three plain fields")),
        of("seed", seed.to_string()),
        of("features", format!("random convolutions, seed {}", random_features::SEED)),
        of("version", run.version.clone()),
        of("sums", run.config.train.reduction.precision().to_owned()),
        of("config", config::to_toml(&run.config)),
    ])
}
