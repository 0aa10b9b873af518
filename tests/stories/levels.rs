//! SPATIA's stages one after the other through the program: cells, their vectors, niches on them, their vectors, tissues, and
//! the three as one vector of the cell.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use syncytia::model::{Model, ModelConfig};
use syncytia::task::DrawsAt;
use syncytia::task::members::{Members, MembersConfig};
use syncytia::task::places::{Gathered, PlaceRows};
use syncytia::tensor::cpu;
use syncytia::train::checkpoint::NamedTensor;
use syncytia::train::config::TrainConfig;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::vectors::{Vectors, VectorsOf};

use crate::chain::{CELLS, Chain, NICHES, ON_VECTORS, Stage, last, ran, train};
use crate::command::{done, refused};

fn named(tensors: &[NamedTensor]) -> BTreeMap<&str, &NamedTensor> {
    tensors.iter().map(|t| (t.name.as_str(), t)).collect()
}

#[test]
fn every_level_has_a_vector_of_every_place_in_every_split() {
    let chain = Chain::get();
    let shards = Shards::open(Path::new(&chain.path("cells"))).unwrap();
    let read =
        |name: &str, of| Vectors::read(Path::new(&chain.path(name)), of, &shards.manifest().data_hash()).unwrap();
    let cells = read("of-cells", VectorsOf::Obs);
    assert_eq!((cells.ids.len(), cells.values.n_cols), (1600, 32));
    let all = read("of-all", VectorsOf::Obs);
    assert!(all.ids == cells.ids && all.values != cells.values, "one of every cell");
    for (name, of) in [("of-niches", VectorsOf::Niche), ("of-tissues", VectorsOf::Tissue)] {
        let vectors = read(name, of);
        let places = [Split::Train, Split::Val, Split::Test].map(|split| shards.places(of, split).unwrap());
        let ids: Vec<u64> = places.iter().flat_map(|places| places.ids.clone()).collect();
        assert!(ids.len() > 20 && ids.iter().all(|&id| vectors.get(id).is_some()), "{name}");
        assert_eq!(vectors.ids.len(), ids.len());
        assert_ne!(vectors.values.row(0), vectors.values.row(1), "{name}: places differ");
    }
}

#[test]
fn every_stage_has_the_same_bits_on_any_number_of_ranks_and_through_a_stop() {
    let chain = Chain::get();
    let dir = tempfile::tempdir().unwrap();
    let run = |name: String| dir.path().join(name).to_str().unwrap().to_owned();
    let cells = chain.path("cells");
    // of stage 1, pretraining.rs has all numbers of ranks and stops
    let scope = ["--set", "train.micro_batch=4", "--set", "task.contrast_scope=\"step\""];
    ran(&train(CELLS, &cells, &run("one".into()), 8, &scope));
    assert!(last(&run("one".into())) == last(&chain.path("run")), "stage 1 on 8 ranks");
    for stage in &ON_VECTORS {
        let (config, name) = (stage.config, stage.run);
        let straight = last(&chain.path(name));
        let given = chain.given(stage);
        for ranks in [1, 4, 8] {
            let run = run(format!("{name}-{ranks}"));
            ran(&train(config, &cells, &run, ranks, &given));
            assert!(last(&run) == straight, "{name} on {ranks} ranks");
        }
        let stopped = run(format!("{name}-stopped"));
        let three = ["--set", "train.max_steps=3"].map(str::to_owned);
        ran(&train(config, &cells, &stopped, 3, &[&given[..], &three].concat()));
        assert_eq!(last(&stopped).state["global_step"], 3);
        ran(&train(config, &cells, &stopped, 5, &given));
        assert!(last(&stopped) == straight, "{name} through a stop");
    }
}

#[test]
fn a_stage_learns_its_own_level_and_leaves_all_others_as_they_were() {
    let chain = Chain::get();
    for Stage { run: name, parent, learns, .. } in &ON_VECTORS {
        let (ours, theirs) = (last(&chain.path(name)), last(&chain.path(parent)));
        let learns = |tensor: &str| learns.iter().any(|level| tensor.starts_with(level));
        let (parents, moments) = (named(&theirs.model), named(&ours.train_state["adam_m"]));
        let mut moved = 0; // those that were not there, the tokens of hidden members, count as moved where they train
        for (tensor, values) in named(&ours.model) {
            assert_eq!(moments.contains_key(tensor), learns(tensor), "{tensor} has optimizer state");
            match parents.get(tensor) {
                Some(before) if !learns(tensor) => {
                    assert_eq!(before.values, values.values, "{tensor} of {name} is frozen");
                }
                None if !learns(tensor) => {}
                before => moved += usize::from(before.is_none_or(|before| before.values != values.values)),
            }
        }
        assert_eq!(moved, moments.len(), "{name}: every tensor of its level learns, the query's among them");
    }
}

