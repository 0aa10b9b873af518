//! Space Ranger's `outs` folder: `*filtered_feature_bc_matrix.h5` and `spatial/`.
//!
//! Knows the folder's files; the matrix is in `tenx_h5`, what the scale factors mean in `visium`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::checks::{self, Named};
use super::error::{IngestError, first_few};
use super::h5::H5File;
use super::options::IngestOptions;
use super::tenx_h5;
use super::visium::{self, ScaleFactors};
use crate::section::{Gene, Section, TissueImage};

const MATRIX: &str = "filtered_feature_bc_matrix.h5";
const POSITIONS: [&str; 4] =
    ["tissue_positions.csv", "tissue_positions_list.csv", "tissue_positions.txt", "tissue_positions_list.txt"];

/// The folder that holds `spatial/`: the path itself or the `outs` in it. `None` if there is none.
pub(super) fn outs_folder(path: &Path) -> Option<PathBuf> {
    [path.to_owned(), path.join("outs")].into_iter().find(|folder| folder.join("spatial").is_dir())
}

/// Reads an `outs` folder. The section's observations are the barcodes of the matrix, in its order.
pub(super) fn read(path: &Path, options: &IngestOptions) -> Result<Section, IngestError> {
    let outs = outs_folder(path).ok_or_else(|| absent(path, "spatial", "is this Space Ranger's `outs` folder?"))?;
    let matrix_path = matrix_file(&outs)?;
    let h5 = H5File::open(&matrix_path)?;
    let matrix = tenx_h5::open(&h5)?;
    let mut notes = Vec::new();
    for (kind, n) in &matrix.other_types {
        notes.push(format!("{n} features of type `{kind}` left out"));
    }
    checks::unique(&matrix_path, "observation", matrix.barcodes.iter().map(String::as_str))?;
    let genes: Vec<Gene> = matrix.gene_columns.iter().map(|&c| matrix.features[c as usize].clone()).collect();
    checks::unique(&matrix_path, "gene", genes.iter().map(|g| g.id.as_str()))?;
    let node = matrix.counts.node.clone();
    let named = Named { path: &matrix_path, node: &node, obs: &matrix.barcodes, genes: &matrix.features };
    let mut counts = checks::counts(matrix.counts.all()?, options.declared_counts, &named, &mut notes)?;
    if genes.len() < matrix.features.len() {
        counts = counts.select_columns(&matrix.gene_columns);
    }

    let spatial = outs.join("spatial");
    let places = Places::of(&spatial, &matrix.barcodes, &mut notes)?;
    checks::finite(&places.file, &matrix.barcodes, &places.xy, None)?;
    let scale = scale_factors(&spatial)?;
    let um_per_unit = visium::um_per_unit(&scale, Some(&places.row_col), &places.xy);
    Ok(Section {
        library_id: match &options.library_id {
            Some(name) => name.clone(),
            None => library_id(&h5, &outs, &matrix_path)?,
        },
        donor_id: None,
        source: path.into(),
        format: "space_ranger",
        obs_ids: matrix.barcodes,
        genes,
        counts,
        xy: places.xy,
        z: None,
        um_per_unit: options.um_per_unit.or(um_per_unit),
        array_row_col: Some(places.row_col),
        labels: Vec::new(),
        features: Vec::new(),
        image: picture(&spatial, &scale)?,
        pictures: None,
        boxes: None,
        notes,
    })
}

/// The one filtered matrix of the folder, with or without a prefix.
pub(super) fn matrix_file(outs: &Path) -> Result<PathBuf, IngestError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(outs).map_err(|source| IngestError::Io { path: outs.into(), source })? {
        let entry = entry.map_err(|source| IngestError::Io { path: outs.into(), source })?;
        if entry.file_name().to_string_lossy().ends_with(MATRIX) {
            found.push(entry.path());
        }
    }
    found.sort();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(absent(outs, &format!("*{MATRIX}"), "Space Ranger writes it beside `spatial/`; copy it there")),
        many => Err(IngestError::SeveralSections {
            path: outs.into(),
            n: many.len(),
            names: many.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "),
            advice: "; keep one matrix per folder",
        }),
    }
}

fn library_id(h5: &H5File, outs: &Path, matrix: &Path) -> Result<String, IngestError> {
    if let Some(name) = tenx_h5::library_id(h5)? {
        return Ok(name);
    }
    let file = matrix.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let prefix = file.trim_end_matches(MATRIX).trim_end_matches('_');
    if !prefix.is_empty() {
        return Ok(prefix.to_owned());
    }
    let folder = std::path::absolute(outs).unwrap_or_else(|_| outs.into());
    let named = if folder.ends_with("outs") { folder.parent().map(Path::to_owned) } else { Some(folder) };
    let name = named.and_then(|f| f.file_name().map(|n| n.to_string_lossy().into_owned()));
    Ok(name.unwrap_or_else(|| "section".into()))
}

