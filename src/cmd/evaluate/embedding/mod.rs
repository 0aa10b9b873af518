//! Vectors of cells, niches and tissues beside what is simple: clusters against labels, labels carried over, and for cells
//! whether genes find their picture.

mod cells;
pub(super) mod labels;
mod page;
mod pictures;
mod places;
mod tables;
mod words;

use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::vectors::{Vectors, VectorsOf};

use super::{Args, Evaluated, UsageError, metrics_beside, report_folder, shards_of_run, usual_split};
use crate::cmd::trained::Trained;
use crate::evaluate::embedding::{self, Classes, Clustered, Method, Resampled};
use crate::evaluate::retrieval::Ranks;
use crate::train::error::TrainError;

/// Judged records or places, at most: whole row groups, evenly spaced.
const JUDGED: usize = 10_000;
/// Training records or places that carry labels over, at most.
const TRAIN: usize = 10_000;
/// Principal components, at most; as many as a vector of the model has values where that is less.
const COMPONENTS: usize = 50;

/// Evaluates a checkpoint of one of SPATIA's three stages and writes the report.
pub fn evaluate(args: &Args, trained: &Trained) -> anyhow::Result<Evaluated> {
    let dir = args.shards.clone().map_or_else(|| shards_of_run(&args.path), Ok)?;
    let shards = Shards::open(&dir)?;
    trained.check_shards(&shards)?;
    if shards.manifest().data_hash() != trained.run.data_hash {
        eprintln!("warning: these are not the shards the model was trained on; they have its genes");
    }
    let split = args.split.as_deref().map(super::split_named).transpose()?.unwrap_or_else(|| usual_split(&shards));
    if shards.row_groups(split).is_empty() {
        return Err(UsageError(format!("the shards have no {} split", split.as_str())).into());
    }
    let of = trained.run.config.task.table();
    let column = labels::column(&shards, of, args.label.as_deref())?;
    let gathered = match of {
        VectorsOf::Obs => {
            let fused = fused(args, trained, &shards)?;
            if !args.vectors.is_empty() && fused.is_none() {
                let what = "--vectors is for runs of niches and tissues: cells are read as they are";
                return Err(UsageError(what.to_owned()).into());
            }
            cells::gather(trained, &shards, split, column.as_deref(), fused.as_ref())?
        }
        _ => {
            let below =
                crate::cmd::vectors::vectors_below(&args.vectors, of, trained, &shards)?.expect("places have members");
            let column = column.ok_or_else(|| labels::none(&shards, of))?;
            places::gather(trained, &shards, split, of, &below, column)?
        }
    };
    let judged = judge(gathered)?;
    let findings = page::findings(trained, &shards, split, of, &judged, &metrics_beside(&args.path))?;
    Evaluated::of(&findings, &report_folder(&args.path, &trained.checkpoint.dir, split, &shards))
}

/// Of a fusion: the vectors that `embed --level fused` made with this checkpoint.
fn fused(args: &Args, trained: &Trained, shards: &Shards) -> anyhow::Result<Option<Vectors>> {
    if !trained.run.config.task.fuses() {
        return Ok(None);
    }
    let again = "make them with `syncytia embed RUN --level fused --out V` and add --vectors V";
    let [dir] = &args.vectors[..] else {
        return Err(TrainError::Data(format!("a fusion is judged by its fused vectors: {again}")).into());
    };
    let vectors = Vectors::read(dir, VectorsOf::Obs, &shards.manifest().data_hash())?;
    let ours = crate::cmd::embed_fused::producer(trained);
    if vectors.facts.producer != ours {
        let (dir, theirs) = (dir.display(), &vectors.facts.producer);
        return Err(TrainError::Data(format!("{dir} was made by {theirs}, not by {ours}: {again}")).into());
    }
    Ok(Some(vectors))
}

/// What is judged, and by what.
struct Gathered {
    /// The model's first.
    methods: Vec<Method>,
    /// Labels, where there are some.
    labels: Option<Labels>,
    /// Section of each judged record or place.
    sections: Vec<u32>,
    /// Where it lies.
    xy: Vec<[f64; 2]>,
    /// Records or places of the split that were left out because there are more than [`JUDGED`].
    n_left_out: u64,
    /// Of cells: ranks of a gene vector's own picture and of a picture's own genes, by method.
    retrieval: Vec<Retrieved>,
    /// Of cells with pictures: where each is read again (row group of the split, row).
    crops: Vec<(usize, usize)>,
    /// What a reader must know.
    notes: Vec<String>,
}

