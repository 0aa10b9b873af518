//! How pictures of cells and gene lists are stored: size, encoding and decoding of the alternatives on real cells.
//!
//! `cargo bench -p syncytia-shards --bench crops -- SHARDS...` with folders of `syncytia shard` that have pictures prints the
//! tables of `benches/CROPS.md`; one thread, each figure the best of five.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{ArrayRef, BinaryArray, Float32Array, ListArray, RecordBatch, StructArray, UInt32Array};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Fields, Schema};
use bytes::Bytes;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::row_group::Columns;

const ROUNDS: usize = 5;
/// Cells of a bench: small sources are repeated by whole row groups, as a cohort would be.
const MIN_CELLS: usize = 8192;

struct Cells {
    name: String,
    /// Bytes, height and width, channels of each picture.
    pictures: Vec<(Vec<u8>, [u32; 2], u8)>,
    offsets: Vec<i32>,
    genes: Vec<u32>,
    counts: Vec<f32>,
    /// Cells of a row group.
    row_group: usize,
}

fn load(dir: &Path) -> Cells {
    let shards = Shards::open(dir).expect("a shard folder");
    let columns = Columns { counts: true, images: true, ..Columns::default() };
    let name = shards.manifest().sections[0].library_id.clone();
    let (offsets, genes, counts) = (vec![0], Vec::new(), Vec::new());
    let mut cells = Cells { name, pictures: Vec::new(), offsets, genes, counts, row_group: 1024 };
    for entry in [Split::Train, Split::Val, Split::Test].into_iter().flat_map(|split| shards.row_groups(split)) {
        let group = shards.read_row_group(entry, &columns).expect("shards with pictures");
        let csr = group.counts.as_ref().expect("asked for");
        for row in 0..group.n_own {
            let image = group.image(row).expect("asked for");
            cells.pictures.push((image.bytes.to_vec(), [image.height, image.width], image.channels));
            cells.genes.extend_from_slice(csr.row(row).0);
            cells.counts.extend_from_slice(csr.row(row).1);
            cells.offsets.push(cells.genes.len() as i32);
        }
    }
    cells
}

/// Best of [`ROUNDS`], seconds, with the last result.
fn best<T>(mut work: impl FnMut() -> T) -> (f64, T) {
    let mut least = f64::INFINITY;
    let mut last = None;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        last = Some(std::hint::black_box(work()));
        least = least.min(started.elapsed().as_secs_f64());
    }
    (least, last.expect("at least one round"))
}

fn properties() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(None)
        .set_offset_index_disabled(true)
}

fn zstd(level: i32) -> Compression {
    Compression::ZSTD(ZstdLevel::try_new(level).expect("a level of zstd"))
}

fn write(batches: &[RecordBatch], properties: WriterProperties) -> Bytes {
    let mut writer = ArrowWriter::try_new(Vec::new(), batches[0].schema(), Some(properties)).expect("a schema");
    for batch in batches {
        writer.write(batch).expect("memory");
        writer.flush().expect("memory");
    }
    writer.into_inner().expect("memory").into()
}

fn read(file: &Bytes) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.clone()).expect("what was written");
    reader.with_batch_size(1 << 20).build().expect("what was written").map(|b| b.expect("what was written")).collect()
}

fn png((bytes, [height, width], channels): &(Vec<u8>, [u32; 2], u8), kind: CompressionType) -> Vec<u8> {
    let color = if *channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    let mut out = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut out, kind, FilterType::Adaptive);
    encoder.write_image(bytes, *width, *height, color).expect("gray or RGB");
    out
}

fn binary(values: impl Iterator<Item = Vec<u8>>) -> RecordBatch {
    let array: ArrayRef = Arc::new(BinaryArray::from_iter_values(values));
    let schema = Schema::new(vec![Field::new("bytes", DataType::Binary, false)]);
    RecordBatch::try_new(Arc::new(schema), vec![array]).expect("one column")
}

fn pictures(cells: &Cells) {
    let repeat = MIN_CELLS.div_ceil(cells.pictures.len());
    let n = cells.pictures.len() * repeat;
    let raw: usize = cells.pictures.iter().map(|p| p.0.len()).sum::<usize>() * repeat;
    let row = |what: &str, size: usize, encode: f64, decode: f64| {
        let mb = raw as f64 / 1e6;
        println!(
            "| {} | {what} | {:.3} | {:.0} | {:.0} | {:.0} |",
            cells.name,
            size as f64 / raw as f64,
            mb / encode,
            mb / decode,
            n as f64 / decode / 1e3
        );
    };
    let groups = || (0..repeat).flat_map(|_| cells.pictures.chunks(cells.row_group));
    for (what, codec) in [
        ("raw, no compression", Compression::UNCOMPRESSED),
        ("**raw, zstd-1**", zstd(1)),
        ("raw, zstd-3", zstd(3)),
        ("raw, zstd-9", zstd(9)),
    ] {
        let encode = || {
            let batches: Vec<_> = groups().map(|g| binary(g.iter().map(|p| p.0.clone()))).collect();
            write(&batches, properties().set_compression(codec).build())
        };
        let (encoding, file) = best(encode);
        let (decoding, _) = best(|| read(&file));
        row(what, file.len(), encoding, decoding);
    }
    for (what, kind) in [("PNG, fast", CompressionType::Fast), ("PNG, default", CompressionType::Default)] {
        let encode = || {
            let batches: Vec<_> = groups().map(|g| binary(g.iter().map(|p| png(p, kind)))).collect();
            write(&batches, properties().set_compression(Compression::UNCOMPRESSED).build())
        };
        let (encoding, file) = best(encode);
        let decode = || -> usize {
            let batches = read(&file);
            let arrays = batches.iter().map(|b| b.column(0).as_any().downcast_ref::<BinaryArray>().expect("binary"));
            let decoded = arrays.flat_map(|a| a.iter().map(|png| decode_png(png.expect("no nulls"))));
            decoded.map(|pixels| pixels.len()).sum()
        };
        let (decoding, bytes) = best(decode);
        assert_eq!(bytes, raw, "lossless");
        row(what, file.len(), encoding, decoding);
    }
}

