//! What a step does on a bad day, and that a short run is the run it always was (`docs/step.md` §5, §6).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use syncytia::train::checkpoint::CheckpointContents;
use syncytia::train::config::{OnNonFinite, TrainConfig};
use syncytia::train::error::TrainError;
use syncytia::train::trainer::End;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::writer::{self, WriteOptions};

use crate::stage::{self, Seen, Theatre, tiny};

fn number(contents: &CheckpointContents, key: &str) -> u64 {
    contents.state[key].as_u64().unwrap()
}

/// Sum of |values| per tensor, rounded to where another instruction set may differ.
fn sizes(contents: &CheckpointContents) -> BTreeMap<String, f64> {
    let size = |values: &[f32]| values.iter().map(|v| f64::from(v.abs())).sum::<f64>();
    let weights = contents.model.iter().map(|t| (t.name.clone(), size(&t.values)));
    let state = contents
        .train_state
        .iter()
        .flat_map(|(part, tensors)| tensors.iter().map(move |t| (format!("{part}/{}", t.name), size(&t.values))));
    weights.chain(state).collect()
}

/// Twelve steps of `tiny.toml` on the shipped section: losses, validations, scales of the sums, and the size of every tensor of
/// weights, average and moments. A rule of the step that changes changes these in the first digits.
///
/// To write them again after a deliberate change of the definition: `SYNCYTIA_WRITE_GOLDEN=1`.
#[test]
fn a_short_run_is_the_run_it_always_was() {
    let theatre = Theatre::new();
    let (_, seen) = theatre.run(&tiny(|_| {}), 3, None).unwrap();
    let last = theatre.last();
    let ours = json!({
        "losses": seen.losses,
        "validations": seen.validations.iter().map(|v| (v.0, v.1)).collect::<Vec<_>>(),
        "exponents": last.state["exponents"],
        "sizes": sizes(&last),
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/short_run.json");
    if std::env::var_os("SYNCYTIA_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(&ours).unwrap() + "\n").unwrap();
    }
    let golden: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    same("", &golden, &ours);
}

/// Equal, numbers to 1e-5 of their size: what another instruction set's order of products may change.
fn same(at: &str, golden: &serde_json::Value, ours: &serde_json::Value) {
    use serde_json::Value;
    match (golden, ours) {
        (Value::Object(a), Value::Object(b)) => {
            assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{at}");
            a.iter().for_each(|(key, value)| same(&format!("{at}/{key}"), value, &b[key]));
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{at}");
            a.iter().zip(b).enumerate().for_each(|(i, (x, y))| same(&format!("{at}/{i}"), x, y));
        }
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= 1e-5 * a.abs().max(b.abs()), "{at}: {b}, always {a}");
        }
        _ => assert_eq!(golden, ours, "{at}"),
    }
}

/// A learning rate that throws the weights far away: gradients outgrow their scale, and the step runs again on every rank alike.
#[test]
fn a_lane_that_overflows_reruns_identically_everywhere() {
    let config = tiny(|c| {
        c.optim.lr = 3.0;
        c.optim.warmup_steps = 0;
        c.train.validate_every = 12;
    });
    let run = |ranks| {
        let theatre = Theatre::new();
        let (_, seen) = theatre.run(&config, ranks, None).unwrap();
        (theatre.last(), seen)
    };
    let (one, seen_by_one) = run(1);
    assert!(seen_by_one.reruns.iter().any(|&step| step > 2), "only {:?} ran twice", seen_by_one.reruns);
    for ranks in [3, 8] {
        let (several, seen) = run(ranks);
        assert_eq!(
            (seen.reruns, seen.losses),
            (seen_by_one.reruns.clone(), seen_by_one.losses.clone()),
            "{ranks} ranks"
        );
        assert!(several == one, "{ranks} ranks");
    }
}

