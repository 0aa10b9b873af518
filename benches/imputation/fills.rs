//! The simple fills of SpotDiff's tables over whole data sets, written out by `benches/imputation.py`.
//!
//! `cargo bench --bench imputation -- entries VALUES PLACES` or `... -- folds VALUES PLACES CELLS FOLDS [FILL ...]`. Tables are lines
//! of numbers between spaces; a value may be `nan`. FOLDS has one line: the fold of each gene.

use std::time::Instant;

use syncytia::evaluate::entry_fills::{EntryFill, Given};
use syncytia::evaluate::gene_metrics::{Entries, Metric, Undefined, flat, over_genes, per_gene};
use syncytia::evaluate::reference_fills::{EFFORT, ReferenceFill, over_folds};
use syncytia_shards::draw::{DrawKey, Purpose, bernoulli};
use syncytia_shards::processed::Matrix;

fn table(path: &str) -> Matrix<f32> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let rows: Vec<Vec<f32>> =
        text.lines().map(|line| line.split(' ').map(|word| word.parse().unwrap()).collect()).collect();
    Matrix { n_cols: rows[0].len(), values: rows.concat() }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["entries", values, places] => entries(&table(values), &xyz(places)),
        ["folds", values, places, cells, fold_of, ref which @ ..] => {
            let all = ReferenceFill::ALL.into_iter();
            let which: Vec<_> = all.filter(|fill| which.is_empty() || which.contains(&fill.name())).collect();
            let fold_of: Vec<u32> = table(fold_of).values.iter().map(|&fold| fold as u32).collect();
            folds(&table(values), &xyz(places), &table(cells), &fold_of, &which);
        }
        _ => panic!("entries VALUES PLACES, or folds VALUES PLACES CELLS FOLDS [FILL ...]"),
    }
}

fn xyz(path: &str) -> Vec<[f32; 3]> {
    let table = table(path);
    let at = |i: usize, axis: usize| table.row(i).get(axis).copied().unwrap_or(0.0);
    (0..table.n_rows()).map(|i| [at(i, 0), at(i, 1), at(i, 2)]).collect()
}

fn shown(name: &str, seconds: f64, truth: &Matrix<f32>, imputed: &Matrix<f32>, entries: Entries<'_>) {
    let scores = per_gene(truth, imputed, entries, Undefined::Ours);
    let figures: Vec<String> = Metric::ALL
        .iter()
        .map(|&metric| {
            let found = over_genes(&scores, metric);
            format!("{} {:.4} ({:.4})", metric.name(), found.mean, found.median)
        })
        .collect();
    let n = over_genes(&scores, Metric::Pcc);
    let whole = flat(truth, imputed, entries);
    println!(
        "{name:<24} {} | flat {:.4} | genes {} skipped {} | {seconds:.1} s",
        figures.join("  "),
        whole.pcc,
        n.n_used,
        n.n_skipped
    );
}

fn entries(values: &Matrix<f32>, xyz: &[[f32; 3]]) {
    let mut hidden = vec![false; values.values.len()];
    DrawKey::new(1, Purpose::Synthetic).for_each(hidden.len(), [0, 0, 7], |at, word| hidden[at] = bernoulli(word, 0.3));
    let visible = (0..hidden.len()).map(|at| !hidden[at] && values.values[at].is_finite()).collect();
    let [hidden, visible] = [hidden, visible].map(|bits| Matrix { n_cols: values.n_cols, values: bits });
    for fill in EntryFill::ALL {
        let start = Instant::now();
        let imputed = fill.fill(&Given { values, visible: &visible, xyz });
        shown(fill.name(), start.elapsed().as_secs_f64(), values, &imputed, Entries::Hidden(&hidden));
    }
}

fn folds(spots: &Matrix<f32>, xyz: &[[f32; 3]], cells: &Matrix<f32>, fold_of: &[u32], which: &[ReferenceFill]) {
    for &fill in which {
        let start = Instant::now();
        let found = over_folds(spots, xyz, cells, fold_of, &[fill], &EFFORT);
        shown(fill.name(), start.elapsed().as_secs_f64(), spots, &found[&fill], Entries::All);
    }
}
