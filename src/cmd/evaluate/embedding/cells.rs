//! Cells: z_cell, or z of the three levels beside it, each side alone, the network before it learned, and principal components of what it reads.

use std::time::{Duration, Instant};

use rayon::prelude::*;
use syncytia_shards::processed::{Matrix, Split};
use syncytia_shards::reader::Shards;
use syncytia_shards::row_group::{Columns, RowGroup};
use syncytia_shards::tables::vectors::{Modality, Vectors};

use super::{COMPONENTS, Gathered, JUDGED, Labels, Retrieved, TRAIN, UsageError, evenly};
use crate::cmd::trained::Trained;
use crate::evaluate::embedding::{Classes, Method};
use crate::evaluate::retrieval::Ranks;
use crate::evaluate::{linear_map, pca};
use crate::model::spatia::SpatiaConfig;
use crate::model::{Model, ModelConfig};
use crate::task::embedding::{BATCH, CellEncoder};
use crate::tensor::cpu;
use crate::train::error::TrainError;

/// Pixels a side of the pictures that components are taken of, at most.
const PIXELS: u32 = 32;
/// Counts of a cell are brought to this sum before the logarithm, as scanpy's users do.
const TARGET_SUM: f64 = 1e4;

/// Stable name of the trained network's vectors of cells.
pub const TRAINED: &str = "spatia";
/// Of the same network where it reads genes alone.
pub const GENES_ONLY: &str = "genes_only";
/// Of the same network where it reads the picture alone.
pub const IMAGE_ONLY: &str = "image_only";

/// Between two lines of progress.
const EVERY: Duration = Duration::from_secs(2);

/// What is read of a set of cells, one row each.
#[derive(Default)]
struct Cells {
    /// z_cell by what is read and by which network, in the order of `Encoders`.
    vectors: Vec<Vec<f32>>,
    /// Contrast vectors of genes and picture, trained and untrained.
    contrast: [[Vec<f32>; 2]; 2],
    profiles: Vec<f32>,
    pixels: Vec<f32>,
    labels: Vec<Option<String>>,
    sections: Vec<u32>,
    xy: Vec<[f64; 2]>,
    at: Vec<(usize, usize)>,
    ids: Vec<u64>,
}

/// The networks and what each reads.
struct Encoders<'a> {
    of: Vec<(&'static str, &'static str, CellEncoder<'a>)>,
    images: bool,
    contrast: Option<usize>,
    side: u32,
    n_genes: usize,
}

/// Reads cells of the split, and of the training split for labels to carry over. `fused`: vectors of cells with their niches
/// and tissues, of a run that learned them.
pub fn gather(
    trained: &Trained,
    shards: &Shards,
    split: Split,
    column: Option<&str>,
    fused: Option<&Vectors>,
) -> anyhow::Result<Gathered> {
    let ModelConfig::Spatia(config) = &trained.run.config.model else {
        let name = trained.run.config.model.name();
        return Err(UsageError(format!("a run of cells whose model is {name} cannot be judged")).into());
    };
    let seed = trained.run.config.train.seed;
    let model = trained.model()?;
    let untrained = trained.run.config.model.build(trained.run.shape, seed, &cpu());
    let encoders = encoders(&model, &untrained, config, shards, seed)?;
    let judged = encoders.read(shards, split, &evenly(shards, split, JUDGED), column)?;
    // Training cells carry labels over and fit the ridge between components; judged ones must not.
    let teaches = split != Split::Train && (column.is_some() || encoders.images);
    let train = match teaches {
        true => encoders.read(shards, Split::Train, &evenly(shards, Split::Train, TRAIN), column)?,
        false => encoders.nothing(),
    };
    let mut notes = Vec::new();
    if column.is_none() {
        let have = &shards.manifest().labels;
        let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
        notes.push(format!(
            "No label column is known (in the shards: {have}; --label names one), so clusters are not judged: retrieval only."
        ));
    }
    if !encoders.images {
        notes.push("The shards have no pictures: genes alone are judged.".to_owned());
    }
    if column.is_none() && !encoders.images {
        return Err(
            TrainError::Data("the shards have neither labels nor pictures: nothing can be judged".into()).into()
        );
    }
    let h = config.h;
    let components = [encoders.components(&judged.profiles, &train.profiles, encoders.n_genes, h), {
        let d = (encoders.side * encoders.side) as usize * encoders.channels(shards);
        encoders.components(&judged.pixels, &train.pixels, d, h)
    }];
    let labels = column.map(|column| Labels {
        column: column.to_owned(),
        judged: Classes::of_labels(&judged.labels),
        train: Classes::among(&Classes::of_labels(&judged.labels).names, &train.labels),
    });
    let n_judged = judged.labels.len() as u64;
    let retrieval = encoders.retrieval(&judged, &components);
    let mut methods = Vec::new();
    if let Some(fused) = fused {
        let of = |cells: &Cells| by_id(fused, &cells.ids);
        let what = "z of the cell, its niche and its tissue".to_owned();
        methods.push(Method { name: "fused".to_owned(), what, judged: of(&judged)?, train: of(&train)? });
    }
    methods.extend(encoders.methods(judged.vectors, train.vectors, h, components));
    Ok(Gathered {
        methods,
        labels,
        sections: judged.sections,
        xy: judged.xy,
        n_left_out: shards.manifest().n_records(split) - n_judged,
        retrieval,
        crops: if encoders.images { judged.at } else { Vec::new() },
        notes,
    })
}

