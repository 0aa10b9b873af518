//! Vectors of cells, niches and tissues by a trained encoder: what `embed` asks of it. Nothing is hidden, thinned or drawn
//! by step: where a cell has more genes, or a tissue more niches, than are read, the draw belongs to its id (assay 0).

use syncytia_shards::draw::{DrawKey, Purpose};
use syncytia_shards::manifest::Manifest;
use syncytia_shards::pictures::CellImage;
use syncytia_shards::row_group::{Columns, Images, RowGroup};
use syncytia_shards::tables::vectors::{Modality, Vectors};

use super::DrawsAt;
use super::cells;
use super::places::{self, Gathered, PlaceRows};
use crate::model::Model;
use crate::model::spatia::config::SpatiaConfig;
use crate::model::spatia::gene_encoder::GeneInput;
use crate::model::spatia::gene_list::gene_list;
use crate::model::spatia::image_encoder::ImageInput;
use crate::model::spatia::{CellInput, pixels};
use crate::tensor::{Device, Padding, Tensor, TensorData};

/// Records of a forward: a vector's last bits may depend on it, so it is fixed.
pub const BATCH: usize = 32;

/// Encodes cells of one panel.
#[derive(Debug, Clone)]
pub struct CellEncoder<'a> {
    model: &'a Model,
    config: &'a SpatiaConfig,
    genes: usize,
    seed: u64,
    modality: Modality,
}

impl<'a> CellEncoder<'a> {
    /// For these shards. `seed`: that of the run.
    ///
    /// # Errors
    /// In words: no pictures, or channels that the model cannot read.
    pub fn new(
        model: &'a Model,
        config: &'a SpatiaConfig,
        manifest: &Manifest,
        seed: u64,
        modality: Modality,
    ) -> Result<Self, String> {
        if modality.image() {
            cells::pictures_fit(config, manifest)?;
        }
        Ok(Self { model, config, genes: manifest.panel.genes.len(), seed, modality })
    }

    /// For cells that are in no shards, of the panel's `genes` genes and with pictures of these channels.
    ///
    /// # Errors
    /// In words: channels that the model cannot read.
    pub fn of_panel(
        model: &'a Model,
        config: &'a SpatiaConfig,
        genes: usize,
        channels: &[String],
        seed: u64,
        modality: Modality,
    ) -> Result<Self, String> {
        let (found, wanted) = (channels.len(), config.image.channels);
        if modality.image() && found != 1 && found != wanted {
            let names = channels.join(", ");
            return Err(format!("the pictures have {found} channels ({names}), the model reads {wanted}"));
        }
        Ok(Self { model, config, genes, seed, modality })
    }

    /// What it reads of records.
    pub fn columns(&self) -> Columns {
        Columns { counts: self.modality.genes(), images: self.modality.image(), ..Columns::default() }
    }

    /// z_cell of the records `rows` of a row group, flat `[rows, h]`; one forward.
    pub fn encode(&self, group: &RowGroup, rows: std::ops::Range<usize>, device: &Device) -> Vec<f32> {
        let Model::Spatia(model) = self.model else { unreachable!("cells are SPATIA's") };
        let genes = self.modality.genes().then(|| self.genes(group, rows.clone(), device));
        let image = self.modality.image().then(|| self.pictures(group, rows, device));
        let z = model.forward(&CellInput { genes, image }, None).z_cell;
        z.into_data().try_to_vec().expect("vectors are f32")
    }

    /// Logits of every class family, flat `[rows, leaves]`; `None` for a family without classes, or where no genes are read.
    pub fn class_logits(
        &self,
        group: &RowGroup,
        rows: std::ops::Range<usize>,
        device: &Device,
    ) -> Vec<Option<Vec<f32>>> {
        let Model::Spatia(model) = self.model else { unreachable!("cells are SPATIA's") };
        let genes = self.modality.genes().then(|| self.genes(group, rows.clone(), device));
        let image = self.modality.image().then(|| self.pictures(group, rows, device));
        let Some(genes) = model.forward(&CellInput { genes, image }, None).genes else {
            return vec![None; self.config.gene.families.len()];
        };
        let flat = |logits: Tensor<2>| logits.into_data().try_to_vec().expect("logits are f32");
        model.class_logits(&genes, None).into_iter().map(|logits| logits.map(flat)).collect()
    }

    /// Gene and picture vectors in the contrast's space, flat `[rows, width]` each; `None` without a contrast or a side.
    pub fn contrast(&self, group: &RowGroup, rows: std::ops::Range<usize>, device: &Device) -> Option<[Vec<f32>; 2]> {
        let Model::Spatia(model) = self.model else { unreachable!("cells are SPATIA's") };
        let genes = self.modality.genes().then(|| self.genes(group, rows.clone(), device));
        let image = self.modality.image().then(|| self.pictures(group, rows, device));
        let (genes, image) = model.contrast_vectors(&model.forward(&CellInput { genes, image }, None), None)?;
        Some([genes, image].map(|side| side.into_data().try_to_vec().expect("vectors are f32")))
    }

