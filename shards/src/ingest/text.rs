//! Text tables: fields separated by tab, comma, semicolon or blanks, as they are or gzip-compressed.
//!
//! Finds out by looking: what separates fields, whether the first line is a header, whether the first column holds names. Knows
//! neither genes nor observations.

use std::io::Read;
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder};
use flate2::read::MultiGzDecoder;

use super::counts_window::Window;
use super::error::IngestError;

/// Endings of text tables; each also with `.gz`.
const ENDINGS: [&str; 4] = ["txt", "tsv", "csv", "tab"];
/// Heads of a first column of names that are numbers.
const NAME_HEADS: [&str; 11] =
    ["", "cell", "cell_id", "id", "barcode", "spot", "spot_id", "gene", "gene_id", "index", "unnamed: 0"];

/// Whether a file is one by its name.
pub(super) fn is_table(path: &Path) -> bool {
    let name = plain_name(path);
    path.is_file() && ENDINGS.iter().any(|ending| name.strip_suffix(ending).is_some_and(|stem| stem.ends_with('.')))
}

/// The file's name without `.gz`, lower case.
fn plain_name(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    name.strip_suffix(".gz").map(str::to_owned).unwrap_or(name)
}

/// What was found by looking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    /// `tab`, `comma`, `semicolon` or `blank`.
    pub separator: &'static str,
    /// Whether the file is compressed.
    pub gzip: bool,
}

/// A table of numbers, zeros left out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NumberTable {
    pub shape: Shape,
    /// Names of the columns, if the first line is a header.
    pub column_names: Option<Vec<String>>,
    /// Names of the rows, if the first column holds some.
    pub row_names: Option<Vec<String>>,
    /// `[rows, columns]`; a missing value (empty, `NA`, `NaN`) is NaN.
    pub values: Window,
}

impl NumberTable {
    /// Reads a table. `header`, `row_names`: told by the user, else found by looking.
    pub(super) fn read(path: &Path, header: Option<bool>, row_names: Option<bool>) -> Result<NumberTable, IngestError> {
        let (bytes, shape) = open(path)?;
        let mut records = Records::new(path, &bytes, &shape);
        let Some(first) = records.next()? else { return Err(records.bad("has no line".to_owned())) };
        let second = records.next()?;
        let has_header = header.unwrap_or_else(|| looks_like_header(&first));
        let head: Option<Vec<String>> = has_header.then(|| words(&first));
        let Some(body) = (if has_header { second.clone() } else { Some(first.clone()) }) else {
            return Err(records.bad("has a header and no other line".to_owned()));
        };
        let named = row_names.unwrap_or_else(|| looks_named(head.as_deref(), &body));
        let skip = usize::from(named);
        let n_columns = body.len() - skip;
        let column_names = match head {
            None => None,
            // R writes no head over the column of names
            Some(head) if head.len() == n_columns => Some(head),
            Some(head) if head.len() == n_columns + skip => Some(head[skip..].to_vec()),
            Some(head) => {
                let (found, of_line) = (head.len(), body.len());
                return Err(records.bad(format!("its header has {found} fields, the line below it {of_line}")));
            }
        };
        let mut rows = Rows { skip, n_columns, row_names: Vec::new(), indptr: vec![0], ..Rows::default() };
        let begun = [(!has_header).then_some(first), second].into_iter().flatten();
        for (record, line) in begun.zip(1 + u64::from(has_header)..) {
            rows.push(&records, &record, line)?;
        }
        let mut record = ByteRecord::new();
        while records.read(&mut record)? {
            let line = records.line();
            rows.push(&records, &record, line)?;
        }
        Ok(NumberTable {
            shape,
            column_names,
            row_names: named.then_some(rows.row_names),
            values: Window {
                n_vars: n_columns,
                indptr: rows.indptr,
                indices: rows.indices,
                values: rows.values,
                n_summed: 0,
            },
        })
    }

    /// Number of rows.
    pub(super) fn n_rows(&self) -> usize {
        self.values.indptr.len() - 1
    }

    /// Number of columns.
    pub(super) fn n_columns(&self) -> usize {
        self.values.n_vars
    }

