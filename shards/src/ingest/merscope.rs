//! A MERSCOPE (Vizgen) export: `cell_by_gene.csv`, `cell_metadata.csv` and the mosaics under `images/`.
//!
//! Coordinates are µm. Cell ids are text from end to end: they have 18 digits, more than a double holds. The tables are
//! joined by id, so that rows may come in any order. Genes called `Blank…` are controls and left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Deserialize;

use super::checks::{self, Named};
use super::counts_window::Window;
use super::description::{Description, MatrixFacts};
use super::error::{IngestError, first_few};
use super::options::{Images, IngestOptions, MosaicScale, OnBadCell};
use crate::pictures::{Channel, PictureFile, Pictures, Source};
use crate::section::{Gene, Section};

const COUNTS: &str = "cell_by_gene.csv";
const CELLS: &str = "cell_metadata.csv";
const MANIFEST: &str = "images/manifest.json";
const TRANSFORM: &str = "images/micron_to_mosaic_pixel_transform.csv";
/// Stains that become channels where none are named.
const STAINS: [&str; 3] = ["DAPI", "PolyT", "Cellbound"];
/// Share by which two scales may differ: mosaics are cut to whole pixels.
const SAME_SCALE: f64 = 0.01;

/// Whether a folder is such an export.
pub(super) fn is_export(path: &Path) -> bool {
    path.join(COUNTS).is_file() && path.join(CELLS).is_file()
}

/// Reads an export. The section's observations are the cells of `cell_by_gene.csv`, in its order.
pub(super) fn read(path: &Path, options: &IngestOptions) -> Result<Section, IngestError> {
    let mut notes = Vec::new();
    let table = Counts::read(&path.join(COUNTS))?;
    let cells = cells(&path.join(CELLS))?;
    checks::unique(path, "observation", table.cells.iter().map(String::as_str))?;
    let genes: Vec<Gene> = table.genes.iter().map(|id| Gene { id: id.clone(), symbol: id.clone() }).collect();
    checks::unique(path, "gene", table.genes.iter().map(String::as_str))?;

    let placed: Vec<u32> =
        (0u32..).zip(&table.cells).filter(|(_, id)| cells.contains_key(*id)).map(|(i, _)| i).collect();
    let unplaced = table.cells.iter().filter(|id| !cells.contains_key(*id)).collect::<Vec<_>>();
    missing(&path.join(CELLS), "place", &unplaced, options.on_bad_cell, &mut notes)?;
    let counted: BTreeSet<&String> = table.cells.iter().collect();
    let uncounted: Vec<&String> = cells.keys().filter(|id| !counted.contains(id)).collect();
    missing(&path.join(COUNTS), "counts", &uncounted, options.on_bad_cell, &mut notes)?;

    let named = Named { path: &path.join(COUNTS), node: COUNTS, obs: &table.cells, genes: &genes };
    let mut counts = checks::counts(table.values, options.declared_counts, &named, &mut notes)?;
    let controls = table.genes.iter().filter(|id| is_control(id)).count();
    let measured: Vec<u32> = (0u32..).zip(&table.genes).filter(|(_, id)| !is_control(id)).map(|(i, _)| i).collect();
    if controls > 0 {
        notes.push(format!("{controls} controls (Blank…) left out"));
        counts = counts.select_columns(&measured);
    }
    let obs_ids: Vec<String> = placed.iter().map(|&i| table.cells[i as usize].clone()).collect();
    let xy: Vec<[f64; 2]> = obs_ids.iter().map(|id| cells[id].centre).collect();
    checks::finite(&path.join(CELLS), &obs_ids, &xy, None)?;
    let boxes: Option<Vec<[f64; 4]>> = obs_ids.iter().map(|id| cells[id].bounds).collect();
    let pictures = match options.images {
        Images::None => None,
        Images::Auto => Some(mosaics(path, options)?),
    };
    Ok(Section {
        library_id: options.library_id.clone().unwrap_or_else(|| folder_name(path)),
        donor_id: None,
        source: path.into(),
        format: "merscope",
        counts: counts.select_rows(&placed),
        obs_ids,
        genes: measured.iter().map(|&i| genes[i as usize].clone()).collect(),
        xy,
        z: None,
        um_per_unit: Some(1.0),
        array_row_col: None,
        labels: Vec::new(),
        features: Vec::new(),
        image: None,
        pictures,
        boxes,
        notes,
    })
}

