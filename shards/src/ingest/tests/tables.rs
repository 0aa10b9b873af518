//! Text tables: what is found by looking, and what is asked for.

use std::io::Write;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::ingest::{GenesIn, IngestOptions, describe, read_cells, read_section};
use crate::section::{Cells, Gene, Section};

struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        if name.ends_with(".gz") {
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gz.write_all(text.as_bytes()).unwrap();
            std::fs::write(&path, gz.finish().unwrap()).unwrap();
        } else {
            std::fs::write(&path, text).unwrap();
        }
        path
    }
}

fn options(coordinates: &str) -> IngestOptions {
    let coordinates = Some(coordinates.to_owned()).filter(|name| !name.is_empty());
    IngestOptions { coordinates, declared_counts: false, ..IngestOptions::default() }
}

fn dense(section: &Section) -> Vec<Vec<f32>> {
    let row = |i: usize| {
        let (genes, values) = section.counts.row(i);
        let value = |g: u32| genes.iter().position(|&at| at == g).map_or(0.0, |k| values[k]);
        (0..section.genes.len() as u32).map(value).collect()
    };
    (0..section.n_obs()).map(row).collect()
}

fn symbols(genes: &[Gene]) -> Vec<&str> {
    genes.iter().map(|g| g.id.as_str()).collect()
}

const PLACES: &str = "\"x\" \"y\" \"z\"\n-1.5 2 3\n4  5 6\n7 8 9\n";

#[test]
fn genes_in_the_header_or_in_the_first_column_give_the_same_section() {
    let f = Folder::new();
    f.file("places.txt", PLACES);
    let columns = f.file("columns.txt", "a\tb\n0.5\t0\n1\t2\n0\t3e-1\n");
    let rows = f.file("rows_counts.csv.gz", "a,0.5,1,0\r\nb,0,2,.3\r\n");
    let one = read_section(&columns, &options("places.txt")).unwrap();
    let two = read_section(&rows, &options("places.txt")).unwrap();
    assert_eq!(dense(&one), [[0.5, 0.0], [1.0, 2.0], [0.0, 0.3]]);
    assert_eq!(dense(&one), dense(&two));
    assert_eq!((symbols(&one.genes), symbols(&two.genes)), (vec!["a", "b"], vec!["a", "b"]));
    assert_eq!(one.xy, [[-1.5, 2.0], [4.0, 5.0], [7.0, 8.0]]);
    assert_eq!(one.z, Some(vec![3.0, 6.0, 9.0]));
    assert_eq!((one.library_id.as_str(), two.library_id.as_str()), ("columns", "rows"));
    assert_eq!(one.obs_ids, ["0", "1", "2"]);
    assert!(one.notes.iter().any(|n| n.starts_with("2 values of `values` are no integers")), "{:?}", one.notes);
}

#[test]
fn names_on_both_sides_are_told_apart_by_places_by_genes_or_by_the_user() {
    let f = Folder::new();
    f.file("three.csv", "cell,x,y\ns2,4,5\ns1,1,2\ns3,7,8\n");
    let table = f.file("t.tsv", "\ts1\ts2\ts3\na\t1\t2\t3\nb\t4\t5\t6\n");
    let section = read_section(&table, &options("three.csv")).unwrap();
    assert_eq!((symbols(&section.genes), section.obs_ids.join(" ")), (vec!["a", "b"], "s1 s2 s3".to_owned()));
    assert_eq!(section.xy, [[1.0, 2.0], [4.0, 5.0], [7.0, 8.0]], "joined by name");
    assert_eq!(section.z, None);
    // R's: one head less than columns
    let r = f.file("r.txt", "s1 s2 s3\na 1 2 3\nb 4 5 6\n");
    assert_eq!(dense(&read_section(&r, &options("three.csv")).unwrap()), dense(&section));
    // as many places as rows and columns: their names tell
    let square = f.file("square.csv", ",s1,s2,s3\na,1,2,3\nb,4,5,6\nc,7,8,9\n");
    assert_eq!(symbols(&read_section(&square, &options("three.csv")).unwrap().genes), ["a", "b", "c"]);
    let known = [Gene { id: "ENSG1".into(), symbol: "b".into() }];
    let cells: Cells = read_cells(&table, &options(""), &known).unwrap();
    assert_eq!((symbols(&cells.genes), cells.obs_ids.len()), (vec!["a", "b"], 3));
    let refused = read_cells(&table, &options(""), &[]).unwrap_err().to_string();
    assert!(refused.contains("rows (a, b)") && refused.contains("input.genes"), "{refused}");
    let told = IngestOptions { genes: GenesIn::Columns, ..options("") };
    assert_eq!(symbols(&read_cells(&table, &told, &[]).unwrap().genes), ["s1", "s2", "s3"]);
}

#[test]
fn a_first_column_of_numbers_is_names_under_the_right_head() {
    let f = Folder::new();
    let table = f.file("t.csv", "cell_id,a,b\n1106,1,2\n1107,3,4\n");
    let cells = read_cells(&table, &options(""), &[]).unwrap_err().to_string();
    assert!(cells.contains("both have names"), "{cells}");
    let columns = IngestOptions { genes: GenesIn::Columns, ..options("") };
    assert_eq!(read_cells(&table, &columns, &[]).unwrap().obs_ids, ["1106", "1107"]);
    let values = IngestOptions { row_names: Some(false), ..columns };
    assert_eq!(symbols(&read_cells(&table, &values, &[]).unwrap().genes), ["cell_id", "a", "b"]);
}

