//! Seconds of the three heavy steps of the SpaRED pipeline, one JSON line: `cargo bench -p syncytia-shards --bench process --
//! A.h5ad B.h5ad`. `benches/spared/parity.py … times` runs it beside the Python package on the same sections.

use std::path::Path;
use std::time::Instant;

use syncytia_shards::ingest::{self, IngestOptions};
use syncytia_shards::process::combat::{self, Combat};
use syncytia_shards::process::{
    self, FilterConfig, NearestGraph, ProcessConfig, SplitConfig, median, moran, neighbours, tpm,
};
use syncytia_shards::processed::{Matrix, Piece};

fn main() {
    let inputs: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if inputs.is_empty() {
        eprintln!("give the sections: cargo bench -p syncytia-shards --bench process -- A.h5ad B.h5ad");
        return;
    }
    let read = |path: &String| ingest::read_section(Path::new(path), &IngestOptions::default()).expect("a section");
    let filter = FilterConfig { lengths_before_prefix: false, ..FilterConfig::default() };
    let sections = inputs.iter().map(read).collect();
    let processed =
        process::process(sections, &filter, &ProcessConfig::default(), &SplitConfig::default()).expect("a data set");
    let lengths: Vec<f64> = processed.panel.genes.iter().filter_map(|gene| gene.length).collect();
    let all: Vec<u32> = (0..lengths.len() as u32).collect();
    let log1p: Vec<Matrix<f32>> = processed.pieces.iter().map(|p| tpm::tpm_log2(&p.counts, &lengths, &all)).collect();
    let of_pieces = || std::iter::zip(&processed.pieces, &log1p);

    let started = Instant::now();
    let complete = |(piece, log1p): (&Piece, &Matrix<f32>)| {
        median::complete(log1p, &neighbours::completion_hops(&piece.xy, 4, NearestGraph::Reverse))
    };
    let d_log1p: Vec<Matrix<f32>> = of_pieces().map(complete).collect();
    let median_s = started.elapsed().as_secs_f64();

    let started = Instant::now();
    let scores: Vec<_> = std::iter::zip(&processed.pieces, &d_log1p)
        .map(|(piece, d_log1p)| moran::per_gene(d_log1p, &neighbours::nearest_graph(&piece.xy, NearestGraph::Reverse)))
        .collect();
    let top = moran::top(&moran::mean_over_pieces(&scores), 32);
    let moran_s = started.elapsed().as_secs_f64();

    let chosen = |layers: &[Matrix<f32>]| -> Vec<Matrix<f32>> { layers.iter().map(|l| columns(l, &top)).collect() };
    let (log1p, d_log1p) = (chosen(&log1p), chosen(&d_log1p));
    let batch_of: Vec<usize> = (0..log1p.len()).collect();
    let started = Instant::now();
    for layers in [&log1p, &d_log1p] {
        let parameters = combat::estimate(&layers.iter().collect::<Vec<_>>(), &batch_of, Combat::Combat033);
        for (batch, layer) in layers.iter().enumerate() {
            std::hint::black_box(parameters.as_ref().map(|p| combat::apply(p, layer, batch)));
        }
    }
    let combat_s = started.elapsed().as_secs_f64();
    println!("{{\"median\": {median_s}, \"moran\": {moran_s}, \"combat\": {combat_s}, \"genes\": {}}}", lengths.len());
}

fn columns(layer: &Matrix<f32>, chosen: &[u32]) -> Matrix<f32> {
    let values = (0..layer.n_rows()).flat_map(|i| chosen.iter().map(move |&g| layer.row(i)[g as usize])).collect();
    Matrix { n_cols: chosen.len(), values }
}
