//! What one step reads and what it says, for another implementation to be held against: parameters, the lanes' batches, the
//! loss terms and the gradient's norm. `benches/torch/{spatia,spotdiff}_step.py` start it.
//!
//! Usage: batches CONFIG SHARDS OUT step|data [KEY=VALUE...]
//!
//! Of a config in two stages it is the last; its pairs are made first, of cells as they are. OUT is a safetensors file: `model.<path>`, and of lane l `<l>.<name>`. The JSON line that is printed holds W_k and, of a
//! `step`, its terms and norm. Parameters are moved off their start, where some are zero and say nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use safetensors::tensor::{Dtype, TensorView};
use syncytia::config;
use syncytia::engine::ThreadsEngine;
use syncytia::model::spatia::patches::Kept;
use syncytia::task::{Prepared, cells, generate, imputation};
use syncytia::train::config::TrainConfig;
use syncytia::train::pairing;
use syncytia::train::ready::Ready;
use syncytia::train::step::{LaneBatch, StepRunner};
use syncytia::train::step_state::StepState;
use syncytia_shards::draw;
use syncytia_shards::reader::Shards;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let [config, shards, out, what, sets @ ..] = &arguments[..] else {
        panic!("CONFIG SHARDS OUT step|data [KEY=VALUE...]")
    };
    let config = config::load::<TrainConfig>(Path::new(config), sets).unwrap().last_stage();
    let shards = Arc::new(Shards::open(Path::new(shards)).unwrap());
    let pairs = tempfile::tempdir().unwrap();
    let vectors = pairs_of(&config, &shards, pairs.path());
    let ready = Ready::with_vectors(&config, &shards, &vectors).unwrap();
    let mut flat = ready.model.to_flat();
    let moves = draw::init_normals(1, "moved", flat.len());
    flat.iter_mut().zip(moves).for_each(|(value, by)| *value += 0.02 * by);

    let batch = |lane| ready.train.batch(&ready.task, &config, 0, lane).unwrap();
    let batches: Vec<LaneBatch> = (0..config.train.lanes).map(batch).collect();
    let terms = batches[0].batch.weights().len();
    let weights: Vec<f64> = (0..terms).map(|k| batches.iter().map(|b| b.batch.weights()[k]).sum()).collect();

    let mut tensors: Vec<Named> =
        ready.model.specs().iter().map(|spec| named("model", &spec.path, &spec.shape, &flat[spec.range()])).collect();
    for LaneBatch { lane, batch } in &batches {
        let lane = lane.to_string();
        tensors.extend(match batch {
            Prepared::Cells(batch) => of_cells(&lane, batch),
            Prepared::Generate(batch) => of_generate(&lane, batch),
            Prepared::Imputation(batch) => of_imputation(&lane, batch),
            _ => panic!("no other implementation of this task"),
        });
    }
    let views =
        tensors.iter().map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    std::fs::write(out, safetensors::serialize(views, None).unwrap()).unwrap();

    if what == "data" {
        println!("{}", serde_json::json!({ "weights": weights }));
        return;
    }
    let (trained, frozen) = ready.parts.split(&flat);
    let mut model = Some(ready.parts.model(&ready.model, &trained, &frozen, &ready.device));
    let mut state = StepState::new(trained, ready.parts.trained.len(), false);
    let mut runner = StepRunner::new(&config, &ready.task, &ready.parts.tensors, false, &ready.device);
    let mut engine = ThreadsEngine::group(1, Duration::from_secs(600)).remove(0);
    let next = vec![vec![0.0; terms]; batches.len()];
    let said = runner.run(&mut engine, &mut model, &mut state, &batches, &weights, &next, 0.0, false).unwrap();
    let terms: BTreeMap<_, _> = said.terms.iter().copied().collect();
    println!(
        "{}",
        serde_json::json!({
            "terms": terms, "loss": said.loss, "gradient_norm": said.gradient_norm, "weights": weights,
            "parameters": flat.len(), "trained": state.parameters.len(),
        })
    );
}

