//! The models: a closed set; the table name in TOML is the choice.
//!
//! A model knows no rank, no file and no mask rule. To add one: a folder here, a variant and its arms below.

pub mod dit;
pub mod generator;
pub mod init;
pub mod kept;
pub mod layers;
pub mod params;
pub mod spackle;
pub mod spatia;
pub mod spotdiff;

use serde::{Deserialize, Serialize};
use syncytia_shards::manifest::Manifest;
use syncytia_shards::panel::{Panel, PanelGene};
use syncytia_shards::tables::vectors::VectorsOf;

use self::generator::{Generator, GeneratorConfig};
use self::params::{GeneAxis, ParamSpec};
use self::spackle::{Spackle, SpackleConfig};
use self::spatia::{Spatia, SpatiaConfig};
use self::spotdiff::{Spotdiff, SpotdiffConfig};
use crate::tensor::{Device, Gradients, ParamId, Tensor};

/// `[model.<name>]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelConfig {
    /// Neighbourhood completion.
    Spackle(SpackleConfig),
    /// Cells, niches and tissues as vectors.
    Spatia(Box<SpatiaConfig>),
    /// A cell's picture from its genes.
    Generator(Box<GeneratorConfig>),
    /// A spot's hidden genes, with cells of a reference.
    Spotdiff(SpotdiffConfig),
}

/// What a model needs to know of the data to be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataShape {
    /// Genes of the model.
    pub genes: usize,
    /// Rows of a neighbourhood, the centre included.
    pub spots: usize,
    /// Columns beside the genes that are seen and never predicted.
    #[serde(default)]
    pub covariates: usize,
}

/// A model with its parameters.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one per rank")]
pub enum Model {
    /// Neighbourhood completion.
    Spackle(Spackle),
    /// Cells, niches and tissues as vectors.
    Spatia(Spatia),
    /// A cell's picture from its genes.
    Generator(Generator),
    /// A spot's hidden genes, with cells of a reference.
    Spotdiff(Spotdiff),
}

/// One expression for every member.
macro_rules! each {
    ($model:expr, $m:ident => $does:expr) => {
        match $model {
            Model::Spackle($m) => $does,
            Model::Spatia($m) => $does,
            Model::Generator($m) => $does,
            Model::Spotdiff($m) => $does,
        }
    };
}

/// One expression for every member, which gives the same member again.
macro_rules! map {
    ($model:expr, $m:ident => $does:expr) => {
        match $model {
            Model::Spackle($m) => Model::Spackle($does),
            Model::Spatia($m) => Model::Spatia($does),
            Model::Generator($m) => Model::Generator($does),
            Model::Spotdiff($m) => Model::Spotdiff($does),
        }
    };
}

