//! Cells: counts made fewer are predicted as they were, hidden patches are painted, and a cell's genes and picture are told
//! apart from other cells' (`spatia.md` §4). SPATIA's first stage.

mod config;
mod prepared;

use syncytia_shards::draw::{DrawKey, Purpose};
use syncytia_shards::loader::Slot;
use syncytia_shards::manifest::Manifest;
use syncytia_shards::row_group::{Columns, RowGroup};

use self::config::{CLASSES, PICTURE, TERMS};
pub use self::config::{CellsConfig, ContrastScope};
pub use self::prepared::Prepared;
use super::losses::cosine::dissimilarity;
use super::losses::hierarchical::{hierarchical, n_entries};
use super::losses::info_nce::{OverStep, along, info_nce, over_step};
use super::losses::reconstruction::painted;
use super::losses::thinning::thinned;
use super::{Across, AcrossLane, Begun, DrawsAt, Terms};
use crate::model::layers::Training;
use crate::model::spatia::classes::{ClassFamily, UNKNOWN};
use crate::model::spatia::config::ImageConfig;
use crate::model::spatia::gene_encoder::GeneTokens;
use crate::model::spatia::gene_list::gene_list;
use crate::model::spatia::heads::Expression;
use crate::model::spatia::patches::Kept;
use crate::model::spatia::pixels;
use crate::model::spatia::{CellOutput, Spatia, SpatiaConfig};
use crate::tensor::{Device, Tensor, cpu};

/// The task with what it knows of model and data.
#[derive(Debug, Clone)]
pub struct Cells {
    config: CellsConfig,
    genes: usize,
    context: usize,
    image: ImageConfig,
    /// Families with classes, by their place among all, where their term has a weight.
    families: Vec<(usize, ClassFamily)>,
    terms: Vec<&'static str>,
    seed: u64,
}

impl Cells {
    /// For this model on these shards.
    ///
    /// # Errors
    /// In words: no pictures; channels that the model cannot read; no labels of a family that has classes.
    pub fn new(config: CellsConfig, model: &SpatiaConfig, manifest: &Manifest, seed: u64) -> Result<Cells, String> {
        pictures_fit(model, manifest)?;
        let (genes, context) = (manifest.panel.genes.len(), model.gene.context);
        let has_term = |family: &ClassFamily| config.classes > 0.0 && family.n_leaves() > 0;
        let families = model.gene.families.iter().cloned().enumerate().filter(|(_, family)| has_term(family));
        let families: Vec<(usize, ClassFamily)> = families.collect();
        if let Some((_, family)) = families.iter().find(|(_, family)| !manifest.labels.contains(&family.name)) {
            return Err(format!(
                "the shards have no labels `{}`, of which model.spatia.gene.families has classes (they have {}): leave its \
                 classes out, or set task.classes to 0",
                family.name,
                if manifest.labels.is_empty() { "none".to_owned() } else { manifest.labels.join(", ") }
            ));
        }
        let there = |term: &&str| match *term {
            PICTURE => config.picture > 0.0,
            CLASSES => !families.is_empty(),
            _ => true,
        };
        let terms = TERMS.into_iter().filter(there).collect();
        Ok(Cells { config, genes, context, image: model.image.clone(), families, terms, seed })
    }

    /// What it reads of records.
    pub fn columns(&self) -> Columns {
        let labels = self.families.iter().map(|(_, family)| family.name.clone()).collect();
        Columns { counts: true, images: true, labels, ..Columns::default() }
    }

