//! SPATIA's first stage: any number of ranks, stops, and lanes that learn from each other's cells.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use syncytia::task::TaskConfig;
use syncytia::task::cells::ContrastScope;
use syncytia::train::checkpoint::CheckpointContents;
use syncytia::train::config::{Recompute, TrainConfig};
use syncytia::train::trainer::End;
use syncytia_shards::reader::Shards;

use crate::command::{done, refused};
use crate::engines::overlap::beside;
use crate::stage::{Theatre, shards as spots};

/// A drawn cohort of 400 cells with pictures of 32 pixels.
pub fn cells() -> Arc<Shards> {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        done(&["synth", "--cells", "400", "--crop-px", "32", "--seed", "5", "--out", &path("cohort")]);
        let sets = ["--set", "process.crop_px=32", "--set", "data.row_group_records=64"];
        let shard = ["shard", &path("cohort"), "--config", "configs/spatia/shard.toml", "--out", &path("shards")];
        done(&[&shard[..], &sets].concat());
        dir
    });
    Arc::new(Shards::open(&dir.path().join("shards")).unwrap())
}

/// `configs/spatia/tiny.toml`, short, with changes.
pub fn tiny(change: impl FnOnce(&mut TrainConfig)) -> TrainConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/spatia/tiny.toml");
    let mut config: TrainConfig = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    config.train.max_steps = 6;
    config.train.micro_batch = 4;
    config.train.validate_every = 3;
    config.checkpoint.every = 2;
    config.log.record_ids = true;
    change(&mut config);
    assert_eq!(config.problems(), Vec::<String>::new());
    config
}

fn scope(config: &mut TrainConfig, scope: ContrastScope) {
    let TaskConfig::Cells(task) = &mut config.task else { unreachable!() };
    task.contrast_scope = scope;
}

#[test]
fn any_number_of_ranks_gives_the_same_bits_with_lists_of_any_length_and_a_contrast_over_the_step() {
    for of in [ContrastScope::Step, ContrastScope::Lane] {
        let config = tiny(|c| scope(c, of));
        let one = Theatre::new();
        let (end, seen_by_one) = one.run_on(cells(), &config, 1, None).unwrap();
        assert_eq!(end, End::Finished);
        assert!(seen_by_one.losses.iter().all(|(_, loss)| loss.is_finite()), "{:?}", seen_by_one.losses);
        for ranks in [2, 4, 8] {
            let several = Theatre::new();
            let (_, seen) = several.run_on(cells(), &config, ranks, None).unwrap();
            assert_eq!(seen.consumed, seen_by_one.consumed, "{ranks} ranks read other records");
            assert_eq!(seen.losses, seen_by_one.losses, "{ranks} ranks, {of:?}");
            assert_eq!(seen.validations, seen_by_one.validations, "{ranks} ranks, {of:?}");
            assert!(several.last() == one.last(), "{ranks} ranks, {of:?}");
        }
    }
}

#[test]
fn a_forward_that_is_kept_for_its_backward_has_the_bits_of_a_second_one() {
    let with = |kept| {
        let config = tiny(|c| {
            scope(c, ContrastScope::Step);
            c.train.max_steps = 3;
            c.train.kept_forwards = kept;
        });
        let theatre = Theatre::new();
        let (_, seen) = theatre.run_on(cells(), &config, 2, None).unwrap();
        (theatre.last(), seen.losses)
    };
    let none = with(0);
    for kept in [1, 4] {
        assert!(with(kept) == none, "{kept} of 4 lanes kept");
    }
}

/// Genes' and pictures' blocks and the painter's, also where what comes before them is frozen and a first forward is kept.
#[test]
fn blocks_that_run_again_in_backward_change_no_bit() {
    for (of, freeze) in [
        (ContrastScope::Step, &[][..]),
        (ContrastScope::Lane, &["image_encoder.patch", "image_encoder.cls", "mvc"][..]),
    ] {
        let with = |recompute: Recompute, ranks: usize, overlap: bool| {
            let config = tiny(|c| {
                scope(c, of);
                c.train.max_steps = 3;
                c.train.freeze = freeze.iter().map(|part| (*part).to_owned()).collect();
                c.train.freeze_untrained = true;
                (c.train.recompute, c.train.overlap) = (recompute, Some(overlap));
            });
            let theatre = Theatre::new();
            let (_, seen) = theatre.run_on(cells(), &config, ranks, None).unwrap();
            (theatre.last(), seen.losses)
        };
        let kept = with(Recompute::None, 1, false);
        for (ranks, overlap) in [(1, false), (2, false), (2, true)] {
            assert!(with(Recompute::Blocks, ranks, overlap) == kept, "{of:?}, {ranks} ranks, overlap: {overlap}");
        }
    }
}

