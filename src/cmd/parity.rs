//! `syncytia parity`: the same numbers on the GPU as on the cores? Our operations one by one, then a config's first step.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use syncytia_launch::{ExitCode, World};
use syncytia_shards::reader::Shards;

use super::exit::UsageError;
use super::out;
use crate::config;
use crate::elementwise::bf16;
use crate::engine::Engine;
use crate::engine::nccl::{NcclEngine, Seat};
use crate::gpu::{Driver, Nccl, driver, nccl};
use crate::tensor::composed::compared;
use crate::tensor::{self, Device, cpu};
use crate::train::config::{ComputeOn, Products, TrainConfig};
use crate::train::device::{self, Place};
use crate::train::parity::{self, Difference};

/// Arguments of `parity`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Train config whose first step is compared; without one the operations alone.
    #[arg(requires = "shards")]
    config: Option<PathBuf>,
    /// Shard folder.
    #[arg(long)]
    shards: Option<PathBuf>,
    /// Vectors that the task learns from, as for `train`; repeatable.
    #[arg(long, value_name = "DIR")]
    vectors: Vec<PathBuf>,
    /// What is held against the cores.
    #[arg(long, value_enum, default_value_t = On::Cuda)]
    on: On,
    /// Largest relative difference of operations, terms and gradients.
    #[arg(long, default_value_t = 1e-4)]
    tolerance: f64,
    /// Steps that are timed after the first, on either device.
    #[arg(long, default_value_t = 0)]
    steps: usize,
    /// A key of the config, repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print the table as JSON.
    #[arg(long)]
    json: bool,
}

/// A device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum On {
    /// The GPU.
    Cuda,
    /// What wgpu finds: what a GPU runs, also in software.
    Wgpu,
    /// The cores against themselves: that the comparison works.
    Cpu,
}

impl On {
    fn name(self) -> &'static str {
        match self {
            On::Cuda => "cuda",
            On::Wgpu => "wgpu",
            On::Cpu => "cpu",
        }
    }
}

#[derive(Debug, Serialize)]
struct Line {
    what: String,
    worst: f64,
    limit: f64,
    ok: bool,
}

/// Points at which gradients are compared: two of them must agree, and the third but for a kink.
const POINTS: u64 = 3;
/// What a value of ReLU's that is nothing but rounding may move of a gradient's largest.
const KINK: f64 = 1e-2;

#[derive(Debug, Serialize)]
struct Step {
    /// The worst of the terms, and the median of the gradients.
    #[serde(flatten)]
    difference: Difference,
    /// Of the gradients at each point.
    at_points: Vec<f64>,
    /// Where one point alone is beyond the tolerance, how far.
    kink: Option<f64>,
    /// How far terms and gradients of the device are from its own of another run, at the point beyond the tolerance or the first.
    again: f64,
    /// Medians, seconds; none where nothing was timed.
    cores_s: Option<f64>,
    device_s: Option<f64>,
    /// Values of the batches that were on the device before the step.
    sent_ahead: usize,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let sets = [&args.set[..], &[format!("train.device={}", args.on.name())]].concat();
    let config = args.config.as_ref().map(|path| config::load::<TrainConfig>(path, &sets)).transpose()?;
    let Place { device, ordinal, words } = place(args.on, config.as_ref())?;
    tensor::allow_tf32(false); // operations are held to f32, whatever a config asks for
    let operations = compared::against_cores(&device).into_iter().map(|held| {
        let limit = if held.exact { 0.0 } else { args.tolerance };
        Line { what: held.operation.to_owned(), worst: held.worst, limit, ok: held.worst <= limit }
    });
    let mut lines: Vec<Line> = operations.collect();
    if args.on == On::Cuda {
        let (what, worst) = match one_rank_of_nccl(ordinal) {
            Ok(()) => ("NCCL, one rank".to_owned(), 0.0),
            Err(error) => (format!("NCCL, one rank: {error}"), f64::INFINITY),
        };
        lines.push(Line { what, worst, limit: 0.0, ok: worst == 0.0 });
    }
    let step = match (config, &args.shards) {
        (Some(config), Some(shards)) => Some(step(args, config, shards, &device)?),
        _ => None,
    };
    if let Some(step) = &step {
        lines.extend(judged(step, args.tolerance));
    }
    let ok = lines.iter().all(|line| line.ok);
    if args.json {
        out::json(&serde_json::json!({ "device": words, "ok": ok, "lines": lines, "step": step }))?;
    } else {
        out::line(format_args!("{words} against the cores"))?;
        for line in &lines {
            let verdict = if line.ok { "ok" } else { "FAR" };
            out::line(format_args!(
                "  {verdict:<4} {:<44} {:.1e} (at most {:.0e})",
                line.what, line.worst, line.limit
            ))?;
        }
        if let Some(Step { cores_s: Some(cores), device_s: Some(device), .. }) = step {
            out::line(format_args!("a step: {:.1} ms there, {:.1} ms on the cores", 1e3 * device, 1e3 * cores))?;
        }
    }
    Ok(if ok { ExitCode::Done } else { ExitCode::Numerics })
}

/// Terms and gradients against `tolerance`, and against themselves: to the bit. A kink is where it is and small; a race or memory
/// that nobody wrote is neither.
fn judged(step: &Step, tolerance: f64) -> Vec<Line> {
    let line = |what: String, worst: f64, limit: f64| Line { what, worst, limit, ok: worst <= limit };
    let mut lines = vec![
        line("loss terms".to_owned(), step.difference.terms, tolerance),
        line(format!("gradients ({})", step.difference.parameter), step.difference.gradients, tolerance),
    ];
    if let Some(worst) = step.kink {
        lines.push(line("gradients at a kink, one point of three".to_owned(), worst, KINK));
    }
    // Kernels that are chosen by timing may be others now.
    let again = if cfg!(feature = "tuned") { tolerance } else { 0.0 };
    lines.push(line("the device against itself".to_owned(), step.again, again));
    lines
}