/// The shipped section where the records `bad` hold a value whose square no f32 holds, and are nobody's neighbours.
fn poisoned(dir: &Path, bad: impl Fn(usize) -> bool) -> (Arc<Shards>, Vec<u64>) {
    let mut processed = stage::processed();
    let piece = processed.pieces.iter_mut().find(|p| p.split == Split::Train).unwrap();
    let genes = piece.layers["d_log1p"].n_cols;
    let mut ids = Vec::new();
    for i in (0..piece.n_obs()).filter(|&i| bad(i)) {
        piece.layers.get_mut("d_log1p").unwrap().values[i * genes] = 1e30;
        piece.measured.values[i * genes] = false; // it must not enter a mean
        ids.push(piece.record_id(i));
        for (at, neighbour) in piece.neighbours.values.iter_mut().enumerate() {
            if *neighbour as usize == i {
                *neighbour = (at / 18) as u32;
            }
        }
    }
    writer::write(&processed, "", dir, &WriteOptions::default()).unwrap();
    (Arc::new(Shards::open(dir).unwrap()), ids)
}

/// The published recipe reads and scores completed values too, so that a bad one shows.
fn published(on_nonfinite: OnNonFinite) -> TrainConfig {
    let published = stage::shipped("paper");
    tiny(|c| {
        c.model = published.model;
        c.task = published.task;
        c.train.on_nonfinite = on_nonfinite;
        c.train.max_steps = 20; // an epoch has 19
        c.train.validate_every = 20;
        c.log.record_ids = true;
    })
}

#[test]
fn a_bad_record_is_skipped_alike_by_all_ranks_or_named_by_all() {
    let dir = tempfile::tempdir().unwrap();
    let (shards, bad) = poisoned(&dir.path().join("one"), |i| i == 5);
    let run = |ranks, stop_after| -> (CheckpointContents, Seen) {
        let theatre = Theatre::new();
        let mut seen = Seen::default();
        loop {
            let (end, part) =
                theatre.run_on(Arc::clone(&shards), &published(OnNonFinite::Skip), ranks, stop_after).unwrap();
            seen.consumed.extend(part.consumed);
            if end == End::Finished {
                break (theatre.last(), seen);
            }
        }
    };
    let (one, seen) = run(1, None);
    let meetings = seen.consumed.iter().filter(|(_, _, ids)| ids.contains(&bad[0])).count() as u64;
    assert!(meetings >= 1, "the bad record is never read");
    assert_eq!(number(&one, "global_step"), 20);
    assert_eq!(number(&one, "optim_step"), 20 - meetings, "a skipped step applies nothing");
    assert!(!seen.consumed.iter().any(|(step, _, ids)| *step == 19 && ids.contains(&bad[0])));
    assert_eq!(number(&one, "skipped_in_a_row"), 0, "an applied step ends the row");
    assert!(run(3, None).0 == one, "3 ranks");
    assert!(run(2, Some(3)).0 == one, "stops every three steps");

    let error = Theatre::new().run_on(shards, &published(OnNonFinite::Stop), 3, None).unwrap_err();
    assert!(matches!(&error, TrainError::NotFinite { records, in_a_row: 1, .. } if *records == bad), "{error}");
}

/// A learning rate of nothing: the validation is that of the initial weights, whatever the batches it is cut into.
#[test]
fn validation_scores_every_record_once() {
    let value = |micro_batch: usize| {
        let config = tiny(|c| {
            c.optim.lr = 1e-30;
            c.train.micro_batch = micro_batch;
            c.train.max_steps = 1;
        });
        Theatre::new().run(&config, 2, None).unwrap().1.validations[0].1
    };
    let by_four = value(4);
    for micro_batch in [5, 7, 16] {
        let other = value(micro_batch);
        assert!((other - by_four).abs() < 1e-6 * by_four, "in batches of {micro_batch}: {other}, of 4: {by_four}");
    }
}

#[test]
fn three_skipped_steps_in_a_row_stop_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let (shards, _) = poisoned(&dir.path().join("all"), |_| true);
    let error = Theatre::new().run_on(shards, &published(OnNonFinite::Skip), 2, None).unwrap_err();
    assert!(matches!(error, TrainError::NotFinite { global_step: 2, in_a_row: 3, .. }), "{error}");
}
