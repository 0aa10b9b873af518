//! What rank 0 shows of a run: a bar on a terminal or a line now and then, `metrics.jsonl`, TensorBoard events, ids when
//! asked.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use syncytia_shards::durable::{self, AppendFile};

use crate::model::params::ParamSpec;
use crate::report::tensorboard::EventFile;
use crate::train::config::TrainConfig;
use crate::train::ready::Resumed;
use crate::train::run_folder::RunFolder;
use crate::train::state;
use crate::train::step::StepOutcome;
use crate::train::trainer::{Observer, Start};

/// The view of a run.
pub struct View {
    metrics: Log<AppendFile>,
    events: Log<EventFile>,
    ids: Option<AppendFile>,
    bar: Option<ProgressBar>,
    max_steps: u64,
    every: u64,
    metric: &'static str,
    global_batch: usize,
    /// The precision in which gradients are summed.
    sums: &'static str,
    since: Instant,
    steps_since: u64,
    seconds_since: [f64; 3],
}

/// Writes in a row after which a log goes well again: on a full disk a short line still finds room in the last page.
const IN_A_ROW: u32 = 16;

/// A log that a disk may refuse for a while: that is told once, its end too, and never ends the run.
struct Log<F> {
    file: F,
    name: String,
    /// Writes still to succeed before an outage is over; 0 where there is none.
    broken: u32,
}

impl<F> Log<F> {
    fn new(name: &Path, file: F) -> Self {
        let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { file, name, broken: 0 }
    }

    /// Writes; gives what there is to say.
    fn write(&mut self, write: impl FnOnce(&mut F) -> io::Result<()>) -> Option<String> {
        let (result, was_broken) = (write(&mut self.file), self.broken > 0);
        self.broken = if result.is_err() { IN_A_ROW } else { self.broken.saturating_sub(1) };
        let name = &self.name;
        match result {
            Ok(()) => (was_broken && self.broken == 0)
                .then(|| format!("{name} is written again; some of what came between may be missing")),
            Err(error) => {
                (!was_broken).then(|| format!("warning: cannot write {name}: {error}; the run goes on and tries again"))
            }
        }
    }
}

impl View {
    /// Opens the log of a run; lines beyond the step it goes on from move to `metrics.superseded.jsonl`.
    pub fn open(folder: &RunFolder, config: &TrainConfig, resumed: Option<&Resumed>) -> anyhow::Result<Self> {
        let step = resumed.and_then(|r| state::run_state(&r.contents).ok()).map_or(0, |s| s.global_step);
        supersede(&folder.metrics(), &folder.superseded_metrics(), step)?;
        let append = |path: &Path| AppendFile::open(path).with_context(|| format!("cannot open {}", path.display()));
        let ids = if config.log.record_ids {
            std::fs::create_dir_all(folder.log()).with_context(|| format!("cannot make {}", folder.log().display()))?;
            Some(append(&folder.rank_log(0))?)
        } else {
            None
        };
        let mut events =
            new_events(folder).with_context(|| format!("cannot make an event file in {}", folder.root().display()))?;
        events.start_after(step)?;
        Ok(Self {
            metrics: Log::new(&folder.metrics(), append(&folder.metrics())?),
            events: Log::new(Path::new("events.out.tfevents"), events),
            ids,
            bar: None,
            max_steps: config.train.max_steps,
            every: config.log.every,
            metric: config.task.metric(),
            global_batch: config.train.lanes * config.train.micro_batch,
            sums: config.train.reduction.precision(),
            since: Instant::now(),
            steps_since: 0,
            seconds_since: [0.0; 3],
        })
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// One JSON line.
    fn record(&mut self, line: &Value) {
        let said = self.metrics.write(|file| file.append(format!("{line}\n").as_bytes()));
        said.into_iter().for_each(|words| self.say(&words));
    }

    /// TensorBoard events.
    fn log(&mut self, write: impl FnOnce(&mut EventFile) -> io::Result<()>) {
        let said = self.events.write(write);
        said.into_iter().for_each(|words| self.say(&words));
    }
}

/// A new TensorBoard event file of a run.
pub fn new_events(folder: &RunFolder) -> io::Result<EventFile> {
    let unix_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos());
    EventFile::create(&folder.events(unix_ns, std::process::id()))
}

