//! What a model sees beside its genes: context genes, features that the input carries, features of its picture. From the file
//! to the shards, through training and evaluation, to `impute`.

use std::path::Path;
use std::sync::Arc;

use syncytia_shards::ingest::h5ad_write::{self, AnnData};
use syncytia_shards::ingest::{self, IngestOptions};
use syncytia_shards::processed::{Matrix, Split};
use syncytia_shards::reader::Shards;
use syncytia_shards::writer::{self, WriteOptions};

use crate::command::{cut, done, refused};
use crate::stage::{self, Theatre, tiny};

/// The shipped section with an embedding of two columns.
fn with_embedding(path: &Path, value: impl Fn(usize) -> f32) {
    let section = ingest::read_section(Path::new(&cut()), &IngestOptions::default()).unwrap();
    let mut adata = AnnData::from_section(&section);
    let values = (0..section.n_obs()).flat_map(|i| [value(i) as f64, 3.0]).collect();
    adata.obsm.insert("X_toy".to_owned(), Matrix { n_cols: 2, values });
    h5ad_write::write(path, &adata).unwrap();
}

const SETS: [&str; 8] = [
    "--set",
    "filter.top_moran=16",
    "--set",
    "filter.context_genes=20",
    "--set",
    r#"input.features=["X_toy"]"#,
    "--set",
    "process.picture_features=5",
];

#[test]
fn covariates_go_from_the_file_to_the_prediction() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (input, shards, run) = (path("toy.h5ad"), path("shards"), path("run"));
    with_embedding(Path::new(&input), |i| i as f32);
    let said = done(&[&["shard", &input, "--out", &shards][..], &SETS].concat());
    assert!(said.contains("covariates 20 context genes, 7 features"), "{said}");
    let opened = Shards::open(Path::new(&shards)).unwrap();
    let manifest = opened.manifest();
    assert_eq!(manifest.covariates[20..23], ["X_toy[0]", "X_toy[1]", "random_conv[0]"]);
    assert_eq!(manifest.covariates[0], manifest.panel.genes[manifest.panel.context[0] as usize].id);
    assert!(manifest.panel.context.iter().all(|gene| !manifest.panel.selected.contains(gene)));
    let piece = opened.read_piece(0, Split::Train).unwrap();
    let column = |k: usize| (0..piece.n_obs()).map(|i| piece.covariates.row(i)[k]).collect::<Vec<f32>>();
    assert!(column(20).windows(2).all(|w| w[0] < w[1]) && column(20)[0] < -1.0, "rows ascend, standardised");
    assert!(column(21).iter().all(|&v| v == 0.0), "a constant column says nothing");
    done(&["verify", &shards]);

    done(&["train", "configs/spackle/tiny.toml", "--shards", &shards, "--run", &run, "--set", "train.max_steps=6"]);
    done(&["evaluate", &run]);
    let (a, b, other) = (path("a.h5ad"), path("b.h5ad"), path("other.h5ad"));
    done(&["impute", &run, "--input", &input, "--output", &a]);
    with_embedding(Path::new(&other), |i| if i < 300 { 500.0 } else { i as f32 });
    done(&["impute", &run, "--input", &other, "--output", &b]);
    let layer = |path: &str| {
        let counts = ingest::CountsFrom::Layer("spackle".to_owned());
        let options = IngestOptions { counts, declared_counts: false, ..IngestOptions::default() };
        ingest::read_section(Path::new(path), &options).unwrap().counts
    };
    assert!(layer(&a) != layer(&b), "the model does not see the embedding");
    let plain = path("plain");
    done(&["shard", &cut(), "--out", &plain, "--set", "filter.top_moran=16"]);
    refused(&["evaluate", &run, "--shards", &plain], 3, &["0 covariates", "27 covariates"]);
    let process = ["process", &cut(), "--out", &path("c.h5ad"), "--model", &run];
    let process = [&process[..], &["--set", "filter.top_moran=16", "--set", "split.kind=block"]].concat();
    refused(&process, 2, &["27 covariates", "syncytia impute"]);
    refused(&["impute", &run, "--input", &cut(), "--output", &a], 3, &["X_toy", "input.features"]);
}

/// Two sections that differ only in which spot has which covariate, so that even their means are the same: the loss
/// differs as soon as the head, which starts at zero, has moved.
#[test]
fn training_sees_the_covariates() {
    let losses = |sign: fn(usize, usize) -> bool| {
        let mut processed = stage::processed_with("top_moran = 16\ncontext_genes = 1");
        for piece in &mut processed.pieces {
            let n = piece.covariates.values.len();
            let values = piece.covariates.values.iter_mut().enumerate();
            values.for_each(|(i, v)| *v = if sign(i, n) { 1.0 } else { -1.0 }); // their sum is exact in any order
        }
        let dir = tempfile::tempdir().unwrap();
        writer::write(&processed, "", dir.path(), &WriteOptions::default()).unwrap();
        let shards = Arc::new(Shards::open(dir.path()).unwrap());
        let (_, seen) = Theatre::new().run_on(shards, &tiny(|c| c.train.max_steps = 3), 2, None).unwrap();
        seen.losses
    };
    let (upper, lower) = (losses(|i, n| i < n / 2), losses(|i, n| i >= n - n / 2));
    assert!(upper[2] != lower[2], "{upper:?}");
}

#[test]
fn features_that_are_not_there_or_not_finite_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (input, shards) = (path("toy.h5ad"), path("shards"));
    let shard = ["shard", &input, "--out", &shards, "--set", r#"input.features=["X_toy"]"#];
    with_embedding(Path::new(&input), |i| if i == 77 { f32::NAN } else { 0.0 });
    refused(&shard, 3, &["obsm/X_toy", "row 77 is not finite"]);
    refused(
        &["shard", &cut(), "--out", &shards, "--set", r#"input.features=["X_uni"]"#],
        3,
        &["obsm/X_uni", "spatial"],
    );
    assert!(!Path::new(&shards).exists());
}

/// As many as the paper's ablation has.
#[test]
fn a_thousand_context_genes() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (tissue, shards, run) = (path("tissue"), path("shards"), path("run"));
    done(&["synth", "--spots", "400", "--context-genes", "1100", "--out", &tissue]);
    let section = format!("{tissue}/synthetic-1.h5ad");
    let sets = ["process.normalize=cp10k", "filter.top_moran=32", "filter.context_genes=1024"];
    let sets: Vec<&str> = sets.into_iter().flat_map(|set| ["--set", set]).collect();
    let said = done(&[&["shard", &section, "--out", &shards][..], &sets].concat());
    assert!(said.contains("covariates 1024 context genes, 0 features"), "{said}");
    let train =
        ["train", "configs/spackle/tiny.toml", "--shards", &shards, "--run", &run, "--set", "train.max_steps=2"];
    done(&train);
    let report = done(&["evaluate", &run, "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert!(
        report["model"]["mse"]["value"].as_f64().unwrap()
            < report["baselines"]["gene_mean"]["mse"]["value"].as_f64().unwrap() * 2.0
    );
}
