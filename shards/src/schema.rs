//! The one record schema: column names, Arrow types and how each column is stored.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `record_id` | uint64 | section ordinal ≪ 32 \| row as ingested |
//! | `section`, `library_id`, `donor_id` | uint32, string, string? | the tissue section |
//! | `split` | string | `train`, `val`, `test` |
//! | `halo` | bool | a copy kept for its neighbours; never sampled, scored or counted |
//! | `obs_id` | string | barcode or cell name |
//! | `x`, `y`, `x_um`, `y_um` | double, double? | native coordinates, and µm where the scale is known |
//! | `z`, `z_um` | double? | there where a section has a third coordinate |
//! | `hidden` | fixed-size list\<bool, n genes\> | there where entries are hidden: this entry's count is not in `count` |
//! | `gene_idx`, `count` | list\<uint32\>, list\<float\> | counts of all panel genes, ascending, no zeros |
//! | `layer.<name>` | fixed-size list\<float, G\> | processed values of the selected genes |
//! | `covariates` | fixed-size list\<float, E\> | there where E > 0: what models see and never predict |
//! | `measured` | fixed-size list\<bool, G\> | there where G > 0: count > 0 |
//! | `neighbours` | fixed-size list\<int32, n\> | there where n > 0: rows of this row group, nearest first; −1 is padding, and in halo rows |
//! | `label.<name>` | string? | label columns as read |
//! | `niche` | uint64? | there where niches are: the record's niche in the table `niche` |
//! | `image` | struct? | there where pictures are: `bytes` [height, width, channels] u8, `channels`, `height`, `width`, `um_per_pixel`?; null in halo rows |
//!
//! Pixels are raw bytes in zstd pages, not PNG, and gene lists are two columns, not a list of structs: `benches/CROPS.md`
//! has the figures.
//!
//! `measured` is a list of booleans and not packed bytes: Parquet stores a boolean in one bit anyway, and pyarrow,
//! polars and DuckDB then read it without a decoder. Knows no file and no manifest.

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

/// Stands for [`crate::processed::NO_NEIGHBOUR`] in the column `neighbours`.
pub const NO_ROW: i32 = -1;

/// What differs between data sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordShape {
    /// Genes in the layers, `G`.
    pub n_selected: usize,
    /// Neighbours per record.
    pub n_neighbours: usize,
    /// Covariates per record, `E`.
    pub n_covariates: usize,
    /// Layer names, ascending.
    pub layers: Vec<String>,
    /// Label columns, ascending.
    pub labels: Vec<String>,
    /// Whether records name their niche.
    pub niches: bool,
    /// Whether records have pictures.
    pub images: bool,
    /// Whether places have a third coordinate.
    pub z: bool,
    /// Entries per record that may be hidden: all panel genes, or none.
    pub n_hidden: usize,
}

impl RecordShape {
    /// Memory of decoded rows with every column, `nnz` counts, `text` bytes of names and labels and `pixels` bytes of pictures
    /// among them.
    pub fn decoded_bytes(&self, n_rows: usize, nnz: usize, text: usize, pixels: u64) -> u64 {
        // id 8, coordinates 16, row pointer 8, name 24; 24 more for each label
        let per_row = self.n_selected * (4 * self.layers.len() + 1)
            + 4 * (self.n_neighbours + self.n_covariates)
            + 56
            + self.n_hidden
            + 8 * usize::from(self.z)
            + 24 * self.labels.len()
            + 9 * usize::from(self.niches)
            + 25 * usize::from(self.images); // offset 4, channels 1, sides 8, scale 8, null flags
        (n_rows * per_row + nnz * 8 + text) as u64 + pixels
    }
}

/// Column of the hidden bits.
pub const HIDDEN: &str = "hidden";
/// Column of the covariates.
pub const COVARIATES: &str = "covariates";

/// Column of a layer.
pub fn layer_column(name: &str) -> String {
    format!("layer.{name}")
}

/// Column of a label.
pub fn label_column(name: &str) -> String {
    format!("label.{name}")
}

/// The element of every list column; never null.
pub(crate) fn element(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("element", data_type, false))
}

