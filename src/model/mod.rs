//! The models: a closed set; the table name in TOML is the choice.
//!
//! A model knows no rank, no file and no mask rule. To add one: a folder here, a variant and its arms below.

pub mod dit;
pub mod init;
pub mod layers;
pub mod params;
pub mod spackle;
pub mod spatia;

use serde::{Deserialize, Serialize};
use syncytia_shards::manifest::Manifest;

use self::params::{GeneAxis, ParamSpec};
use self::spackle::{Spackle, SpackleConfig};
use crate::tensor::{Device, Gradients, ParamId, TensorData};

/// `[model.<name>]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelConfig {
    /// Neighbourhood completion.
    Spackle(SpackleConfig),
}

/// What a model needs to know of the data to be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataShape {
    /// Genes in the layer.
    pub genes: usize,
    /// Rows of a neighbourhood, the centre included.
    pub spots: usize,
    /// Columns beside the genes that are seen and never predicted.
    #[serde(default)]
    pub covariates: usize,
}

impl DataShape {
    /// That of a shard folder's records.
    pub fn of(manifest: &Manifest) -> DataShape {
        let spots = 1 + manifest.n_neighbours as usize;
        DataShape { genes: manifest.panel.n_selected(), spots, covariates: manifest.covariates.len() }
    }
}

/// A model with its parameters.
#[derive(Debug, Clone)]
pub enum Model {
    /// Neighbourhood completion.
    Spackle(Spackle),
}

impl ModelConfig {
    /// The name of the TOML table.
    pub fn name(&self) -> &'static str {
        match self {
            ModelConfig::Spackle(_) => "spackle",
        }
    }

    /// How many parameters a model for data of this shape has, without building it; a config may ask for more than any
    /// integer holds.
    pub fn n_parameters(&self, shape: DataShape) -> f64 {
        match self {
            ModelConfig::Spackle(config) => config.n_parameters(shape),
        }
    }

    /// About how many values a forward of `records` keeps for its backward.
    pub fn n_kept_values(&self, shape: DataShape, records: usize) -> f64 {
        match self {
            ModelConfig::Spackle(config) => config.n_kept_values(shape, records),
        }
    }

    /// A new model with initial parameters keyed by `seed` and tensor path.
    pub fn build(&self, shape: DataShape, seed: u64, device: &Device) -> Model {
        match self {
            ModelConfig::Spackle(config) => Model::Spackle(Spackle::new(config, shape, seed, device)),
        }
    }
}

impl Model {
    /// Paths, shapes and offsets of the parameters in declaration order.
    pub fn specs(&self) -> Vec<ParamSpec> {
        match self {
            Model::Spackle(m) => params::specs(m),
        }
    }

    /// Where the tensor of this path holds genes.
    pub fn gene_axes(&self, path: &str) -> Vec<GeneAxis> {
        match self {
            Model::Spackle(m) => m.gene_axes(path),
        }
    }

    /// All parameters, flat.
    pub fn to_flat(&self) -> Vec<f32> {
        match self {
            Model::Spackle(m) => params::to_flat(m),
        }
    }

    /// The model with new leaves holding `flat` on `device`.
    pub fn from_flat(self, flat: &[f32], device: &Device) -> Model {
        match self {
            Model::Spackle(m) => Model::Spackle(params::from_flat(m, flat, device)),
        }
    }

    /// The model with new leaves holding `flat` for the parameters that train.
    pub fn with_trained(self, flat: &[f32], device: &Device) -> Model {
        match self {
            Model::Spackle(m) => Model::Spackle(params::with_trained(m, flat, device)),
        }
    }

    /// The model with its parameters trained or not, in declaration order.
    pub fn freeze(self, trains: &[bool]) -> Model {
        match self {
            Model::Spackle(m) => Model::Spackle(params::freeze(m, trains)),
        }
    }

    /// Ids of the parameters that train, in declaration order.
    pub fn ids(&self) -> Vec<ParamId> {
        match self {
            Model::Spackle(m) => params::ids(m),
        }
    }

    /// Gives the gradient of every parameter that trains to `each`, with its place among them.
    pub fn each_gradient(&self, gradients: &mut Gradients, each: &mut dyn FnMut(usize, TensorData)) {
        match self {
            Model::Spackle(m) => params::each_gradient(m, gradients, each),
        }
    }
}
