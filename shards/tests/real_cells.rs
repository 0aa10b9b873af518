//! Cells of real instruments: do the pictures sit on them, are the ids exact, what do damaged inputs say.
//!
//! The bundles lie beside the repository; without them the tests say so, and fail under `SYNCYTIA_REQUIRE_ALL=1`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use syncytia_shards::ingest::{Images, IngestOptions, MosaicScale, OnBadCell, read_section};
use syncytia_shards::pictures::{Cover, Cutter};
use syncytia_shards::process::{FilterConfig, ProcessConfig, SplitConfig, SplitKind, process};
use syncytia_shards::section::Section;
use tiff::encoder::{TiffEncoder, colortype};

const MERSCOPE: &str = "merscope-cellbound-bundle/vizgen_cellbound";
const HE: &str = "xenium-he-cells-NCBI858/NCBI858.h5ad";

fn data(path: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(path);
    if path.exists() {
        return Some(path);
    }
    let required = std::env::var("SYNCYTIA_REQUIRE_ALL").is_ok_and(|v| v == "1");
    assert!(!required, "{} is absent and SYNCYTIA_REQUIRE_ALL=1", path.display());
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: {} is absent", path.display());
    None
}

fn bbox() -> IngestOptions {
    IngestOptions { images: Images::Auto, mosaic_scale: MosaicScale::Bbox, ..IngestOptions::default() }
}

/// A copy of the bundle that a test may spoil; images are linked.
fn copy(from: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("images")).unwrap();
    for name in ["cell_by_gene.csv", "cell_metadata.csv"] {
        fs::write(dir.path().join(name), fs::read(from.join(name)).unwrap()).unwrap();
    }
    for entry in fs::read_dir(from.join("images")).unwrap() {
        let entry = entry.unwrap();
        fs::write(dir.path().join("images").join(entry.file_name()), fs::read(entry.path()).unwrap()).unwrap();
    }
    dir
}

