//! What the reader sees in an input, for `syncytia inspect`: structure and kinds, no section made.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::counts_window::CountsWindow;
use super::data_frame::DataFrame;
use super::error::IngestError;
use super::h5::{H5File, Node};
use super::{Format, detect, h5ad, merscope, space_ranger, tables, tenx_h5};

/// A matrix of the input.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MatrixFacts {
    /// `X`, `raw/X`, `layers/counts`, `matrix`, ...
    pub node: String,
    /// `csr_matrix`, `csc_matrix`, `array`.
    pub encoding: String,
    /// numpy's type name.
    pub dtype: String,
    /// Observations.
    pub n_obs: usize,
    /// Variables.
    pub n_vars: usize,
    /// Whether every value is a whole number ≥ 0; `false` with an example in `not_a_count`.
    pub is_counts: bool,
    /// The first value that is no count.
    pub not_a_count: Option<f64>,
}

/// What the reader sees.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Description {
    /// Input.
    pub path: PathBuf,
    /// `h5ad`, `space_ranger`, `tenx_matrix`, `table`.
    pub format: &'static str,
    /// Encoding and version of the file, e.g. `anndata 0.1.0, data frames 0.2.0`.
    pub encoding: String,
    /// Observations.
    pub n_obs: usize,
    /// Variables.
    pub n_vars: usize,
    /// Matrices, X first.
    pub matrices: Vec<MatrixFacts>,
    /// Keys of `obsm`.
    pub obsm: Vec<String>,
    /// Columns of `obs`.
    pub obs_columns: Vec<String>,
    /// Columns of `var`.
    pub var_columns: Vec<String>,
    /// Where coordinates are, if anywhere.
    pub spatial: Option<String>,
    /// Sections and pictures named in the file.
    pub images: Vec<String>,
}

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

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        writeln!(f, "{}", self.path.display())?;
        writeln!(f, "  format    {} ({})", self.format, self.encoding)?;
        writeln!(f, "  shape     {} observations × {} variables", self.n_obs, self.n_vars)?;
        for m in &self.matrices {
            let kind = match m.not_a_count {
                None => "integer counts".to_owned(),
                Some(value) => format!("no counts (holds {value})"),
            };
            writeln!(f, "  matrix    {}: {} {}, {} × {}, {kind}", m.node, m.encoding, m.dtype, m.n_obs, m.n_vars)?;
        }
        writeln!(f, "  spatial   {}", self.spatial.as_deref().unwrap_or("none"))?;
        writeln!(f, "  images    {}", list(&self.images))?;
        writeln!(f, "  obsm      {}", list(&self.obsm))?;
        writeln!(f, "  obs       {}", list(&self.obs_columns))?;
        write!(f, "  var       {}", list(&self.var_columns))
    }
}
