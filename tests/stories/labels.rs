//! Class heads: labels of cells are learned beside everything else, their table of names belongs to the checkpoint.

use std::path::Path;
use std::sync::Arc;

use syncytia::model::ModelConfig;
use syncytia::model::spatia::classes::{ClassFamily, UNKNOWN};
use syncytia::task::TaskConfig;
use syncytia::task::cells::CellsConfig;
use syncytia::task::embedding::{BATCH, CellEncoder};
use syncytia::tensor::cpu;
use syncytia::train::config::TrainConfig;
use syncytia::train::state;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::row_group::Columns;
use syncytia_shards::tables::vectors::Modality;

use crate::chain::Chain;
use crate::command::{done, refused};
use crate::pretraining::{cells, tiny};
use crate::stage::Theatre;

fn names(of: &[&str]) -> Vec<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

const TYPES: [&str; 4] = ["type_0", "type_1", "type_2", "type_3"];

fn with_family(config: &mut TrainConfig, family: ClassFamily) {
    let ModelConfig::Spatia(model) = &mut config.model else { unreachable!() };
    model.gene.families[1] = family;
}

/// Leaves, a parent and labels that say nothing, together with the contrast over the step.
#[test]
fn labels_have_the_same_bits_on_any_number_of_ranks_and_through_a_stop() {
    let family = ClassFamily {
        classes: names(&["type_0", "type_1"]),
        unknown: names(&["type_3"]),
        parents: [("type_2".to_owned(), names(&["type_0"]))].into(),
        ..ClassFamily::named("cell_type")
    };
    let numbers = TYPES.map(|label| family.number(Some(label)).unwrap());
    assert_eq!(numbers, [0, 1, 2, UNKNOWN]);
    let config = tiny(|c| with_family(c, family));
    let one = Theatre::new();
    let (_, seen) = one.run_on(cells(), &config, 1, None).unwrap();
    let without = Theatre::new();
    without.run_on(cells(), &tiny(|_| {}), 1, None).unwrap();
    assert_eq!(one.last().model.len(), without.last().model.len() + 2, "a head more");
    for ranks in [2, 8] {
        let several = Theatre::new();
        let (_, seen_by) = several.run_on(cells(), &config, ranks, None).unwrap();
        assert_eq!((seen_by.losses, seen_by.validations), (seen.losses.clone(), seen.validations.clone()));
        assert!(several.last() == one.last(), "{ranks} ranks");
    }
    let stopped = Theatre::new();
    stopped.run_on(cells(), &config, 4, Some(3)).unwrap();
    stopped.run_on(cells(), &config, 3, None).unwrap();
    assert!(stopped.last() == one.last());
}

/// Two of the four types differ in genes alone, two in the picture alone: one side names half of the cells at best. Learned
/// alone here: beside the other terms of tiny.toml it begins after some 300 steps.
#[test]
fn a_cells_type_is_told_by_its_token_more_often_than_by_chance() {
    let family = ClassFamily { classes: names(&TYPES), ..ClassFamily::named("cell_type") };
    let config = tiny(|c| {
        (c.train.max_steps, c.train.validate_every, c.checkpoint.every) = (200, 100, 200);
        (c.optim.lr, c.optim.warmup_steps) = (3e-3, 20);
        let alone =
            CellsConfig { denoise: 0.0, mvc: 0.0, dissimilarity: 0.0, reconstruction: 0.0, ..CellsConfig::default() };
        c.task = TaskConfig::Cells(CellsConfig { contrast: 0.0, ..alone });
        with_family(c, family.clone());
    });
    let theatre = Theatre::new();
    let shards = Arc::new(Shards::open(Path::new(&Chain::get().path("cells"))).unwrap());
    theatre.run_on(Arc::clone(&shards), &config, 4, None).unwrap();
    let contents = theatre.last();
    let model = config.model.build(config.model.shape(shards.manifest()), 1, &cpu());
    let model = model.clone().from_flat(&state::evaluated(&contents, &model.specs()).unwrap(), &cpu());
    let ModelConfig::Spatia(sizes) = &config.model else { unreachable!() };
    let encoder = CellEncoder::new(&model, sizes, shards.manifest(), 1, Modality::Both).unwrap();
    let (mut right, mut all) = (0, 0);
    for entry in shards.row_groups(Split::Val) {
        let columns = Columns { labels: names(&["cell_type"]), ..encoder.columns() };
        let group = shards.read_row_group(entry, &columns).unwrap();
        for first in (0..group.n_own).step_by(BATCH) {
            let rows = first..group.n_own.min(first + BATCH);
            let logits = encoder.class_logits(&group, rows.clone(), &cpu());
            assert!(logits[0].is_none(), "tissue has no classes");
            for (row, logits) in rows.zip(logits[1].as_ref().unwrap().chunks(4)) {
                let best = (0..4).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
                right += usize::from(group.labels[0].values[row].as_deref() == Some(TYPES[best]));
                all += 1;
            }
        }
    }
    let share = f64::from(right as u32) / f64::from(all as u32);
    assert!(share > 0.45, "{share} of {all}, by chance .25");
}

