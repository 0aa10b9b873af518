//! What a user can say about an input: the `[input]` table of a shard config.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// How to read inputs; every field has a default that fits files of current scanpy and Space Ranger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngestOptions {
    /// Name of the section; also chooses one in a file with several. `None`: the single key of `uns/spatial`; else
    /// the single value of `obs["library_id"]`; else the file stem up to the first of `_counts`, `_filtered`, `_raw`
    /// (`151673_counts_5000genes.h5ad` is `151673`); for a Space Ranger folder the `library_ids` of its matrix without
    /// `_spaceranger_count`, else the prefix of the matrix's name, else the folder above `outs`.
    pub library_id: Option<String>,
    /// Which matrix holds the counts.
    pub counts: CountsFrom,
    /// Key in `obsm` of the coordinates.
    pub spatial_key: String,
    /// Counts were declared: a value that is no integer is an error. `false` takes `X` (or what `counts` names) as it
    /// is, negative, NaN and infinite values still refused.
    pub declared_counts: bool,
    /// Keys in `obsm` whose numbers are carried along, standardised per section, as covariates of the model.
    pub features: Vec<String>,
    /// Column of `var` with stable gene ids. `None`: `gene_ids`, `gene_id`, `ensembl_id`, `feature_id`, else the index.
    pub gene_id_column: Option<String>,
    /// Column of `var` with symbols. `None`: the index when the ids are a column, else `gene_symbols`, `gene_symbol`,
    /// `gene_name`, `gene_names`, `feature_name`, `symbol`, else the id.
    pub gene_symbol_column: Option<String>,
    /// Column of `obs` with the donor, used when it holds one value. `None`: `donor_id`, `donor`.
    pub donor_column: Option<String>,
    /// For a text table: the file with the places of its observations, beside it or from where the command runs. Joined by name
    /// where both have names, else row by row.
    pub coordinates: Option<String>,
    /// For a text table: where the genes are.
    pub genes: GenesIn,
    /// For a text table: whether the first line is a header. `None`: found by looking.
    pub header: Option<bool>,
    /// For a text table: whether the first column holds names. `None`: found by looking.
    pub row_names: Option<bool>,
    /// For a text table: a file with a label per observation, in its order.
    pub labels: Option<String>,
    /// Column of the labels, by name or number from 1: of `labels`, or of `obs` of a reference. `None`: the only one; of a reference's
    /// `obs` the first of `cell_type`, `celltype`, `subclass_label`, `subclass`, `class`, `label`, `Cell_class`.
    #[serde(deserialize_with = "column")]
    pub label_column: Option<String>,
    /// µm per native unit, where the file does not tell.
    pub um_per_unit: Option<f64>,
    /// Two numeric columns of `obs` with the coordinates, x (column of the image) first, instead of `spatial_key`.
    #[serde(deserialize_with = "two_columns")]
    pub xy_columns: Option<[String; 2]>,
    /// For a text table: column of `coordinates` with the third coordinate; `xy_columns` are then columns of it, too.
    #[serde(deserialize_with = "column")]
    pub z_column: Option<String>,
    /// Whether pictures of single cells can be cut.
    pub images: Images,
    /// For an `.h5ad` and an image: pixels of the image per native unit.
    pub image_scale: f64,
    /// For a bundle with mosaics: stains that become channels, in this order; a name also takes its numbered stains
    /// (`Cellbound` takes `Cellbound1`). Empty: DAPI, PolyT, Cellbound, those that there are; else all in order of name.
    pub image_channels: Vec<String>,
    /// For a bundle with mosaics: where µm per pixel come from.
    pub mosaic_scale: MosaicScale,
    /// What to do with a cell of a bundle that lacks its counts or its place.
    pub on_bad_cell: OnBadCell,
}

/// A column by its name or by its number, which may be written as one.
struct ColumnName(String);

impl<'de> Deserialize<'de> for ColumnName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ColumnName, D::Error> {
        struct NameOrNumber;
        impl Visitor<'_> for NameOrNumber {
            type Value = ColumnName;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("the name of a column, or its number from 1")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<ColumnName, E> {
                Ok(ColumnName(name.to_owned()))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<ColumnName, E> {
                Ok(ColumnName(number.to_string()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<ColumnName, E> {
                Ok(ColumnName(number.to_string()))
            }
        }
        deserializer.deserialize_any(NameOrNumber)
    }
}

fn column<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<ColumnName>::deserialize(deserializer)?.map(|name| name.0))
}

