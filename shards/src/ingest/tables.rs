//! Text tables as a section or as single cells: observations × genes or genes × observations, places and labels in files of
//! their own.
//!
//! What stands where is found by looking: genes are where there are names, or where as many observations remain as there are
//! places, or where names are genes of the other input. What that does not settle is asked for, not guessed.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::checks::{self, Named};
use super::description::{Description, MatrixFacts};
use super::error::{IngestError, first_few};
use super::h5ad::name_from_stem;
use super::options::{GenesIn, IngestOptions};
use super::text::{NumberTable, WordTable};
use crate::section::{Cells, Csr, Gene, ObsLabels, Section};

/// Reads a table and its coordinates.
pub(super) fn read(path: &Path, options: &IngestOptions) -> Result<Section, IngestError> {
    let table = NumberTable::read(path, options.header, options.row_names)?;
    let Some(file) = &options.coordinates else {
        return Err(IngestError::Absent {
            path: path.into(),
            node: "input.coordinates".into(),
            advice: "a text table has no places: name the file that has, with `--set input.coordinates=FILE`".into(),
        });
    };
    let file = beside(path, file);
    let places = Places::read(&file, options, table.n_rows(), table.n_columns())?;
    let (table, found) = oriented(path, table, options.genes, Some(&places), &[])?;
    let mut notes = vec![format!("genes taken from the {}", found.in_words())];
    let places = places.of(&table, path, &file, &mut notes)?;
    let obs_ids = places.names.clone().unwrap_or_else(|| numbered(table.n_rows()));
    let (genes, counts) = matrix(path, table, &obs_ids, options, &mut notes)?;
    checks::finite(&file, &obs_ids, &places.xy, places.z.as_deref())?;
    let label = labels(path, options, &obs_ids)?;
    Ok(Section {
        library_id: options.library_id.clone().unwrap_or_else(|| stem(path)),
        donor_id: None,
        source: path.into(),
        format: "table",
        counts,
        obs_ids,
        genes,
        xy: places.xy,
        z: places.z,
        um_per_unit: options.um_per_unit,
        array_row_col: None,
        labels: label.into_iter().collect(),
        features: Vec::new(),
        image: None,
        pictures: None,
        boxes: None,
        notes,
    })
}

/// Reads a table of single cells; `known`: genes that some of its names should be.
pub(super) fn read_cells(path: &Path, options: &IngestOptions, known: &[Gene]) -> Result<Cells, IngestError> {
    let table = NumberTable::read(path, options.header, options.row_names)?;
    let (table, found) = oriented(path, table, options.genes, None, known)?;
    let mut notes = vec![format!("genes taken from the {}", found.in_words())];
    let obs_ids = table.row_names.clone().unwrap_or_else(|| numbered(table.n_rows()));
    let (genes, counts) = matrix(path, table, &obs_ids, options, &mut notes)?;
    let label = labels(path, options, &obs_ids)?;
    Ok(Cells { source: path.into(), format: "table", obs_ids, genes, counts, label, notes })
}

/// What is in a table, for `inspect`: as far as it can be told without its coordinates.
pub(super) fn describe(path: &Path) -> Result<Description, IngestError> {
    let table = match NumberTable::read(path, None, None) {
        Ok(table) => table,
        Err(IngestError::Text { .. }) => return describe_words(path),
        Err(other) => return Err(other),
    };
    let shape = table.shape.clone();
    let names = |names: &Option<Vec<String>>, what| match names {
        Some(names) => format!("{what} ({})", first_few(names)),
        None => format!("no {what}"),
    };
    let mut encoding = format!(
        "text, {}-separated{}, {}, {}",
        shape.separator,
        if shape.gzip { ", gzip" } else { "" },
        names(&table.column_names, "header"),
        names(&table.row_names, "names of rows"),
    );
    let is_table_of_genes = oriented(path, table.clone(), GenesIn::Auto, None, &[]);
    let table = match is_table_of_genes {
        Ok((table, found)) => {
            encoding += &format!("; genes in {}", found.as_str());
            table
        }
        Err(_) => {
            encoding +=
                "; genes in rows or in columns, which only the coordinates, a reference or input.genes can tell";
            table
        }
    };
    let not_a_count = table.values.values.iter().copied().find(|v| !(v.fract() == 0.0 && *v >= 0.0));
    let (n_obs, n_vars) = (table.n_rows(), table.n_columns());
    Ok(Description {
        path: path.into(),
        format: "table",
        encoding,
        n_obs,
        n_vars,
        matrices: vec![MatrixFacts {
            node: "values".into(),
            encoding: "text".into(),
            dtype: "text".into(),
            n_obs,
            n_vars,
            is_counts: not_a_count.is_none(),
            not_a_count,
        }],
        obsm: Vec::new(),
        obs_columns: Vec::new(),
        var_columns: Vec::new(),
        spatial: places_in(path),
        images: Vec::new(),
    })
}

