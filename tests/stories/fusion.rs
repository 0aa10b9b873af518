//! SPATIA's last step: one vector of a cell, its niche and its tissue. What it may know of a cell's own counts, and what does
//! not fit.

use std::path::Path;
use std::sync::Arc;

use syncytia::model::{Model, ModelConfig};
use syncytia::task::fusion::{Fusion, FusionConfig, Prepared, UpTo};
use syncytia::task::surroundings::{Level, Surroundings};
use syncytia::task::{DrawsAt, TaskConfig};
use syncytia::tensor::cpu;
use syncytia::train::config::TrainConfig;
use syncytia_shards::loader::{Loader, Slot};
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::places::Places;
use syncytia_shards::tables::vectors::{Vectors, VectorsOf, VectorsWriter};

use crate::chain::{Chain, last, ran, train};
use crate::command::{done, refused};

const FUSION: &str = "configs/spatia/tiny-fusion.toml";

/// A split of the chain's cohort with made-up vectors, and an untrained model.
struct Stage {
    tasks: [Fusion; 2],
    model: Model,
    loader: Loader,
    /// Own records of each row group.
    sizes: Vec<u32>,
    cells: Vectors,
    niches: Vectors,
    places: [Places; 2],
}

impl Stage {
    /// On shards of the chain.
    fn on(shards: &str) -> Stage {
        let shards = Arc::new(Shards::open(Path::new(&Chain::get().path(shards))).unwrap());
        let config: TrainConfig = syncytia::config::load(Path::new(FUSION), &[]).unwrap();
        let (ModelConfig::Spatia(model), TaskConfig::Fusion(task)) = (&config.model, &config.task) else {
            unreachable!()
        };
        let of = |up_to| Fusion::new(FusionConfig { up_to, ..*task }, model, shards.manifest(), 7).unwrap();
        let tasks = [UpTo::Cell, UpTo::Tissue].map(of);
        let model = config.model.build(config.model.shape(shards.manifest()), 1, &cpu());
        let loader = Loader::new(Arc::clone(&shards), Split::Train, tasks[0].columns(), 1 << 30).unwrap();
        let places = [VectorsOf::Niche, VectorsOf::Tissue].map(|of| shards.places(of, Split::Train).unwrap());
        let sizes: Vec<u32> = shards.row_groups(Split::Train).iter().map(|entry| entry.n_own).collect();
        let records = (0..sizes.len() as u32).flat_map(|group| loader.row_group(group).unwrap().record_ids.clone());
        let cells = made_up(VectorsOf::Obs, &records.collect::<Vec<u64>>());
        let niches = made_up(VectorsOf::Niche, &places[0].ids);
        Stage { tasks, model, loader, sizes, cells, niches, places }
    }

    fn slots(&self, row_group: u32, row: u32) -> Vec<Slot> {
        self.loader.batch([(row_group, row)]).unwrap()
    }

    fn surroundings(&self) -> Surroundings {
        let level = |places: &Places, vectors: &Vectors| Level {
            places: places.clone(),
            vectors: Arc::new(vectors.clone()),
            regions: None,
        };
        Surroundings::new(level(&self.places[0], &self.cells), Some(level(&self.places[1], &self.niches)))
    }

    /// What the task of this level makes of one cell.
    fn prepared(&self, up_to: UpTo, slots: &[Slot], at: DrawsAt) -> Prepared {
        let around = self.surroundings();
        self.tasks[usize::from(up_to != UpTo::Cell)].prepare(slots, (up_to != UpTo::Cell).then_some(&around), at)
    }

    /// Bits of its loss.
    fn loss(&self, batch: &Prepared) -> u32 {
        let Model::Spatia(model) = &self.model else { unreachable!() };
        let loss: Vec<f32> = self.tasks[0].unlikely(model, batch, None, &cpu()).into_data().try_to_vec().unwrap();
        assert!(loss.len() == 1 && loss[0].is_finite());
        loss[0].to_bits()
    }
}

/// A vector of every id.
fn made_up(of: VectorsOf, ids: &[u64]) -> Vectors {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("vectors");
    let mut writer = VectorsWriter::create(&out, of, 32, "nobody", "made up").unwrap();
    for &id in ids {
        let values: Vec<f32> = (0..32).map(|k| ((id % 9973 + 1) as f32 * (k + 1) as f32 * 0.37).sin()).collect();
        writer.push(&[id], &values).unwrap();
    }
    writer.finish().unwrap();
    Vectors::read(&out, of, "made up").unwrap()
}

fn spoil(vectors: &mut Vectors, id: u64) {
    let row = vectors.ids.iter().position(|&known| known == id).unwrap();
    vectors.values.values[row * 32..(row + 1) * 32].iter_mut().for_each(|v| *v = 3.0 - 2.0 * *v);
}