/// The pairs that a task on spots beside cells reads, in folders of vectors.
fn pairs_of(config: &TrainConfig, shards: &Shards, folder: &Path) -> Vec<PathBuf> {
    if !config.task.is_paired() || pairing::reads(config, shards.manifest()).is_empty() {
        return Vec::new();
    }
    pairing::write(&pairing::view(shards, config).unwrap(), config, None, folder, &|| false).unwrap();
    pairing::folders(folder)
}

/// Name, shape and bytes.
type Named = (String, Vec<usize>, Vec<u8>);

fn named(of: &str, name: &str, shape: &[usize], values: &[f32]) -> Named {
    (format!("{of}.{name}"), shape.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn of_cells(lane: &str, batch: &cells::Prepared) -> Vec<Named> {
    let (b, k) = (batch.ids.len(), batch.k);
    let genes: Vec<f32> = batch.genes.iter().map(|&gene| gene as f32).collect();
    let kept: Vec<f32> = batch.kept.of_records().flatten().map(|&patch| patch as f32).collect();
    let padding: Vec<f32> = batch.padding.iter().map(|&padded| f32::from(padded)).collect();
    let plane = batch.pixels.len() / b;
    vec![
        named(lane, "genes", &[b, k], &genes),
        named(lane, "values", &[b, k], &batch.values),
        named(lane, "depth", &[b], &batch.depth),
        named(lane, "counts", &[b, k], &batch.counts),
        named(lane, "listed", &[b], &batch.listed),
        named(lane, "padding", &[b, k], &padding),
        named(lane, "pixels", &[b, plane], &batch.pixels),
        named(lane, "kept", &[b, Kept::per_record(&batch.kept)], &kept),
    ]
}

fn of_generate(lane: &str, batch: &generate::Prepared) -> Vec<Named> {
    let (b, k) = (batch.genes.b, batch.genes.k);
    let genes: Vec<f32> = batch.genes.genes.iter().map(|&gene| gene as f32).collect();
    let padding: Vec<f32> = batch.genes.padding.iter().map(|&padded| f32::from(padded)).collect();
    let dropped: Vec<f32> = batch.dropped.iter().map(|&dropped| f32::from(dropped)).collect();
    let times: Vec<f32> = batch.times.iter().map(|&t| t as f32).collect();
    let plane = batch.pixels.len() / b;
    vec![
        named(lane, "genes", &[b, k], &genes),
        named(lane, "values", &[b, k], &batch.genes.values),
        named(lane, "depth", &[b], &batch.genes.depth),
        named(lane, "padding", &[b, k], &padding),
        named(lane, "pixels", &[b, plane], &batch.pixels),
        named(lane, "noise", &[b, plane], &batch.noise),
        named(lane, "times", &[b], &times),
        named(lane, "dropped", &[b], &dropped),
    ]
}

/// Rows are spots, then the cells that join them; `spot` is 1 of the former.
fn of_imputation(lane: &str, batch: &imputation::Prepared) -> Vec<Named> {
    let rows = &batch.rows;
    let (n, genes, text) = (rows.n, rows.genes, &rows.text);
    let spot: Vec<f32> = (0..n).map(|row| f32::from(row < batch.ids.len())).collect();
    let times: Vec<f32> = rows.times.iter().map(|&t| t as f32).collect();
    let mut tensors = vec![named(lane, "spot", &[n], &spot), named(lane, "times", &[n], &times)];
    let of_genes = [
        ("visible", &rows.visible),
        ("bits", &rows.bits),
        ("asked", &rows.asked),
        ("noisy", &rows.noisy),
        ("target", &rows.target),
        ("pair", &rows.pair),
    ];
    tensors.extend(of_genes.map(|(name, values)| named(lane, name, &[n, genes], values)));
    let prompt = [
        ("genes", text.genes.iter().map(|&gene| gene as f32).collect::<Vec<f32>>()),
        ("buckets", text.buckets.iter().map(|&bucket| f32::from(bucket)).collect()),
        ("absent", text.absent.iter().map(|&absent| f32::from(absent)).collect()),
    ];
    tensors.extend(prompt.map(|(name, values)| named(lane, name, &[n, values.len() / n], &values)));
    tensors
}
