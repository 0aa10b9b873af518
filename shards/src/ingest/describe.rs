//! Looks into an input, for `syncytia inspect`: no section is made.

use std::path::Path;

use super::counts_window::CountsWindow;
use super::data_frame::DataFrame;
use super::description::{Description, MatrixFacts};
use super::error::IngestError;
use super::h5::{H5File, Node};
use super::{Format, detect, h5ad, merscope, space_ranger, tables, tenx_h5};

/// Looks into an input.
pub fn describe(path: &Path) -> Result<Description, IngestError> {
    match detect(path)? {
        Format::H5ad => describe_h5ad(path),
        Format::Merscope => merscope::describe(path),
        Format::Table => tables::describe(path),
        Format::TenxMatrix => describe_tenx(path, path, None),
        Format::SpaceRanger => {
            let outs = space_ranger::outs_folder(path).expect("detect found it");
            describe_tenx(path, &space_ranger::matrix_file(&outs)?, Some(&outs.join("spatial")))
        }
    }
}

fn describe_h5ad(path: &Path) -> Result<Description, IngestError> {
    let h5 = H5File::open(path)?;
    let obs = DataFrame::open(&h5, "obs")?;
    let var = DataFrame::open(&h5, "var")?;
    let keys = |group: &str| -> Result<Vec<String>, IngestError> {
        Ok(if h5.node(group)? == Some(Node::Group) { h5.list(group)?.into_keys().collect() } else { Vec::new() })
    };
    let version = |node: &str| h5.text_attr(node, "encoding-version").map(Option::unwrap_or_default);
    let mut nodes = vec![("X".to_owned(), var.index.len())];
    nodes.extend(keys("layers")?.into_iter().map(|name| (format!("layers/{name}"), var.index.len())));
    if h5.node("raw/X")?.is_some() {
        nodes.push(("raw/X".into(), DataFrame::open(&h5, "raw/var")?.index.len()));
    }
    let mut matrices = Vec::new();
    for (node, n_vars) in nodes {
        if h5.node(&node)?.is_some() {
            matrices.push(matrix_facts(&CountsWindow::open(&h5, &node, obs.index.len(), n_vars)?)?);
        }
    }
    let obsm = keys("obsm")?;
    let mut images = Vec::new();
    for library in h5ad::libraries(&h5)? {
        for image in keys(&format!("uns/spatial/{library}/images"))? {
            images.push(format!("{library}/{image}"));
        }
    }
    let root = match version("")? {
        v if v.is_empty() => "anndata before 0.8".into(),
        v => format!("anndata {v}"),
    };
    Ok(Description {
        path: path.into(),
        format: Format::H5ad.as_str(),
        encoding: format!("{root}, data frames {}", version("obs")?),
        n_obs: obs.index.len(),
        n_vars: var.index.len(),
        matrices,
        spatial: obsm.iter().find(|k| *k == "spatial").map(|k| format!("obsm/{k}")),
        obsm,
        obs_columns: obs.columns,
        var_columns: var.columns,
        images,
    })
}

fn describe_tenx(path: &Path, matrix: &Path, spatial: Option<&Path>) -> Result<Description, IngestError> {
    let h5 = H5File::open(matrix)?;
    let matrix = tenx_h5::open(&h5)?;
    let version = h5.text_attr("", "software_version")?;
    let pictures = ["tissue_lowres_image.png", "tissue_hires_image.png"];
    let images = pictures.iter().filter(|name| spatial.is_some_and(|s| s.join(name).is_file()));
    Ok(Description {
        path: path.into(),
        format: if spatial.is_some() { Format::SpaceRanger.as_str() } else { Format::TenxMatrix.as_str() },
        encoding: format!("10x HDF5, group `{}`, software {}", matrix.counts.node, version.as_deref().unwrap_or("?")),
        n_obs: matrix.barcodes.len(),
        n_vars: matrix.features.len(),
        matrices: vec![matrix_facts(&matrix.counts)?],
        obsm: Vec::new(),
        obs_columns: Vec::new(),
        var_columns: Vec::new(),
        spatial: match spatial {
            Some(folder) => space_ranger::positions_file(folder)?.file_name().map(|n| n.to_string_lossy().into_owned()),
            None => None,
        },
        images: images.map(ToString::to_string).collect(),
    })
}

fn matrix_facts(matrix: &CountsWindow) -> Result<MatrixFacts, IngestError> {
    let not_a_count = h5ad::first_non_count(matrix)?;
    Ok(MatrixFacts {
        node: matrix.node.clone(),
        encoding: matrix.storage.encoding().into(),
        dtype: matrix.dtype.clone(),
        n_obs: matrix.n_obs,
        n_vars: matrix.n_vars,
        is_counts: not_a_count.is_none(),
        not_a_count,
    })
}