/// Frozen vectors were made of whole counts: those that know a cell's own never reach its loss, on a grid and where niches
/// overlap; all others that are read do.
#[test]
fn a_cells_own_counts_come_back_through_no_frozen_vector() {
    let chain = Chain::get();
    chain.shard("nearest", &["process.niches=\"nearest\""]);
    for (shards, several) in [("cells", false), ("nearest", true)] {
        let mut stage = Stage::on(shards);
        let mut overlapping = 0;
        for (row, at) in [(0, DrawsAt::Assay(0)), (41, DrawsAt::Step { global_step: 3, first_slot: 5 })] {
            let slots = stage.slots(0, row);
            let (cell, niche) = (slots[0].record_id(), slots[0].group.niches[slots[0].row].unwrap());
            let loss = |stage: &Stage| stage.loss(&stage.prepared(UpTo::Tissue, &slots, at));
            let before = loss(&stage);
            let (clean_cells, clean_niches) = (stage.cells.clone(), stage.niches.clone());
            // of a niche the first 8 are read
            let holds = |i: usize| stage.places[0].members(i).0.iter().take(8).any(|&member| member == cell);
            let that_hold: Vec<u64> =
                (0..stage.places[0].n()).filter(|&i| holds(i)).map(|i| stage.places[0].ids[i]).collect();
            overlapping += that_hold.iter().filter(|&&id| id != niche).count();
            spoil(&mut stage.cells, cell);
            that_hold.iter().for_each(|&id| spoil(&mut stage.niches, id));
            assert_eq!(loss(&stage), before, "{shards}: what knows the cell reached its loss");

            let own = stage.places[0].ids.binary_search(&niche).unwrap();
            let other = *stage.places[0].members(own).0.iter().take(8).find(|&&id| id != cell).unwrap();
            spoil(&mut stage.cells, other);
            assert_ne!(loss(&stage), before, "{shards}: a neighbour is read");
            (stage.cells, stage.niches) = (clean_cells, clean_niches);
            let tissue = (0..stage.places[1].n()).find(|&i| stage.places[1].members(i).0.contains(&niche)).unwrap();
            let others: Vec<u64> = stage.places[1].members(tissue).0.to_vec();
            others.iter().filter(|id| !that_hold.contains(id)).for_each(|&id| spoil(&mut stage.niches, id));
            assert_ne!(loss(&stage), before, "{shards}: other niches of the tissue are read");
            stage = Stage::on(shards);
        }
        assert_eq!(overlapping > 0, several, "{shards}");
    }
}

#[test]
fn a_level_that_is_missing_contributes_zeros() {
    let chain = Chain::get();
    chain.shard("edges", &["process.niche_um=40.8", "process.tissue_um=122.4", "process.niche_min_cells=9"]);
    let (stage, at) = (Stage::on("edges"), DrawsAt::Assay(0));
    let (mut with, mut without) = (0, 0);
    let groups = (0..).zip(&stage.sizes);
    for (group, row) in groups.flat_map(|(group, &n)| (0..n).step_by(7).map(move |row| (group, row))) {
        let slots = stage.slots(group, row);
        let batch = stage.prepared(UpTo::Tissue, &slots, at);
        let (niche, tissue) = (batch.niches.as_ref().unwrap(), batch.tissues.as_ref().unwrap());
        let has = slots[0].group.niches[slots[0].row].is_some();
        let there = [f32::from(u8::from(has))];
        assert_eq!((&niche.there[..], &tissue.there[..]), (&there[..], &there[..]));
        let alone = stage.loss(&stage.prepared(UpTo::Cell, &slots, at));
        assert_eq!(stage.loss(&batch) == alone, !has, "without a niche as if there were cells alone");
        *(if has { &mut with } else { &mut without }) += 1;
    }
    assert!(with > 10 && without > 10, "{with} with a niche, {without} without");
}

/// The head is a trained one and the fusion new: it begins worse than where it ends.
#[test]
fn counts_are_predicted_better_from_the_fused_vector_the_longer_it_learns() {
    let chain = Chain::get();
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run").to_str().unwrap().to_owned();
    let given = [vec!["--from".to_owned(), chain.path("tissues")], chain.vectors(&["of-cells", "of-niches"])].concat();
    let steps = ["train.max_steps=60", "train.validate_every=10", "checkpoint.every=60"];
    let steps = steps.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]).collect();
    ran(&train(FUSION, &chain.path("cells"), &run, 4, &[given, steps].concat()));
    let metrics = std::fs::read_to_string(Path::new(&run).join("metrics.jsonl")).unwrap();
    let of = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["loss"].as_f64().filter(|_| line["kind"] == "val")
    };
    let losses: Vec<f64> = metrics.lines().filter_map(of).collect();
    assert!(losses.len() == 6 && losses.is_sorted_by(|a, b| a > b), "{losses:?}");
}