/// Where each barcode of the matrix lies.
struct Places {
    file: PathBuf,
    xy: Vec<[f64; 2]>,
    row_col: Vec<[i32; 2]>,
}

impl Places {
    fn of(spatial: &Path, barcodes: &[String], notes: &mut Vec<String>) -> Result<Places, IngestError> {
        let file = positions_file(spatial)?;
        let spots = positions(&file)?;
        let missing: Vec<&String> = barcodes.iter().filter(|b| !spots.contains_key(b.as_str())).collect();
        if !missing.is_empty() {
            return Err(IngestError::UnplacedBarcodes {
                path: spatial.parent().unwrap_or(spatial).into(),
                positions: file,
                n: missing.len(),
                n_obs: barcodes.len(),
                first: first_few(&missing),
            });
        }
        if spots.len() > barcodes.len() {
            let (surplus, all) = (spots.len() - barcodes.len(), spots.len());
            notes.push(format!("{surplus} of {all} positions are not in the matrix (outside tissue or filtered)"));
        }
        let off = barcodes.iter().filter(|b| !spots[b.as_str()].in_tissue).count();
        if off > 0 {
            notes.push(format!("{off} barcodes of the matrix are marked as outside tissue, kept"));
        }
        let (xy, row_col) = barcodes.iter().map(|b| (spots[b.as_str()].xy, spots[b.as_str()].row_col)).unzip();
        Ok(Places { file, xy, row_col })
    }
}

pub(super) fn positions_file(spatial: &Path) -> Result<PathBuf, IngestError> {
    let found = POSITIONS.iter().map(|name| spatial.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| {
        let advice = if spatial.join("tissue_positions.parquet").is_file() {
            "Visium HD's tissue_positions.parquet is not read yet; write it as tissue_positions.csv"
        } else {
            "copy it from Space Ranger's `outs/spatial`"
        };
        absent(spatial, "tissue_positions.csv", advice)
    })
}

struct Spot {
    in_tissue: bool,
    row_col: [i32; 2],
    xy: [f64; 2],
}

/// Position file: barcode, in_tissue, array_row, array_col, pixel row, pixel column; with header since Space Ranger 2.
fn positions(file: &Path) -> Result<BTreeMap<String, Spot>, IngestError> {
    let text = std::fs::read(file).map_err(|source| IngestError::Io { path: file.into(), source })?;
    let mut spots = BTreeMap::new();
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_slice());
    for (i, record) in reader.records().enumerate() {
        let bad = |fact: String| IngestError::Text { path: file.into(), line: i as u64 + 1, fact };
        let record = record.map_err(|e| bad(e.to_string()))?;
        if record.len() != 6 {
            return Err(bad(format!("{} fields, expected 6 (barcode, in_tissue, row, column, pixels)", record.len())));
        }
        if i == 0 && record[0].eq_ignore_ascii_case("barcode") {
            continue;
        }
        let number =
            |k: usize| record[k].trim().parse::<f64>().map_err(|_| bad(format!("`{}` is no number", &record[k])));
        let lattice = |k: usize| {
            record[k].trim().parse::<i32>().map_err(|_| bad(format!("`{}` is no lattice position", &record[k])))
        };
        let spot = Spot {
            in_tissue: record[1].trim() == "1",
            row_col: [lattice(2)?, lattice(3)?],
            xy: [number(5)?, number(4)?],
        };
        if spots.insert(record[0].to_owned(), spot).is_some() {
            return Err(bad(format!("barcode `{}` occurs twice", &record[0])));
        }
    }
    Ok(spots)
}

fn scale_factors(spatial: &Path) -> Result<ScaleFactors, IngestError> {
    let path = spatial.join("scalefactors_json.json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(absent(spatial, "scalefactors_json.json", "copy it from Space Ranger's `outs/spatial`"));
        }
        Err(source) => return Err(IngestError::Io { path, source }),
    };
    serde_json::from_str(&text).map_err(|e| IngestError::Text { path, line: e.line() as u64, fact: e.to_string() })
}

fn picture(spatial: &Path, scale: &ScaleFactors) -> Result<Option<TissueImage>, IngestError> {
    for (name, factor) in
        [("tissue_lowres_image.png", scale.tissue_lowres_scalef), ("tissue_hires_image.png", scale.tissue_hires_scalef)]
    {
        let (Some(scale), path) = (factor, spatial.join(name)) else { continue };
        match std::fs::read(&path) {
            Ok(encoded) => return Ok(Some(TissueImage { encoded, scale })),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(IngestError::Io { path, source }),
        }
    }
    Ok(None)
}

fn absent(path: &Path, node: &str, advice: &str) -> IngestError {
    IngestError::Absent { path: path.into(), node: node.into(), advice: advice.into() }
}
