//! Under which names the weights leave: ours are the release's used names; `spared` adds the template it never uses but
//! demands (`spackle.md` §5). Must not know files.

use std::str::FromStr;

use super::ExportError;
use crate::train::checkpoint::{Checkpoint, NamedTensor};

/// Which tensors `model.safetensors` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// The tensors the network uses.
    #[default]
    Plain,
    /// Those and `encoder_layer.*`, so that the release of SpaRED loads it strictly.
    Spared,
}

/// The layer a stack of the release is copied from, and the template it is named by there.
const FIRST_LAYER: &str = "model.transformer_encoder.layers.0.";
const TEMPLATE: &str = "model.encoder_layer.";

/// Names the release has a place for.
const RELEASED: [&str; 3] = ["model.linear.", "model.transformer_encoder.layers.", "model.out_linear."];

impl Layout {
    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Layout::Plain => "plain",
            Layout::Spared => "spared",
        }
    }

    /// The tensors of the export.
    pub(super) fn tensors(self, checkpoint: &Checkpoint) -> Result<Vec<NamedTensor>, ExportError> {
        let mut tensors = checkpoint.contents.model.clone();
        if self == Layout::Plain {
            return Ok(tensors);
        }
        let refuse = |what| ExportError::Layout { layout: self.name(), checkpoint: checkpoint.dir.clone(), what };
        let foreign = tensors.iter().find(|t| !RELEASED.iter().any(|start| t.name.starts_with(start)));
        if let Some(tensor) = foreign {
            return Err(refuse(format!("{}, which the release does not know", tensor.name)));
        }
        let template: Vec<NamedTensor> = tensors
            .iter()
            .filter_map(|t| Some((t, t.name.strip_prefix(FIRST_LAYER)?)))
            .map(|(t, rest)| NamedTensor { name: format!("{TEMPLATE}{rest}"), ..t.clone() })
            .collect();
        if template.is_empty() {
            return Err(refuse(format!("no {FIRST_LAYER}*")));
        }
        tensors.extend(template);
        Ok(tensors)
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Layout, String> {
        [Layout::Plain, Layout::Spared]
            .into_iter()
            .find(|l| l.name() == text)
            .ok_or_else(|| format!("{text:?} is not a layout; write plain or spared"))
    }
}
