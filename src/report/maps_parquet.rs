//! `maps.parquet`: the spots of the maps, one row group per map. In memory both ways.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{ArrayRef, BooleanArray, Float32Array, Float64Array, RecordBatch, StringArray};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::gene_map::GeneMap;

/// The columns, in the order of the file; only `measured` may be null.
fn schema() -> Schema {
    let column = |name: &str, of| Field::new(name, of, name == "measured");
    Schema::new(vec![
        column("gene", DataType::Utf8),
        column("section", DataType::Utf8),
        column("x", DataType::Float64),
        column("y", DataType::Float64),
        column("measured", DataType::Float32),
        column("hidden", DataType::Boolean),
        column("predicted", DataType::Float32),
    ])
}

/// The file of `maps`; the same maps give the same bytes.
pub fn encode(maps: &[GeneMap]) -> Vec<u8> {
    write(maps).expect("columns of one length are written to memory")
}

fn write(maps: &[GeneMap]) -> Result<Vec<u8>, ParquetError> {
    let level = ZstdLevel::try_new(3)?;
    let properties = WriterProperties::builder()
        .set_created_by("syncytia".to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(None); // one map is one row group: the writer flushes
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, Arc::new(schema()), Some(properties.build()))?;
    for map in maps {
        writer.write(&batch(map)?)?;
        writer.flush()?;
    }
    writer.close()?;
    Ok(bytes)
}

fn batch(map: &GeneMap) -> Result<RecordBatch, ArrowError> {
    let n = map.xy.len();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![map.gene.as_str(); n])),
        Arc::new(StringArray::from(vec![map.section.as_str(); n])),
        Arc::new(Float64Array::from_iter_values(map.xy.iter().map(|p| p[0]))),
        Arc::new(Float64Array::from_iter_values(map.xy.iter().map(|p| p[1]))),
        Arc::new(Float32Array::from(map.measured.clone())),
        Arc::new(BooleanArray::from(map.hidden.clone())),
        Arc::new(Float32Array::from(map.predicted.clone())),
    ];
    RecordBatch::try_new(Arc::new(schema()), columns)
}

/// The maps of a file.
///
/// # Errors
/// What is no Parquet, or has other columns.
pub fn decode(bytes: Vec<u8>) -> Result<Vec<GeneMap>, ParquetError> {
    let bytes = bytes::Bytes::from(bytes);
    let n_maps = ParquetRecordBatchReaderBuilder::try_new(bytes.clone())?.metadata().num_row_groups();
    (0..n_maps).map(|i| map_of(bytes.clone(), i)).collect()
}

fn map_of(bytes: bytes::Bytes, row_group: usize) -> Result<GeneMap, ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    if builder.schema().fields() != schema().fields() {
        return Err(ParquetError::General(format!("its columns are {}", builder.schema())));
    }
    let mut map = GeneMap {
        gene: String::new(),
        section: String::new(),
        xy: Vec::new(),
        measured: Vec::new(),
        hidden: Vec::new(),
        predicted: Vec::new(),
    };
    for batch in builder.with_row_groups(vec![row_group]).build()? {
        let batch = batch?;
        let text = |i: usize| batch.column(i).as_string::<i32>().value(0).to_owned();
        let place = |i: usize| batch.column(i).as_primitive::<Float64Type>().values();
        (map.gene, map.section) = (text(0), text(1));
        map.xy.extend(place(2).iter().zip(place(3)).map(|(&x, &y)| [x, y]));
        map.measured.extend(batch.column(4).as_primitive::<Float32Type>());
        map.hidden.extend(batch.column(5).as_boolean().values());
        map.predicted.extend(batch.column(6).as_primitive::<Float32Type>().values());
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_come_back_bit_by_bit_and_two_of_one_name_stay_two() {
        let map = |section: &str, n: usize| GeneMap {
            gene: "Ttn".to_owned(),
            section: section.to_owned(),
            xy: (0..n).map(|i| [i as f64 / 3.0, -0.1 * i as f64]).collect(),
            measured: (0..n).map(|i| (i % 3 > 0).then(|| (i as f32).sqrt())).collect(),
            hidden: (0..n).map(|i| i % 3 == 1).collect(),
            predicted: (0..n).map(|i| (i as f32).sin()).collect(),
        };
        let maps = [map("a", 3000), map("a", 5), map("b, \"c\"", 1)];
        let bytes = encode(&maps);
        assert_eq!(decode(bytes.clone()).unwrap(), maps);
        assert_eq!(encode(&maps), bytes);
        assert_eq!(decode(encode(&[])).unwrap(), []);
        assert!(decode(b"gene,section".to_vec()).is_err());
    }
}
