//! The tables: clusters against labels, labels carried over, genes that find their picture.

use syncytia_shards::tables::vectors::VectorsOf;

use super::words::plural;
use super::{Clusters, Gathered};
use crate::evaluate::classification::NEIGHBOURS;
use crate::evaluate::clustering::Agreement;
use crate::evaluate::embedding::{Clustered, Method, RESAMPLES, SEEDS, spread};
use crate::evaluate::metrics::Figure;
use crate::evaluate::retrieval::Ranks;
use crate::report::findings::{Better, Column, Row, Score, Table};

/// Ranks of the recall columns.
const RANKS: [usize; 3] = [1, 5, 10];
/// Name of the floor of the clusterings.
const RANDOM: &str = "random";
/// Name of the floor of the retrieval.
pub const CHANCE: &str = "chance";

fn column(metric: &str, title: &str, decimals: usize) -> Column {
    Column { metric: metric.to_owned(), title: title.to_owned(), better: Better::Higher, decimals }
}

/// Clusters and classes.
pub fn of_clusters(gathered: &Gathered, clusters: &Clusters, column_name: &str, of: VectorsOf) -> Table {
    let n_used = clusters.assigned.len() as u64;
    let n_skipped = gathered.sections.len() as u64 - n_used + gathered.n_left_out;
    let floor = (RANDOM, "clusters drawn without looking");
    let names = gathered.methods.iter().map(|m| (m.name.as_str(), m.what.as_str())).chain([floor]);
    let mut silhouettes = clusters.silhouettes.iter();
    let row = |(at, ((name, what), clustered)): (usize, ((&str, &str), &Clustered))| {
        let silhouette = silhouettes.next().map(|&(value, n)| {
            let figure = Figure { value, n_used: n as u64, n_skipped: n_used - n as u64 + n_skipped };
            Score { figure, sd: None, se: None }
        });
        let score = |of: fn(&Agreement) -> f64| {
            let (value, sd) = spread(clustered.seeds.iter().map(of));
            Some(Score { figure: Figure { value, n_used, n_skipped }, sd: Some(sd), se: None })
        };
        let ari = score(|a| a.ari).map(|score| Score { se: Some(clusters.resampled.error(at)), ..score });
        Row {
            method: name.to_owned(),
            what: what.to_owned(),
            scores: vec![ari, score(|a| a.nmi), score(|a| a.ami), score(|a| a.homogeneity), silhouette],
        }
    };
    let whose = match of {
        VectorsOf::Obs => String::new(),
        _ => format!(" A label is the most frequent one among the cells of the {}.", of.level()),
    };
    Table {
        title: format!("Clusters against {column_name}"),
        note: format!(
            "{} clusters of {n_used} {}; means over {SEEDS} seeds, best in bold. ± of ARI: standard error over the {}, taken as independent ({RESAMPLES} paired resamples of the first seed's clusters); ± of the others: standard deviation over the seeds, which report.json has of ARI too. HOM: homogeneity; silhouette: of the labels themselves, no clustering asked. Labels: {}.{whose}",
            clusters.k,
            plural(of),
            plural(of),
            clusters.names.join(", ")
        ),
        columns: vec![
            column("ari", "ARI", 3),
            column("nmi", "NMI", 3),
            column("ami", "AMI", 3),
            column("homogeneity", "HOM", 3),
            column("silhouette", "silhouette", 3),
        ],
        rows: names.zip(&clusters.clustered).enumerate().map(row).collect(),
    }
}

/// Labels carried over; none where the training records have none.
pub fn of_carried(gathered: &Gathered, clusters: &Clusters, column_name: &str) -> Option<Table> {
    let n_used = clusters.assigned.len() as u64;
    let n_skipped = gathered.sections.len() as u64 - n_used + gathered.n_left_out;
    let row = |(method, scores): (&Method, &[f64; 2])| Row {
        method: method.name.clone(),
        what: method.what.clone(),
        scores: scores
            .iter()
            .map(|&value| Some(Score { figure: Figure { value, n_used, n_skipped }, sd: None, se: None }))
            .collect(),
    };
    let known = gathered.labels.as_ref().map_or(0, |labels| labels.train.assigned().0.len());
    Some(Table {
        title: format!("{column_name} carried over from training records"),
        note: format!("By a vote of the {} nearest of {known} labelled ones of the training split.", NEIGHBOURS),
        columns: vec![column("f1_macro", "macro F1", 3), column("accuracy", "accuracy", 3)],
        rows: gathered.methods.iter().zip(clusters.carried.as_ref()?).map(row).collect(),
    })
}

/// Stable names of the directions, and their titles.
const DIRECTIONS: [(&str, &str); 2] = [("gene_to_image", "g→i"), ("image_to_gene", "i→g")];

/// A cell's picture by its genes, and back.
pub fn of_retrieval(gathered: &Gathered) -> Table {
    let n = gathered.sections.len();
    let mut columns = Vec::new();
    for (name, title) in DIRECTIONS {
        columns.extend(RANKS.map(|k| column(&format!("recall{k}_{name}"), &format!("{title} R@{k}"), 3)));
        columns.push(column(&format!("mrr_{name}"), &format!("{title} MRR"), 3));
    }
    let score = |value: f64| {
        Some(Score { figure: Figure { value, n_used: n as u64, n_skipped: gathered.n_left_out }, sd: None, se: None })
    };
    let mut rows: Vec<Row> = gathered
        .retrieval
        .iter()
        .map(|found| {
            let of = |ranks: &Ranks| {
                RANKS.map(|k| score(ranks.recall_at(k))).into_iter().chain([score(ranks.mrr())]).collect::<Vec<_>>()
            };
            Row {
                method: found.name.to_owned(),
                what: found.what.to_owned(),
                scores: found.ranks.iter().flat_map(of).collect(),
            }
        })
        .collect();
    let harmonic: f64 = (1..=n).map(|place| 1.0 / place as f64).sum();
    let floor: Vec<Option<Score>> =
        RANKS.iter().map(|&k| score(k.min(n) as f64 / n as f64)).chain([score(harmonic / n as f64)]).collect();
    rows.push(Row {
        method: CHANCE.to_owned(),
        what: "a random order".to_owned(),
        scores: [floor.clone(), floor].concat(),
    });
    Table {
        title: "A cell's picture by its genes, and back".to_owned(),
        note: format!(
            "Among {n} cells, each the only right answer; equal candidates count against it. g→i: from genes to the image, i→g: back; R@k: share found among the first k, MRR: mean of 1 / place."
        ),
        columns,
        rows,
    }
}