/// Columns of places, where the header names them.
fn places_in(path: &Path) -> Option<String> {
    let table = WordTable::read(path, 0).ok()?;
    let head = table.head.as_ref()?;
    let columns: Vec<&str> = ["x", "y", "z"]
        .iter()
        .filter_map(|axis| head.iter().find(|name| is_axis(name, axis)).map(String::as_str))
        .collect();
    (columns.len() >= 2).then(|| format!("columns {}: a file for input.coordinates", columns.join(", ")))
}

/// A table that holds words beside numbers: labels, or coordinates with names.
fn describe_words(path: &Path) -> Result<Description, IngestError> {
    let table = WordTable::read(path, 0)?;
    let kind = |column: usize| if table.numbers(column).is_some() { "numbers" } else { "words" };
    let name = |column: usize| match &table.head {
        Some(head) => head[column].clone(),
        None => (column + 1).to_string(),
    };
    Ok(Description {
        path: path.into(),
        format: "table",
        encoding: format!("text with words, {}", if table.head.is_some() { "header" } else { "no header" }),
        n_obs: table.rows.len(),
        n_vars: 0,
        matrices: Vec::new(),
        obsm: Vec::new(),
        obs_columns: (0..table.n_columns()).map(|column| format!("{} ({})", name(column), kind(column))).collect(),
        var_columns: Vec::new(),
        spatial: places_in(path),
        images: Vec::new(),
    })
}

impl GenesIn {
    fn as_str(self) -> &'static str {
        match self {
            GenesIn::Auto => "auto",
            GenesIn::Rows => "rows",
            GenesIn::Columns => "columns",
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            GenesIn::Rows => "first column (input.genes = \"rows\")",
            _ => "header (input.genes = \"columns\")",
        }
    }
}

/// The table as observations × genes, and where its genes were.
fn oriented(
    path: &Path,
    table: NumberTable,
    asked: GenesIn,
    places: Option<&Places>,
    known: &[Gene],
) -> Result<(NumberTable, GenesIn), IngestError> {
    let bad = |fact: String| IngestError::Text { path: path.into(), line: 1, fact };
    let (rows, columns) = (&table.row_names, &table.column_names);
    let found = match (asked, rows, columns) {
        (GenesIn::Rows, Some(_), _) | (GenesIn::Auto, Some(_), None) => GenesIn::Rows,
        (GenesIn::Columns, _, Some(_)) | (GenesIn::Auto, None, Some(_)) => GenesIn::Columns,
        (GenesIn::Rows, None, _) => {
            return Err(bad("input.genes = \"rows\", but the first column holds numbers, not names".into()));
        }
        (GenesIn::Columns, _, None) => {
            return Err(bad("input.genes = \"columns\", but the first line holds numbers, not names".into()));
        }
        (GenesIn::Auto, None, None) => {
            return Err(bad(
                "neither the first line nor the first column holds names: a table needs names of genes".into()
            ));
        }
        (GenesIn::Auto, Some(rows), Some(columns)) => {
            let fits = |n: usize| places.is_some_and(|p| p.xy.len() == n);
            let genes: HashSet<&str> = known.iter().flat_map(|g| [g.id.as_str(), g.symbol.as_str()]).collect();
            let placed: HashSet<&str> =
                places.iter().filter_map(|p| p.names.as_ref()).flatten().map(String::as_str).collect();
            let n_in =
                |set: &HashSet<&str>, names: &[String]| names.iter().filter(|n| set.contains(n.as_str())).count();
            // genes known by the other input, or, on the other side, observations that have places
            let n_genes = |names, others| n_in(&genes, names) + n_in(&placed, others);
            match (fits(table.n_columns()), fits(table.n_rows())) {
                (true, false) => GenesIn::Rows,
                (false, true) => GenesIn::Columns,
                _ => match n_genes(rows, columns).cmp(&n_genes(columns, rows)) {
                    std::cmp::Ordering::Greater => GenesIn::Rows,
                    std::cmp::Ordering::Less => GenesIn::Columns,
                    std::cmp::Ordering::Equal => {
                        return Err(bad(format!(
                            "rows ({}) and columns ({}) both have names: say which are genes with input.genes = \"rows\" or \
                             \"columns\" (of a reference: reference.genes)",
                            first_few(rows),
                            first_few(columns)
                        )));
                    }
                },
            }
        }
    };
    if let Some(n) = places.map(|p| p.xy.len()) {
        let n_obs = if found == GenesIn::Rows { table.n_columns() } else { table.n_rows() };
        if n < n_obs {
            return Err(bad(format!(
                "{n_obs} observations (genes in {}), the coordinates have {n}: are both of one section?",
                found.as_str()
            )));
        }
    }
    Ok((if found == GenesIn::Rows { table.transposed() } else { table }, found))
}

