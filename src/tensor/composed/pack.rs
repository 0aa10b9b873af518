//! Rows of records of their own lengths, padded to the longest and back; padded sequences without their padding, and back.

use super::super::spans::Spans;
use super::super::{Device, Int, Tensor};
use super::integers;

/// How rows of records lie in `[records · longest]`. Nothing moves where all records are equally long.
pub struct Padded {
    records: usize,
    longest: usize,
    ragged: Option<Ragged>,
}

struct Ragged {
    /// Row of each padded place; row 0 where there is none.
    rows: Tensor<1, Int>,
    /// Padded place of each row.
    places: Tensor<1, Int>,
    lengths: Vec<usize>,
}

impl Padded {
    /// As `records` lie.
    pub fn new(records: &Spans, device: &Device) -> Padded {
        let lengths: Vec<usize> = records.iter().map(|rows| rows.len()).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if lengths.iter().all(|&n| n == longest) {
            return Padded { records: lengths.len(), longest, ragged: None };
        }
        let mut rows = Vec::with_capacity(lengths.len() * longest);
        let mut places = Vec::with_capacity(records.n_rows());
        for (record, of) in records.iter().enumerate() {
            places.extend((0..of.len()).map(|i| (record * longest + i) as i64));
            rows.extend(of.clone().map(|row| row as i64));
            rows.extend(std::iter::repeat_n(0, longest - of.len()));
        }
        let (n, m) = (rows.len(), places.len());
        let (rows, places) = (integers(rows, [n], device), integers(places, [m], device));
        Padded { records: lengths.len(), longest, ragged: Some(Ragged { rows, places, lengths }) }
    }

    /// Records, and rows of the longest.
    pub fn shape(&self) -> [usize; 2] {
        [self.records, self.longest]
    }

    /// Rows of each record, where they differ.
    pub fn lengths(&self) -> Option<&[usize]> {
        self.ragged.as_ref().map(|ragged| &ragged.lengths[..])
    }

    /// `[rows, d]` → `[records · longest, d]`; what is padding holds some row's values.
    pub fn pad(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.ragged {
            Some(ragged) => x.select(0, ragged.rows.clone()),
            None => x,
        }
    }

    /// `[records · longest, d]` → `[rows, d]`.
    pub fn unpad(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.ragged {
            Some(ragged) => x.select(0, ragged.places.clone()),
            None => x,
        }
    }

    /// 1 where a padded row is there, 0 where it is padding: `[records, longest]`; none where all are there.
    pub fn there(&self) -> Option<Vec<bool>> {
        let lengths = self.lengths()?;
        Some(lengths.iter().flat_map(|&n| (0..self.longest).map(move |i| i < n)).collect())
    }
}

/// The rows that `spans` took.
pub fn pack_rows(x: Tensor<2>, spans: &Spans) -> Tensor<2> {
    let taken = spans.taken().expect("rows were left out");
    let rows = integers(taken.iter().map(|&row| i64::from(row)).collect(), [taken.len()], &x.device());
    x.select(0, rows)
}

/// Those rows where they came from, zeros between: rows of `y` and one of zeros, read by place, so that nothing is scattered.
pub fn unpack_rows(y: Tensor<2>, spans: &Spans, long: usize) -> Tensor<2> {
    let taken = spans.taken().expect("rows were left out");
    let mut rows = vec![taken.len() as i64; long];
    taken.iter().enumerate().for_each(|(short, &row)| rows[row as usize] = short as i64);
    with_a_zero_row(y).select_rows(rows)
}

/// Rows and one more of zeros.
pub(super) struct AndZeros(Tensor<2>);

pub(super) fn with_a_zero_row(x: Tensor<2>) -> AndZeros {
    let zeros = Tensor::zeros([1, x.dims()[1]], (&x.device(), x.dtype()));
    AndZeros(Tensor::cat(vec![x, zeros], 0))
}

impl AndZeros {
    pub(super) fn select_rows(self, rows: Vec<i64>) -> Tensor<2> {
        let n = rows.len();
        let device = self.0.device();
        self.0.select(0, integers(rows, [n], &device))
    }
}