/// A label column.
struct Labels {
    column: String,
    judged: Classes,
    train: Classes,
}

/// How a method finds pictures by genes, and genes by pictures.
struct Retrieved {
    name: &'static str,
    what: &'static str,
    ranks: [Ranks; 2],
}

/// What was gathered, judged.
struct Judged {
    gathered: Gathered,
    clusters: Option<Clusters>,
}

/// Clusters and labels carried over.
struct Clusters {
    /// Number of classes and of clusters.
    k: usize,
    /// Judged records that have a class.
    assigned: Vec<usize>,
    /// Their classes, numbers into `names`.
    classes: Vec<u32>,
    /// Names of the classes that occur.
    names: Vec<String>,
    /// By method, in order; the last is the floor.
    clustered: Vec<Clustered>,
    /// In the same order: their ARI on resamples.
    resampled: Resampled,
    /// Mean silhouette of the classes, and of how many, by method.
    silhouettes: Vec<(f64, usize)>,
    /// Macro F1 and accuracy by method; none where training records have no labels.
    carried: Option<Vec<[f64; 2]>>,
}

fn judge(gathered: Gathered) -> anyhow::Result<Judged> {
    let Some(labels) = &gathered.labels else { return Ok(Judged { gathered, clusters: None }) };
    // Only classes that occur among the judged are looked for.
    let (assigned, numbers) = labels.judged.assigned();
    let mut occurring = numbers.clone();
    occurring.sort_unstable();
    occurring.dedup();
    let names: Vec<String> = occurring.iter().map(|&at| labels.judged.names[at as usize].clone()).collect();
    let k = names.len();
    let column = &labels.column;
    if k < 2 || assigned.len() < 2 * k {
        let n = assigned.len();
        let what = match k {
            0 | 1 => format!("the {n} judged ones with a label all have the same one"),
            _ => format!("{n} labelled ones are too few for {k} clusters"),
        };
        return Err(TrainError::Data(format!(
            "label column \"{column}\" cannot judge a clustering: {what}; name another by --label, or another --split"
        ))
        .into());
    }
    let classes: Vec<u32> = numbers.iter().map(|n| occurring.binary_search(n).expect("it occurs") as u32).collect();
    eprintln!("{} clusterings of {} in {k} clusters", gathered.methods.len(), assigned.len());
    let of_assigned = |method: &Method| embedding::rows(&method.judged, &assigned);
    let mut clustered: Vec<Clustered> =
        gathered.methods.iter().map(|m| embedding::clustered(&of_assigned(m), &classes, k)).collect();
    clustered.push(embedding::at_random(&classes, k));
    let resampled = Resampled::of(&clustered, &classes, k);
    let silhouettes = gathered.methods.iter().map(|m| embedding::mean_silhouette(&of_assigned(m), &classes)).collect();
    let (train, of_train) = labels.train.assigned();
    let of_names: Vec<u32> = classes.iter().map(|&class| occurring[class as usize]).collect();
    let carried = (!train.is_empty()).then(|| {
        let one = |m: &Method| {
            embedding::carried_over(&embedding::rows(&m.train, &train), &of_train, &of_assigned(m), &of_names)
        };
        gathered.methods.iter().map(one).collect()
    });
    let clusters = Clusters { k, assigned, classes, names, clustered, resampled, silhouettes, carried };
    Ok(Judged { gathered, clusters: Some(clusters) })
}

/// Whole row groups of a split, evenly spaced, that hold at most `most` records but at least one group.
fn evenly(shards: &Shards, split: Split, most: usize) -> Vec<usize> {
    let sizes: Vec<usize> = shards.row_groups(split).iter().map(|g| g.n_own as usize).collect();
    let total: usize = sizes.iter().sum();
    let wanted = if total <= most { sizes.len() } else { (sizes.len() * most / total).max(1) };
    (0..wanted).map(|i| i * sizes.len() / wanted).collect()
}