fn two_columns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[String; 2]>, D::Error> {
    Ok(Option::<[ColumnName; 2]>::deserialize(deserializer)?.map(|names| names.map(|name| name.0)))
}

/// Where the genes of a text table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GenesIn {
    /// Where names are; where rows and columns have names, found by the number of places or the genes of the other input.
    #[default]
    Auto,
    /// A gene per line.
    Rows,
    /// A gene per column.
    Columns,
}

/// Where pictures of cells come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Images {
    /// None are cut.
    #[default]
    None,
    /// The image beside an `.h5ad` (same name, `.tif`, `.tiff`, `.png`, `.jpg` or `.jpeg`); the mosaics of a bundle. An input
    /// without one is an error.
    Auto,
}

/// Where the scale of a mosaic comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MosaicScale {
    /// `micron_to_mosaic_pixel_transform.csv` or `manifest.json`; an error where it does not fit the mosaics.
    #[default]
    Manifest,
    /// The bounding box of `manifest.json` over the size of the mosaics: for mosaics made smaller afterwards.
    Bbox,
}

/// What to do with a cell that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBadCell {
    /// An error that names it.
    #[default]
    Stop,
    /// It is left out, counted and named.
    Skip,
}

impl Default for IngestOptions {
    fn default() -> IngestOptions {
        IngestOptions {
            library_id: None,
            counts: CountsFrom::Auto,
            spatial_key: "spatial".into(),
            declared_counts: true,
            features: Vec::new(),
            gene_id_column: None,
            gene_symbol_column: None,
            donor_column: None,
            coordinates: None,
            genes: GenesIn::Auto,
            header: None,
            row_names: None,
            labels: None,
            label_column: None,
            um_per_unit: None,
            xy_columns: None,
            z_column: None,
            images: Images::None,
            image_scale: 1.0,
            image_channels: Vec::new(),
            mosaic_scale: MosaicScale::Manifest,
            on_bad_cell: OnBadCell::Stop,
        }
    }
}

/// Which matrix of an h5ad holds the counts. In TOML: `"auto"`, `"X"`, `"raw"` or `"layers/NAME"`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CountsFrom {
    /// `layers["counts"]` if present, else `X` if integral, else `raw` if integral, else an error.
    #[default]
    Auto,
    /// `X`.
    X,
    /// `raw.X`, with `raw.var`.
    Raw,
    /// A layer.
    Layer(String),
}

impl TryFrom<String> for CountsFrom {
    type Error = String;

    fn try_from(text: String) -> Result<CountsFrom, String> {
        match text.as_str() {
            "auto" => Ok(CountsFrom::Auto),
            "X" | "x" => Ok(CountsFrom::X),
            "raw" => Ok(CountsFrom::Raw),
            other => match other.strip_prefix("layers/") {
                Some(name) if !name.is_empty() => Ok(CountsFrom::Layer(name.into())),
                _ => Err(format!("`{other}` names no matrix; use \"auto\", \"X\", \"raw\" or \"layers/NAME\"")),
            },
        }
    }
}

impl From<CountsFrom> for String {
    fn from(from: CountsFrom) -> String {
        match from {
            CountsFrom::Auto => "auto".into(),
            CountsFrom::X => "X".into(),
            CountsFrom::Raw => "raw".into(),
            CountsFrom::Layer(name) => format!("layers/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_named_by_text_and_unknown_keys_are_refused() {
        let read = |text: &str| serde_json::from_str::<IngestOptions>(text);
        assert_eq!(read("{}").unwrap(), IngestOptions::default());
        assert_eq!(read(r#"{"counts": "layers/umi"}"#).unwrap().counts, CountsFrom::Layer("umi".into()));
        let columns = read(r#"{"xy_columns": [3, "y"], "label_column": 1}"#).unwrap();
        assert_eq!(columns.xy_columns, Some(["3".to_owned(), "y".to_owned()]));
        assert_eq!(columns.label_column.as_deref(), Some("1"));
        assert!(read(r#"{"counts": "umi"}"#).unwrap_err().to_string().contains("layers/NAME"));
        assert!(read(r#"{"spatial": "X"}"#).unwrap_err().to_string().contains("spatial_key"));
    }
}