    /// Rows as columns.
    pub(super) fn transposed(self) -> NumberTable {
        let (n_rows, of) = (self.n_rows(), self.values);
        let mut indptr = vec![0usize; of.n_vars + 1];
        of.indices.iter().for_each(|&column| indptr[column as usize + 1] += 1);
        for column in 0..of.n_vars {
            indptr[column + 1] += indptr[column];
        }
        let mut next = indptr.clone();
        let (mut indices, mut values) = (vec![0; of.indices.len()], vec![0.0; of.values.len()]);
        for row in 0..n_rows {
            for k in of.indptr[row]..of.indptr[row + 1] {
                let at = &mut next[of.indices[k] as usize];
                (indices[*at], values[*at]) = (row as u32, of.values[k]);
                *at += 1;
            }
        }
        NumberTable {
            shape: self.shape,
            column_names: self.row_names,
            row_names: self.column_names,
            values: Window { n_vars: n_rows, indptr, indices, values, n_summed: of.n_summed },
        }
    }
}

/// Rows of numbers as they are read.
#[derive(Default)]
struct Rows {
    skip: usize,
    n_columns: usize,
    row_names: Vec<String>,
    indptr: Vec<usize>,
    indices: Vec<u32>,
    values: Vec<f64>,
}

impl Rows {
    fn push(&mut self, records: &Records, record: &ByteRecord, line: u64) -> Result<(), IngestError> {
        if record.len() != self.n_columns + self.skip {
            let (found, expected) = (record.len(), self.n_columns + self.skip);
            return Err(records.bad_at(line, format!("has {found} fields, the first line of values {expected}")));
        }
        if self.skip == 1 {
            self.row_names.push(word(&record[0]));
        }
        for (column, field) in record.iter().skip(self.skip).enumerate() {
            if field == b"0" {
                continue;
            }
            let Some(value) = number(field) else {
                let column = column + self.skip + 1;
                return Err(records.bad_at(line, format!("`{}` (column {column}) is no number", word(field))));
            };
            if value != 0.0 {
                self.indices.push(column as u32);
                self.values.push(value);
            }
        }
        self.indptr.push(self.indices.len());
        Ok(())
    }
}

/// A table of words: coordinates with names, labels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct WordTable {
    /// Names of the columns, if the first line is a header.
    pub head: Option<Vec<String>>,
    /// Lines, all of one length.
    pub rows: Vec<Vec<String>>,
}

impl WordTable {
    /// Reads a table. `n_rows`: as many are expected, so that one line more is a header.
    pub(super) fn read(path: &Path, n_rows: usize) -> Result<WordTable, IngestError> {
        let (bytes, shape) = open(path)?;
        let mut records = Records::new(path, &bytes, &shape);
        let mut rows: Vec<Vec<String>> = Vec::new();
        while let Some(record) = records.next()? {
            rows.push(words(&record));
        }
        let Some(first) = rows.first().cloned() else { return Err(records.bad("has no line".to_owned())) };
        let is_number = |word: &String| number(word.as_bytes()).is_some();
        // a head stands over numbers and is none itself
        let over_numbers = rows.get(1).is_some_and(|below| {
            first.len() <= below.len()
                && first
                    .iter()
                    .zip(&below[below.len() - first.len()..])
                    .any(|(head, w)| !is_number(head) && is_number(w))
        });
        let mut head = None;
        if over_numbers || rows.len() == n_rows + 1 {
            head = Some(rows.remove(0));
        }
        let n_columns = rows.first().map_or(0, Vec::len);
        if let Some(head) = head.as_mut().filter(|head| head.len() + 1 == n_columns) {
            head.insert(0, String::new()); // R writes no head over the column of names
        }
        let line = |at: usize| (at + 1 + usize::from(head.is_some())) as u64;
        if let Some(at) = rows.iter().position(|row| row.len() != n_columns) {
            let fact = format!("has {} fields, the first line of values {n_columns}", rows[at].len());
            return Err(records.bad_at(line(at), fact));
        }
        Ok(WordTable { head, rows })
    }

    /// Number of columns.
    pub(super) fn n_columns(&self) -> usize {
        self.rows.first().map_or(0, Vec::len)
    }

    /// A column by its name or its number from 1.
    pub(super) fn column(&self, name: &str) -> Option<usize> {
        let by_name = self.head.as_ref().and_then(|head| head.iter().position(|h| h == name));
        by_name.or_else(|| name.parse::<usize>().ok()?.checked_sub(1).filter(|&at| at < self.n_columns()))
    }

    /// The columns, for a message: their names, or how many there are.
    pub(super) fn columns_in_words(&self) -> String {
        match &self.head {
            Some(head) => head.join(", "),
            None => format!("{} without names, counted from 1", self.n_columns()),
        }
    }