/// The device, and in words.
fn place(on: On, config: Option<&TrainConfig>) -> anyhow::Result<Place> {
    let vars = |name: &str| std::env::var_os(name);
    Ok(match (on, config) {
        (On::Cpu, _) => Place::cores(),
        (On::Wgpu, _) => device::wgpu(true)?,
        (On::Cuda, Some(config)) => device::find(config, &World::local(), vars)?,
        (On::Cuda, None) => device::gpu(&World::local(), vars)?,
    })
}

/// A group of one: the library loads, a communicator is made, what goes to the device comes back as it was.
fn one_rank_of_nccl(ordinal: usize) -> Result<(), String> {
    let file = |name: &str| std::env::var_os(name);
    let driver = Driver::open(file(driver::FILE).as_deref()).map_err(|e| e.to_string())?;
    let nccl = Nccl::open(file(nccl::FILE).as_deref()).map_err(|e| e.to_string())?;
    let id = nccl.unique_id().map_err(|e| e.to_string())?;
    let seat = Seat { rank: 0, world_size: 1, ordinal };
    let deadline = Duration::from_secs(60);
    let mut engine =
        NcclEngine::join_unwatched(Arc::new(driver), Arc::new(nccl), &id, seat, deadline).map_err(|e| e.to_string())?;
    let integers: Vec<i64> = (0..5_000_000).map(|i| (i - 40) << 20).collect();
    let floats: Vec<f32> = (0..1_000_003).map(|i| 0.1 * (i % 97) as f32).collect();
    let mut halves = vec![0; floats.len()];
    bf16::narrow(&floats, &mut halves);
    let (mut summed, mut added, mut short) = (integers.clone(), floats.clone(), halves.clone());
    engine.all_reduce_i64("integers", &mut summed).map_err(|e| e.to_string())?;
    engine.all_reduce_f32("floats", &mut added).map_err(|e| e.to_string())?;
    engine.all_reduce_bf16("bf16", &mut short).map_err(|e| e.to_string())?;
    engine.finish().map_err(|e| e.to_string())?;
    if summed == integers && added == floats && short == halves {
        Ok(())
    } else {
        Err("the sum of one rank is not its own".to_owned())
    }
}

fn step(args: &Args, config: TrainConfig, shards: &Path, device: &Device) -> anyhow::Result<Step> {
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(UsageError(problems.join("; ")).into());
    }
    tensor::allow_tf32(config.train.products == Products::Tf32);
    let shards = Arc::new(Shards::open(shards)?);
    let mut cores = config.clone();
    (cores.train.device, cores.train.products) = (ComputeOn::Cpu, Default::default());
    let (mut differences, mut there, mut times) = (Vec::new(), Vec::new(), None);
    for point in 0..POINTS {
        let more = if point == 0 { args.steps } else { 0 };
        let theirs = parity::step_on(&config, &shards, &args.vectors, (device, true), more, point)?;
        let ours = parity::step_on(&cores, &shards, &args.vectors, (&cpu(), false), more, point)?;
        differences.push(parity::difference(&ours, &theirs));
        times.get_or_insert((median(ours.seconds), median(theirs.seconds.clone()), theirs.sent_ahead));
        there.push(theirs);
    }
    let beyond: Vec<usize> = (0..there.len()).filter(|&i| differences[i].gradients > args.tolerance).collect();
    let kink = match beyond[..] {
        [point] => Some(differences[point].gradients),
        _ => None,
    };
    let point = beyond.first().copied().unwrap_or(0);
    let asked = parity::step_on(&config, &shards, &args.vectors, (device, true), 0, point as u64)?;
    let again = parity::difference(&there[point], &asked);
    let again = again.terms.max(again.gradients);
    let at_points = differences.iter().map(|d| d.gradients).collect();
    let terms = differences.iter().map(|d| d.terms).fold(0.0, f64::max);
    differences.sort_by(|a, b| a.gradients.total_cmp(&b.gradients));
    let difference = Difference { terms, ..differences.swap_remove(POINTS as usize / 2) };
    let (cores_s, device_s, sent_ahead) = times.expect("there are points");
    Ok(Step { difference, at_points, kink, again, cores_s, device_s, sent_ahead })
}

fn median(mut seconds: Vec<f64>) -> Option<f64> {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(gradients: f64, kink: Option<(f64, f64)>) -> Step {
        let difference = Difference { terms: 1e-7, gradients, parameter: "a.weight".to_owned() };
        let (kink, again) = kink.map_or((None, 0.0), |(worst, again)| (Some(worst), again));
        Step { difference, at_points: vec![], kink, again, cores_s: None, device_s: None, sent_ahead: 0 }
    }

    #[test]
    fn a_kink_is_small_and_the_same_again_and_nothing_else_is_one() {
        let ok = |gradients, kink| judged(&step(gradients, kink), 1e-4).iter().all(|line| line.ok);
        assert!(ok(1e-6, None) && ok(1e-6, Some((7e-4, 0.0))));
        assert!(!ok(2e-4, None), "two points beyond");
        assert!(!ok(1e-6, Some((0.5, 0.0))), "too much for a kink");
        assert!(!ok(1e-6, Some((f64::INFINITY, 0.0))) && !ok(f64::NAN, None), "no number");
        assert!(!ok(1e-6, Some((7e-4, 3e-4))), "a device that says something else each time");
    }
}
