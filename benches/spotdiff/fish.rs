//! Gene folds of the FISH embryo by SpotDiff, without shards and without the trainer: what the model and the task can do.
//!
//! cargo bench --bench spotdiff_fish -- DIR fold=0 steps=300 lr=1e-3 text=false omega=0 ...    (one fold; PCC on stdout)

mod data;

use std::path::Path;
use std::time::Instant;

use syncytia::model::layers::Training;
use syncytia::model::params;
use syncytia::model::spotdiff::psi::{PsiConfig, Tokens};
use syncytia::model::spotdiff::sampler::Readout;
use syncytia::model::spotdiff::{Spotdiff, SpotdiffConfig};
use syncytia::optim::{OptimConfig, adamw, clip, ema, schedule};
use syncytia::task::imputation::{Imputation, ImputationConfig, smoothed};
use syncytia::task::{DrawsAt, Terms};
use syncytia::tensor::cpu;
use syncytia::train::step::objective;
use syncytia_shards::draw::{Purpose, ShuffleStream};
use syncytia_shards::matrix::Matrix;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let Some((dir, options)) = arguments.split_first() else {
        println!("spotdiff_fish DIR [key=value ...]: no data, nothing measured");
        return;
    };
    let option = |key: &str, default: f64| {
        let given = options.iter().find_map(|o| o.strip_prefix(key)?.strip_prefix('='));
        given.map_or(default, |v| match v {
            "true" => 1.0,
            "false" => 0.0,
            v => v.parse().expect("a number"),
        })
    };
    let fish = data::Fish::read(Path::new(dir));
    let genes = fish.spots.n_cols;
    let (folds, fold) = (5, option("fold", 0.0) as usize);
    let order = ShuffleStream::new(option("fold_seed", 0.0) as u64, Purpose::Synthetic, &[5]).permutation(genes);
    let mut folded = vec![false; genes];
    order.iter().skip(fold).step_by(folds).for_each(|&g| folded[g as usize] = true);

    let blank = option("blank", 0.0) > 0.0;
    let paired = fish.paired(&folded, option("cells", 50.0) as usize, blank);
    let hidden: Vec<usize> = (0..genes).filter(|&g| folded[g]).collect();
    let score = |of: &Matrix<f32>| {
        let all: Vec<f64> = hidden.iter().map(|&g| pcc(of, &fish.spots, g)).collect();
        all.iter().sum::<f64>() / all.len() as f64
    };
    let both = |of: &Matrix<f32>| (score(of), score(&smoothed(of, &paired.spots.near, 5)));
    println!("fold {fold}: k-NN {:.4}, smoothed {:.4}", both(&paired.spots.pair).0, both(&paired.spots.pair).1);

    let psi = PsiConfig {
        d: option("d", 128.0) as usize,
        blocks: option("blocks", 4.0) as usize,
        heads: 4,
        patch: None,
        tokens: Tokens::Spot,
        rna_channel: option("channel", 1.0) > 0.0,
        use_rna: option("rna", 1.0) > 0.0,
        use_text: option("text", 0.0) > 0.0,
        dropout: option("dropout", 0.0),
    };
    let config = SpotdiffConfig { omega: Default::default(), prompt: Default::default(), psi };
    let seed = option("seed", 0.0) as u64;
    let task = ImputationConfig {
        train_mask: option("mask", 0.3),
        spot_share: option("share", 0.5),
        last_time_share: option("last", 0.5),
        readout: Readout::OneStep(option("starts", 4.0) as usize),
        ..ImputationConfig::default()
    };
    let imputation = Imputation::of_paired(task, &config, &paired, seed).expect("a task that fits");
    let (steps, batch) = (option("steps", 300.0) as u64, option("batch", 64.0) as usize);
    let optim = OptimConfig {
        lr: option("lr", 1e-3),
        betas: [0.9, 0.999],
        eps: 1e-8,
        weight_decay: option("decay", 0.0),
        clip_norm: Some(1.0),
        ema: (option("ema", 0.0) > 0.0).then(|| option("ema", 0.0)),
        schedule: schedule::Schedule::Cosine,
        warmup_steps: 50,
        schedule_steps: Some(steps),
    };
    let device = cpu().autodiff();
    let model = Spotdiff::new(&config, genes, seed, &device);
    let specs = params::specs(&model);
    let tensors: Vec<_> = specs.iter().map(|s| s.range()).collect();
    let mut flat = params::to_flat(&model);
    let (mut m, mut v, mut average) = (vec![0.0; flat.len()], vec![0.0; flat.len()], flat.clone());
    let mut leaves = Some(model);
    let (mut rows, started) = (Vec::new(), Instant::now());
    for step in 0..steps {
        while rows.len() < batch {
            rows.extend(ShuffleStream::new(seed, Purpose::ShuffleEpoch, &[step]).permutation(paired.spots.n()));
        }
        let of_step: Vec<usize> = rows.drain(..batch).map(|r| r as usize).collect();
        let prepared = imputation.prepare(&paired, &of_step, DrawsAt::Step { global_step: step, first_slot: 0 });
        let model = params::from_flat(leaves.take().expect("put back"), &flat, &device);
        let Terms { sums, values, .. } = imputation.loss(&model, &prepared, &Training::new(seed, step, 0), &device);
        let mut gradients = objective(sums, &imputation.lambdas(), &prepared.weights).backward();
        let mut gradient = vec![0.0; flat.len()];
        params::each_gradient(&model, &mut gradients, &mut |place, data| {
            gradient[tensors[place].clone()].copy_from_slice(&data.try_to_vec::<f32>().expect("f32"));
        });
        leaves = Some(model);
        let norm = clip::global_norm(&gradient, &tensors);
        clip::clip(&mut gradient, norm, 1.0);
        adamw::update(&optim, schedule::rate(&optim, step), step + 1, &gradient, &mut flat, &mut m, &mut v);
        if let Some(decay) = optim.ema {
            ema::update(&mut average, &flat, decay);
        }
        if (step + 1) % (option("every", 100.0) as u64) == 0 {
            let losses: Vec<f64> = values.iter().zip(&prepared.weights).map(|(s, w)| s / w.max(1.0)).collect();
            let evaluated = if optim.ema.is_some() { &average } else { &flat };
            let model = params::from_flat(leaves.clone().expect("there"), evaluated, &cpu());
            let (mean, _) = imputation.impute(&model, &paired, &cpu());
            let (plain, smooth) = both(&mean);
            let digest = mean.values.iter().fold(0u64, |h, v| h.rotate_left(5) ^ u64::from(v.to_bits()));
            let s = started.elapsed().as_secs();
            println!(
                "  {:>5} {s:>4} s: loss {losses:.3?}, PCC {plain:.4}, smoothed {smooth:.4} [{digest:016x}]",
                step + 1
            );
        }
    }
}

/// Pearson's correlation of a gene's column.
fn pcc(of: &Matrix<f32>, truth: &Matrix<f64>, gene: usize) -> f64 {
    let a: Vec<f64> = (0..of.n_rows()).map(|i| f64::from(of.row(i)[gene])).collect();
    let b: Vec<f64> = (0..of.n_rows()).map(|i| truth.row(i)[gene]).collect();
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (p, q) = (mean(&a), mean(&b));
    let dot = |x: &[f64], mx: f64, y: &[f64], my: f64| x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum::<f64>();
    dot(&a, p, &b, q) / (dot(&a, p, &a, p) * dot(&b, q, &b, q)).sqrt().max(1e-12)
}