    /// The numbers of a column; `None` where one is none.
    pub(super) fn numbers(&self, column: usize) -> Option<Vec<f64>> {
        self.rows.iter().map(|row| number(row[column].as_bytes())).collect()
    }
}

/// Reads and decompresses a file and finds out what separates its fields.
fn open(path: &Path) -> Result<(Vec<u8>, Shape), IngestError> {
    let io = |source| IngestError::Io { path: path.into(), source };
    let mut bytes = std::fs::read(path).map_err(io)?;
    let gzip = bytes.starts_with(&[0x1f, 0x8b]);
    if gzip {
        let mut plain = Vec::new();
        MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).map_err(io)?;
        bytes = plain;
    }
    if bytes.contains(&0) {
        let found = "a name of a text table and bytes that are no text".to_owned();
        return Err(IngestError::UnknownFormat { path: path.into(), found });
    }
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let separator = [(b'\t', "tab"), (b',', "comma"), (b';', "semicolon")].into_iter().find(|(b, _)| line.contains(b));
    let separator = separator.map_or("blank", |(_, name)| name);
    if separator == "blank" {
        bytes = one_blank(&bytes);
    }
    Ok((bytes, Shape { separator, gzip }))
}

/// Runs of blanks as one, none at the ends of a line.
fn one_blank(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for line in bytes.split(|b| *b == b'\n') {
        let mut quoted = false;
        let start = out.len();
        for &b in line {
            quoted ^= b == b'"';
            let blank = !quoted && b.is_ascii_whitespace();
            if !blank {
                out.push(b);
            } else if out.len() > start && out.last() != Some(&b' ') {
                out.push(b' ');
            }
        }
        if out.len() > start && out.last() == Some(&b' ') {
            out.pop();
        }
        out.push(b'\n');
    }
    out
}

/// Lines of a file, fields apart.
struct Records<'a> {
    path: &'a Path,
    reader: csv::Reader<&'a [u8]>,
}

impl<'a> Records<'a> {
    fn new(path: &'a Path, bytes: &'a [u8], shape: &Shape) -> Records<'a> {
        let delimiter = match shape.separator {
            "tab" => b'\t',
            "comma" => b',',
            "semicolon" => b';',
            _ => b' ',
        };
        let reader = ReaderBuilder::new().delimiter(delimiter).has_headers(false).flexible(true).from_reader(bytes);
        Records { path, reader }
    }

    fn next(&mut self) -> Result<Option<ByteRecord>, IngestError> {
        let mut record = ByteRecord::new();
        Ok(self.read(&mut record)?.then_some(record))
    }

    /// Whether there was one more record.
    fn read(&mut self, record: &mut ByteRecord) -> Result<bool, IngestError> {
        let path = self.path;
        let found = self.reader.read_byte_record(record).map_err(|e| {
            let line = e.position().map_or(0, csv::Position::line);
            IngestError::Text { path: path.into(), line, fact: e.to_string() }
        })?;
        Ok(found)
    }

    /// Line of the record that was read last.
    fn line(&self) -> u64 {
        self.reader.position().line().saturating_sub(1)
    }

    fn bad(&self, fact: String) -> IngestError {
        self.bad_at(1, fact)
    }

    fn bad_at(&self, line: u64, fact: String) -> IngestError {
        IngestError::Text { path: self.path.into(), line, fact }
    }
}

/// Whether a field beyond the first is no number, or the first is empty.
fn looks_like_header(record: &ByteRecord) -> bool {
    record.len() > 1 && record[0].trim_ascii().is_empty() || record.iter().skip(1).any(|field| number(field).is_none())
}

fn looks_named(head: Option<&[String]>, body: &ByteRecord) -> bool {
    let beside = head.is_some_and(|head| head.len() + 1 == body.len());
    let by_head = head.is_some_and(|h| h.first().is_some_and(|h| NAME_HEADS.contains(&h.to_lowercase().as_str())));
    beside || by_head || number(&body[0]).is_none()
}

fn words(record: &ByteRecord) -> Vec<String> {
    record.iter().map(word).collect()
}

fn word(field: &[u8]) -> String {
    String::from_utf8_lossy(field).trim().to_owned()
}

/// A number, or NaN for what stands for a missing one; names like `nan` and `inf` are none.
fn number(field: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(field).ok()?.trim();
    match text {
        "" | "NA" | "NaN" | "nan" | "N/A" => Some(f64::NAN),
        "Inf" | "inf" => Some(f64::INFINITY),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => text.parse().ok(),
        _ => None,
    }
}
