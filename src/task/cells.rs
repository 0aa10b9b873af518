//! Cells: counts made fewer are predicted as they were, hidden patches are painted, and a cell's genes and picture are told
//! apart from other cells' (`spatia.md` §4). SPATIA's first stage.

use serde::{Deserialize, Serialize};
use syncytia_shards::draw::{DrawKey, Purpose};
use syncytia_shards::loader::Slot;
use syncytia_shards::manifest::Manifest;
use syncytia_shards::row_group::Columns;

use super::losses::cosine::dissimilarity;
use super::losses::info_nce::{OverStep, along, info_nce, over_step};
use super::losses::negative_binomial::zinb;
use super::losses::reconstruction::painted;
use super::losses::thinning::thinned;
use super::{Across, AcrossLane, Begun, DrawsAt, Terms, positive_or_zero};
use crate::model::layers::Training;
use crate::model::spatia::config::ImageConfig;
use crate::model::spatia::gene_encoder::GeneInput;
use crate::model::spatia::gene_list::gene_list;
use crate::model::spatia::heads::Expression;
use crate::model::spatia::image_encoder::ImageInput;
use crate::model::spatia::patches::Kept;
use crate::model::spatia::pixels;
use crate::model::spatia::{CellInput, CellOutput, Spatia, SpatiaConfig};
use crate::tensor::{Bool, Device, Tensor, TensorData, cpu};

/// `[task]` with `kind = "cells"`: the weights λ of its terms, and how counts are thinned.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CellsConfig {
    /// Counts from gene tokens. Default 1.
    pub denoise: f64,
    /// Counts from z_cell. Default 1.
    pub mvc: f64,
    /// |cosine| between a cell's extra tokens. Default .2.
    pub dissimilarity: f64,
    /// Hidden patches. Default 1.
    pub reconstruction: f64,
    /// Genes against picture, before fusion. Default .5.
    pub contrast: f64,
    /// Among which cells. Default `lane`.
    pub contrast_scope: ContrastScope,
    /// d: how much is thinned away. Default .6.
    pub thinning: f64,
    /// Genes without a count that are read, for each with one. Default 1.
    pub zeros_per_gene: f64,
}

/// Among which cells a cell's partner is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContrastScope {
    /// Those of its micro-batch.
    #[default]
    Lane,
    /// All of the step: one forward more.
    Step,
}

impl Default for CellsConfig {
    fn default() -> Self {
        Self {
            denoise: 1.0,
            mvc: 1.0,
            dissimilarity: 0.2,
            reconstruction: 1.0,
            contrast: 0.5,
            contrast_scope: ContrastScope::Lane,
            thinning: 0.6,
            zeros_per_gene: 1.0,
        }
    }
}

impl CellsConfig {
    fn lambdas(&self) -> [f64; 5] {
        [self.denoise, self.mvc, self.dissimilarity, self.reconstruction, self.contrast]
    }

    /// What is wrong with it, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let named = TERMS.iter().zip(self.lambdas()).chain([(&"zeros_per_gene", self.zeros_per_gene)]);
        let mut problems: Vec<String> = named.filter_map(|(name, value)| positive_or_zero(name, value)).collect();
        if self.lambdas().iter().all(|&l| l == 0.0) {
            problems.push("task: every weight is 0, so nothing is learned".to_owned());
        }
        if !(0.0..=1.0).contains(&self.thinning) {
            problems.push(format!("task.thinning = {}: must be in [0, 1]", self.thinning));
        }
        problems
    }
}

/// Names of the terms.
const TERMS: [&str; 5] = ["denoise", "mvc", "dissimilarity", "reconstruction", "contrast"];

/// The task with what it knows of model and data.
#[derive(Debug, Clone)]
pub struct Cells {
    config: CellsConfig,
    genes: usize,
    context: usize,
    image: ImageConfig,
    seed: u64,
}

