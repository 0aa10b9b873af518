//! What an input holds, as `syncytia inspect` says it: structure and kinds.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

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
