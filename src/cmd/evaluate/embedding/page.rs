//! What was judged as findings: words, provenance, and the order of tables and pictures.

use std::collections::BTreeMap;

use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::vectors::VectorsOf;

use serde_json::Value;

use super::cells::{GENES_ONLY, IMAGE_ONLY, TRAINED};
use super::words::{library, plural};
use super::{Clusters, Gathered, Judged, pictures, tables};
use crate::cmd::trained::Trained;
use crate::config;
use crate::evaluate::embedding::{SEEDS, spread};
use crate::evaluate::kmeans::RESTARTS;
use crate::model::ModelConfig;
use crate::report::findings::Findings;
use crate::task::TaskConfig;
use crate::train::state::RunState;

/// Per cluster, fewer judged ones than this are warned of.
const FEW: usize = 10;

/// The whole report.
pub fn findings(
    trained: &Trained,
    shards: &Shards,
    split: Split,
    of: VectorsOf,
    judged: &Judged,
    metrics: &[Value],
) -> anyhow::Result<Findings> {
    let (run, gathered) = (&trained.run, &judged.gathered);
    let model = gathered.methods[0].name.clone();
    let mut found = Vec::new();
    let mut galleries = Vec::new();
    let mut notes = gathered.notes.clone();
    if let Some(clusters) = &judged.clusters {
        let column = &gathered.labels.as_ref().expect("clusters are judged by labels").column;
        notes.extend(left_out(gathered, clusters, column, of));
        found.push(tables::of_clusters(gathered, clusters, column, of));
        found.extend(tables::of_carried(gathered, clusters, column));
        galleries.push(pictures::maps(shards, gathered, clusters, column));
        galleries.extend(pictures::sheet(shards, split, gathered, clusters)?);
    }
    if !gathered.retrieval.is_empty() {
        found.push(tables::of_retrieval(gathered));
    }
    galleries.extend(pictures::learning(metrics));
    let mut findings = Findings {
        task: run.config.task.kind().to_owned(),
        split: split.as_str().to_owned(),
        protocol: "kmeans".to_owned(),
        title: format!("{model}: vectors of {}", plural(of)),
        lead: lead(trained, shards, split, of, judged),
        verdict: String::new(),
        notes,
        model,
        tables: found,
        galleries,
        provenance: provenance(trained, shards, split, of, gathered),
    };
    findings.verdict = verdict(&findings, gathered, judged.clusters.as_ref());
    Ok(findings)
}

fn lead(trained: &Trained, shards: &Shards, split: Split, of: VectorsOf, judged: &Judged) -> String {
    let mut sections: Vec<&str> = judged.gathered.sections.iter().map(|&s| library(shards, s)).collect();
    sections.dedup();
    let (steps, n, what) = (trained.run.global_step, judged.gathered.sections.len(), plural(of));
    let of_split = format!("(split {}; {})", split.as_str(), shards.manifest().split_rule);
    let how = match &judged.clusters {
        Some(clusters) => format!(
            " The vectors are clustered by k-means at {} clusters, the number of labels, {SEEDS} seeds of {RESTARTS} restarts each, and \
             compared with the labels. {}",
            clusters.k,
            of_labels(&trained.run, &judged.gathered.labels.as_ref().expect("clusters are judged by labels").column)
        ),
        None => String::new(),
    };
    format!("Trained for {steps} steps; {n} {what} of section {} {of_split} are judged.{how}", sections.join(", "))
}

/// What training saw of the labels that judge.
fn of_labels(run: &RunState, column: &str) -> String {
    let ModelConfig::Spatia(model) = &run.config.model else { unreachable!("vectors are made by spatia") };
    let has_head = model.gene.families.iter().any(|family| family.name == column && !family.classes.is_empty());
    match (&run.config.task, &run.parent, has_head) {
        (TaskConfig::Cells(task), _, true) if task.classes > 0.0 => format!(
            "ATTENTION: the training cells' labels of {column} were learned from (task.classes = {}): this is no judgement of \
             vectors learned without labels.",
            task.classes
        ),
        (_, Some(parent), true) => format!(
            "ATTENTION: the model has a class head of {column}, so the checkpoint that this run began with ({}) learned from \
             the training cells' labels, unless its task.classes was 0: take this for no judgement of vectors learned without \
             labels.",
            short(&parent.digest)
        ),
        (_, Some(parent), false) => format!(
            "This run saw nothing of these labels in training, and the model has no class head of {column}; it began with \
             checkpoint {}, whose own config tells of that one.",
            short(&parent.digest)
        ),
        (task, None, _) => {
            let heads = matches!(task, TaskConfig::Cells(task) if task.classes > 0.0);
            let with_classes = model.gene.families.iter().filter(|family| heads && !family.classes.is_empty());
            let others: Vec<&str> = with_classes.map(|family| family.name.as_str()).collect();
            let others =
                if others.is_empty() { String::new() } else { format!("; those of {} were", others.join(", ")) };
            format!("Nothing of these labels was seen in training{others}.")
        }
    }
}

/// The beginning of a digest, enough to find it by.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