#[test]
fn fusion_stops_at_the_level_that_is_asked_for_and_at_what_its_parent_has_learned() {
    let chain = Chain::get();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let fusion = |run: &str, from: &str, vectors: &[&str], more: &[&str]| -> Vec<String> {
        let given = [vec!["--from".to_owned(), chain.path(from)], chain.vectors(vectors)].concat();
        let more: Vec<String> = more.iter().map(|m| (*m).to_owned()).collect();
        train(FUSION, &chain.path("cells"), &path(run), 2, &[given, more].concat())
    };
    let up_to = |level: &'static str| ["--set".to_owned(), format!("task.up_to=\"{level}\"")];
    let with = |args: Vec<String>, level| [args, up_to(level).to_vec()].concat();
    ran(&with(fusion("cell", "run", &[], &[]), "cell"));
    ran(&with(fusion("niche", "niches", &["of-cells"], &[]), "niche"));
    assert_ne!(last(&path("cell")).model, last(&path("niche")).model);
    let no = |args: Vec<String>, code: i32, fragments: &[&str]| {
        refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), code, fragments);
        assert!(!Path::new(&path("no/checkpoints/step-00000000")).exists() && !Path::new(&path("out")).exists());
    };
    let both = ["of-cells", "of-niches"];
    no(fusion("no", "niches", &both, &[]), 5, &["\"niches\"", "task.up_to = \"tissue\"", "lower task.up_to"]);
    no(fusion("no", "tissues", &["of-cells"], &[]), 3, &["vectors of niches", "--level niche"]);
    no(fusion("no", "tissues", &["of-cells", "of-cells"], &[]), 3, &["vectors of records", "those of niches"]);
    no(with(fusion("no", "tissues", &both, &[]), "niche"), 2, &["reads no further vectors of niches"]);
    // vectors by another encoder than the levels learned from
    let earlier = Path::new(&chain.path("run")).join("checkpoints/step-00000002");
    let others = path("others");
    done(&["embed", earlier.to_str().unwrap(), "--shards", &chain.path("cells"), "--out", &others]);
    let of_others = ["--vectors", &others];
    let given = |more: &[&str]| fusion("no", "tissues", &["of-niches"], &[&of_others[..], more].concat());
    no(given(&[]), 3, &["was made of other vectors", "--level niche"]);
    no(
        with(fusion("no", "niches", &[], &of_others), "niche"),
        5,
        &["the vectors of records given were made by", "--level cell", "or give those it learned from"],
    );
    // frozen parts that nobody trained
    let none = train(FUSION, &chain.path("cells"), &path("no"), 2, &chain.vectors(&both));
    no(none.clone(), 2, &["train.freeze", "never trained", "--from", "train.freeze_untrained"]);
    let meant = [&none[..], &["--set".to_owned(), "train.freeze_untrained=true".to_owned()]].concat();
    ran(&meant);

    let embed = |run: &str, vectors: &[&str]| -> Vec<String> {
        let args = ["embed", run, "--shards", &chain.path("cells"), "--level", "fused", "--out", &path("out")];
        [args.map(str::to_owned).to_vec(), chain.vectors(vectors)].concat()
    };
    let three = ["of-cells", "of-niches", "of-tissues"];
    no(embed(&chain.path("tissues"), &three), 2, &["has not learned to fuse levels", "\"tissues\""]);
    no(embed(&chain.path("fusion"), &both), 3, &["--level fused reads vectors of tissues", "--level tissue"]);
    no(embed(&path("niche"), &three), 2, &["too many --vectors", "records, niches"]);
}

#[test]
fn a_fused_vector_is_judged_beside_the_cells_own_and_written_beside_a_files_cells() {
    let chain = Chain::get();
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("run"); // its report lies in it
    let run = copy.to_str().unwrap();
    std::fs::create_dir_all(copy.join("checkpoints")).unwrap();
    let from = Path::new(&chain.path("fusion")).join("checkpoints/step-00000006");
    let to = copy.join("checkpoints/step-00000006");
    std::fs::create_dir_all(to.join("train_state")).unwrap();
    for folder in ["", "train_state"] {
        for entry in std::fs::read_dir(from.join(folder)).unwrap().map(Result::unwrap) {
            if entry.path().is_file() {
                std::fs::copy(entry.path(), to.join(folder).join(entry.file_name())).unwrap();
            }
        }
    }
    let cells = chain.path("cells");
    let last = ["evaluate", run, "--shards", &cells, "--checkpoint", "last"];
    let embed = ["embed", run, "--shards", &cells, "--checkpoint", "last", "--level", "fused", "--out"];
    let of_last = dir.path().join("of-last").to_str().unwrap().to_owned();
    let three = chain.vectors(&["of-cells", "of-niches", "of-tissues"]);
    let args: Vec<&str> = embed.into_iter().chain([of_last.as_str()]).chain(three.iter().map(String::as_str)).collect();
    done(&args);
    let said = done(&[&last[..], &["--vectors", &of_last, "--json"]].concat());
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let text = said.to_string();
    assert!(text.contains("fused") && text.contains("pca_both"), "{text}");
    refused(&last, 3, &["judged by its fused vectors", "--level fused"]);
    refused(&[&last[..], &["--vectors", &chain.path("of-cells")]].concat(), 3, &["was made by", "--level fused"]);

    let (input, output) = (Path::new(&chain.path("cohort")).join("synthetic-3-000.h5ad"), dir.path().join("out.h5ad"));
    let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
    let said = done(&["embed", run, "--checkpoint", "last", "--input", input, "--output", output]);
    for name in ["X_spatia\"", "X_spatia_niche", "X_spatia_tissue", "X_spatia_fused"] {
        assert!(said.contains(name), "{said}");
    }
}
