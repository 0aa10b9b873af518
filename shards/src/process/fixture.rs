//! Small sections for the tests of this folder.

use crate::section::{Csr, Gene, Section};

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