#[test]
fn vectors_do_not_depend_on_threads_and_one_modality_alone_is_another_producer() {
    let chain = Chain::get();
    let (cells, run) = (chain.path("cells"), chain.path("run"));
    let dir = tempfile::tempdir().unwrap();
    let digest = |threads: &str, modality: &str| -> (String, String) {
        let out = dir.path().join(format!("{threads}-{modality}"));
        let args =
            ["embed", &run, "--shards", &cells, "--modality", modality, "--json", "--out", out.to_str().unwrap()];
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncytia"));
        let said = command.env("RAYON_NUM_THREADS", threads).args(args).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let said: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
        (said["digest"].as_str().unwrap().to_owned(), said["producer"].as_str().unwrap().to_owned())
    };
    let one = digest("1", "both");
    assert_eq!(digest("4", "both"), one);
    let (genes, image) = (digest("2", "genes"), digest("2", "image"));
    assert_eq!((genes.1, image.1), (format!("{} genes", one.1), format!("{} image", one.1)));
    assert!(genes.0 != image.0 && genes.0 != one.0);
}

/// What is hidden is a target and nothing else: with other vectors in its place every output keeps its bits.
#[test]
fn hidden_members_reach_no_output() {
    let chain = Chain::get();
    let shards = Shards::open(Path::new(&chain.path("cells"))).unwrap();
    for Stage { config, vectors, .. } in &ON_VECTORS[..2] {
        let config: TrainConfig = syncytia::config::load(Path::new(config), &[]).unwrap();
        let (ModelConfig::Spatia(sizes), of) = (&config.model, config.task.table()) else { unreachable!() };
        let dir = chain.path(vectors[0]);
        let mut vectors =
            Vectors::read(Path::new(&dir), of.members().unwrap(), &shards.manifest().data_hash()).unwrap();
        let places = shards.places(of, Split::Train).unwrap();
        let task = Members::new(MembersConfig::default(), of, sizes, 7);
        let model = config.model.build(config.model.shape(shards.manifest()), 1, &cpu());
        let outputs = |model: &Model, vectors: &Vectors| {
            let from = PlaceRows { places: &places, vectors, regions: None, rows: (0..8).collect() };
            let batch = task.prepare(&from, DrawsAt::Step { global_step: 3, first_slot: 0 });
            let out = task.forward(model, &batch, None, &cpu());
            let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
            let members: Vec<f32> = out.members.into_data().try_to_vec().unwrap();
            let z: Vec<f32> = out.z.into_data().try_to_vec().unwrap();
            (batch, bits(members), bits(z))
        };
        let (batch, members, z) = outputs(&model, &vectors);
        let n_hidden = batch.hidden.iter().filter(|hidden| **hidden).count();
        let several = batch.seen.lengths.iter().filter(|&&n| n > 1).count();
        assert!(several > 4 && n_hidden >= several, "every place of several hides at least one: {n_hidden}");
        assert_eq!(batch.weights[0], n_hidden as f64);
        let mut seen = None;
        for (i, hidden) in batch.hidden.iter().enumerate() {
            let (place, at) = (i / batch.seen.n, i % batch.seen.n);
            if at >= batch.seen.lengths[place] {
                continue;
            }
            let id = places.members(place).0[at];
            let row = vectors.ids.iter().position(|&known| known == id).unwrap();
            match hidden {
                true => vectors.values.values[row * 32..(row + 1) * 32].iter_mut().for_each(|v| *v = 5.0 - *v),
                false => seen = Some(row),
            }
        }
        let (other, members_then, z_then) = outputs(&model, &vectors);
        assert!(other.targets != batch.targets, "the targets are others");
        assert!((&members_then, &z_then) == (&members, &z), "a hidden vector reached an output of {of:?}");
        vectors.values.values[seen.unwrap() * 32] += 0.5;
        let (_, members_then, z_then) = outputs(&model, &vectors);
        assert!(members_then != members && z_then != z, "a visible vector reaches its place");
    }
}