fn left_out(gathered: &Gathered, clusters: &Clusters, column: &str, of: VectorsOf) -> Vec<String> {
    let (n, what) = (gathered.sections.len(), plural(of));
    let unassigned = n - clusters.assigned.len();
    let mut notes = Vec::new();
    if unassigned > 0 {
        notes.push(format!("{unassigned} of {n} {what} have no label in \"{column}\" and were left out."));
    }
    if clusters.assigned.len() < FEW * clusters.k {
        let n = clusters.assigned.len();
        notes.push(format!("Only {n} {what} for {} clusters: figures of so few say little.", clusters.k));
    }
    if gathered.n_left_out > 0 {
        notes.push(format!(
            "{} more {what} of the split were not read: {n}, evenly spaced, stand for all.",
            gathered.n_left_out
        ));
    }
    notes
}

/// Sentences: against each side alone, against principal components, and whether genes find pictures.
fn verdict(findings: &Findings, gathered: &Gathered, clusters: Option<&Clusters>) -> String {
    let mut sentences = Vec::new();
    if let Some(clusters) = clusters {
        let of = |at: usize| spread(clusters.clustered[at].seeds.iter().map(|seed| seed.ari));
        let (ours, sd) = of(0);
        // Closer than two standard errors, of the records drawn and of the seeds, is no difference.
        let [mut above, mut level, mut below] = [const { Vec::new() }; 3];
        for (at, method) in gathered.methods.iter().enumerate().skip(1) {
            let (theirs, their_sd) = of(at);
            let of_records = clusters.resampled.error_of_difference(0, at);
            let error = (of_records.powi(2) + sd.powi(2) + their_sd.powi(2)).sqrt();
            let group = match ours - theirs {
                more if more > 2.0 * error => &mut above,
                less if -less > 2.0 * error => &mut below,
                _ => &mut level,
            };
            group.push(format!("{} ({theirs:.3})", method.name));
        }
        let groups = [("above", above), ("level with", level), ("below", below)];
        let said = groups.iter().filter(|(_, names)| !names.is_empty());
        let said: Vec<String> = said.map(|(word, names)| format!("{word} {}", names.join(", "))).collect();
        let column = &gathered.labels.as_ref().expect("clusters are judged by labels").column;
        sentences.push(format!(
            "Clusters of the model's vectors agree with {column} at an ARI of {ours:.3} ± {:.3} (standard error over the judged; \
             {sd:.3} over seeds): {}. Level: within two standard errors of the difference.",
            clusters.resampled.error(0),
            said.join("; ")
        ));
        if gathered.methods.iter().any(|method| method.name == IMAGE_ONLY) {
            sentences.push(format!(
                "{GENES_ONLY} and {IMAGE_ONLY} are this network with one side left out, not networks trained on one side; pca \
                 and pca_image read one side without a network."
            ));
        }
    }
    // Also of a fusion: its fused vectors find nothing, its network's contrast does.
    let of = |method: &str| findings.value(method, "recall10_gene_to_image").map(|share| 100.0 * share);
    if let (Some(ours), Some(chance)) = (of(TRAINED), of(tables::CHANCE)) {
        let ridge =
            of("pca_ridge").map_or_else(String::new, |ridge| format!(", a ridge between components {ridge:.1} %"));
        sentences.push(format!(
            "A cell's picture is among the first ten found by its genes for {ours:.1} % of {} cells (chance {chance:.1} %{ridge}).",
            gathered.sections.len()
        ));
    }
    sentences.join(" ")
}

fn provenance(
    trained: &Trained,
    shards: &Shards,
    split: Split,
    of: VectorsOf,
    gathered: &Gathered,
) -> BTreeMap<String, String> {
    let (run, manifest) = (&trained.run, shards.manifest());
    let checkpoint = trained.checkpoint.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut facts = BTreeMap::from([
        ("checkpoint".to_owned(), checkpoint),
        ("checkpoint_digest".to_owned(), trained.checkpoint.manifest.digest()),
        ("global_step".to_owned(), run.global_step.to_string()),
        ("data_hash".to_owned(), manifest.data_hash()),
        ("split_rule".to_owned(), manifest.split_rule.clone()),
        ("n_judged".to_owned(), gathered.sections.len().to_string()),
        ("n_left_out".to_owned(), gathered.n_left_out.to_string()),
        ("n_train_records".to_owned(), manifest.n_records(Split::Train).to_string()),
        ("level".to_owned(), of.level().to_owned()),
        ("split".to_owned(), split.as_str().to_owned()),
        ("genes".to_owned(), manifest.panel.genes.len().to_string()),
        ("version".to_owned(), run.version.clone()),
        ("sums".to_owned(), run.config.train.reduction.precision().to_owned()),
        ("config".to_owned(), config::to_toml(&run.config)),
    ]);
    if let Some(labels) = &gathered.labels {
        facts.insert("label".to_owned(), labels.column.clone());
    }
    if !run.vectors.is_empty() {
        let producers: Vec<&str> = run.vectors.iter().map(|vectors| vectors.producer.as_str()).collect();
        facts.insert("vectors".to_owned(), producers.join(", "));
    }
    if let Some(best) = run.best {
        facts.insert("best_validation".to_owned(), format!("{} at step {}", best.value, best.global_step));
    }
    facts
}
