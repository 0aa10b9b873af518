//! Gene folds of the FISH embryo by SpotDiff, without shards and without the trainer: what the model and the task can do.
//!
//! cargo bench --bench spotdiff_fish -- DIR fold=0 steps=300 lr=1e-3 text=false omega=0 ...    (one fold; PCC on stdout)

mod data;

use std::path::Path;
use std::time::Instant;

use syncytia::model::layers::Training;
use syncytia::model::spotdiff::psi_config::{Gelu, PsiConfig, Tokens, Visible};
use syncytia::model::spotdiff::sampler::Readout;
use syncytia::model::spotdiff::{Spotdiff, SpotdiffConfig};
use syncytia::model::{Model, params};
use syncytia::optim::{OptimConfig, adamw, clip, ema, schedule};
use syncytia::task::alignment::{Alignment, AlignmentConfig, moved};
use syncytia::task::completion::GeneMeans;
use syncytia::task::imputation::{Imputation, ImputationConfig, ROWS, smoothed};
use syncytia::task::paired::Paired;
use syncytia::task::{DrawsAt, Records, Task};
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

    let (blank, nearest) = (option("blank", 0.0) > 0.0, option("cells", 50.0) as usize);
    let mut paired = fish.paired(&folded, nearest, blank, None);
    let hidden: Vec<usize> = (0..genes).filter(|&g| folded[g]).collect();
    let score = |of: &Matrix<f32>| {
        let all: Vec<f64> = hidden.iter().map(|&g| pcc(of, &fish.spots, g)).collect();
        all.iter().sum::<f64>() / all.len() as f64
    };
    let near = paired.spots.near.clone();
    let both = |of: &Matrix<f32>| (score(of), score(&smoothed(of, &near, 5)));
    println!("fold {fold}: k-NN {:.4}, smoothed {:.4}", both(&paired.spots.pair).0, both(&paired.spots.pair).1);

    let psi = PsiConfig {
        d: option("d", 256.0) as usize,
        blocks: option("blocks", 4.0) as usize,
        heads: 4,
        patch: None,
        tokens: if option("patches", 0.0) > 0.0 { Tokens::Spot } else { Tokens::Whole },
        neighbours: false,
        visible: Visible::Token,
        gelu: Gelu::Tanh,
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
    let device = cpu().autodiff();
    let mut model = Spotdiff::new(&config, genes, seed, &device);
    let first = option("omega", 0.0) as u64;
    if first > 0 {
        let alignment = AlignmentConfig {
            lambda_pea: option("pea", 0.1),
            lambda_loc: option("loc", 0.5),
            ..AlignmentConfig::default()
        };
        let task = Task::Alignment(Alignment::new(alignment, seed));
        let run = Run { task: &task, paired: &paired, steps: first, batch: 256, seed, every: first.div_ceil(4) };
        model = run.train(model, &optim(1e-3, first, 0.0), &["prompt", "psi"], |_, _| {});
        let moved =
            moved(&params::from_flat(model.clone(), &params::to_flat(&model), &cpu()).omega, cells(&paired), &cpu());
        paired = fish.paired(&folded, nearest, blank, Some(moved));
        println!("moved:  k-NN {:.4}, smoothed {:.4}", both(&paired.spots.pair).0, both(&paired.spots.pair).1);
    }
    let imputation = Imputation::of_paired(task, &config, &paired, seed).expect("a task that fits");
    let task = Task::Imputation(imputation.clone());
    let (steps, batch) = (option("steps", 300.0) as u64, option("batch", 64.0) as usize);
    let run = Run { task: &task, paired: &paired, steps, batch, seed, every: option("every", 100.0) as u64 };
    let optim =
        OptimConfig { weight_decay: option("decay", 0.0), ..optim(option("lr", 1e-3), steps, option("ema", 0.0)) };
    run.train(model, &optim, &["omega"], |step, model| {
        let mean = imputation.impute(model, &paired, ROWS, &cpu()).mean;
        let (plain, smooth) = both(&mean);
        let digest = mean.values.iter().fold(0u64, |h, v| h.rotate_left(5) ^ u64::from(v.to_bits()));
        println!("  {step:>5}: PCC {plain:.4}, smoothed {smooth:.4} [{digest:016x}]");
    });
}