#[test]
fn the_nearest_cells_of_a_niche_are_read_and_a_random_subset_of_a_tissues_niches() {
    let chain = Chain::get();
    let shards = Shards::open(Path::new(&chain.path("cells"))).unwrap();
    let gathered = |name: &str, of: VectorsOf, most: usize, slot: u32| -> (Gathered, Vec<Vec<[f32; 2]>>) {
        let hash = shards.manifest().data_hash();
        let vectors = Vectors::read(Path::new(&chain.path(name)), of.members().unwrap(), &hash).unwrap();
        let places = shards.places(of, Split::Train).unwrap();
        let rows: Vec<usize> = (0..places.n()).collect();
        let streams: Vec<[u32; 3]> = rows.iter().map(|&row| [slot + row as u32, 0, 0]).collect();
        let offsets = rows.iter().map(|&row| places.members(row).1.to_vec()).collect();
        (
            Gathered::of(&PlaceRows { places: &places, vectors: &vectors, regions: None, rows }, most, 7, &streams),
            offsets,
        )
    };
    let of = |gathered: &Gathered, i: usize| -> Vec<[f32; 2]> {
        let at = |k: usize| (i * gathered.n + k) * 2;
        (0..gathered.lengths[i]).map(|k| [gathered.offsets_um[at(k)], gathered.offsets_um[at(k) + 1]]).collect()
    };
    let (niches, offsets) = gathered("of-cells", VectorsOf::Niche, 3, 0);
    assert_eq!(niches.n, 3);
    for (i, all) in offsets.iter().enumerate() {
        assert_eq!(of(&niches, i), all[..all.len().min(3)]);
        let square = |[x, y]: [f32; 2]| x * x + y * y;
        assert!(all.windows(2).all(|two| square(two[0]) <= square(two[1]) + 1e-2), "nearest first, but for rounding");
    }
    let (tissues, offsets) = gathered("of-niches", VectorsOf::Tissue, 2, 0);
    let (others, _) = gathered("of-niches", VectorsOf::Tissue, 2, 1000);
    let large: Vec<usize> = (0..offsets.len()).filter(|&i| offsets[i].len() > 2).collect();
    assert!(large.len() > 4 && tissues == gathered("of-niches", VectorsOf::Tissue, 2, 0).0);
    assert!(large.iter().all(|&i| tissues.lengths[i] == 2 && of(&tissues, i).iter().all(|at| offsets[i].contains(at))));
    assert!(large.iter().any(|&i| of(&tissues, i) != of(&others, i)), "a step has draws of its own");
    assert!(large.iter().any(|&i| of(&tissues, i) != offsets[i][..2]), "not just the first");
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_half_written() {
    let chain = Chain::get();
    chain.shard("other", &["data.row_group_records=64"]);
    chain.shard("without", &["process.niches=\"none\""]);
    let dir = tempfile::tempdir().unwrap();
    let (run, out) = (dir.path().join("run"), dir.path().join("out"));
    let (run, out) = (run.to_str().unwrap(), out.to_str().unwrap());
    let no = |args: Vec<String>, code: i32, fragments: &[&str]| {
        refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), code, fragments);
        assert!(!Path::new(run).exists() && !Path::new(out).exists(), "{args:?} left something");
    };
    let [cells, vectors, parent] = ["cells", "of-cells", "run"].map(|name| chain.path(name));
    let niches = |shards: &str, more: &[&str]| train(NICHES, &chain.path(shards), run, 2, more);
    no(niches("cells", &[]), 3, &["vectors of records", "embed CHECKPOINT", "--level cell", "--vectors V"]);
    no(niches("without", &["--vectors", &vectors]), 3, &["no niches", "process.niches = \"grid\""]);
    no(niches("other", &["--vectors", &vectors]), 3, &["of other shards", "syncytia embed"]);
    no(niches("cells", &["--vectors", &cells]), 3, &["no vectors.json"]);
    no(niches("cells", &["--vectors", &chain.path("of-niches")]), 3, &["vectors of niches", "those of records"]);
    let wide = ["--set", "model.spatia.h=64"];
    no(niches("cells", &[&["--vectors", &vectors][..], &wide].concat()), 3, &["32 values", "model.spatia.h = 64"]);
    let token = ["--vectors", &vectors, "--set", "model.spatia.masked_token=false"];
    no(niches("cells", &token), 2, &["model.spatia.masked_token"]);
    no(train(CELLS, &cells, run, 2, &["--vectors", &vectors]), 2, &["--vectors", "reads no vectors"]);
    let both = ["--vectors", &vectors, "--vectors", &chain.path("of-niches")];
    no(niches("cells", &both), 2, &["reads no further vectors of niches"]);
    let many = ["--vectors", &vectors, "--set", "train.micro_batch=100"];
    no(niches("cells", &many), 3, &["split `train`", "lower train.lanes"]);

    let embed = |from: &str, shards: &str, more: &[&str]| -> Vec<String> {
        let (from, shards) = (chain.path(from), chain.path(shards));
        let args = [&["embed", &from, "--shards", &shards, "--out", out][..], more].concat();
        args.into_iter().map(str::to_owned).collect()
    };
    let niche = ["--level", "niche"];
    no(embed("run", "cells", &niche), 2, &["has not learned niches", "\"cells\""]);
    no(embed("niches", "cells", &niche), 3, &["reads vectors of records", "--vectors DIR"]);
    let with = ["--level", "niche", "--vectors", &vectors];
    no(embed("niches", "without", &with), 3, &["no niches"]);
    no(embed("niches", "other", &with), 3, &["of other shards"]);
    no(embed("niches", "cells", &[&with[..], &["--modality", "genes"]].concat()), 2, &["--modality"]);
    let spots = crate::stage::shards();
    let args = ["embed", &parent, "--shards", spots.dir().to_str().unwrap(), "--out", out].map(str::to_owned);
    let of_genes = ["do not fit the model", "genes, the model was trained on", "new to the model are", "first "];
    no(args.to_vec(), 3, &[&of_genes[..], &["train --from", "embed --input"]].concat());
    let output = crate::command::syncytia(&["evaluate", &parent, "--shards", spots.dir().to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(3) && !said.contains("warning") && !said.contains("contradicts"), "{said}");
    // vectors of another checkpoint than the model learned from
    let genes = dir.path().join("genes");
    done(&["embed", &parent, "--shards", &cells, "--modality", "genes", "--out", genes.to_str().unwrap()]);
    let with = ["--level", "niche", "--vectors", genes.to_str().unwrap()];
    no(embed("niches", "cells", &with), 3, &["was made by checkpoint", "genes"]);
    // what train refuses, the doctor tells
    refused(&["doctor", NICHES, "--shards", &cells], 3, &["--vectors V"]);
    done(&["doctor", NICHES, "--shards", &cells, "--vectors", &vectors]);
    // nor does a run go on with them
    let others = dir.path().join("others");
    let others = others.to_str().unwrap();
    done(&["embed", &chain.path("niches"), "--shards", &cells, "--out", others]);
    let mut args = train(NICHES, &cells, &chain.path("niches"), 2, &["--vectors", others]);
    args.extend(["--set", "train.max_steps=9"].map(str::to_owned));
    refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), 5, &["would alter the trajectory", "vectors: "]);
    // what is there stays
    let args = ["embed", &parent, "--shards", &cells, "--out", &vectors];
    refused(&args, 3, &["is not empty"]);
    assert!(PathBuf::from(&vectors).join("vectors.json").exists());
}