#[test]
fn a_table_that_does_not_fit_the_labels_or_the_parent_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let shards = cells();
    let shards = shards.dir().to_str().unwrap();
    let train = |run: &str, cell_type: &str, more: &[&str]| -> Vec<String> {
        let families = format!("model.spatia.gene.families=[{{name=\"tissue\"}}, {{{cell_type}}}]");
        let run = path(run);
        let mut args = vec!["train", "configs/spatia/tiny.toml", "--shards", shards, "--run", &run, "--set", &families];
        args.extend(["--set", "train.max_steps=1", "--set", "train.micro_batch=4", "--ranks", "2"]);
        args.extend(more);
        args.into_iter().map(str::to_owned).collect()
    };
    let run = |args: Vec<String>| done(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let no = |args: Vec<String>, code, fragments: &[&str]| {
        refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), code, fragments);
        assert!(!Path::new(&path("no")).join("checkpoints/step-00000001").exists());
    };
    let four = "name=\"cell_type\", classes=[\"type_0\", \"type_1\", \"type_2\", \"type_3\"]";
    no(train("no", "name=\"celltype\", classes=[\"a\"]", &[]), 3, &["no labels `celltype`", "cell_type"]);
    let three = "name=\"cell_type\", classes=[\"type_0\", \"type_1\", \"type_2\"]";
    no(train("no", three, &[]), 3, &["cell_type = `type_3`", "unknown"]);
    let twice = "name=\"cell_type\", classes=[\"a\", \"a\"]";
    no(train("no", twice, &[]), 2, &["`a` is there twice"]);
    let none = ["denoise", "mvc", "dissimilarity", "reconstruction", "picture", "contrast"];
    let none: Vec<String> = none.iter().flat_map(|term| ["--set".to_owned(), format!("task.{term}=0")]).collect();
    let none: Vec<&str> = none.iter().map(String::as_str).collect();
    no(train("no", "name=\"cell_type\"", &none), 2, &["every weight but that of classes is 0"]);
    run(train("parent", four, &[]));
    let turned = "name=\"cell_type\", classes=[\"type_3\", \"type_1\", \"type_2\", \"type_0\"]";
    no(train("no", turned, &["--from", &path("parent")]), 5, &["type_0, type_1", "in that order"]);
    run(train("child", four, &["--from", &path("parent")]));
    let mut again = train("parent", turned, &[]);
    again.extend(["--set", "train.max_steps=2"].map(str::to_owned));
    no(again, 5, &["would alter the trajectory", "families"]);
    done(&["export", &path("parent"), "--out", &path("export")]);
    let config = std::fs::read_to_string(Path::new(&path("export")).join("config.json")).unwrap();
    assert!(TYPES.iter().all(|name| config.contains(name)), "the table is exported: {config}");
}
