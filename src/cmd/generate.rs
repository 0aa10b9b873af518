//! `syncytia generate`: pictures of cells from their genes, and of the same cells with a gene changed, from the same noise.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde_json::{Value, json};
use syncytia_launch::ExitCode;
use syncytia_shards::durable::AtomicDir;
use syncytia_shards::processed::Split;

use super::evaluate::split_named;
use super::exit::UsageError;
use super::generate_input::{self, InputCell};
use super::out;
use super::sampler::SamplerArgs;
use super::trained::Trained;
use crate::model::Model;
use crate::report::generated_sheet::{self, Row};
use crate::task::painting::{Painter, to_byte};
use crate::task::perturbation::{Perturbation, perturbed};
use crate::tensor::cpu;
use crate::train::checkpoint::{NamedTensor, Which, encode_tensors};

/// Arguments of `generate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A run folder or a checkpoint of a generator.
    path: PathBuf,
    /// Cells: an `.h5ad` file or a folder of an instrument.
    #[arg(long, required_unless_present = "shards", conflicts_with = "shards")]
    input: Option<PathBuf>,
    /// Cells: a shard folder.
    #[arg(long)]
    shards: Option<PathBuf>,
    /// Of shards: test, val or train; the first of them that there is.
    #[arg(long, requires = "shards", conflicts_with = "input")]
    split: Option<String>,
    /// How many cells, evenly spaced in their order.
    #[arg(long, default_value_t = 16)]
    n: usize,
    /// A gene's count changed: 0 (or another count), x2 (times) or +1.5 (added to ln(1 + count)); repeatable, all at once.
    #[arg(long, value_name = "GENE=CHANGE")]
    set_gene: Vec<String>,
    /// Seed of the noise.
    #[arg(long)]
    seed: u64,
    /// The folder to write: pictures, images.safetensors, generated.json, sheet.html.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    sampler: SamplerArgs,
    /// With --input: largest share of the model's genes that it may lack.
    #[arg(long, default_value_t = 0.25)]
    max_genes_lost: f64,
    /// `best`, `last` or `step-N`; best where there is one, else the newest.
    #[arg(long)]
    checkpoint: Option<Which>,
    /// Print what was made as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    check_out(&args.out)?;
    if args.n == 0 {
        return Err(UsageError("--n 0: at least one cell".into()).into());
    }
    let split: Option<Split> = args.split.as_deref().map(split_named).transpose()?;
    let trained = Trained::open(&args.path, args.checkpoint.unwrap_or_default())?;
    let (config, task) = trained.generator()?;
    let sampler = args.sampler.config(task.objective, &config.dit)?;
    let panel = &trained.run.panel.genes;
    let changes: Vec<Perturbation> = args
        .set_gene
        .iter()
        .map(|text| Perturbation::parse(text, panel).map_err(|e| UsageError(format!("--set-gene {e}"))))
        .collect::<Result<_, _>>()?;
    let cells = match (&args.shards, &args.input) {
        (Some(shards), _) => generate_input::of_shards(&trained, shards, split, args.n)?,
        (None, Some(input)) => generate_input::of_file(&trained, input, args.max_genes_lost, args.n)?,
        (None, None) => unreachable!("one of them is required"),
    };
    let Model::Generator(model) = trained.model()? else { unreachable!("its config is a generator's") };
    let painter = Painter {
        model: &model,
        objective: task.objective,
        sampler,
        context: config.encoder.gene.context,
        genes: panel.len(),
        seed: args.seed,
    };
    let ids: Vec<u64> = cells.iter().map(|cell| cell.id).collect();
    let paint = |counts: &[(Vec<u32>, Vec<f32>)]| {
        let counts: Vec<_> = counts.iter().map(|(genes, counts)| (&genes[..], &counts[..])).collect();
        painter.paint(&ids, &counts, &cpu()).map_err(|e| UsageError(e.to_string()))
    };
    let as_read: Vec<_> = cells.iter().map(|cell| (cell.genes.clone(), cell.counts.clone())).collect();
    let changed: Vec<_> = cells.iter().map(|cell| perturbed(&cell.genes, &cell.counts, &changes)).collect();
    let made = Made {
        shape: [config.dit.image, config.dit.image, config.dit.channels],
        before: paint(&as_read)?,
        after: if changes.is_empty() { None } else { Some(paint(&changed)?) },
        cells,
    };
    let said = json!({
        "format_version": 1,
        "checkpoint": {"blake3": trained.checkpoint.manifest.digest(), "global_step": trained.run.global_step},
        "seed": args.seed,
        "objective": task.objective,
        "sampler": sampler,
        "set_gene": args.set_gene,
        "images": made.shape,
        "records": made.records(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    made.write(&args.out, &said)?;
    if args.json {
        out::json(&said)?;
    } else {
        out::line(format_args!(
            "{}: {} cells{}, sheet.html to look at",
            args.out.display(),
            made.cells.len(),
            if made.after.is_some() { ", before and after" } else { "" }
        ))?;
    }
    Ok(ExitCode::Done)
}

/// A folder that is there stays as it is, unless it is empty.
fn check_out(out: &Path) -> Result<(), UsageError> {
    let empty = std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    if out.exists() && !empty {
        return Err(UsageError(format!("--out {} is there already: give another folder, or remove it", out.display())));
    }
    Ok(())
}

/// Pictures and the cells they are of.
struct Made {
    cells: Vec<InputCell>,
    shape: [usize; 3],
    before: Vec<f32>,
    after: Option<Vec<f32>>,
}

impl Made {
    /// (what it is, its values), before first.
    fn batches(&self) -> Vec<(&'static str, &[f32])> {
        let before = if self.after.is_some() { "before" } else { "generated" };
        std::iter::once((before, &self.before[..])).chain(self.after.as_deref().map(|after| ("after", after))).collect()
    }

    fn file(i: usize, what: &str) -> String {
        format!("{i:05}-{what}.png")
    }

    fn records(&self) -> Vec<Value> {
        let files = |i| self.batches().iter().map(|(what, _)| Self::file(i, what)).collect::<Vec<_>>();
        let record = |(i, cell): (usize, &InputCell)| {
            let labels: serde_json::Map<String, Value> =
                cell.labels.iter().map(|(k, v)| (k.clone(), Value::from(v.clone()))).collect();
            json!({"record_id": cell.id, "obs_id": cell.name, "labels": labels, "files": files(i)})
        };
        self.cells.iter().enumerate().map(record).collect()
    }

    /// Picture `i` of a batch as PNG.
    fn png(&self, values: &[f32], i: usize) -> Vec<u8> {
        let each: usize = self.shape.iter().product();
        let bytes: Vec<u8> = values[i * each..(i + 1) * each].iter().map(|&v| to_byte(v)).collect();
        generated_sheet::png(&bytes, self.shape)
    }

    /// The folder, whole or not at all.
    fn write(&self, out: &Path, said: &Value) -> anyhow::Result<()> {
        let name =
            out.file_name().ok_or_else(|| UsageError(format!("--out {}: no name of a folder", out.display())))?;
        let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let dir = AtomicDir::create(parent, &name.to_string_lossy())?;
        let put = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
        };
        let mut rows: Vec<Row> = Vec::new();
        for (i, cell) in self.cells.iter().enumerate() {
            let mut pictures: Vec<_> = cell.picture.iter().map(|png| ("real", png.clone())).collect();
            for (what, values) in self.batches() {
                let png = self.png(values, i);
                put(&Self::file(i, what), &png)?;
                pictures.push((what, png));
            }
            let labels = cell.labels.iter().map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>().join(" · ");
            rows.push(Row { name: cell.name.clone(), labels, pictures });
        }
        let shape = [&[self.cells.len()], &self.shape[..]].concat();
        let tensor = |(what, values): (&str, &[f32])| NamedTensor {
            name: what.to_owned(),
            shape: shape.clone(),
            values: values.to_vec(),
        };
        let tensors: Vec<NamedTensor> = self.batches().into_iter().map(tensor).collect();
        let encoded = encode_tensors(&tensors, &std::collections::BTreeMap::new()).map_err(|e| anyhow!("{e}"))?;
        put("images.safetensors", &encoded)?;
        let note = format!("Made from genes alone. Changes: {}. Sampler: {}.", said["set_gene"], said["sampler"]);
        put("sheet.html", generated_sheet::page("generated cells", &note, &rows).as_bytes())?;
        put("generated.json", &serde_json::to_vec_pretty(said)?)?;
        Ok(dir.commit()?)
    }
}
