//! Small sections for the tests of this crate.

use super::{FilterConfig, ProcessConfig, ProcessError, SplitConfig, SplitKind};
use crate::draw::{DrawKey, Purpose, uniform};
use crate::holdout::{GeneCase, HoldoutRule, Protocol, Transform};
use crate::ingest::OnBadCell;
use crate::processed::Processed;
use crate::section::{Cells, Csr, Gene, ObsLabels, Section};

/// Dense rows as CSR.
pub(crate) fn csr(rows: &[&[f32]]) -> Csr {
    let mut out = Csr { n_cols: rows.first().map_or(0, |r| r.len()), indptr: vec![0], ..Csr::default() };
    for row in rows {
        for (column, &value) in row.iter().enumerate().filter(|(_, v)| **v != 0.0) {
            out.indices.push(column as u32);
            out.values.push(value);
        }
        out.indptr.push(out.indices.len());
    }
    out
}

/// A section with its observations on a line.
pub(crate) fn section(library_id: &str, genes: &[&str], rows: &[&[f32]]) -> Section {
    let n_obs = rows.len();
    Section {
        library_id: library_id.to_string(),
        donor_id: None,
        source: format!("{library_id}.h5ad").into(),
        format: "h5ad",
        obs_ids: (0..n_obs).map(|i| format!("{library_id}_{i}")).collect(),
        genes: genes.iter().map(|id| Gene { id: id.to_string(), symbol: id.to_string() }).collect(),
        counts: csr(rows),
        xy: (0..n_obs).map(|i| [i as f64, 0.0]).collect(),
        z: None,
        um_per_unit: None,
        array_row_col: None,
        labels: Vec::new(),
        features: Vec::new(),
        image: None,
        pictures: None,
        boxes: None,
        notes: Vec::new(),
    }
}

/// A hexagonal lattice of spacing 100: odd rows shifted by 50, rows 86.6 apart.
pub(crate) fn hexagonal(n_rows: usize, n_cols: usize) -> Vec<[f64; 2]> {
    (0..n_rows * n_cols)
        .map(|i| {
            let (row, col) = (i / n_cols, i % n_cols);
            [100.0 * col as f64 + 50.0 * (row % 2) as f64, 86.6 * row as f64]
        })
        .collect()
}

/// Sections and cells with something to hide: dense values that a test can change.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    /// Values of each section `[spots][genes]`.
    pub sections: Vec<Vec<Vec<f32>>>,
    /// Values of the cells `[cells][genes]`.
    pub cells: Vec<Vec<f32>>,
}

/// Genes of a [`Pair`] that sections and cells share, ids ascending.
pub(crate) const SHARED: [&str; 12] =
    ["G00", "G01", "G02", "G03", "G04", "G05", "G06", "G07", "G08", "G09", "G10", "G11"];

impl Pair {
    /// Two sections of 40 and 30 spots and 25 cells: sparse whole numbers, so that a few spots show nothing once a third is hidden.
    pub fn new() -> Pair {
        let key = DrawKey::new(5, Purpose::Synthetic);
        let values = |n: usize, site: u32, zeros: f32| -> Vec<Vec<f32>> {
            let value = |row: usize, gene: usize| {
                let word = key.word((row * SHARED.len() + gene) as u32, [0, 0, site]);
                if uniform(word) < zeros { 0.0 } else { 1.0 + (word % 9) as f32 }
            };
            (0..n).map(|row| (0..SHARED.len()).map(|gene| value(row, gene)).collect()).collect()
        };
        Pair { sections: vec![values(40, 0, 0.8), values(30, 1, 0.8)], cells: values(25, 2, 0.5) }
    }

    /// As an instrument gives them: genes in another order, a control and a gene that the cells lack; places in three dimensions.
    pub fn sections(&self) -> Vec<Section> {
        let names: Vec<&str> = ["Blank_1", "only_here"].into_iter().chain(SHARED.into_iter().rev()).collect();
        let of_section = |(ordinal, rows): (usize, &Vec<Vec<f32>>)| {
            let rows: Vec<Vec<f32>> =
                rows.iter().map(|row| [1.0, 3.0].into_iter().chain(row.iter().rev().copied()).collect()).collect();
            let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
            let mut section = section(&format!("s{ordinal}"), &names, &rows);
            section.xy = (0..rows.len())
                .map(|i| [(i % 7) as f64 * 10.0, (i / 7) as f64 * 10.0 + 0.1 * (i % 3) as f64])
                .collect();
            section.z = Some((0..rows.len()).map(|i| (i * i % 5) as f64).collect());
            section.um_per_unit = Some(2.0);
            section
        };
        self.sections.iter().enumerate().map(of_section).collect()
    }

    /// The cells, with a gene that the sections lack.
    pub fn cells(&self) -> Cells {
        let rows: Vec<Vec<f32>> = self.cells.iter().map(|row| row.iter().copied().chain([4.0]).collect()).collect();
        let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        let names: Vec<&str> = SHARED.into_iter().chain(["cells_only"]).collect();
        let Section { source, obs_ids, genes, counts, .. } = section("cells", &names, &rows);
        let values = (0..rows.len()).map(|i| (i % 3 != 2).then(|| format!("type {}", i % 3))).collect();
        let label = Some(ObsLabels { name: "cell_type".to_owned(), values });
        Cells { source, format: "h5ad", obs_ids, genes, counts, label, notes: Vec::new() }
    }

    /// Hidden by `rule` under the shipped config's neutral filters.
    pub fn hide(&self, rule: &HoldoutRule) -> Result<Processed, ProcessError> {
        let (filter, process, split) = neutral();
        let cells = Some(self.cells());
        super::hide(self.sections(), cells, (&filter, &process, &split), rule, OnBadCell::Stop)
    }
}

/// A rule with the defaults of the config.
pub(crate) fn rule(protocol: Protocol) -> HoldoutRule {
    HoldoutRule {
        protocol,
        fraction: 0.3,
        folds: 5,
        seed: 0,
        transform: Transform::Auto,
        reference_transform: Transform::Auto,
        gene_case: GeneCase::Exact,
    }
}

/// What `configs/spotdiff/shard.toml` says of filters, layers and splits.
pub(crate) fn neutral() -> (FilterConfig, ProcessConfig, SplitConfig) {
    let filter = FilterConfig {
        cell_min: 0.0,
        cell_max: 1e12,
        gene_min: 0.0,
        gene_max: 1e12,
        real_data_percentage: 0.0,
        ..FilterConfig::default()
    };
    let process = ProcessConfig { layers: Vec::new(), n_neighbours: 0, ..ProcessConfig::default() };
    let split = SplitConfig { kind: Some(SplitKind::Section), ..SplitConfig::default() };
    (filter, process, split)
}