impl Observer for View {
    fn start(&mut self, start: &Start<'_>) {
        let order = start.data.order();
        let from = start.resumed_from.as_ref().map_or("the start".to_owned(), |name| name.clone());
        eprintln!(
            "from {from} on {} ranks: {} parameters, {} records, {} steps per epoch of {} records ({} left out, others \
             each epoch)",
            start.world_size,
            start.n_parameters,
            order.n_records(),
            order.steps_per_epoch(),
            self.global_batch,
            order.left_out_per_epoch(),
        );
        if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} eta {eta}")
                .expect("the template is ours and valid");
            let bar = ProgressBar::new(self.max_steps).with_style(style).with_position(start.global_step);
            bar.reset_eta();
            self.bar = Some(bar);
        }
        let (global_step, world_size, sums) = (start.global_step, start.world_size, self.sums);
        self.record(&json!({"kind": "start", "global_step": global_step, "world_size": world_size, "sums": sums}));
        self.since = Instant::now();
    }

    fn step(&mut self, global_step: u64, outcome: &StepOutcome, elapsed: Duration) {
        self.steps_since += 1;
        for (total, seconds) in self.seconds_since.iter_mut().zip(outcome.seconds[0]) {
            *total += seconds;
        }
        if let Some(bar) = &self.bar {
            bar.set_position(global_step);
        }
        if !outcome.applied {
            let records = &outcome.bad_records;
            self.say(&format!("step {global_step}: skipped, not finite; first in records {records:?}"));
        }
        self.record(&json!({
            "kind": "train", "global_step": global_step, "loss": outcome.loss, "grad_norm": outcome.gradient_norm,
            "lr": outcome.lr, "step_s": elapsed.as_secs_f64(), "data_s": outcome.seconds[0][0],
            "reduce_s": outcome.seconds[0][2], "rank_s": outcome.seconds, "applied": outcome.applied, "rerun": outcome.rerun,
            "terms": outcome.terms.iter().copied().collect::<BTreeMap<_, _>>(),
        }));
        self.log(|events| {
            let scalars = [
                ("train/loss", outcome.loss),
                ("train/grad_norm", outcome.gradient_norm),
                ("train/lr", outcome.lr),
                ("time/step_s", elapsed.as_secs_f64()),
                ("time/data_s", outcome.seconds[0][0]),
                ("time/reduce_s", outcome.seconds[0][2]),
            ];
            events.scalars(global_step, &scalars)?;
            let named: Vec<(String, f64)> =
                outcome.terms.iter().map(|(name, v)| (format!("train/{name}"), *v)).collect();
            let named: Vec<(&str, f64)> = named.iter().map(|(name, v)| (name.as_str(), *v)).collect();
            if named.len() > 1 { events.scalars(global_step, &named) } else { Ok(()) }
        });
        if global_step.is_multiple_of(self.every) || global_step == self.max_steps {
            let wall = self.since.elapsed().as_secs_f64();
            let rate = self.steps_since as f64 / wall;
            let share = |i: usize| 100.0 * self.seconds_since[i] / wall;
            let line = format!(
                "step {global_step}  loss {:.4}  grad {:.3}  lr {:.2e}  {:.0} samples/s  data {:.0} %  reduce {:.0} %  eta {:.0} s",
                outcome.loss,
                outcome.gradient_norm,
                outcome.lr,
                rate * self.global_batch as f64,
                share(0),
                share(2),
                (self.max_steps - global_step) as f64 / rate,
            );
            match &self.bar {
                Some(bar) => bar.set_message(line),
                None => self.say(&line),
            }
            (self.since, self.steps_since, self.seconds_since) = (Instant::now(), 0, [0.0; 3]);
        }
    }

    fn validation(&mut self, global_step: u64, value: f64, best: bool) {
        let tag = format!("val/{}", self.metric);
        self.record(&json!({"kind": "val", "global_step": global_step, self.metric: value, "best": best}));
        self.log(|events| events.scalars(global_step, &[(tag.as_str(), value)]));
        self.say(&format!(
            "step {global_step}  validation {} {value:.5}{}",
            self.metric,
            if best { "  best so far" } else { "" }
        ));
    }

    fn saving(&mut self, global_step: u64) {
        self.record(&json!({"kind": "save", "global_step": global_step}));
        self.log(EventFile::sync);
    }

    fn parameters(&mut self, global_step: u64, specs: &[ParamSpec], values: &[f32]) {
        self.log(|events| {
            specs.iter().try_for_each(|spec| {
                let values = &values[spec.offset..spec.offset + spec.len()];
                events.histogram(global_step, &format!("parameters/{}", spec.path), values)
            })
        });
    }

    fn warn(&mut self, message: &str) {
        self.say(&format!("warning: {message}"));
    }

    fn consumed(&mut self, rank: usize, global_step: u64, lane: usize, ids: &[u64]) {
        if let Some(file) = &mut self.ids {
            let line = json!({"rank": rank, "global_step": global_step, "lane": lane, "ids": ids});
            // The ids are for tests and audits; a full disk is told by the metrics.
            let _ = file.append(format!("{line}\n").as_bytes());
        }
    }
}

/// Moves the lines of `metrics` beyond `step` to `superseded`; a torn last line goes there too.
fn supersede(metrics: &Path, superseded: &Path, step: u64) -> anyhow::Result<()> {
    let Ok(file) = File::open(metrics) else { return Ok(()) };
    let (mut keep, mut gone) = (Vec::new(), Vec::new());
    for line in BufReader::new(file).split(b'\n') {
        let line = line.with_context(|| format!("cannot read {}", metrics.display()))?;
        let at = serde_json::from_slice::<Value>(&line).ok().and_then(|v| v["global_step"].as_u64());
        let target = if at.is_some_and(|at| at <= step) { &mut keep } else { &mut gone };
        target.extend_from_slice(&line);
        target.push(b'\n');
    }
    if gone.is_empty() {
        return Ok(());
    }
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(superseded)
        .with_context(|| format!("cannot open {}", superseded.display()))?;
    file.write_all(&gone)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", superseded.display()))?;
    durable::write_atomic(metrics, &keep)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_step_move_and_a_torn_line_with_them() {
        let dir = tempfile::tempdir().unwrap();
        let (metrics, superseded) = (dir.path().join("m"), dir.path().join("s"));
        std::fs::write(&metrics, "{\"global_step\":1}\n{\"global_step\":2}\n{\"global_step\":3}\n{\"glob").unwrap();
        supersede(&metrics, &superseded, 2).unwrap();
        assert_eq!(std::fs::read_to_string(&metrics).unwrap(), "{\"global_step\":1}\n{\"global_step\":2}\n");
        assert_eq!(std::fs::read_to_string(&superseded).unwrap(), "{\"global_step\":3}\n{\"glob\n");
    }
}