fn change(dir: &tempfile::TempDir, file: &str, from: &str, to: &str) {
    let path = dir.path().join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

fn said(dir: &tempfile::TempDir, options: &IngestOptions) -> String {
    read_section(dir.path(), options).unwrap_err().to_string()
}

#[test]
fn a_bundle_is_read_with_every_digit_of_its_ids() {
    let Some(path) = data(MERSCOPE) else { return };
    let section = read_section(&path, &bbox()).unwrap();
    assert_eq!((section.n_obs(), section.genes.len(), section.format), (1058, 49, "merscope"));
    assert_eq!(section.obs_ids[0], "112824700230101249", "18 digits: a double would end in 248 or 252");
    assert_eq!(section.xy[0], [6765.2489937702, 1195.8734859086]);
    let gene = section.genes.iter().position(|g| g.id == "NCAM1").unwrap() as u32;
    let (genes, counts) = section.counts.row(0);
    assert_eq!(counts[genes.binary_search(&gene).unwrap()], 10.0);
    let pictures = section.pictures.unwrap();
    assert_eq!(pictures.channels(), ["DAPI", "PolyT", "Cellbound"]);
    assert_eq!(pictures.files().len(), 9, "every plane is used");
    assert!((pictures.units_per_pixel - 0.432).abs() < 1e-4);
    assert!(section.notes.iter().any(|n| n == "39 controls (Blank…) left out"), "{:?}", section.notes);
}

/// Mean of a channel in the middle of each cell less its mean around it; `place` may turn the places.
fn middle_less_ring(section: &Section, channel: usize, place: impl Fn([f64; 2], [f64; 2]) -> [f64; 2]) -> f64 {
    let pictures = section.pictures.as_ref().unwrap();
    let mut cutter = Cutter::open(pictures).unwrap();
    let [height, width] = pictures.size().map(f64::from);
    let n_channels = pictures.channels().len();
    let mut differences = Vec::new();
    for &xy in &section.xy {
        let window = pictures.window(place(pictures.pixel(xy), [width, height]), 17);
        if pictures.cover(&window) != Cover::Whole {
            continue;
        }
        let cut = cutter.cut(&window).unwrap();
        let (mut middle, mut ring) = (Vec::new(), Vec::new());
        for (k, pixel) in cut.chunks(n_channels).enumerate() {
            let away = (k / 17).abs_diff(8).max((k % 17).abs_diff(8));
            if away <= 3 {
                middle.push(f64::from(pixel[channel]));
            } else if away >= 6 {
                ring.push(f64::from(pixel[channel]));
            }
        }
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        differences.push(mean(&middle) - mean(&ring));
    }
    assert!(differences.len() > 800, "{} cells inside", differences.len());
    differences.iter().sum::<f64>() / differences.len() as f64
}

/// Membranes lie around cells, nuclei in them; with axes swapped or turned both differences vanish.
#[test]
fn pictures_of_a_bundle_sit_on_its_cells() {
    let Some(path) = data(MERSCOPE) else { return };
    let section = read_section(&path, &bbox()).unwrap();
    let (dapi, membrane) = (0, 2);
    let as_read = [dapi, membrane].map(|channel| middle_less_ring(&section, channel, |p, _| p));
    assert!(as_read[0] > 0.1 && as_read[1] < -0.8, "{as_read:?}");
    type Turn = fn([f64; 2], [f64; 2]) -> [f64; 2];
    let turns: [Turn; 3] = [|[x, y], _| [y, x], |[x, y], [w, _]| [w - x, y], |[x, y], [_, h]| [x, h - y]];
    for turn in turns {
        let turned = middle_less_ring(&section, membrane, turn);
        assert!(turned.abs() < 0.4, "{turned} where no membrane is to be seen");
    }
}

#[test]
fn a_scale_that_does_not_fit_the_mosaics_is_an_error_with_both_numbers() {
    let Some(path) = data(MERSCOPE) else { return };
    let options = IngestOptions { images: Images::Auto, ..IngestOptions::default() };
    let refused = read_section(&path, &options).unwrap_err().to_string();
    for words in
        ["images/manifest.json: 0.108 µm per pixel", "695 × 695 pixels is 0.4320", "input.mosaic_scale = \"bbox\""]
    {
        assert!(refused.contains(words), "{refused}");
    }
    // without pictures the scale is nobody's business
    assert!(read_section(&path, &IngestOptions::default()).unwrap().pictures.is_none());
    let dir = copy(&path);
    change(&dir, "images/manifest.json", "0.108", "0.432");
    assert!(read_section(dir.path(), &options).is_ok());
    let transform = dir.path().join("images/micron_to_mosaic_pixel_transform.csv");
    fs::write(&transform, "2.3148 0 -15046.1\n0 2.3148 -2777.6\n0 0 1\n").unwrap();
    let section = read_section(dir.path(), &options).unwrap();
    let [x, y] = section.pictures.unwrap().origin;
    assert!((x - 6499.9).abs() < 0.2 && (y - 1199.9).abs() < 0.2, "{x} {y}");
    fs::write(&transform, "9.26 0 -60185.0\n0 9.26 -11110.0\n0 0 1\n").unwrap();
    assert!(said(&dir, &options).contains("transform.csv: 0.1079"), "{}", said(&dir, &options));
}

#[test]
fn a_cell_without_counts_or_place_stops_or_is_left_out_by_name() {
    let Some(path) = data(MERSCOPE) else { return };
    let dir = copy(&path);
    change(&dir, "cell_metadata.csv", "112824700230101252", "7");
    let refused = said(&dir, &bbox());
    assert!(refused.contains("1 cell(s) without place, first: 112824700230101252"), "{refused}");
    let skip = IngestOptions { on_bad_cell: OnBadCell::Skip, ..bbox() };
    let section = read_section(dir.path(), &skip).unwrap();
    assert_eq!(section.n_obs(), 1057);
    for note in ["1 cells without place left out: 112824700230101252", "1 cells without counts left out: 7"] {
        assert!(section.notes.iter().any(|n| n == note), "{:?}", section.notes);
    }
}

#[test]
fn counts_and_places_that_are_no_numbers_are_named() {
    let Some(path) = data(MERSCOPE) else { return };
    let dir = copy(&path);
    change(&dir, "cell_metadata.csv", "6765.2489937702", "east");
    assert!(said(&dir, &bbox()).contains("cell_metadata.csv: line 2: `east` is no number (center_x)"));
    let dir = copy(&path);
    change(&dir, "cell_metadata.csv", "6765.2489937702", "NaN");
    assert!(said(&dir, &bbox()).contains("coordinate of `112824700230101249` is not finite"));
    let dir = copy(&path);
    change(&dir, "cell_by_gene.csv", "112824700230101249,0,0,0,1", "112824700230101249,0,0,0,-1");
    let refused = said(&dir, &bbox());
    assert!(refused.contains("holds -1 at observation `112824700230101249`, gene `CDKN1A`"), "{refused}");
}

#[test]
fn a_strip_with_a_pixel_that_is_no_number_is_named_and_its_cells_stop_or_are_counted() {
    let Some(path) = data(MERSCOPE) else { return };
    let dir = copy(&path);
    let file = dir.path().join("images/mosaic_DAPI_z2.tif");
    let mut pixels = vec![3.5f32; 695 * 695];
    pixels[300 * 695 + 20] = f32::NAN;
    let mut encoder = TiffEncoder::new(fs::File::create(&file).unwrap()).unwrap();
    let mut image = encoder.new_image::<colortype::Gray32Float>(695, 695).unwrap();
    image.rows_per_strip(20).unwrap();
    image.write_data(&pixels).unwrap();
    let section = read_section(dir.path(), &bbox()).unwrap();
    let split = SplitConfig { kind: Some(SplitKind::Section), ..SplitConfig::default() };
    let mut config = ProcessConfig { layers: Vec::new(), n_neighbours: 0, ..ProcessConfig::default() };
    let filter = FilterConfig { real_data_percentage: 0.0, ..FilterConfig::default() };
    let refused = process(vec![section.clone()], &filter, &config, &split).unwrap_err().to_string();
    for words in ["mosaic_DAPI_z2.tif: tile 15 (pixel rows 300..320, columns 0..695): NaN", "process.on_bad_crop"] {
        assert!(refused.contains(words), "{refused}");
    }
    config.on_bad_crop = OnBadCell::Skip;
    let processed = process(vec![section], &filter, &config, &split).unwrap();
    let line = processed.ledger.entries.iter().find(|e| e.reason == "no picture").unwrap();
    assert!(line.n > 0 && line.names.len() as u64 == line.n);
    assert!(processed.summary.observations + line.n <= 1058);
}

#[test]
fn a_missing_or_foreign_image_is_an_error_that_says_what_to_do() {
    let Some(path) = data(MERSCOPE) else { return };
    let dir = copy(&path);
    fs::remove_file(dir.path().join("images/mosaic_PolyT_z2.tif")).unwrap();
    assert!(said(&dir, &bbox()).contains("mosaic_PolyT_z2.tif: cannot be read"));
    fs::write(dir.path().join("images/mosaic_PolyT_z2.tif"), "no picture").unwrap();
    assert!(said(&dir, &bbox()).contains("convert it"));
    let other = IngestOptions { image_channels: vec!["GFP".into()], ..bbox() };
    assert!(said(&copy(&path), &other).contains("no `GFP`; its stains are"), "{}", said(&copy(&path), &other));
}

/// `x_pixel` is the row there: as x it leaves the picture, and the error suspects it.
#[test]
fn cells_on_an_he_image_need_the_column_named_first() {
    let Some(path) = data(HE) else { return };
    let options = |columns: [&str; 2]| IngestOptions {
        images: Images::Auto,
        xy_columns: Some(columns.map(str::to_owned)),
        ..IngestOptions::default()
    };
    let split = SplitConfig { kind: Some(SplitKind::Section), ..SplitConfig::default() };
    let config = ProcessConfig { layers: Vec::new(), n_neighbours: 0, ..ProcessConfig::default() };
    let filter = FilterConfig { cell_min: 0.0, real_data_percentage: 0.0, ..FilterConfig::default() };
    let run = |columns| process(vec![read_section(&path, &options(columns)).unwrap()], &filter, &config, &split);
    let refused = run(["x_pixel", "y_pixel"]).unwrap_err().to_string();
    assert!(refused.contains("with x and y swapped"), "{refused}");
    assert_eq!(run(["y_pixel", "x_pixel"]).unwrap().summary.observations, 200);
    let absent = read_section(&path, &options(["x", "y"])).unwrap_err().to_string();
    assert!(absent.contains("no `obs/x`; input.xy_columns names x, then y; obs has [x_pixel, y_pixel]"), "{absent}");
}