    /// All expressed genes of each cell, or as many of them as are read; at least one gene, so that there is a list.
    fn genes(&self, group: &RowGroup, rows: std::ops::Range<usize>, device: &Device) -> GeneInput {
        let counts = group.counts.as_ref().expect("counts were asked for");
        let key = DrawKey::new(self.seed, Purpose::GeneSubset);
        let list = |row: usize| -> Vec<(u32, f32)> {
            let (genes, counts) = counts.row(row);
            let stream = DrawsAt::Assay(0).stream(0, group.record_ids[row]);
            let list = gene_list(key, stream, genes, self.genes, 1, self.config.gene.context);
            list.into_iter().map(|gene| (gene, genes.binary_search(&gene).map_or(0.0, |at| counts[at]))).collect()
        };
        let lists: Vec<Vec<(u32, f32)>> = rows.clone().map(list).collect();
        let (b, k) = (lists.len(), lists.iter().map(Vec::len).max().unwrap_or(0));
        let depths: Vec<f64> = rows.map(|row| counts.row(row).1.iter().map(|&c| f64::from(c)).sum()).collect();
        let (mut genes, mut values, mut padding) = (Vec::new(), Vec::new(), Vec::new());
        for (list, &depth) in lists.iter().zip(&depths) {
            for &(gene, count) in list {
                genes.push(i64::from(gene));
                values.push(if depth > 0.0 { (f64::from(count) / depth) as f32 } else { 0.0 });
            }
            padding.extend((0..k).map(|at| at >= list.len()));
            genes.resize(padding.len(), self.genes as i64);
            values.resize(padding.len(), 0.0);
        }
        GeneInput {
            genes: Tensor::from_data(TensorData::new(genes, [b, k]), device),
            values: Tensor::from_data(TensorData::new(values, [b, k]), device),
            depth: Tensor::from_data(TensorData::new(depths.iter().map(|&d| d as f32).collect(), [b]), device),
            bins: None,
            padding: Padding::of(padding, [b, k]),
        }
    }

    fn pictures(&self, group: &RowGroup, rows: std::ops::Range<usize>, device: &Device) -> ImageInput {
        self.image_input(rows.map(|row| group.image(row).expect("pictures were asked for")), device)
    }

    fn image_input<'p>(&self, pictures: impl Iterator<Item = CellImage<'p>>, device: &Device) -> ImageInput {
        let image = &self.config.image;
        let (mut b, mut values) = (0, Vec::new());
        for picture in pictures {
            let shape = [picture.height as usize, picture.width as usize, usize::from(picture.channels)];
            pixels::push_picture(&mut values, picture.bytes, shape, image).expect("the manifest's channels fit");
            b += 1;
        }
        let shape = [b, image.channels, image.size, image.size];
        ImageInput { pixels: Tensor::from_data(TensorData::new(values, shape), device), kept: None }
    }

    /// Vectors of the regions `rows` of some pictures, flat `[rows, e]`; one forward. What is read of a niche beside its cells.
    pub fn regions(&self, pictures: &Images, rows: std::ops::Range<usize>, device: &Device) -> Vec<f32> {
        let Model::Spatia(model) = self.model else { unreachable!("cells are SPATIA's") };
        let input = self.image_input(rows.map(|row| pictures.get(row)), device);
        model.region(&input).into_data().try_to_vec().expect("vectors are f32")
    }
}

/// z_niche or z_tissue of some places, flat `[b, h]`; one forward.
pub fn places(model: &Model, from: &PlaceRows<'_>, most: usize, seed: u64, device: &Device) -> Vec<f32> {
    let stream = |&row: &usize| DrawsAt::Assay(0).stream(0, from.places.ids[row]);
    let streams: Vec<[u32; 3]> = from.rows.iter().map(stream).collect();
    let gathered = Gathered::of(from, most, seed, &streams);
    let out = places::forward(model, from.places.of, &gathered.input(None, device), None);
    out.z.into_data().try_to_vec().expect("vectors are f32")
}

/// z of the three levels of some cells, flat `[b, h]`; one forward. `levels`: vectors of cells, niches and tissues, as far as
/// they are fused; `ids`: of each cell its own, its niche's and its tissue's. A missing one contributes zeros.
///
/// # Errors
/// In words: an id without a vector.
pub fn fused(model: &Model, levels: &[Vectors], ids: &[[Option<u64>; 3]], device: &Device) -> Result<Vec<f32>, String> {
    let read = |(at, vectors): (usize, &Vectors)| -> Result<Vec<f32>, String> {
        let width = vectors.values.n_cols;
        let mut values = Vec::with_capacity(ids.len() * width);
        for ids in ids {
            match ids[at] {
                Some(id) => values.extend_from_slice(vectors.get(id).ok_or_else(|| {
                    format!("the vectors of {} given have none of {id}: make them again", vectors.facts.of.plural())
                })?),
                None => values.resize(values.len() + width, 0.0),
            }
        }
        Ok(values)
    };
    let read: Vec<Vec<f32>> = levels.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok(fused_values(model, &read, ids.len(), device))
}

/// The same of vectors at hand, flat `[b, h]` of each level; zeros for a missing one.
pub fn fused_values(model: &Model, levels: &[Vec<f32>], b: usize, device: &Device) -> Vec<f32> {
    let Model::Spatia(model) = model else { unreachable!("levels are SPATIA's") };
    let level = |at: usize| {
        let values = levels.get(at)?.clone();
        let h = values.len() / b;
        Some(Tensor::<2>::from_data(TensorData::new(values, [b, h]), device))
    };
    let z = model.fuse_levels(level(0).expect("cells are always fused"), level(1), level(2), None);
    z.into_data().try_to_vec().expect("vectors are f32")
}
