//! Rows of several records one after the other, and where each begins: lists of different lengths without padding.

use std::ops::Range;
use std::sync::Arc;

/// Consecutive ranges of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spans {
    /// First row of each record, and the end.
    starts: Vec<usize>,
    /// Rows of the padded sequences they were taken from, if any was left out: row of the short sequence → of the long.
    taken: Option<Vec<u32>>,
}

impl Spans {
    /// `starts`: first row of each record, ascending, and the number of rows.
    pub fn new(starts: Vec<usize>) -> Spans {
        assert!(starts.first() == Some(&0) && starts.is_sorted(), "records begin at row 0 and follow each other");
        Spans { starts, taken: None }
    }

    /// `records` of `rows` each.
    pub fn equal(records: usize, rows: usize) -> Spans {
        Spans { starts: (0..=records).map(|record| record * rows).collect(), taken: None }
    }

    /// What is not `absent` of `records` padded sequences, `absent` being `[records, rows]`.
    pub fn present(records: usize, absent: &[bool]) -> Spans {
        let rows = absent.len() / records;
        let (mut starts, mut taken) = (vec![0], Vec::with_capacity(absent.len()));
        for (record, absent) in absent.chunks(rows).enumerate() {
            taken.extend((0..rows).filter(|&row| !absent[row]).map(|row| (record * rows + row) as u32));
            starts.push(taken.len());
        }
        Spans { starts, taken: Some(taken) }
    }

    /// The same for everybody.
    pub fn shared(self) -> Arc<Spans> {
        Arc::new(self)
    }

    /// Number of rows in all.
    pub fn n_rows(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    /// Number of records.
    pub fn n_records(&self) -> usize {
        self.starts.len() - 1
    }

    /// The rows of each record.
    pub fn iter(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.starts.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// Which rows of the padded sequences these are; all where nothing was left out.
    pub(super) fn taken(&self) -> Option<&[u32]> {
        self.taken.as_deref()
    }
}