#[test]
fn the_shipped_stages_have_one_size_and_freeze_all_but_their_level() {
    let load = |name: String| -> TrainConfig {
        syncytia::config::load(Path::new(&format!("configs/spatia/{name}.toml")), &[]).unwrap()
    };
    for size in ["tiny", "small"] {
        let sizes = |config: &TrainConfig| match &config.model {
            ModelConfig::Spatia(sizes) => (**sizes).clone(),
            _ => unreachable!(),
        };
        let first = load(size.to_owned());
        for (stage, learns) in
            [("niche", &["niche"][..]), ("tissue", &["tissue"]), ("fusion", &["final_fusion", "mvc"])]
        {
            let config = load(format!("{size}-{stage}"));
            assert_eq!(config.problems(), Vec::<String>::new());
            let kinds = (stage, config.task.kind());
            assert!(kinds == ("niche", "niches") || kinds == ("tissue", "tissues") || kinds == ("fusion", "fusion"));
            let mut same = sizes(&config);
            assert!(same.masked_token);
            same.masked_token = false;
            assert_eq!(same, sizes(&first), "{size}-{stage}.toml has the sizes of {size}.toml");
            let mut parts: Vec<&str> = sizes(&config).parts(10).iter().map(|(part, _)| *part).collect();
            parts.retain(|part| *part != "classes" && !learns.contains(part));
            let frozen = |part: &&str| config.train.freeze.iter().any(|frozen| frozen == part);
            assert!(parts.iter().all(frozen), "{size}-{stage}.toml: {:?}", config.train.freeze);
        }
    }
}

#[test]
fn a_folder_of_vectors_is_looked_at_and_verified_and_a_run_says_what_to_heed() {
    let chain = Chain::get();
    let vectors = chain.path("of-niches");
    let said = done(&["inspect", &vectors]);
    assert!(said.contains("of niches, 32 values each") && said.contains("made of    vectors"), "{said}");
    assert!(done(&["verify", &vectors]).contains("every checksum holds"));
    let dir = tempfile::tempdir().unwrap();
    let damaged = dir.path().join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    for entry in std::fs::read_dir(&vectors).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), damaged.join(entry.file_name())).unwrap();
    }
    let part = damaged.join("part-00000.parquet");
    let mut bytes = std::fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    refused(&["verify", damaged.to_str().unwrap()], 3, &["part-00000.parquet"]);

    let run = dir.path().join("run").to_str().unwrap().to_owned();
    let more = ["--set", "train.micro_batch=4", "--set", "model.spatia.gene.context=8"];
    let args = train(CELLS, &chain.path("cells"), &run, 1, &more);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let said = String::from_utf8(crate::command::syncytia(&args).stderr).unwrap();
    assert!(said.contains("warning: 128 of the 128 records") && said.contains("than the 8 that are read"), "{said}");
}