/// Three gradients meet in these models, and parts are frozen: what leaves during backward has the bits of what does not.
#[test]
fn buckets_that_leave_during_backward_have_the_same_bits_also_of_frozen_models() {
    for (of, freeze) in [(ContrastScope::Step, &[][..]), (ContrastScope::Lane, &["image_encoder", "mvc"][..])] {
        let config = tiny(|c| {
            scope(c, of);
            c.train.max_steps = 3;
            c.train.freeze = freeze.iter().map(|f| (*f).to_owned()).collect();
        });
        let run = |ranks: usize, overlaps: bool| {
            let theatre = Theatre::new();
            let engines = |n| beside(n, overlaps, |_| Duration::ZERO);
            let (_, seen) = theatre.run_with(cells(), &config, ranks, None, engines).unwrap();
            (theatre.last(), seen.losses)
        };
        let plain = run(1, false);
        for ranks in [1, 3, 8] {
            assert!(run(ranks, true) == plain, "{of:?}, frozen {freeze:?}, {ranks} ranks");
        }
    }
}

#[test]
fn a_stop_and_other_ranks_change_nothing() {
    let config = tiny(|_| {});
    let straight = Theatre::new();
    straight.run_on(cells(), &config, 2, None).unwrap();
    let stopped = Theatre::new();
    assert_eq!(stopped.run_on(cells(), &config, 4, Some(3)).unwrap().0, End::Stopped { global_step: 3 });
    stopped.run_on(cells(), &config, 3, None).unwrap();
    assert!(stopped.last() == straight.last());
}

/// One lane of 32 cells and 8 lanes of 4 hold the same cells: the contrast over the step is that of the one lane, and within
/// lanes it is another.
#[test]
fn the_contrast_over_the_step_is_that_of_all_cells_together() {
    let first_moments = |lanes, micro_batch, of| {
        let config = tiny(|c| {
            (c.train.lanes, c.train.micro_batch, c.train.max_steps) = (lanes, micro_batch, 1);
            scope(c, of);
        });
        let theatre = Theatre::new();
        let (_, seen) = theatre.run_on(cells(), &config, 1, None).unwrap();
        (seen.losses[0].1, contrast_of(&theatre.last()))
    };
    let (loss, together) = first_moments(1, 32, ContrastScope::Lane);
    let (loss_of_step, across) = first_moments(8, 4, ContrastScope::Step);
    let (loss_of_lanes, apart) = first_moments(8, 4, ContrastScope::Lane);
    assert!((loss_of_step / loss - 1.0).abs() < 1e-5, "{loss_of_step} and {loss}");
    assert!((loss_of_lanes / loss - 1.0).abs() > 1e-2, "fewer cells to tell apart is easier");
    for (name, expected) in &together {
        let size = expected.iter().fold(0.0f32, |a, v| a.max(v.abs()));
        let off = |other: &[f32]| other.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / size;
        assert!(size > 0.0 && off(&across[name]) < 1e-3, "{name}: {}", off(&across[name]));
        assert!(off(&apart[name]) > 1e-2, "{name}: {}", off(&apart[name]));
    }
    assert!(together.keys().any(|name| name.ends_with("log_scale")), "{:?}", together.keys());
}

/// Adam's first moments of the contrast's parameters: their gradients, to a factor.
fn contrast_of(contents: &CheckpointContents) -> BTreeMap<String, Vec<f32>> {
    let of = contents.train_state["adam_m"].iter().filter(|t| t.name.starts_with("model.contrast."));
    of.map(|t| (t.name.clone(), t.values.clone())).collect()
}

#[test]
fn a_config_that_froze_all_that_the_task_uses_is_refused_in_words() {
    let config = tiny(|c| {
        let parts =
            ["gene_encoder", "image_encoder", "image_decoder", "fusion", "expression_decoder", "mvc", "contrast"];
        c.train.freeze = parts.iter().chain(&["cell_out", "vector_painter"]).map(|f| (*f).to_owned()).collect();
    });
    let error = Theatre::new().run_on(cells(), &config, 2, None).unwrap_err().to_string();
    assert!(error.contains("train.freeze") && error.contains("freeze less"), "{error}");
}

#[test]
fn shards_that_do_not_fit_are_refused_in_words() {
    let shards = spots();
    let args = |set: &'static str| {
        let shards = shards.dir().to_str().unwrap();
        let run = std::env::temp_dir().join("never-made").to_str().unwrap().to_owned();
        ["train", "configs/spatia/tiny.toml", "--shards", shards, "--run", &run, "--set", set].map(str::to_owned)
    };
    let no = |set, code, fragments: &[&str]| {
        refused(&args(set).iter().map(String::as_str).collect::<Vec<_>>(), code, fragments);
        assert!(!std::env::temp_dir().join("never-made").exists());
    };
    no("train.seed=1", 3, &["no pictures", "configs/spatia/shard.toml"]);
    no("model.spatia.image.patch=7", 2, &["image.patch = 7", "must divide image.size = 32"]);
    no("task.thinning=2", 2, &["task.thinning = 2"]);
    no("task.kind=\"completion\"", 2, &["task"]);
}