impl ModelConfig {
    /// The name of the TOML table.
    pub fn name(&self) -> &'static str {
        match self {
            ModelConfig::Spackle(_) => "spackle",
            ModelConfig::Spatia(_) => "spatia",
            ModelConfig::Generator(_) => "generator",
            ModelConfig::Spotdiff(_) => "spotdiff",
        }
    }

    /// The values of the table.
    pub fn sizes(&self) -> serde_json::Value {
        let sizes = match self {
            ModelConfig::Spackle(config) => serde_json::to_value(config),
            ModelConfig::Spatia(config) => serde_json::to_value(config),
            ModelConfig::Generator(config) => serde_json::to_value(config),
            ModelConfig::Spotdiff(config) => serde_json::to_value(config),
        };
        sizes.expect("a config is plain data")
    }

    /// What is wrong with it, each with its key; `batch`: lanes and micro-batch.
    pub fn problems(&self, batch: (usize, usize)) -> Vec<String> {
        match self {
            ModelConfig::Spackle(config) => config.problems(batch),
            ModelConfig::Spatia(config) => config.problems(),
            ModelConfig::Generator(config) => config.problems(),
            ModelConfig::Spotdiff(config) => config.problems(batch),
        }
    }

    /// What keeps weights of a `parent` from being those of this model, though their sizes agree, in words: other names for the
    /// outputs of a class head.
    pub fn renamed(&self, parent: &ModelConfig) -> Option<String> {
        let (ModelConfig::Spatia(ours), ModelConfig::Spatia(theirs)) = (self, parent) else { return None };
        ours.gene.families.iter().enumerate().find_map(|(i, ours)| {
            let theirs = theirs.gene.families.get(i).filter(|theirs| !theirs.classes.is_empty())?;
            let differs = (&ours.name, &ours.classes) != (&theirs.name, &theirs.classes);
            (differs && !ours.classes.is_empty()).then(|| {
                format!(
                    "its classes of {} are {}, here those of {} are {}: give model.spatia.gene.families the same, in that order",
                    theirs.name,
                    theirs.classes.join(", "),
                    ours.name,
                    ours.classes.join(", ")
                )
            })
        })
    }

    /// The genes of a panel that the model has, in its order.
    pub fn genes<'a>(&self, panel: &'a Panel) -> Vec<&'a PanelGene> {
        match self {
            ModelConfig::Spackle(_) => panel.selected_genes().collect(),
            ModelConfig::Spatia(_) | ModelConfig::Generator(_) | ModelConfig::Spotdiff(_) => {
                panel.genes.iter().collect()
            }
        }
    }

    /// What it needs to know of a shard folder's records.
    pub fn shape(&self, manifest: &Manifest) -> DataShape {
        let (genes, covariates) = (self.genes(&manifest.panel).len(), manifest.covariates.len());
        match self {
            ModelConfig::Spackle(_) => DataShape { genes, spots: 1 + manifest.n_neighbours as usize, covariates },
            ModelConfig::Spatia(_) | ModelConfig::Generator(_) | ModelConfig::Spotdiff(_) => {
                DataShape { genes, spots: 1, covariates: 0 }
            }
        }
    }

    /// How many parameters a model for data of this shape has, without building it; a config may ask for more than any
    /// integer holds.
    pub fn n_parameters(&self, shape: DataShape) -> f64 {
        match self {
            ModelConfig::Spackle(config) => config.n_parameters(shape),
            ModelConfig::Spatia(config) => config.n_parameters(shape.genes),
            ModelConfig::Generator(config) => config.n_parameters(shape.genes),
            ModelConfig::Spotdiff(config) => config.n_parameters(shape.genes),
        }
    }

    /// About how many values a forward of `records` keeps for its backward; where blocks are `recomputed`, with these once.
    pub fn n_kept_values(&self, shape: DataShape, records: usize, recomputed: bool) -> f64 {
        match self {
            ModelConfig::Spackle(config) => config.n_kept_values(shape, records, recomputed),
            ModelConfig::Spatia(config) => config.n_kept_values(records, recomputed),
            ModelConfig::Generator(config) => config.n_kept_values(records, recomputed),
            ModelConfig::Spotdiff(config) => config.n_kept_values(shape.genes, records, recomputed),
        }
    }

    /// The same of `records` places of a level above cells, and values of a member's vector; none where there is no such level.
    pub fn n_kept_of_level(&self, of: VectorsOf, records: usize, recomputed: bool) -> Option<(f64, usize)> {
        let ModelConfig::Spatia(config) = self else { return None };
        let level = match of {
            VectorsOf::Niche => config.niche,
            VectorsOf::Tissue => config.tissue,
            _ => return None,
        };
        Some((config.n_kept_of_level(level, records, recomputed), config.h))
    }

    /// Most genes of one record that are read, where a record is a list of genes.
    pub fn gene_context(&self) -> Option<usize> {
        match self {
            ModelConfig::Spackle(_) | ModelConfig::Spotdiff(_) => None,
            ModelConfig::Spatia(config) => Some(config.gene.context),
            ModelConfig::Generator(config) => Some(config.encoder.gene.context),
        }
    }

    /// Whether a text encoder reads its prompts.
    pub fn reads_sentences(&self) -> bool {
        matches!(self, ModelConfig::Spotdiff(config) if config.psi.use_text && config.prompt.encoder == spotdiff::prompt::Encoder::T5)
    }

    /// Whether it reads cells of a reference beside a spot.
    pub fn reads_reference(&self) -> bool {
        matches!(self, ModelConfig::Spotdiff(config) if config.psi.use_rna)
    }

    /// Why its weights are of one panel of genes, in words; none where they are carried over to another.
    pub fn one_panel(&self) -> Option<String> {
        let of_patches = |config: &SpotdiffConfig| config.psi.tokens == spotdiff::psi_config::Tokens::Spot;
        matches!(self, ModelConfig::Spotdiff(config) if of_patches(config)).then(|| {
            "model.spotdiff.psi.tokens = \"spot\": its tokens hold some genes each in the order of its panel, and these shards have another; \
             tokens = \"whole\" is carried over"
                .to_owned()
        })
    }

    /// Whether it reads what the spots around one show.
    pub fn reads_neighbours(&self) -> bool {
        matches!(self, ModelConfig::Spotdiff(config) if config.psi.neighbours)
    }

    /// Whether its niches are read with the pictures of their regions.
    pub fn reads_regions(&self) -> bool {
        matches!(self, ModelConfig::Spatia(config) if config.regions)
    }

    /// A new model with initial parameters keyed by `seed` and tensor path.
    pub fn build(&self, shape: DataShape, seed: u64, device: &Device) -> Model {
        match self {
            ModelConfig::Spackle(config) => Model::Spackle(Spackle::new(config, shape, seed, device)),
            ModelConfig::Spatia(config) => Model::Spatia(Spatia::new(config, shape.genes, seed, device)),
            ModelConfig::Generator(config) => Model::Generator(Generator::new(config, shape.genes, seed, device)),
            ModelConfig::Spotdiff(config) => Model::Spotdiff(Spotdiff::new(config, shape.genes, seed, device)),
        }
    }
}

