//! Which section a file is read as, and its slide in `uns/spatial`.

use std::path::Path;

use crate::ingest::error::IngestError;
use crate::ingest::h5::{Element, H5File, Node};
use crate::ingest::options::IngestOptions;
use crate::ingest::visium::{self, ScaleFactors};
use crate::section::{ObsLabels, TissueImage};

/// Keys of `uns/spatial` that hold a slide, in order.
pub(in crate::ingest) fn libraries(h5: &H5File) -> Result<Vec<String>, IngestError> {
    if h5.node("uns/spatial")? != Some(Node::Group) {
        return Ok(Vec::new());
    }
    Ok(h5.list("uns/spatial")?.into_iter().filter(|(_, node)| *node == Node::Group).map(|(name, _)| name).collect())
}

/// The section, as its file was chosen to be read.
pub(super) struct Choice {
    pub(super) library_id: String,
    /// Key of `uns/spatial` with its picture.
    pub(super) slide: Option<String>,
    /// Rows of the section, where the file holds several.
    pub(super) rows: Option<Vec<u32>>,
}

/// The section's name, its slide and, in a file of several sections, its rows: see `IngestOptions::library_id`.
pub(super) fn choose_library(
    path: &Path,
    options: &IngestOptions,
    libraries: &[String],
    labels: &[ObsLabels],
) -> Result<Choice, IngestError> {
    let column = labels.iter().find(|l| l.name == "library_id");
    let mut in_obs: Vec<&str> = column.iter().flat_map(|c| c.values.iter().flatten()).map(String::as_str).collect();
    in_obs.sort_unstable();
    in_obs.dedup();
    let several = |names: String, n, advice| Err(IngestError::SeveralSections { path: path.into(), n, names, advice });
    if let (Some(column), true) = (column, in_obs.len() > 1) {
        let Some(wanted) = options.library_id.as_deref().filter(|id| in_obs.contains(id)) else {
            return several(in_obs.join(", "), in_obs.len(), "");
        };
        let is_wanted = |value: &Option<String>| value.as_deref() == Some(wanted);
        let rows = (0u32..).zip(&column.values).filter(|(_, v)| is_wanted(v)).map(|(i, _)| i).collect();
        let slide = libraries.iter().find(|l| *l == wanted).cloned();
        return Ok(Choice { library_id: wanted.into(), slide, rows: Some(rows) });
    }
    let slide = match (libraries, &options.library_id) {
        ([], _) => None,
        ([one], _) => Some(one.clone()),
        (many, id) => {
            let wanted = id.as_deref().or(in_obs.first().copied());
            let known = many.iter().find(|name| Some(name.as_str()) == wanted);
            if known.is_none() {
                let advice = "; without obs[\"library_id\"] the rows cannot be told apart and all are taken";
                return several(many.join(", "), many.len(), advice);
            }
            known.cloned()
        }
    };
    let library_id = options.library_id.clone().or_else(|| slide.clone());
    let library_id = library_id.or_else(|| in_obs.first().map(ToString::to_string));
    Ok(Choice { library_id: library_id.unwrap_or_else(|| name_from_stem(path)), slide, rows: None })
}

/// The file's stem up to `_counts`, `_filtered` or `_raw`.
pub(in crate::ingest) fn name_from_stem(path: &Path) -> String {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let cut = ["_counts", "_filtered", "_raw"].iter().filter_map(|mark| stem.find(mark)).filter(|&at| at > 0).min();
    stem[..cut.unwrap_or(stem.len())].to_owned()
}

/// What `uns/spatial/<library>` tells.
#[derive(Default)]
pub(super) struct Slide {
    pub(super) scale: ScaleFactors,
    pub(super) image: Option<TissueImage>,
}

impl Slide {
    pub(super) fn read(h5: &H5File, library: &str, notes: &mut Vec<String>) -> Result<Slide, IngestError> {
        let root = format!("uns/spatial/{library}");
        let number = |name: &str| -> Result<Option<f64>, IngestError> {
            let node = format!("{root}/scalefactors/{name}");
            Ok(if h5.node(&node)? == Some(Node::Dataset) { Some(h5.read_scalar(&node)?) } else { None })
        };
        let scale = ScaleFactors {
            spot_diameter_fullres: number("spot_diameter_fullres")?,
            tissue_lowres_scalef: number("tissue_lowres_scalef")?,
            tissue_hires_scalef: number("tissue_hires_scalef")?,
            microns_per_pixel: number("microns_per_pixel")?,
        };
        let mut image = None;
        for (name, factor) in [("lowres", scale.tissue_lowres_scalef), ("hires", scale.tissue_hires_scalef)] {
            let node = format!("{root}/images/{name}");
            let (None, Some(factor), Some(Node::Dataset)) = (&image, factor, h5.node(&node)?) else { continue };
            let extent = h5.extent(&node)?;
            if extent.shape.len() != 3 || !extent.element.is_number() {
                notes.push(format!("`{node}` left out: no picture (shape {:?})", extent.shape));
                continue;
            }
            let is_float = matches!(extent.element, Element::Float(_));
            match visium::png(&extent.shape, is_float, &h5.read_f64(&node, 0, u64::MAX)?) {
                Some(encoded) => image = Some(TissueImage { encoded, scale: factor }),
                None => notes.push(format!("`{node}` left out: no picture (shape {:?})", extent.shape)),
            }
        }
        Ok(Slide { scale, image })
    }
}
