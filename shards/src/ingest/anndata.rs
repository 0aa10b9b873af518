//! An annotated matrix in memory, as `h5ad_write` takes it, and how a section becomes one. Must not know HDF5.

use std::collections::BTreeMap;

use super::visium::SPOT_DIAMETER_UM;
use crate::matrix::Matrix;
use crate::section::{Csr, ObsLabels, Section, TissueImage};

/// An annotated matrix, observations × variables.
#[derive(Debug, Clone, Default)]
pub struct AnnData {
    /// Row names.
    pub obs_names: Vec<String>,
    /// Columns of `obs`, in order.
    pub obs: Vec<(String, Values)>,
    /// Column names.
    pub var_names: Vec<String>,
    /// Columns of `var`, in order.
    pub var: Vec<(String, Values)>,
    /// `X [n_obs, n_vars]`.
    pub x: Option<X>,
    /// Layers `[n_obs, n_vars]`.
    pub layers: BTreeMap<String, X>,
    /// `obsm`, `[n_obs, any]`.
    pub obsm: BTreeMap<String, Matrix<f64>>,
    /// Unstructured.
    pub uns: BTreeMap<String, Uns>,
    /// `raw`: a matrix over variables of its own.
    pub raw: Option<Raw>,
}

impl AnnData {
    /// A section as scanpy's `read_visium` would hold it: ids as names, symbols in `var["gene_name"]`, the picture and
    /// its scale under `uns["spatial"][library_id]`. Reading the file gives the section back (notes excepted).
    pub fn from_section(section: &Section) -> AnnData {
        let mut obs: Vec<(String, Values)> = Vec::new();
        if let Some(places) = &section.array_row_col {
            for (axis, name) in ["array_row", "array_col"].into_iter().enumerate() {
                let values = places.iter().map(|p| i64::from(p[axis])).collect();
                obs.push((name.into(), Values::I64(values)));
            }
        }
        let mut labels = section.labels.clone();
        if let (Some(donor), false) = (&section.donor_id, labels.iter().any(|l| l.name == "donor_id")) {
            let values = vec![Some(donor.clone()); section.n_obs()];
            labels.push(ObsLabels { name: "donor_id".into(), values });
        }
        obs.extend(labels.into_iter().map(|l| (l.name, Values::Categorical(l.values))));
        let symbols = section.genes.iter().map(|g| g.symbol.clone()).collect();
        let xy = section.xy.iter().flatten().copied().collect();
        let wide =
            |m: &Matrix<f32>| Matrix { n_cols: m.n_cols, values: m.values.iter().map(|&v| f64::from(v)).collect() };
        let mut obsm: BTreeMap<String, Matrix<f64>> =
            section.features.iter().map(|f| (f.name.clone(), wide(&f.values))).collect();
        obsm.insert("spatial".to_owned(), Matrix { n_cols: 2, values: xy });
        let slide = slide(section.um_per_unit, section.image.as_ref());
        let slide = BTreeMap::from([(section.library_id.clone(), slide)]);
        AnnData {
            obs_names: section.obs_ids.clone(),
            obs,
            var_names: section.genes.iter().map(|g| g.id.clone()).collect(),
            var: vec![("gene_name".into(), Values::Text(symbols))],
            x: Some(X::Sparse(section.counts.clone())),
            obsm,
            uns: BTreeMap::from([("spatial".into(), Uns::Dict(slide))]),
            ..AnnData::default()
        }
    }
}

/// `uns["spatial"][library_id]`: picture and scale factors.
pub fn slide(um_per_unit: Option<f64>, image: Option<&TissueImage>) -> Uns {
    let mut factors = BTreeMap::new();
    if let Some(um) = um_per_unit {
        factors.insert("microns_per_pixel".into(), Uns::F64(um));
        factors.insert("spot_diameter_fullres".into(), Uns::F64(SPOT_DIAMETER_UM / um));
    }
    let mut images = BTreeMap::new();
    let decoded = image.and_then(|i| Some((image::load_from_memory(&i.encoded).ok()?, i.scale)));
    if let Some((picture, scale)) = decoded {
        let picture = picture.to_rgb8();
        let shape = vec![u64::from(picture.height()), u64::from(picture.width()), 3];
        images.insert("lowres".into(), Uns::Bytes { shape, values: picture.into_raw() });
        factors.insert("tissue_lowres_scalef".into(), Uns::F64(scale));
    }
    Uns::Dict(BTreeMap::from([("images".into(), Uns::Dict(images)), ("scalefactors".into(), Uns::Dict(factors))]))
}

/// Sparse or dense.
#[derive(Debug, Clone)]
pub enum X {
    /// `csr_matrix`.
    Sparse(Csr),
    /// `array`.
    Dense(Matrix<f32>),
    /// `array` of booleans.
    Mask(Matrix<bool>),
}

impl X {
    pub(super) fn shape(&self) -> (usize, usize) {
        match self {
            X::Sparse(m) => (m.n_rows(), m.n_cols),
            X::Dense(m) => (m.n_rows(), m.n_cols),
            X::Mask(m) => (m.n_rows(), m.n_cols),
        }
    }
}

/// `raw.X` and `raw.var`.
#[derive(Debug, Clone)]
pub struct Raw {
    /// Matrix `[n_obs, n_raw_vars]`.
    pub x: Csr,
    /// Column names.
    pub var_names: Vec<String>,
    /// Columns of `raw.var`.
    pub var: Vec<(String, Values)>,
}

/// A column.
#[derive(Debug, Clone)]
pub enum Values {
    /// Text.
    Text(Vec<String>),
    /// Categories, sorted and named once; `None` is missing.
    Categorical(Vec<Option<String>>),
    /// Floats.
    F64(Vec<f64>),
    /// Integers.
    I64(Vec<i64>),
    /// Booleans.
    Bool(Vec<bool>),
}

impl Values {
    pub(super) fn len(&self) -> usize {
        match self {
            Values::Text(v) => v.len(),
            Values::Categorical(v) => v.len(),
            Values::F64(v) => v.len(),
            Values::I64(v) => v.len(),
            Values::Bool(v) => v.len(),
        }
    }
}

/// A value of `uns`.
#[derive(Debug, Clone)]
pub enum Uns {
    /// Nested.
    Dict(BTreeMap<String, Uns>),
    /// Text.
    Text(String),
    /// Float.
    F64(f64),
    /// Integer.
    I64(i64),
    /// Boolean.
    Bool(bool),
    /// Column of any kind but categorical (those are written as text).
    Column(Values),
    /// Bytes of some shape: pictures.
    Bytes {
        /// Dimensions.
        shape: Vec<u64>,
        /// Row-major.
        values: Vec<u8>,
    },
}