/// Genes and counts, checked.
fn matrix(
    path: &Path,
    table: NumberTable,
    obs_ids: &[String],
    options: &IngestOptions,
    notes: &mut Vec<String>,
) -> Result<(Vec<Gene>, Csr), IngestError> {
    let names = table.column_names.expect("oriented by them");
    let genes: Vec<Gene> = names.into_iter().map(|id| Gene { symbol: id.clone(), id }).collect();
    checks::unique(path, "observation", obs_ids.iter().map(String::as_str))?;
    checks::unique(path, "gene", genes.iter().map(|g| g.id.as_str()))?;
    let (window, genes) = checks::measured(table.values, genes, notes);
    let named = Named { path, node: "values", obs: obs_ids, genes: &genes };
    let counts = checks::counts(window, options.declared_counts, &named, notes)?;
    Ok((genes, counts))
}

/// Names for what has none.
fn numbered(n: usize) -> Vec<String> {
    (0..n).map(|i| i.to_string()).collect()
}

/// A file named in the options: beside the input, else from where the command runs.
fn beside(path: &Path, file: &str) -> PathBuf {
    let beside = path.parent().map(|folder| folder.join(file)).filter(|file| file.is_file());
    beside.unwrap_or_else(|| file.into())
}

/// `dge_raw.txt.gz` is `dge`.
fn stem(path: &Path) -> String {
    let is_gz = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"));
    let plain = if is_gz { path.with_extension("") } else { path.to_owned() };
    name_from_stem(&plain)
}

/// Places of a file of coordinates, in its order.
struct Places {
    names: Option<Vec<String>>,
    xy: Vec<[f64; 2]>,
    z: Option<Vec<f64>>,
}

impl Places {
    fn read(path: &Path, options: &IngestOptions, n_rows: usize, n_columns: usize) -> Result<Places, IngestError> {
        if !path.is_file() {
            return Err(IngestError::Missing { path: path.into() });
        }
        // one line more than there are observations is a header, whichever side observations are on
        let read = |n| WordTable::read(path, n);
        let table = match read(n_rows)? {
            table if table.head.is_none() => read(n_columns)?,
            table => table,
        };
        let columns = place_columns(path, &table, options)?;
        let numbers = |&column: &usize| {
            table.numbers(column).ok_or_else(|| {
                let bad = table.rows.iter().position(|row| row[column].parse::<f64>().is_err()).unwrap_or(0);
                let line = (bad + 1 + usize::from(table.head.is_some())) as u64;
                let fact = format!("`{}` (column {}) is no coordinate", table.rows[bad][column], column + 1);
                IngestError::Text { path: path.into(), line, fact }
            })
        };
        let axes: Vec<Vec<f64>> = columns.iter().map(numbers).collect::<Result<_, _>>()?;
        let xy = axes[0].iter().zip(&axes[1]).map(|(&x, &y)| [x, y]).collect();
        let name_column = (0..table.n_columns()).find(|&column| table.numbers(column).is_none());
        let names = name_column.map(|column| table.rows.iter().map(|row| row[column].clone()).collect());
        Ok(Places { names, xy, z: axes.into_iter().nth(2) })
    }