/// A micro-batch on the host.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Record ids in slot order.
    pub ids: Vec<u64>,
    /// Genes of the longest list.
    pub k: usize,
    /// `[b, k]`: rows of the gene table; its last where padded.
    pub genes: Vec<i64>,
    /// `[b, k]`: count / Σ counts, of the thinned counts.
    pub values: Vec<f32>,
    /// `[b]`: Σ thinned counts of the cell.
    pub depth: Vec<f32>,
    /// `[b, k]`: counts as they were, 0 where padded.
    pub counts: Vec<f32>,
    /// `[b]`: Σ of them.
    pub listed: Vec<f32>,
    /// `[b, k]`: whether padded.
    pub padding: Vec<bool>,
    /// `[b, channels, size, size]`.
    pub pixels: Vec<f32>,
    /// The patches that are seen.
    pub kept: Kept,
    /// Side and channels of the pictures.
    picture: [usize; 2],
    /// W_k.
    pub weights: Vec<f64>,
}

impl Cells {
    /// For this model on these shards.
    ///
    /// # Errors
    /// In words: no pictures; channels that the model cannot read.
    pub fn new(config: CellsConfig, model: &SpatiaConfig, manifest: &Manifest, seed: u64) -> Result<Cells, String> {
        pictures_fit(model, manifest)?;
        let (genes, context) = (manifest.panel.genes.len(), model.gene.context);
        Ok(Cells { config, genes, context, image: model.image.clone(), seed })
    }

    /// What it reads of records.
    pub fn columns(&self) -> Columns {
        Columns { counts: true, images: true, ..Columns::default() }
    }