fn encoders<'a>(
    model: &'a Model,
    untrained: &'a Model,
    config: &'a SpatiaConfig,
    shards: &Shards,
    seed: u64,
) -> anyhow::Result<Encoders<'a>> {
    let images = shards.manifest().crops.is_some();
    let one =
        |model, modality| CellEncoder::new(model, config, shards.manifest(), seed, modality).map_err(TrainError::Data);
    let of = match images {
        true => vec![
            (TRAINED, "genes and picture, fused: z_cell", one(model, Modality::Both)?),
            (GENES_ONLY, "this network with the picture left out", one(model, Modality::Genes)?),
            (IMAGE_ONLY, "this network with the genes left out", one(model, Modality::Image)?),
            ("untrained", "z_cell before the first step", one(untrained, Modality::Both)?),
        ],
        false => vec![
            (TRAINED, "genes alone: z_cell", one(model, Modality::Genes)?),
            ("untrained", "z_cell before the first step", one(untrained, Modality::Genes)?),
        ],
    };
    Ok(Encoders {
        of,
        images,
        contrast: config.contrast_width.filter(|_| images),
        side: PIXELS.min(config.image.size as u32),
        n_genes: shards.manifest().panel.genes.len(),
    })
}

impl Encoders<'_> {
    fn nothing(&self) -> Cells {
        Cells { vectors: vec![Vec::new(); self.of.len()], ..Cells::default() }
    }

    fn channels(&self, shards: &Shards) -> usize {
        shards.manifest().crops.as_ref().map_or(0, |crops| crops.channels.len())
    }

    fn read(&self, shards: &Shards, split: Split, groups: &[usize], label: Option<&str>) -> anyhow::Result<Cells> {
        let columns = Columns { counts: true, names: label.is_some(), images: self.images, ..Columns::default() };
        let (mut cells, mut said) = (self.nothing(), Instant::now());
        for (nth, &at) in groups.iter().enumerate() {
            let group = shards.read_row_group(&shards.row_groups(split)[at], &columns)?;
            self.push(&mut cells, &group, at, label);
            if said.elapsed() > EVERY {
                eprintln!("{} cells of {}, row group {} of {}", cells.at.len(), split.as_str(), nth + 1, groups.len());
                said = Instant::now();
            }
        }
        eprintln!("read {} cells of {}", cells.at.len(), split.as_str());
        Ok(cells)
    }

    fn push(&self, cells: &mut Cells, group: &RowGroup, at: usize, label: Option<&str>) {
        let spans: Vec<std::ops::Range<usize>> =
            (0..group.n_own).step_by(BATCH).map(|first| first..group.n_own.min(first + BATCH)).collect();
        for ((_, _, encoder), vectors) in self.of.iter().zip(&mut cells.vectors) {
            let of_spans: Vec<Vec<f32>> =
                spans.par_iter().map(|span| encoder.encode(group, span.clone(), &cpu())).collect();
            vectors.extend(of_spans.concat());
        }
        if self.contrast.is_some() {
            for (which, name) in [TRAINED, "untrained"].into_iter().enumerate() {
                let encoder = &self.of.iter().find(|of| of.0 == name).expect("it is among them").2;
                let of_spans: Vec<Option<[Vec<f32>; 2]>> =
                    spans.par_iter().map(|span| encoder.contrast(group, span.clone(), &cpu())).collect();
                for [genes, image] in of_spans.into_iter().flatten() {
                    cells.contrast[which][0].extend(genes);
                    cells.contrast[which][1].extend(image);
                }
            }
        }
        let counts = group.counts.as_ref().expect("counts were asked for");
        let values = label.and_then(|label| group.labels.iter().find(|l| l.name == label));
        for row in 0..group.n_own {
            let (genes, counts) = counts.row(row);
            cells.profiles.extend(profile(genes, counts, self.n_genes));
            if let Some(picture) = group.image(row) {
                cells.pixels.extend(picture.resized(self.side).into_iter().map(|v| f32::from(v) / 255.0));
            }
            cells.labels.push(values.and_then(|l| l.values[row].clone()));
            cells.sections.push(group.section);
            cells.xy.push(group.xy[row]);
            cells.at.push((at, row));
            cells.ids.push(group.record_ids[row]);
        }
    }

    /// Principal components of judged and training cells together, `[n, k]` each; no labels are read.
    fn components(&self, judged: &[f32], train: &[f32], d: usize, h: usize) -> [Matrix<f32>; 2] {
        if judged.is_empty() {
            return [Matrix::default(), Matrix::default()];
        }
        let all = pca::scores(&Matrix { n_cols: d, values: [judged, train].concat() }, COMPONENTS.min(h));
        let (first, rest) = all.values.split_at(judged.len() / d * all.n_cols);
        [first, rest].map(|values| Matrix { n_cols: all.n_cols, values: values.to_vec() })
    }

    fn methods(
        &self,
        judged: Vec<Vec<f32>>,
        train: Vec<Vec<f32>>,
        h: usize,
        [genes, image]: [[Matrix<f32>; 2]; 2],
    ) -> Vec<Method> {
        let method = |name: &str, what: &str, [judged, train]: [Matrix<f32>; 2]| Method {
            name: name.to_owned(),
            what: what.to_owned(),
            judged,
            train,
        };
        let matrix = |values| Matrix { n_cols: h, values };
        let mut methods: Vec<Method> = self
            .of
            .iter()
            .zip(judged.into_iter().zip(train))
            .map(|((name, what, _), (judged, train))| method(name, what, [matrix(judged), matrix(train)]))
            .collect();
        if self.images {
            let both = pca::sides_by_side(&genes, &image);
            methods.push(method("pca", "PCA of ln(1 + counts per 10⁴)", genes));
            methods.push(method("pca_image", "PCA of the pixels", image));
            methods.push(method("pca_both", "the two side by side, each at variance 1", both));
        } else {
            methods.push(method("pca", "PCA of ln(1 + counts per 10⁴)", genes));
        }
        methods
    }

    fn retrieval(&self, judged: &Cells, components: &[[Matrix<f32>; 2]; 2]) -> Vec<Retrieved> {
        let Some(width) = self.contrast else { return Vec::new() };
        let of = |which: usize| -> [Ranks; 2] {
            let [genes, image] =
                [0, 1].map(|side| Matrix { n_cols: width, values: judged.contrast[which][side].clone() });
            [Ranks::by_cosine(&genes, &image), Ranks::by_cosine(&image, &genes)]
        };
        let [[genes, of_genes], [image, of_image]] = components;
        let found = |from: &Matrix<f32>, to: &Matrix<f32>, queries: &Matrix<f32>, targets: &Matrix<f32>| {
            let [told, truth] = linear_map::predicted(from, to, queries, targets);
            Ranks::by_cosine(&told, &truth)
        };
        let mut all = vec![
            Retrieved { name: TRAINED, what: "the contrast's two projections, cosine", ranks: of(0) },
            Retrieved { name: "untrained", what: "the same before the first step", ranks: of(1) },
        ];
        if of_genes.n_rows() > 0 {
            let ranks = [found(of_genes, of_image, genes, image), found(of_image, of_genes, image, genes)];
            all.push(Retrieved {
                name: "pca_ridge",
                what: "a ridge between the components, from training cells",
                ranks,
            });
        }
        all
    }
}

/// The vectors of these records.
fn by_id(vectors: &Vectors, ids: &[u64]) -> Result<Matrix<f32>, TrainError> {
    let of = |&id: &u64| {
        vectors.get(id).ok_or_else(|| TrainError::Data(format!("the fused vectors have none of {id}: make them again")))
    };
    let rows: Vec<&[f32]> = ids.iter().map(of).collect::<Result<_, _>>()?;
    Ok(Matrix { n_cols: vectors.values.n_cols, values: rows.concat() })
}

/// ln(1 + count per 10⁴) of all genes.
pub fn profile(genes: &[u32], counts: &[f32], n_genes: usize) -> Vec<f32> {
    let depth: f64 = counts.iter().map(|&c| f64::from(c)).sum();
    let mut profile = vec![0.0; n_genes];
    for (&gene, &count) in genes.iter().zip(counts) {
        profile[gene as usize] = libm::log1p(TARGET_SUM * f64::from(count) / depth) as f32;
    }
    profile
}