impl Model {
    /// Paths, shapes and offsets of the parameters in declaration order.
    pub fn specs(&self) -> Vec<ParamSpec> {
        each!(self, m => params::specs(m))
    }

    /// Where the tensor of this path holds genes.
    pub fn gene_axes(&self, path: &str) -> Vec<GeneAxis> {
        each!(self, m => m.gene_axes(path))
    }

    /// The other name under which a checkpoint that a new run begins with may hold the tensor of this path: a generator's
    /// encoder was a model of its own.
    pub fn other_name<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self {
            Model::Generator(_) => Generator::name_in_encoder(path),
            Model::Spackle(_) | Model::Spatia(_) | Model::Spotdiff(_) => None,
        }
    }

    /// All parameters, flat.
    pub fn to_flat(&self) -> Vec<f32> {
        each!(self, m => params::to_flat(m))
    }

    /// The model with new leaves holding `flat` on `device`.
    pub fn from_flat(self, flat: &[f32], device: &Device) -> Model {
        map!(self, m => params::from_flat(m, flat, device))
    }

    /// The model with new leaves holding `flat` for the parameters that train.
    pub fn with_trained(self, flat: &[f32], device: &Device) -> Model {
        map!(self, m => params::with_trained(m, flat, device))
    }

    /// The same from a flat tensor of that device.
    pub fn with_trained_there(self, flat: &Tensor<1>, device: &Device) -> Model {
        map!(self, m => params::with_trained_there(m, flat, device))
    }

    /// The model with its parameters trained or not, in declaration order.
    pub fn freeze(self, trains: &[bool]) -> Model {
        map!(self, m => params::freeze(m, trains))
    }

    /// Ids of the parameters that train, in declaration order.
    pub fn ids(&self) -> Vec<ParamId> {
        each!(self, m => params::ids(m))
    }

    /// Gives the gradient of every parameter that trains to `each`, with its place among them.
    pub fn each_gradient(&self, gradients: &mut Gradients, each: &mut dyn FnMut(usize, Tensor<1>)) {
        each!(self, m => params::each_gradient(m, gradients, each));
    }
}