/// What is in an export, for `inspect`.
pub(super) fn describe(path: &Path) -> Result<Description, IngestError> {
    let table = Counts::read(&path.join(COUNTS))?;
    let not_a_count = table.values.values.iter().copied().find(|v| !(v.fract() == 0.0 && *v >= 0.0));
    let (n_obs, n_vars) = (table.cells.len(), table.genes.len());
    let images = if path.join(MANIFEST).is_file() { Manifest::read(path)?.mosaic_files } else { Vec::new() };
    Ok(Description {
        path: path.into(),
        format: "merscope",
        encoding: "Vizgen export, coordinates in µm".into(),
        n_obs,
        n_vars,
        matrices: vec![MatrixFacts {
            node: COUNTS.into(),
            encoding: "csv".into(),
            dtype: "text".into(),
            n_obs,
            n_vars,
            is_counts: not_a_count.is_none(),
            not_a_count,
        }],
        obsm: Vec::new(),
        obs_columns: Vec::new(),
        var_columns: Vec::new(),
        spatial: Some(CELLS.into()),
        images: images.into_iter().map(|m| m.file_name).collect(),
    })
}

fn is_control(id: &str) -> bool {
    id.to_ascii_lowercase().starts_with("blank")
}

fn folder_name(path: &Path) -> String {
    let folder = std::path::absolute(path).unwrap_or_else(|_| path.into());
    folder.file_name().map_or_else(|| "section".into(), |name| name.to_string_lossy().into_owned())
}

/// Refuses cells that one table lacks, or notes them.
fn missing(
    path: &Path,
    what: &'static str,
    cells: &[&String],
    on_bad_cell: OnBadCell,
    notes: &mut Vec<String>,
) -> Result<(), IngestError> {
    match on_bad_cell {
        _ if cells.is_empty() => Ok(()),
        OnBadCell::Stop => {
            Err(IngestError::CellWithout { path: path.into(), what, n: cells.len(), first: first_few(cells) })
        }
        OnBadCell::Skip => {
            let names: Vec<&str> = cells.iter().map(|id| id.as_str()).collect();
            notes.push(format!("{} cells without {what} left out: {}", cells.len(), names.join(", ")));
            Ok(())
        }
    }
}

/// `cell_by_gene.csv`.
struct Counts {
    cells: Vec<String>,
    genes: Vec<String>,
    values: Window,
}

impl Counts {
    /// The first column holds the cell's id, the others a gene each.
    fn read(path: &Path) -> Result<Counts, IngestError> {
        let mut reader = csv_reader(path)?;
        let genes: Vec<String> = header(path, &mut reader)?.into_iter().skip(1).collect();
        let (mut cells, mut indptr, mut indices, mut values) = (Vec::new(), vec![0], Vec::new(), Vec::new());
        for (i, record) in reader.records().enumerate() {
            let bad = |fact: String| IngestError::Text { path: path.into(), line: i as u64 + 2, fact };
            let record = record.map_err(|e| bad(e.to_string()))?;
            cells.push(record[0].to_owned());
            for (column, text) in record.iter().skip(1).enumerate() {
                let value: f64 = match text.trim() {
                    "0" => continue,
                    text => text.parse().map_err(|_| bad(format!("`{text}` is no number (gene {})", genes[column])))?,
                };
                if value != 0.0 {
                    indices.push(column as u32);
                    values.push(value);
                }
            }
            indptr.push(indices.len());
        }
        Ok(Counts { values: Window { n_vars: genes.len(), indptr, indices, values, n_summed: 0 }, cells, genes })
    }
}

/// A row of `cell_metadata.csv`.
struct Cell {
    centre: [f64; 2],
    bounds: Option<[f64; 4]>,
}