#[test]
fn places_in_a_table_of_more_columns_are_named() {
    let f = Folder::new();
    let table = f.file("t.txt", "a\t1\t2\nb\t3\t4\n");
    f.file("fields.txt", "1 100 26.5 -23\n2 100 29.5 -26\n");
    let refused = read_section(&table, &options("fields.txt")).unwrap_err().to_string();
    assert!(refused.contains("4 columns of numbers") && refused.contains("input.xy_columns"), "{refused}");
    let named =
        |x: &str, y: &str| IngestOptions { xy_columns: Some([x.to_owned(), y.to_owned()]), ..options("fields.txt") };
    assert_eq!(read_section(&table, &named("3", "4")).unwrap().xy, [[26.5, -23.0], [29.5, -26.0]]);
    let refused = read_section(&table, &named("3", "5")).unwrap_err().to_string();
    assert!(refused.contains("no `5`") && refused.contains("4 without names"), "{refused}");
    f.file("heads.csv", "id,area,x_um,y_um\nc1,9,1,2\nc2,9,3,4\n");
    assert_eq!(read_section(&table, &options("heads.csv")).unwrap().xy, [[1.0, 2.0], [3.0, 4.0]]);
}

#[test]
fn labels_come_from_a_file_of_their_own() {
    let f = Folder::new();
    let table = f.file("t.txt", "a\t1\t2\nb\t3\t4\n");
    f.file("types.tsv", "Astrocyte\tc46\tupper\nNeuron\tc48\tlower\n");
    let labelled = |column: Option<&str>| IngestOptions {
        labels: Some("types.tsv".into()),
        label_column: column.map(str::to_owned),
        ..options("")
    };
    let label = read_cells(&table, &labelled(Some("1")), &[]).unwrap().label.unwrap();
    assert_eq!((label.name.as_str(), label.values[1].as_deref()), ("label", Some("Neuron")));
    let refused = read_cells(&table, &labelled(None), &[]).unwrap_err().to_string();
    assert!(refused.contains("input.label_column") && refused.contains("3 without names"), "{refused}");
    f.file("types.tsv", "Astrocyte\n");
    let refused = read_cells(&table, &labelled(None), &[]).unwrap_err().to_string();
    assert!(refused.contains("1 rows or columns, expected 2"), "{refused}");
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let f = Folder::new();
    f.file("places.txt", PLACES);
    let refused = |text: &str, places: &str| {
        let table = f.file("t.txt", text);
        read_section(&table, &options(places)).unwrap_err().to_string()
    };
    let all = |found: String, words: &[&str]| assert!(words.iter().all(|w| found.contains(w)), "{found}");
    all(refused("a\tb\n1\t2\n", ""), &["input.coordinates"]);
    all(refused("a\tb\n1\t2\n", "none.txt"), &["none.txt", "no such file"]);
    all(refused("a\tb\n1\t2\n3\n5\t6\n", "places.txt"), &["line 3", "1 fields", "2"]);
    all(refused("a\tb\n1\t2\n3\tfour\n5\t6\n", "places.txt"), &["line 3", "`four` (column 2)"]);
    all(refused("a\tb\n1\t2\n3\t-4\n5\t6\n", "places.txt"), &["-4", "observation `1`, gene `b`", "negative"]);
    all(refused("a\tb\n1\t2\n3\tNA\n5\t6\n", "places.txt"), &["NaN", "observation `1`, gene `b`", "not a number"]);
    all(refused("a\ta\n1\t2\n3\t4\n5\t6\n", "places.txt"), &["1 duplicate gene"]);
    all(refused("1\t2\n3\t4\n5\t6\n", "places.txt"), &["neither the first line nor the first column"]);
    all(refused("a\tb\n1\t2\n3\t4\n5\t6\n7\t8\n", "places.txt"), &["4 observations", "the coordinates have 3"]);
    all(refused("a\tb\n1\t2\n3\t4\n", "places.txt"), &["3 rows or columns, expected 2"]);
    f.file("bad.txt", "x y\n1 2\n3 NaN\n5 6\n");
    all(refused("a\tb\n1\t2\n3\t4\n5\t6\n", "bad.txt"), &["`1` is not finite"]);
    f.file("other.csv", "cell,x,y\nq1,1,2\nq2,3,4\n");
    all(refused(",a,b,c\ns1,1,2,3\ns2,3,4,5\n", "other.csv"), &["2 of 2", "s1, s2"]);
}

#[test]
fn inspect_says_what_was_found() {
    let f = Folder::new();
    let says = |name: &str, text: &str| describe(&f.file(name, text)).unwrap().to_string();
    let found = says("g.txt.gz", "a\t1\t2\nb\t3\t0\nc\t0\t0\n");
    assert!(found.contains("2 observations × 3 variables") && found.contains("genes in rows"), "{found}");
    assert!(found.contains("gzip") && found.contains("no header") && found.contains("integer counts"), "{found}");
    let found = says("both.csv", ",s1,s2\na,1,2\nb,3,4\n");
    assert!(found.contains("genes in rows or in columns"), "{found}");
    let found = says("places.txt", PLACES);
    assert!(found.contains("columns x, y, z: a file for input.coordinates"), "{found}");
    let found = says("labels.tsv", "1\tNeuron\t.9\n2\tGlia\t.8\n");
    assert!(found.contains("1 (numbers), 2 (words), 3 (numbers)"), "{found}");
}