    /// The places of the table's observations: by name where both have names, else row by row.
    fn of(self, table: &NumberTable, path: &Path, file: &Path, notes: &mut Vec<String>) -> Result<Places, IngestError> {
        let n_obs = table.n_rows();
        if let (Some(own), Some(names)) = (&table.row_names, &self.names) {
            let at: HashMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
            let rows: Vec<Option<usize>> = own.iter().map(|name| at.get(name.as_str()).copied()).collect();
            let unplaced: Vec<&String> =
                own.iter().zip(&rows).filter(|(_, row)| row.is_none()).map(|(n, _)| n).collect();
            if !unplaced.is_empty() {
                let (n, first) = (unplaced.len(), first_few(&unplaced));
                return Err(IngestError::UnplacedBarcodes {
                    path: path.into(),
                    positions: file.into(),
                    n,
                    n_obs,
                    first,
                });
            }
            let rows: Vec<usize> = rows.into_iter().flatten().collect();
            return Ok(Places {
                names: Some(own.clone()),
                xy: rows.iter().map(|&row| self.xy[row]).collect(),
                z: self.z.map(|z| rows.iter().map(|&row| z[row]).collect()),
            });
        }
        if self.xy.len() != n_obs {
            let found = self.xy.len();
            return Err(IngestError::Length { path: file.into(), node: "places".into(), found, expected: n_obs });
        }
        notes.push("places taken row by row: the tables have no names in common to go by".to_owned());
        Ok(Places { names: table.row_names.clone().or(self.names), ..self })
    }
}

/// Columns of x, y and perhaps z.
fn place_columns(path: &Path, table: &WordTable, options: &IngestOptions) -> Result<Vec<usize>, IngestError> {
    let absent = |name: &str| IngestError::Absent {
        path: path.into(),
        node: name.into(),
        advice: format!("input.xy_columns and input.z_column name columns; there are: {}", table.columns_in_words()),
    };
    let named = |name: &String| table.column(name).ok_or_else(|| absent(name));
    let z = options.z_column.as_ref().map(named).transpose()?;
    if let Some(xy) = &options.xy_columns {
        return Ok(xy.iter().map(named).collect::<Result<Vec<_>, _>>()?.into_iter().chain(z).collect());
    }
    let head = |axis: &str| table.head.as_ref().and_then(|head| head.iter().position(|name| is_axis(name, axis)));
    if let (Some(x), Some(y)) = (head("x"), head("y")) {
        return Ok([x, y].into_iter().chain(z.or_else(|| head("z"))).collect());
    }
    let numeric: Vec<usize> = (0..table.n_columns()).filter(|&c| table.numbers(c).is_some()).collect();
    match numeric.len() {
        2 | 3 => Ok(numeric),
        n => Err(IngestError::Text {
            path: path.into(),
            line: 1,
            fact: format!(
                "{n} columns of numbers, 2 or 3 expected: name those of x and y with input.xy_columns, by name or number (that of z \
                 with input.z_column); there are: {}",
                table.columns_in_words()
            ),
        }),
    }
}

/// Whether a head says so: `x`, `X`, `xcoord`, `x_um`, `center_x`, ...
fn is_axis(head: &str, axis: &str) -> bool {
    let head = head.to_lowercase();
    let rest: Vec<&str> = head.split(['_', '.', ' ', '-']).filter(|part| !WORDS_OF_PLACES.contains(part)).collect();
    rest == [axis] || WORDS_OF_PLACES.iter().any(|word| head == format!("{axis}{word}"))
}

const WORDS_OF_PLACES: [&str; 12] =
    ["coord", "coords", "coordinate", "um", "px", "pixel", "center", "centroid", "centre", "global", "pos", "position"];

/// The labels asked for.
fn labels(path: &Path, options: &IngestOptions, obs_ids: &[String]) -> Result<Option<ObsLabels>, IngestError> {
    let Some(file) = &options.labels else { return Ok(None) };
    let file = beside(path, file);
    if !file.is_file() {
        return Err(IngestError::Missing { path: file });
    }
    let table = WordTable::read(&file, obs_ids.len())?;
    let column = match &options.label_column {
        None if table.n_columns() == 1 => Some(0),
        None => None,
        Some(name) => table.column(name),
    };
    let Some(column) = column else {
        return Err(IngestError::Absent {
            path: file,
            node: options.label_column.clone().unwrap_or_else(|| "input.label_column".into()),
            advice: format!(
                "name the column of the labels, by name or number; there are: {}",
                table.columns_in_words()
            ),
        });
    };
    if table.rows.len() != obs_ids.len() {
        let (found, expected) = (table.rows.len(), obs_ids.len());
        return Err(IngestError::Length { path: file, node: "labels".into(), found, expected });
    }
    let named = options.label_column.clone().filter(|name| name.parse::<usize>().is_err());
    let values = table.rows.into_iter().map(|row| Some(row[column].clone()).filter(|label| !label.is_empty()));
    Ok(Some(ObsLabels { name: named.unwrap_or_else(|| "label".to_owned()), values: values.collect() }))
}
