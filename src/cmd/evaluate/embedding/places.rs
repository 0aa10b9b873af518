//! Niches and tissues: the place's vector, the mean of its members' vectors, one member's own, and principal components of
//! the summed counts. A place's label is the most frequent one of its cells.

use std::collections::BTreeMap;

use rayon::prelude::*;
use syncytia_shards::processed::{Matrix, Split};
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::niche::NicheTable;
use syncytia_shards::tables::vectors::VectorsOf;

use super::cells::profile;
use super::words::plural;
use super::{COMPONENTS, Gathered, JUDGED, Labels, TRAIN, UsageError, labels};
use crate::cmd::trained::Trained;
use crate::cmd::vectors::Below;
use crate::evaluate::embedding::{Classes, Method, majority};
use crate::evaluate::pca;
use crate::model::spatia::SpatiaConfig;
use crate::model::{Model, ModelConfig};
use crate::task::embedding::{self, BATCH};
use crate::task::places::{PlaceRows, lacking, most_members};
use crate::tensor::cpu;
use crate::train::error::TrainError;

/// What is made of a set of places, one row each.
struct Read {
    z: Vec<f32>,
    untrained: Vec<f32>,
    mean: Vec<f32>,
    own: Vec<f32>,
    profiles: Vec<f32>,
    labels: Vec<Option<String>>,
    sections: Vec<u32>,
    xy: Vec<[f64; 2]>,
    n_left_out: u64,
}

/// The networks and what they read.
struct Reader<'a> {
    shards: &'a Shards,
    of: VectorsOf,
    below: &'a Below,
    column: &'a str,
    models: [&'a Model; 2],
    config: &'a SpatiaConfig,
    seed: u64,
}

/// Reads the places of the split, and of the training split for labels to carry over.
pub fn gather(
    trained: &Trained,
    shards: &Shards,
    split: Split,
    of: VectorsOf,
    below: &Below,
    column: String,
) -> anyhow::Result<Gathered> {
    let ModelConfig::Spatia(config) = &trained.run.config.model else {
        let name = trained.run.config.model.name();
        return Err(UsageError(format!("a run of {} whose model is {name} cannot be judged", of.plural())).into());
    };
    let seed = trained.run.config.train.seed;
    let model = trained.model()?;
    let untrained = trained.run.config.model.build(trained.run.shape, seed, &cpu());
    let reader = Reader { shards, of, below, column: &column, models: [&model, &untrained], config, seed };
    let judged = reader.read(split, JUDGED)?;
    let train = if split == Split::Train { Read::none() } else { reader.read(Split::Train, TRAIN)? };
    let n_genes = shards.manifest().panel.genes.len();
    let matrix = |values: &[f32], n_cols: usize| Matrix { n_cols, values: values.to_vec() };
    let all = [&judged.profiles[..], &train.profiles].concat();
    let scores = pca::scores(&matrix(&all, n_genes), COMPONENTS.min(config.h));
    let (first, rest) = scores.values.split_at(judged.sections.len() * scores.n_cols);
    let members = plural(of.members().expect("places have members"));
    let method = |name: &str, what: String, judged: &[f32], train: &[f32], width: usize| Method {
        name: name.to_owned(),
        what,
        judged: matrix(judged, width),
        train: matrix(train, width),
    };
    let h = config.h;
    let (one, several) = (of.level(), members);
    let methods = vec![
        method("spatia", format!("z_{one}"), &judged.z, &train.z, h),
        method("member_mean", format!("mean of the vectors of its {several}"), &judged.mean, &train.mean, h),
        method("member", format!("one vector: that of the first of its {several}"), &judged.own, &train.own, h),
        method("untrained", format!("z_{one} before the first step"), &judged.untrained, &train.untrained, h),
        method("pca", "PCA of ln(1 + counts per 10⁴), summed over its cells".into(), first, rest, scores.n_cols),
    ];
    let of_judged = Classes::of_labels(&judged.labels);
    let labels = Labels { train: Classes::among(&of_judged.names, &train.labels), judged: of_judged, column };
    Ok(Gathered {
        methods,
        labels: Some(labels),
        sections: judged.sections,
        xy: judged.xy,
        n_left_out: judged.n_left_out,
        retrieval: Vec::new(),
        crops: Vec::new(),
        notes: Vec::new(),
    })
}