fn cells(paired: &Paired) -> &Matrix<f32> {
    &paired.cells.as_ref().expect("a reference").values
}

fn optim(lr: f64, steps: u64, ema: f64) -> OptimConfig {
    OptimConfig {
        lr,
        betas: [0.9, 0.999],
        eps: 1e-8,
        weight_decay: 0.0,
        clip_norm: Some(1.0),
        ema: (ema > 0.0).then_some(ema),
        schedule: schedule::Schedule::Cosine,
        warmup_steps: 50,
        schedule_steps: Some(steps),
    }
}

/// A stage of one lane, without the trainer.
struct Run<'a> {
    task: &'a Task,
    paired: &'a Paired,
    steps: u64,
    batch: usize,
    seed: u64,
    every: u64,
}

impl Run<'_> {
    /// The model as it evaluates after the last step; `look`: at every so many steps.
    fn train(&self, model: Spotdiff, optim: &OptimConfig, freeze: &[&str], look: impl Fn(u64, &Spotdiff)) -> Spotdiff {
        let (device, started) = (cpu().autodiff(), Instant::now());
        let specs = params::specs(&model);
        let tensors: Vec<_> = specs.iter().map(|s| s.range()).collect();
        let trains: Vec<bool> = specs.iter().map(|s| !freeze.iter().any(|f| s.path.starts_with(f))).collect();
        let places: Vec<usize> = (0..specs.len()).filter(|&i| trains[i]).collect();
        let mut flat = params::to_flat(&model);
        let (mut m, mut v, mut average) = (vec![0.0; flat.len()], vec![0.0; flat.len()], flat.clone());
        let (mut leaves, mut rows) = (Some(Model::Spotdiff(model)), Vec::new());
        for step in 0..self.steps {
            while rows.len() < self.batch {
                let epoch = ShuffleStream::new(self.seed, Purpose::ShuffleEpoch, &[step]);
                rows.extend({ epoch }.permutation(self.paired.spots.n()));
            }
            let of_step = Records::Paired(self.paired, rows.drain(..self.batch).map(|r| r as usize).collect());
            let at = DrawsAt::Step { global_step: step, first_slot: 0 };
            let prepared = self.task.prepare(&of_step, at, &GeneMeans::default());
            let model = leaves.take().expect("put back").from_flat(&flat, &device).freeze(&trains);
            let training = Training::new(self.seed, step, 0);
            let terms = self.task.loss(&model, &prepared, &training, None, &device);
            let mut gradients = objective(terms.sums, &self.task.lambdas(), prepared.weights()).backward();
            let mut gradient = vec![0.0; flat.len()];
            model.each_gradient(&mut gradients, &mut |place, data| {
                gradient[tensors[places[place]].clone()]
                    .copy_from_slice(&data.into_data().try_to_vec::<f32>().expect("f32"));
            });
            leaves = Some(model);
            let norm = clip::global_norm(&gradient, &tensors);
            clip::clip(&mut gradient, norm, 1.0);
            adamw::update(optim, schedule::rate(optim, step), step + 1, &gradient, &mut flat, &mut m, &mut v);
            if let Some(decay) = optim.ema {
                ema::update(&mut average, &flat, decay);
            }
            if (step + 1) % self.every == 0 {
                let means: Vec<f64> =
                    terms.values.read().0.iter().zip(prepared.weights()).map(|(s, w)| s / w.max(1.0)).collect();
                let s = started.elapsed().as_secs();
                println!("  {:>5} {s:>4} s: {} {means:.4?}", step + 1, self.task.terms().join(", "));
                look(
                    step + 1,
                    &spotdiff(leaves.clone().expect("there").from_flat(evaluated(optim, &average, &flat), &cpu())),
                );
            }
        }
        spotdiff(leaves.expect("there").from_flat(evaluated(optim, &average, &flat), &device))
    }
}

fn evaluated<'a>(optim: &OptimConfig, average: &'a [f32], flat: &'a [f32]) -> &'a [f32] {
    if optim.ema.is_some() { average } else { flat }
}

fn spotdiff(model: Model) -> Spotdiff {
    let Model::Spotdiff(model) = model else { unreachable!("no other was made") };
    model
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