    /// Names of the loss terms, in order.
    pub fn terms(&self) -> &'static [&'static str] {
        &TERMS
    }

    /// λ_k of the loss terms, in order.
    pub fn lambdas(&self) -> Vec<f64> {
        self.config.lambdas().to_vec()
    }

    /// Whether lanes learn from each other's cells.
    pub fn crosses_lanes(&self) -> bool {
        self.config.contrast_scope == ContrastScope::Step && self.config.contrast > 0.0
    }

    /// Thins, chooses genes and hides patches.
    pub fn prepare(&self, slots: &[Slot], at: DrawsAt) -> Prepared {
        let key = |purpose| DrawKey::new(self.seed, purpose);
        let ids: Vec<u64> = slots.iter().map(Slot::record_id).collect();
        let streams: Vec<[u32; 3]> = ids.iter().enumerate().map(|(i, &id)| at.stream(i, id)).collect();
        let lists = slots.iter().zip(&streams).map(|(slot, &stream)| {
            let counts = slot.group.counts.as_ref().expect("counts were asked for");
            self.list(counts.row(slot.row), key(Purpose::GeneSubset), stream)
        });
        let lists: Vec<Vec<(u32, f32)>> = lists.collect();
        let (b, k) = (ids.len(), lists.iter().map(Vec::len).max().unwrap_or(0));
        let size = self.image.size;
        let mut out = Prepared {
            k,
            genes: Vec::with_capacity(b * k),
            values: Vec::with_capacity(b * k),
            depth: Vec::with_capacity(b),
            counts: Vec::with_capacity(b * k),
            listed: Vec::with_capacity(b),
            padding: Vec::with_capacity(b * k),
            pixels: Vec::with_capacity(b * self.image.channels * size * size),
            kept: Kept::draw(key(Purpose::PatchMask), &streams, self.image.n_patches(), self.image.mask_ratio),
            picture: [self.image.channels, size],
            weights: Vec::new(),
            ids,
        };
        for ((slot, list), &stream) in slots.iter().zip(&lists).zip(&streams) {
            let counts = slot.group.counts.as_ref().expect("counts were asked for").row(slot.row);
            let fewer = thinned(key(Purpose::Thinning), stream, counts.0, counts.1, self.config.thinning);
            let depth: f64 = fewer.iter().map(|&c| f64::from(c)).sum();
            out.depth.push(depth as f32);
            for &(gene, count) in list {
                let seen = counts.0.binary_search(&gene).map_or(0.0, |at| f64::from(fewer[at]));
                out.genes.push(i64::from(gene));
                out.values.push(if depth > 0.0 { (seen / depth) as f32 } else { 0.0 });
                out.counts.push(count);
            }
            out.listed.push(list.iter().map(|&(_, c)| f64::from(c)).sum::<f64>() as f32);
            out.padding.extend((0..k).map(|i| i >= list.len()));
            out.genes.resize(out.padding.len(), self.genes as i64);
            out.values.resize(out.padding.len(), 0.0);
            out.counts.resize(out.padding.len(), 0.0);
            let picture = slot.group.image(slot.row).expect("pictures were asked for");
            let shape = [picture.height as usize, picture.width as usize, usize::from(picture.channels)];
            pixels::push_picture(&mut out.pixels, picture.bytes, shape, &self.image)
                .expect("the manifest's channels fit");
        }
        let entries = lists.iter().map(Vec::len).sum::<usize>() as f64;
        let hidden = (b * (out.kept.n_patches() - out.kept.per_record())) as f64;
        let contrast = match at {
            DrawsAt::Step { first_slot, .. } if self.crosses_lanes() => f64::from(u8::from(first_slot == 0)),
            _ => b as f64,
        };
        out.weights = vec![entries, entries, b as f64, hidden, contrast];
        out
    }

    /// The genes of a cell that are read, with their counts: a random subset of those with one, and some without.
    fn list(&self, (genes, counts): (&[u32], &[f32]), key: DrawKey, stream: [u32; 3]) -> Vec<(u32, f32)> {
        let with = genes.len().min(self.context);
        let zeros = (with as f64 * self.config.zeros_per_gene).round() as usize;
        let list = gene_list(key, stream, genes, self.genes, with + zeros, self.context);
        list.into_iter().map(|g| (g, genes.binary_search(&g).map_or(0.0, |at| counts[at]))).collect()
    }

    /// The loss terms of a lane.
    pub fn loss(
        &self,
        model: &Spatia,
        batch: &Prepared,
        training: &Training,
        across: Option<AcrossLane<'_>>,
        device: &Device,
    ) -> Terms {
        let (cells, across) = match across {
            None => (model.forward(&batch.input(device), Some(training)), None),
            Some(across) => {
                let begun = across.begun.clone().unwrap_or_else(|| self.begin(model, batch, training, device));
                (model.fuse(begun.sides, Some(training)), Some((across, begun.vectors)))
            }
        };
        let mut terms = Terms::default();
        for values in self.per_record(model, batch, &cells, Some(training), device) {
            terms.push(values, &batch.ids);
        }
        match across {
            None => terms.push(contrast(model, &cells, Some(training)), &batch.ids),
            Some((across, vectors)) => {
                let mut sum = along(vectors, across.gradient);
                if let Some(own) = across.own {
                    sum = sum + along(contrast_scale(model), own);
                }
                terms.sums.push(sum);
                terms.values.push(across.value);
            }
        }
        terms
    }

    /// The value of each record, `[b]`, of every term but the contrast.
    fn per_record(
        &self,
        model: &Spatia,
        batch: &Prepared,
        cells: &CellOutput,
        training: Option<&Training>,
        device: &Device,
    ) -> Vec<Tensor<1>> {
        let (b, k) = (batch.ids.len(), batch.k);
        let counts = Tensor::<2>::from_data(TensorData::new(batch.counts.clone(), [b, k]), device);
        let listed = || Tensor::<1>::from_data(TensorData::new(batch.listed.clone(), [b]), device);
        let padding = batch.padding(device);
        let unlikely = |expression: Expression| -> Tensor<1> {
            let Expression { mean, dispersion, dropout_logit } = expression;
            let entries = zinb(counts.clone(), mean, dispersion, dropout_logit);
            let entries = match &padding {
                Some(padding) => entries.mask_fill(padding.clone(), 0.0),
                None => entries,
            };
            entries.sum_dim(1).squeeze_dim(1)
        };
        let genes = cells.genes.as_ref().expect("cells have genes");
        let image = cells.image.as_ref().expect("cells have pictures");
        let painting = model.paint_hidden(image, training);
        vec![
            unlikely(model.expression(genes, listed(), training)),
            unlikely(model.expression_of_vector(cells.z_cell.clone(), genes, listed(), training)),
            dissimilarity(genes.extra()),
            painted(painting.prediction, painting.patches),
        ]
    }

    /// The encoders' forward, and what the contrast over the step gathers of it, `[b, 2 w]`.
    pub fn begin(&self, model: &Spatia, batch: &Prepared, training: &Training, device: &Device) -> Begun {
        let sides = model.sides(&batch.input(device), Some(training));
        let (genes, image) = model.contrast_of_sides(&sides, Some(training)).expect("the config was checked");
        Begun { vectors: Tensor::cat(vec![genes, image], 1), sides }
    }

    /// The mean contrast over the step and where it leads every slot's vectors, `[slots, 2 w]` flat.
    pub fn across(&self, model: &Spatia, vectors: &[f32], slots: usize) -> Across {
        let (width, half) = (vectors.len() / slots, vectors.len() / slots / 2);
        let side = |first: usize| -> Vec<f32> {
            vectors.chunks(width).flat_map(|row| row[first..first + half].iter().copied()).collect()
        };
        let scale: Vec<f32> = contrast_scale(model).inner().into_data().try_to_vec().expect("f32");
        let OverStep { values, of_a, of_b, of_scale } = over_step(&side(0), &side(half), half, scale[0], &cpu());
        let both = of_a.chunks(half).zip(of_b.chunks(half));
        let mean = 1.0 / slots as f32;
        Across {
            value: values.iter().map(|&v| f64::from(v)).sum::<f64>() / slots as f64,
            gradient: both.flat_map(|(a, b)| a.iter().chain(b)).map(|g| g * mean).collect(),
            own: vec![of_scale * mean],
        }
    }

    /// The weighted terms, each a mean over a record's entries, summed over records; and the number of records.
    pub fn validate(&self, model: &Spatia, batch: &Prepared, device: &Device) -> (f64, f64) {
        let cells = model.forward(&batch.input(device), None);
        let mut terms = self.per_record(model, batch, &cells, None, device);
        terms.push(contrast(model, &cells, None));
        let hidden = batch.kept.n_patches() - batch.kept.per_record();
        let listed = |i: usize| batch.padding[i * batch.k..(i + 1) * batch.k].iter().filter(|p| !**p).count();
        let entries = |term: usize, record: usize| match TERMS[term] {
            "denoise" | "mvc" => listed(record),
            "reconstruction" => hidden,
            _ => 1,
        };
        let mut sum = 0.0;
        for (k, (term, lambda)) in terms.into_iter().zip(self.config.lambdas()).enumerate() {
            let values: Vec<f32> = term.into_data().try_to_vec().expect("losses are f32");
            let of = |(i, &value): (usize, &f32)| lambda * f64::from(value) / entries(k, i).max(1) as f64;
            sum += values.iter().enumerate().map(of).sum::<f64>();
        }
        (sum, batch.ids.len() as f64)
    }
}

