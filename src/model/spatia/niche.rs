//! The niche transformer: cells around a place, and the picture of the region, make z_niche (`spatia.md` §5).

use super::config::SpatiaConfig;
use super::context::{Context, ContextInput, ContextOutput};
use crate::model::init::Scope;
use crate::model::layers::{Linear, Training};
use crate::tensor::Module;

/// Shortest and longest wavelength of a cell's position features, µm.
pub const WAVELENGTHS_UM: (f64, f64) = (4.0, 440.0);

/// The network.
#[derive(Module, Debug)]
pub struct Niche {
    /// Over [query; cells; picture].
    pub context: Context,
    /// e → h: the region's image vector as a token, when `regions`.
    pub image: Option<Linear>,
}

impl Niche {
    /// For `config`.
    pub fn new(scope: &Scope, config: &SpatiaConfig) -> Self {
        let context = scope.child("context");
        let (h, token) = (config.h, config.masked_token);
        Self {
            context: Context::new(&context, config.niche, h, config.dropout, token, WAVELENGTHS_UM),
            image: config.regions.then(|| Linear::new(&scope.child("image"), config.image.width, h)),
        }
    }

    /// Without pictures of the regions the sequence has no such token.
    pub fn forward(&self, cells: &ContextInput, training: Option<&Training>) -> ContextOutput {
        let image = cells.region.as_ref().map(|region| {
            let image = self.image.as_ref().expect("pictures of regions need model.spatia.regions = true");
            image.forward2(region.vectors.clone(), training).unsqueeze_dim(1)
        });
        self.context.forward(cells, image, training)
    }
}
