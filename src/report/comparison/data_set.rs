//! What runs were judged on: each data set once, under a name that tells it from the others.

use serde::Serialize;

use super::Judged;

/// One split of one shard folder.
#[derive(Debug, Clone, Serialize)]
pub struct DataSet {
    /// Its sections, and as much more as tells it from the others.
    pub name: String,
    /// Evaluated split.
    pub split: String,
    /// Identity of the shards.
    pub data_hash: String,
    /// Evaluated spots.
    pub n_spots: u64,
    /// Genes.
    pub n_genes: u64,
}

/// How much of a data set its name tells.
#[derive(Clone, Copy)]
enum Naming {
    Sections,
    SplitAndGenes,
    Shards,
}

/// The data sets in the order of their first run, and each run's.
pub fn of(judged: &[Judged]) -> (Vec<DataSet>, Vec<usize>) {
    let mut sets: Vec<(DataSet, &[String])> = Vec::new();
    let mut of_run = Vec::new();
    for one in judged {
        let facts = &one.evaluation.facts;
        let known = sets.iter().position(|(s, _)| s.data_hash == facts.data_hash && s.split == facts.split);
        of_run.push(known.unwrap_or(sets.len()));
        if known.is_none() {
            let set = DataSet {
                name: String::new(),
                split: facts.split.clone(),
                data_hash: facts.data_hash.clone(),
                n_spots: facts.n_spots,
                n_genes: facts.n_genes,
            };
            sets.push((set, &facts.sections));
        }
    }
    let names = |naming| sets.iter().map(|(set, sections)| name(set, sections, naming)).collect::<Vec<_>>();
    let shortest = [Naming::Sections, Naming::SplitAndGenes].into_iter().map(names).find(|names| all_differ(names));
    let names = shortest.unwrap_or_else(|| names(Naming::Shards));
    (sets.into_iter().zip(names).map(|((set, _), name)| DataSet { name, ..set }).collect(), of_run)
}

fn name(set: &DataSet, sections: &[String], naming: Naming) -> String {
    let sections = match sections {
        [a, b, c, more @ ..] if !more.is_empty() => format!("{a}, {b}, {c} and {} more", more.len()),
        few => few.join(", "),
    };
    match naming {
        Naming::Sections => sections,
        Naming::SplitAndGenes => format!("{sections} ({}, {} genes)", set.split, set.n_genes),
        Naming::Shards => format!("{sections} ({}, shards {:.12})", set.split, set.data_hash),
    }
}

/// Whether no two are the same.
pub fn all_differ(names: &[String]) -> bool {
    names.iter().enumerate().all(|(i, name)| !names[..i].contains(name))
}