fn decode_png(bytes: &[u8]) -> Vec<u8> {
    let reader = image::ImageReader::with_format(Cursor::new(bytes), image::ImageFormat::Png);
    reader.decode().expect("what was written").into_bytes()
}

fn lists(cells: &Cells) {
    let n = cells.offsets.len() - 1;
    let repeat = (16 * MIN_CELLS).div_ceil(n);
    let offsets = OffsetBuffer::new(ScalarBuffer::from(cells.offsets.clone()));
    let genes: ArrayRef = Arc::new(UInt32Array::from(cells.genes.clone()));
    let counts: ArrayRef = Arc::new(Float32Array::from(cells.counts.clone()));
    let element = |t: DataType| Arc::new(Field::new("element", t, false));
    let field = |name: &str, array: &ArrayRef| Field::new(name, array.data_type().clone(), false);
    let list = |t: DataType, values: &ArrayRef| -> ArrayRef {
        Arc::new(ListArray::new(element(t), offsets.clone(), values.clone(), None))
    };
    let (gene_idx, count) = (list(DataType::UInt32, &genes), list(DataType::Float32, &counts));
    let schema = Schema::new(vec![field("gene_idx", &gene_idx), field("count", &count)]);
    let two = RecordBatch::try_new(Arc::new(schema), vec![gene_idx, count]).expect("two columns");
    let fields = Fields::from(vec![field("gene_idx", &genes), field("count", &counts)]);
    let entries: ArrayRef = Arc::new(StructArray::new(fields.clone(), vec![genes, counts], None));
    let one = list(DataType::Struct(fields), &entries);
    let schema = Schema::new(vec![field("genes", &one)]);
    let one = RecordBatch::try_new(Arc::new(schema), vec![one]).expect("one column");
    let path = |parts: &[&str]| ColumnPath::new(parts.iter().map(|p| (*p).to_owned()).collect());
    for (what, batch, at) in [
        ("**two list columns**", two, path(&["gene_idx", "list", "element"])),
        ("one list of struct", one, path(&["genes", "list", "element", "gene_idx"])),
    ] {
        let batches = vec![batch; repeat];
        let properties = || {
            let delta = Encoding::DELTA_BINARY_PACKED;
            properties().set_compression(zstd(1)).set_column_encoding(at.clone(), delta).build()
        };
        let (encoding, file) = best(|| write(&batches, properties()));
        let (decoding, _) = best(|| read(&file));
        let entries = (cells.genes.len() * repeat) as f64;
        println!(
            "| {} | {what} | {:.2} | {:.1} | {:.1} | {:.0} |",
            cells.name,
            file.len() as f64 / entries,
            entries / encoding / 1e6,
            entries / decoding / 1e6,
            (n * repeat) as f64 / decoding / 1e3
        );
    }
}

/// Row groups as a loader reads them: checksums, Parquet, pictures and counts, one thread.
fn row_groups(dir: &Path) {
    let shards = Shards::open(dir).expect("a shard folder");
    let columns = Columns { counts: true, images: true, ..Columns::default() };
    let entries = || [Split::Train, Split::Val, Split::Test].into_iter().flat_map(|split| shards.row_groups(split));
    let read = || -> usize {
        let groups = entries().map(|entry| shards.read_row_group(entry, &columns).expect("shards with pictures"));
        groups.map(|group| group.n_own).sum()
    };
    let (seconds, n) = best(read);
    let bytes: u64 = entries().map(|e| e.length).sum();
    let (name, mb) = (&shards.manifest().sections[0].library_id, bytes as f64 / 1e6);
    println!("| {name} | {n} | {mb:.1} | {:.0} |", n as f64 / seconds / 1e3);
}

fn main() {
    let folders: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if folders.is_empty() {
        println!("name shard folders with pictures: cargo bench -p syncytia-shards --bench crops -- SHARDS...");
        return;
    }
    let cells: Vec<Cells> = folders.iter().map(|dir| load(Path::new(dir))).collect();
    println!(
        "| cells | pixels | size / raw | encode MB/s | decode MB/s | decode, thousand cells/s |\n|---|---|--:|--:|--:|--:|"
    );
    cells.iter().for_each(pictures);
    println!(
        "\n| cells | gene lists | bytes per entry | encode M entries/s | decode M entries/s | decode, thousand cells/s |"
    );
    println!("|---|---|--:|--:|--:|--:|");
    cells.iter().for_each(lists);
    println!("\n| cells | number | MB | row groups read, thousand cells/s |\n|---|--:|--:|--:|");
    folders.iter().for_each(|dir| row_groups(Path::new(dir)));
}