impl Prepared {
    /// The model's input on `device`.
    pub fn input(&self, device: &Device) -> CellInput {
        let (b, k, [channels, size]) = (self.ids.len(), self.k, self.picture);
        let genes = GeneInput {
            genes: Tensor::from_data(TensorData::new(self.genes.clone(), [b, k]), device),
            values: Tensor::from_data(TensorData::new(self.values.clone(), [b, k]), device),
            depth: Tensor::from_data(TensorData::new(self.depth.clone(), [b]), device),
            bins: None,
            padding: self.padding(device),
        };
        let pixels = Tensor::from_data(TensorData::new(self.pixels.clone(), [b, channels, size, size]), device);
        CellInput { genes: Some(genes), image: Some(ImageInput { pixels, kept: Some(self.kept.clone()) }) }
    }

    fn padding(&self, device: &Device) -> Option<Tensor<2, Bool>> {
        let data = || TensorData::new(self.padding.clone(), [self.ids.len(), self.k]);
        self.padding.contains(&true).then(|| Tensor::from_data(data(), device))
    }
}

/// Whether the pictures of these shards can be read.
pub(super) fn pictures_fit(model: &SpatiaConfig, manifest: &Manifest) -> Result<(), String> {
    let Some(crops) = &manifest.crops else {
        return Err("the shards have no pictures: shard with input.images, see configs/spatia/shard.toml".into());
    };
    match (crops.channels.len(), model.image.channels) {
        (found, wanted) if found != 1 && found != wanted => Err(format!(
            "the pictures have {found} channels ({}), model.spatia.image.channels is {wanted}: make it {found}",
            crops.channels.join(", ")
        )),
        _ => Ok(()),
    }
}

/// The contrast within a micro-batch, `[b]`.
fn contrast(model: &Spatia, cells: &CellOutput, training: Option<&Training>) -> Tensor<1> {
    let (genes, image) = model.contrast_vectors(cells, training).expect("the config was checked");
    info_nce(genes, image, contrast_scale(model))
}

fn contrast_scale(model: &Spatia) -> Tensor<1> {
    model.contrast.as_ref().expect("the config was checked").scale()
}