/// Column of the pictures.
pub const IMAGE: &str = "image";
/// Column of the niches.
pub const NICHE: &str = "niche";

/// What a picture is made of.
pub(crate) fn image_fields() -> Fields {
    Fields::from(vec![
        Field::new("bytes", DataType::Binary, false),
        Field::new("channels", DataType::UInt8, false),
        Field::new("height", DataType::UInt32, false),
        Field::new("width", DataType::UInt32, false),
        Field::new("um_per_pixel", DataType::Float64, true),
    ])
}

/// Columns of a record, in file order.
pub fn record_schema(shape: &RecordShape) -> SchemaRef {
    let fixed = |t: DataType, n: usize| DataType::FixedSizeList(element(t), n as i32);
    let mut fields = vec![
        Field::new("record_id", DataType::UInt64, false),
        Field::new("section", DataType::UInt32, false),
        Field::new("library_id", DataType::Utf8, false),
        Field::new("donor_id", DataType::Utf8, true),
        Field::new("split", DataType::Utf8, false),
        Field::new("halo", DataType::Boolean, false),
        Field::new("obs_id", DataType::Utf8, false),
        Field::new("x", DataType::Float64, false),
        Field::new("y", DataType::Float64, false),
        Field::new("x_um", DataType::Float64, true),
        Field::new("y_um", DataType::Float64, true),
        Field::new("gene_idx", DataType::List(element(DataType::UInt32)), false),
        Field::new("count", DataType::List(element(DataType::Float32)), false),
    ];
    if shape.z {
        fields.extend(["z", "z_um"].map(|name| Field::new(name, DataType::Float64, true)));
    }
    if shape.n_hidden > 0 {
        fields.push(Field::new(HIDDEN, fixed(DataType::Boolean, shape.n_hidden), false));
    }
    fields.extend(
        shape.layers.iter().map(|l| Field::new(layer_column(l), fixed(DataType::Float32, shape.n_selected), false)),
    );
    if shape.n_covariates > 0 {
        fields.push(Field::new(COVARIATES, fixed(DataType::Float32, shape.n_covariates), false));
    }
    if shape.n_selected > 0 {
        fields.push(Field::new("measured", fixed(DataType::Boolean, shape.n_selected), false));
    }
    if shape.n_neighbours > 0 {
        fields.push(Field::new("neighbours", fixed(DataType::Int32, shape.n_neighbours), false));
    }
    fields.extend(shape.labels.iter().map(|l| Field::new(label_column(l), DataType::Utf8, true)));
    if shape.niches {
        fields.push(Field::new(NICHE, DataType::UInt64, true));
    }
    if shape.images {
        fields.push(Field::new(IMAGE, DataType::Struct(image_fields()), true));
    }
    Arc::new(Schema::new(fields))
}

/// How columns are stored: zstd-1 throughout; dictionaries only where a word repeats; statistics only where a reader
/// can skip by them (ids and coordinates).
pub fn writer_properties(shape: &RecordShape) -> WriterProperties {
    let path = |name: &str| ColumnPath::new(vec![name.to_owned()]);
    let list = |name: &str| ColumnPath::new(vec![name.to_owned(), "list".to_owned(), "element".to_owned()]);
    let level = ZstdLevel::try_new(1).expect("zstd has a level 1");
    let mut builder: WriterPropertiesBuilder = WriterProperties::builder()
        .set_created_by("syncytia-shards".to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(None) // one batch is one row group: the writer flushes
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_column_encoding(path("record_id"), Encoding::DELTA_BINARY_PACKED)
        .set_column_encoding(list("gene_idx"), Encoding::DELTA_BINARY_PACKED);
    for name in ["section", "library_id", "donor_id", "split"] {
        builder = builder.set_column_dictionary_enabled(path(name), true);
    }
    for label in &shape.labels {
        builder = builder.set_column_dictionary_enabled(path(&label_column(label)), true);
    }
    for name in ["record_id", "section", "library_id", "split", "x", "y", "x_um", "y_um"] {
        builder = builder.set_column_statistics_enabled(path(name), EnabledStatistics::Chunk);
    }
    builder.build()
}