/// Cells by id: the column `EntityID`, `cell` or the first.
fn cells(path: &Path) -> Result<BTreeMap<String, Cell>, IngestError> {
    let mut reader = csv_reader(path)?;
    let names = header(path, &mut reader)?;
    let position = |name: &str| names.iter().position(|n| n == name);
    let needed = |name: &str| {
        position(name).ok_or_else(|| IngestError::Absent {
            path: path.into(),
            node: name.into(),
            advice: format!("its columns are [{}]", names.join(", ")),
        })
    };
    let id = position("EntityID").or_else(|| position("cell")).unwrap_or(0);
    let centre = [needed("center_x")?, needed("center_y")?];
    let bounds: Option<Vec<usize>> = ["min_x", "min_y", "max_x", "max_y"].into_iter().map(position).collect();
    let mut cells = BTreeMap::new();
    for (i, record) in reader.records().enumerate() {
        let bad = |fact: String| IngestError::Text { path: path.into(), line: i as u64 + 2, fact };
        let record = record.map_err(|e| bad(e.to_string()))?;
        let number = |k: usize| {
            record[k].trim().parse::<f64>().map_err(|_| bad(format!("`{}` is no number ({})", &record[k], names[k])))
        };
        let bounds = match &bounds {
            Some(at) => Some([number(at[0])?, number(at[1])?, number(at[2])?, number(at[3])?]),
            None => None,
        };
        let cell = Cell { centre: [number(centre[0])?, number(centre[1])?], bounds };
        if cells.insert(record[id].to_owned(), cell).is_some() {
            return Err(bad(format!("cell `{}` occurs twice", &record[id])));
        }
    }
    Ok(cells)
}

fn csv_reader(path: &Path) -> Result<csv::Reader<std::fs::File>, IngestError> {
    let file = std::fs::File::open(path).map_err(|source| IngestError::Io { path: path.into(), source })?;
    Ok(csv::Reader::from_reader(file))
}

fn header(path: &Path, reader: &mut csv::Reader<std::fs::File>) -> Result<Vec<String>, IngestError> {
    let bad = |fact: String| IngestError::Text { path: path.into(), line: 1, fact };
    let names: Vec<String> = reader.headers().map_err(|e| bad(e.to_string()))?.iter().map(str::to_owned).collect();
    if names.len() < 2 { Err(bad("one column only: is it comma-separated?".into())) } else { Ok(names) }
}

/// `images/manifest.json`, as far as it is used.
#[derive(Debug, Deserialize)]
struct Manifest {
    microns_per_pixel: Option<f64>,
    mosaic_width_pixels: Option<u32>,
    mosaic_height_pixels: Option<u32>,
    /// Least x, least y, greatest x, greatest y.
    bbox_microns: [f64; 4],
    mosaic_files: Vec<Mosaic>,
}

#[derive(Debug, Deserialize)]
struct Mosaic {
    stain: String,
    z: i64,
    file_name: String,
}

impl Manifest {
    fn read(folder: &Path) -> Result<Manifest, IngestError> {
        let path = folder.join(MANIFEST);
        let text = std::fs::read_to_string(&path).map_err(|source| IngestError::Io { path: path.clone(), source })?;
        serde_json::from_str(&text).map_err(|e| IngestError::Text { path, line: e.line() as u64, fact: e.to_string() })
    }
}

/// The mosaics as channels, each the maximum over its planes, and how µm fall on their pixels.
fn mosaics(folder: &Path, options: &IngestOptions) -> Result<Pictures, IngestError> {
    let manifest = Manifest::read(folder)?;
    let channels = channels(folder, &manifest, &options.image_channels)?
        .into_par_iter()
        .map(|(name, files)| {
            let planes = files.par_iter().map(|path| PictureFile::inspect(path)).collect::<Result<_, _>>()?;
            Ok(Channel { name, planes })
        })
        .collect::<Result<Vec<Channel>, IngestError>>()?;
    let source = Source::Planes(channels);
    let [x, y, ..] = manifest.bbox_microns;
    let mut pictures = Pictures { source, origin: [x, y], units_per_pixel: 1.0 };
    pictures.check()?;
    if let Some(file) = pictures.files().into_iter().find(|file| file.n_samples != 1) {
        let fact = format!("has {} samples per pixel, a mosaic has 1", file.n_samples);
        return Err(IngestError::Unsupported { path: file.path.clone(), node: "image".into(), fact });
    }
    (pictures.origin, pictures.units_per_pixel) = scale(folder, &manifest, pictures.size(), options.mosaic_scale)?;
    Ok(pictures)
}