impl Read {
    fn none() -> Read {
        Read {
            z: Vec::new(),
            untrained: Vec::new(),
            mean: Vec::new(),
            own: Vec::new(),
            profiles: Vec::new(),
            labels: Vec::new(),
            sections: Vec::new(),
            xy: Vec::new(),
            n_left_out: 0,
        }
    }
}

impl Reader<'_> {
    /// At most `most` places of a split, evenly spaced by id.
    fn read(&self, split: Split, most: usize) -> anyhow::Result<Read> {
        let places = self.shards.places(self.of, split)?;
        if let Some((place, member)) = lacking(&places, &self.below.members) {
            let what = format!("the vectors given have none of {member}, a member of {place}: make them again");
            return Err(TrainError::Data(what).into());
        }
        let n = places.n().min(most);
        let rows: Vec<usize> = (0..n).map(|i| i * places.n() / n).collect();
        let read_most = most_members(self.config, self.of);
        let encode = |model: &Model| -> Vec<f32> {
            let batch = |rows: &[usize]| {
                let (vectors, regions) = (&self.below.members, self.below.regions.as_ref());
                let from = PlaceRows { places: &places, vectors, regions, rows: rows.to_vec() };
                embedding::places(model, &from, read_most, self.seed, &cpu())
            };
            rows.par_chunks(BATCH).map(batch).collect::<Vec<_>>().concat()
        };
        let width = self.config.h;
        let (mut mean, mut own) = (Vec::new(), Vec::new());
        for &row in &rows {
            let vectors: Vec<&[f32]> =
                places.members(row).0.iter().filter_map(|&id| self.below.members.get(id)).collect();
            let sum = |k: usize| vectors.iter().map(|v| f64::from(v[k])).sum::<f64>();
            mean.extend((0..width).map(|k| (sum(k) / vectors.len() as f64) as f32));
            own.extend_from_slice(vectors[0]);
        }
        let niches = self.shards.niches(split)?;
        let niche_at: BTreeMap<u64, usize> = niches.niche_ids.iter().enumerate().map(|(i, &id)| (id, i)).collect();
        let of_records = labels::of_records(self.shards, split, self.column)?;
        let where_at = self.where_they_are(split, &niches)?;
        let n_genes = self.shards.manifest().panel.genes.len();
        let (mut profiles, mut of_places, mut sections, mut xy) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for &row in &rows {
            let its_niches: Vec<usize> = match self.of {
                VectorsOf::Tissue => places.members(row).0.iter().map(|id| niche_at[id]).collect(),
                _ => vec![niche_at[&places.ids[row]]],
            };
            let mut sums = BTreeMap::<u32, f64>::new();
            for &niche in &its_niches {
                let (genes, counts) = niches.counts.row(niche);
                genes.iter().zip(counts).for_each(|(&g, &c)| *sums.entry(g).or_default() += f64::from(c));
            }
            let (genes, counts): (Vec<u32>, Vec<f32>) = sums.into_iter().map(|(g, c)| (g, c as f32)).unzip();
            profiles.extend(profile(&genes, &counts, n_genes));
            let cells = its_niches.iter().flat_map(|&niche| niches.members(niche).0);
            of_places.push(majority(cells.map(|id| of_records.get(id).and_then(|l| l.as_deref()))));
            let (section, centre) = where_at[&places.ids[row]];
            sections.push(section);
            xy.push(centre);
        }
        eprintln!("read {n} {} of {}", self.of.plural(), split.as_str());
        Ok(Read {
            z: encode(self.models[0]),
            untrained: encode(self.models[1]),
            mean,
            own,
            profiles,
            labels: of_places,
            sections,
            xy,
            n_left_out: (places.n() - n) as u64,
        })
    }

    /// Section and centre of every place of a split.
    fn where_they_are(&self, split: Split, niches: &NicheTable) -> anyhow::Result<BTreeMap<u64, (u32, [f64; 2])>> {
        let pairs = |ids: &[u64], sections: &[u32], centres: &[[f64; 2]]| {
            let at = sections.iter().copied().zip(centres.iter().copied());
            ids.iter().copied().zip(at).collect::<BTreeMap<_, _>>()
        };
        Ok(match self.of {
            VectorsOf::Tissue => {
                let tissues = self.shards.tissues(split)?;
                pairs(&tissues.tissue_ids, &tissues.sections, &tissues.centre_um)
            }
            _ => pairs(&niches.niche_ids, &niches.sections, &niches.centre_um),
        })
    }
}
