//! A dense table.

/// A dense row-major matrix `[n_rows, n_cols]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matrix<T> {
    /// Number of columns.
    pub n_cols: usize,
    /// Row-major values.
    pub values: Vec<T>,
}

impl<T: Clone> Matrix<T> {
    /// The rows named, in that order.
    pub fn select_rows(&self, rows: &[u32]) -> Matrix<T> {
        let values = rows.iter().flat_map(|&row| self.row(row as usize)).cloned().collect();
        Matrix { n_cols: self.n_cols, values }
    }
}

impl<T> Matrix<T> {
    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.values.len().checked_div(self.n_cols).unwrap_or(0)
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[T] {
        &self.values[i * self.n_cols..(i + 1) * self.n_cols]
    }
}