    /// A family and a label of these records that is not in its table.
    pub fn foreign_label<'a>(&'a self, group: &'a RowGroup) -> Option<(&'a str, &'a str)> {
        self.families.iter().find_map(|(_, family)| {
            let labels = group.labels.iter().find(|labels| labels.name == family.name)?;
            let foreign = |label: &&Option<String>| family.number(label.as_deref()).is_none();
            Some((family.name.as_str(), labels.values.iter().find(foreign)?.as_deref()?))
        })
    }

    /// Names of the loss terms, in order.
    pub fn terms(&self) -> &[&'static str] {
        &self.terms
    }

    /// λ_k of the loss terms, in order.
    pub fn lambdas(&self) -> Vec<f64> {
        let named = TERMS.iter().zip(self.config.lambdas());
        named.filter(|(name, _)| self.terms().contains(name)).map(|(_, lambda)| lambda).collect()
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
            genes: Vec::with_capacity(b * k).into(),
            values: Vec::with_capacity(b * k).into(),
            depth: Vec::with_capacity(b).into(),
            counts: Vec::with_capacity(b * k).into(),
            listed: Vec::with_capacity(b).into(),
            padding: Vec::with_capacity(b * k).into(),
            pixels: Vec::with_capacity(b * self.image.channels * size * size).into(),
            kept: Kept::draw(key(Purpose::PatchMask), &streams, self.image.n_patches(), self.image.mask_ratio),
            picture: [self.image.channels, size],
            labels: self.families.iter().map(|(_, family)| labels(family, slots)).collect(),
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
        out.weights = vec![entries, entries, b as f64, hidden];
        if self.config.picture > 0.0 {
            out.weights.push(hidden);
        }
        if !self.families.is_empty() {
            out.weights.push(self.n_class_entries(&out));
        }
        out.weights.push(contrast);
        out
    }

    /// What the mean of the classes is over: unknown cells count.
    fn n_class_entries(&self, batch: &Prepared) -> f64 {
        let of = |((_, family), labels): (&(usize, ClassFamily), &Vec<i32>)| n_entries(labels, family.n_leaves());
        self.families.iter().zip(&batch.labels).map(of).sum::<usize>() as f64
    }

    /// `[b]`: the classes' loss of each cell, over its families.
    fn misnamed(
        &self,
        model: &Spatia,
        batch: &Prepared,
        genes: &GeneTokens,
        training: Option<&Training>,
    ) -> Option<Tensor<1>> {
        if self.families.is_empty() {
            return None;
        }
        let logits = model.class_logits(genes, training);
        let of = |((at, family), labels): (&(usize, ClassFamily), &Vec<i32>)| {
            let logits = logits[*at].clone().expect("a family with classes has a head");
            hierarchical(logits, labels, &family.leaves_of_parents())
        };
        self.families.iter().zip(&batch.labels).map(of).reduce(|sum, of| sum + of)
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
                terms.push_known(sum, across.value);
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
        let listed = || batch.listed(device);
        let unlikely = |expression: Expression| batch.unlikely(expression, device);
        let genes = cells.genes.as_ref().expect("cells have genes");
        let image = cells.image.as_ref().expect("cells have pictures");
        let of_vector = (self.config.picture > 0.0).then_some(&cells.z_cell);
        let painting = model.paint_hidden(image, of_vector, training);
        let mut terms = vec![
            unlikely(model.expression(genes, listed(), training)),
            unlikely(model.expression_of_vector(cells.z_cell.clone(), genes, listed(), training)),
            dissimilarity(genes.extra()),
            painted(painting.prediction, painting.patches.clone()),
        ];
        terms.extend(painting.of_vector.map(|prediction| painted(prediction, painting.patches)));
        terms.extend(self.misnamed(model, batch, genes, training));
        terms
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
        let classes = self.n_class_entries(batch) / batch.ids.len().max(1) as f64;
        let entries = |term: usize, record: usize| match self.terms()[term] {
            "denoise" | "mvc" => batch.n_listed(record).max(1) as f64,
            "reconstruction" | PICTURE => hidden.max(1) as f64,
            CLASSES => classes,
            _ => 1.0,
        };
        let mut sum = 0.0;
        for (k, (term, lambda)) in terms.into_iter().zip(self.lambdas()).enumerate() {
            let values: Vec<f32> = term.into_data().try_to_vec().expect("losses are f32");
            let of = |(i, &value): (usize, &f32)| lambda * f64::from(value) / entries(k, i);
            sum += values.iter().enumerate().map(of).sum::<f64>();
        }
        (sum, batch.ids.len() as f64)
    }
}

/// A family's label of each record; those not in its table were looked for.
fn labels(family: &ClassFamily, slots: &[Slot]) -> Vec<i32> {
    let of = |slot: &Slot| {
        let labels = slot.group.labels.iter().find(|labels| labels.name == family.name);
        let label = labels.and_then(|labels| labels.values[slot.row].as_deref());
        family.number(label).unwrap_or(UNKNOWN)
    };
    slots.iter().map(of).collect()
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
