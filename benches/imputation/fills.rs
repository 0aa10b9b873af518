//! The simple fills of SpotDiff's tables over whole data sets, written out by `benches/imputation.py`.
//!
//! `cargo bench --bench imputation -- entries VALUES PLACES` or `... -- folds VALUES PLACES CELLS FOLDS SEED [FILL ...]`. Tables are
//! lines of numbers between spaces; a value may be `nan`.

use std::time::Instant;

use syncytia::evaluate::entry_fills::{EntryFill, Given};
use syncytia::evaluate::gene_metrics::{Entries, Metric, Undefined, flat, over_genes, per_gene};
use syncytia::evaluate::reference_fills::{EFFORT, ReferenceFill, over_folds};
use syncytia_shards::draw::{DrawKey, Purpose, ShuffleStream, bernoulli};
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
        ["folds", values, places, cells, n, seed, ref which @ ..] => {
            let all = ReferenceFill::ALL.into_iter();
            let which: Vec<_> = all.filter(|fill| which.is_empty() || which.contains(&fill.name())).collect();
            folds(&table(values), &xyz(places), &table(cells), n.parse().unwrap(), seed.parse().unwrap(), &which);
        }
        _ => panic!("entries VALUES PLACES, or folds VALUES PLACES CELLS FOLDS SEED [FILL ...]"),
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

fn folds(spots: &Matrix<f32>, xyz: &[[f32; 3]], cells: &Matrix<f32>, n: u32, seed: u64, which: &[ReferenceFill]) {
    let mut fold_of = vec![0; spots.n_cols];
    let order = ShuffleStream::new(seed, Purpose::Synthetic, &[]).permutation(spots.n_cols);
    order.iter().enumerate().for_each(|(at, &gene)| fold_of[gene as usize] = at as u32 % n);
    let start = Instant::now();
    let found = over_folds(spots, xyz, cells, &fold_of, which, &EFFORT);
    for (fill, imputed) in &found {
        shown(fill.name(), start.elapsed().as_secs_f64(), spots, imputed, Entries::All);
    }
}