/// Channel names and their files, planes in order of z.
fn channels(folder: &Path, manifest: &Manifest, wanted: &[String]) -> Result<Vec<(String, Vec<PathBuf>)>, IngestError> {
    let is_of = |stain: &str, name: &str| stain == name || stain.trim_end_matches(|c: char| c.is_ascii_digit()) == name;
    let has = |name: &str| manifest.mosaic_files.iter().any(|m| is_of(&m.stain, name));
    let mut names: Vec<String> = wanted.to_vec();
    if names.is_empty() {
        names = STAINS.into_iter().filter(|name| has(name)).map(str::to_owned).collect();
    }
    if names.is_empty() {
        names = manifest.mosaic_files.iter().map(|m| m.stain.clone()).collect();
        names.sort();
        names.dedup();
    }
    let planes = |name: &String| {
        let mut of_stain: Vec<&Mosaic> = manifest.mosaic_files.iter().filter(|m| is_of(&m.stain, name)).collect();
        of_stain.sort_by(|a, b| (&a.stain, a.z).cmp(&(&b.stain, b.z)));
        of_stain.into_iter().map(|m| folder.join("images").join(&m.file_name)).collect::<Vec<_>>()
    };
    match names.iter().find(|name| !has(name)) {
        None if !names.is_empty() => Ok(names.iter().map(|name| (name.clone(), planes(name))).collect()),
        absent => Err(IngestError::Absent {
            path: folder.join(MANIFEST),
            node: absent.map_or("mosaic", String::as_str).into(),
            advice: format!(
                "its stains are {:?}",
                manifest.mosaic_files.iter().map(|m| &m.stain).collect::<BTreeSet<_>>()
            ),
        }),
    }
}

/// Corner of the first pixel in µm, and µm per pixel. The bounding box over the size is the measure; what the transform or
/// the manifest states must agree with it, unless it is told to be passed over.
fn scale(
    folder: &Path,
    manifest: &Manifest,
    [height, width]: [u32; 2],
    from: MosaicScale,
) -> Result<([f64; 2], f64), IngestError> {
    let path = folder.join(MANIFEST);
    for (name, stated, found) in [
        ("mosaic_width_pixels", manifest.mosaic_width_pixels, width),
        ("mosaic_height_pixels", manifest.mosaic_height_pixels, height),
    ] {
        if stated.is_some_and(|stated| stated != found) {
            let fact = format!("is {}, the mosaics have {found}", stated.unwrap_or_default());
            return Err(IngestError::Unsupported { path, node: name.into(), fact });
        }
    }
    let [x0, y0, x1, y1] = manifest.bbox_microns;
    let (width_um, height_um) = (x1 - x0, y1 - y0);
    let measured = width_um / f64::from(width);
    let fits = |stated: f64| (stated / measured - 1.0).abs() <= SAME_SCALE;
    let misfit = |path: PathBuf, stated: f64| {
        Err(IngestError::MosaicScale { path, stated, width_um, height_um, width, height, measured })
    };
    let down = height_um / f64::from(height);
    if !(measured.is_finite() && measured > 0.0 && fits(down)) {
        return misfit(path, down);
    }
    if from == MosaicScale::Bbox {
        return Ok(([x0, y0], measured));
    }
    if let Some((origin, stated)) = transform(&folder.join(TRANSFORM))? {
        return if fits(stated) { Ok((origin, stated)) } else { misfit(folder.join(TRANSFORM), stated) };
    }
    match manifest.microns_per_pixel {
        Some(stated) if !fits(stated) => misfit(path, stated),
        _ => Ok(([x0, y0], measured)),
    }
}

/// `pixel = a · µm + b` on each axis, from the 3 × 3 matrix; `None` without the file.
fn transform(path: &Path) -> Result<Option<([f64; 2], f64)>, IngestError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(IngestError::Io { path: path.into(), source }),
    };
    let words = text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
    let bad = |fact: &str| IngestError::Text { path: path.into(), line: 1, fact: fact.into() };
    let m: Vec<f64> =
        words.map(str::parse).collect::<Result<_, _>>().map_err(|_| bad("holds something that is no number"))?;
    let &[a, ab, bx, ba, b, by, ..] = m.as_slice() else { return Err(bad("holds no 3 × 3 matrix")) };
    if ab != 0.0 || ba != 0.0 || !(a > 0.0 && (b / a - 1.0).abs() <= SAME_SCALE) {
        return Err(bad("turns or stretches the picture, which is not read"));
    }
    Ok(Some(([-bx / a, -by / b], 1.0 / a)))
}
