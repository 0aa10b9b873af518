//! A run that begins with another's weights, on its own panel or another, and parts that stay as they are.

use std::collections::BTreeMap;
use std::path::Path;

use syncytia::train::adopt::Ledger;
use syncytia::train::checkpoint::{CheckpointContents, NamedTensor, Which, resolve};
use syncytia::train::trainer::End;

use crate::chain::{self, Chain};
use crate::command::{cut, done, refused, syncytia};
use crate::stage::{Theatre, tiny};

const TINY: &str = "configs/spackle/tiny.toml";

fn named(tensors: &[NamedTensor]) -> BTreeMap<&str, &NamedTensor> {
    tensors.iter().map(|t| (t.name.as_str(), t)).collect()
}

#[test]
fn frozen_parts_keep_their_bits_have_no_optimizer_state_and_any_ranks_and_resume_agree() {
    let config = tiny(|c| c.train.freeze = vec!["linear".into(), "transformer_encoder.layers.0".into()]);
    let one = Theatre::new();
    assert_eq!(one.run(&config, 1, None).unwrap().0, End::Finished);
    let unfrozen = Theatre::new();
    unfrozen.run(&tiny(|_| {}), 1, None).unwrap();
    let (one, all) = (one.last(), unfrozen.last());
    let moments = named(&one.train_state["adam_m"]);
    let learned = named(&all.model);
    let mut n_frozen = 0;
    for (name, tensor) in named(&one.model) {
        let frozen = name.starts_with("model.linear.") || name.starts_with("model.transformer_encoder.layers.0.");
        assert_eq!(moments.contains_key(name), !frozen, "{name}");
        n_frozen += usize::from(frozen);
        if frozen {
            assert_ne!(tensor.values, learned[name].values, "{name} learns nothing where it is not frozen");
        }
    }
    assert!(n_frozen > 2 && n_frozen < one.model.len());
    assert_eq!(frozen_of(&one), frozen_of(&first(&config)), "frozen values changed");
    for ranks in [2, 3, 8] {
        let several = Theatre::new();
        several.run(&config, ranks, Some(5)).unwrap();
        several.run(&config, 9 - ranks, None).unwrap();
        assert!(several.last() == one, "{ranks} ranks, then {}", 9 - ranks);
    }
}

/// They are a set: who names them in another order, or twice, goes on with the same run.
#[test]
fn the_order_in_which_frozen_parts_are_named_is_no_change() {
    let frozen = |parts: &[&str]| tiny(|c| c.train.freeze = parts.iter().map(|part| (*part).to_owned()).collect());
    let theatre = Theatre::new();
    theatre.run(&frozen(&["linear", "transformer_encoder.layers.0"]), 1, Some(5)).unwrap();
    let refusal = theatre.run(&frozen(&["linear"]), 1, None).unwrap_err().to_string();
    assert!(
        refusal.contains("train.freeze: [\"linear\",\"transformer_encoder.layers.0\"] → [\"linear\"]"),
        "{refusal}"
    );
    let (end, _) = theatre.run(&frozen(&["transformer_encoder.layers.0", "linear", "linear"]), 1, None).unwrap();
    assert_eq!(end, End::Finished);
}

/// The checkpoint after the first step.
fn first(config: &syncytia::train::config::TrainConfig) -> CheckpointContents {
    let mut config = config.clone();
    config.train.max_steps = 1;
    let theatre = Theatre::new();
    theatre.run(&config, 1, None).unwrap();
    theatre.last()
}

fn frozen_of(contents: &CheckpointContents) -> Vec<NamedTensor> {
    let moments = named(&contents.train_state["adam_m"]);
    contents.model.iter().filter(|t| !moments.contains_key(t.name.as_str())).cloned().collect()
}

/// Shards of the shipped section with the `n` best genes.
fn shard(dir: &Path, n: usize) -> String {
    let out = dir.join(format!("shards-{n}")).to_str().unwrap().to_owned();
    done(&[
        "shard",
        &cut(),
        "--config",
        "configs/spackle/shard.toml",
        "--set",
        &format!("filter.top_moran={n}"),
        "--out",
        &out,
    ]);
    out
}

fn train(shards: &str, run: &Path, more: &[&str]) -> Vec<String> {
    let mut args =
        vec!["train", TINY, "--shards", shards, "--run", run.to_str().unwrap(), "--set", "train.max_steps=2"];
    args.extend(["--set", "train.ranks=2"]);
    args.extend(more);
    args.into_iter().map(str::to_owned).collect()
}

fn ran(args: &[String]) -> String {
    let output = syncytia(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    said
}

#[test]
fn another_panel_keeps_known_genes_and_names_what_is_new_and_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (few, many) = (shard(dir.path(), 12), shard(dir.path(), 16));
    let (parent, child) = (dir.path().join("parent"), dir.path().join("child"));
    ran(&train(&few, &parent, &[]));
    let from = ["--from", parent.to_str().unwrap()];
    let said = ran(&train(&many, &child, &[&from[..], &["--set", "optim.lr=1e-30"]].concat()));
    assert!(said.contains("genes: 12 kept, 4 new, 0 lost; new: "), "{said}");
    let ledger: Ledger = serde_json::from_slice(&std::fs::read(child.join("from.json")).unwrap()).unwrap();
    assert_eq!(ledger.counts(), [12, 4, 0]);

    // With next to no learning the child still has what it began with: the parent's rows, and their mean.
    let of = |run: &Path| resolve(run, Which::Usual).unwrap().0;
    let (old, new) = (of(&parent), of(&child));
    let genes = |c: &CheckpointContents| serde_json::from_value::<Vec<String>>(c.state["genes"].clone()).unwrap();
    let (old_genes, new_genes) = (genes(&old.contents), genes(&new.contents));
    let bias = |c: &CheckpointContents| named(&c.model)["model.out_linear.bias"].values.clone();
    let (old_bias, new_bias) = (bias(&old.contents), bias(&new.contents));
    let mean = old_bias.iter().map(|&v| f64::from(v)).sum::<f64>() / 12.0;
    assert!(old_bias.iter().any(|&v| v != old_bias[0]), "the parent learned something");
    for (gene, value) in new_genes.iter().zip(new_bias) {
        let expected = old_genes.iter().position(|g| g == gene).map_or(mean as f32, |k| old_bias[k]);
        assert!((value - expected).abs() <= 1e-6 * expected.abs(), "{gene}: {value} is not {expected}");
    }
    assert_eq!(new.contents.state["parent"]["digest"], old.manifest.digest());

    // A life that ended before its first save does not begin with other weights in silence.
    let cut_short = dir.path().join("cut-short");
    ran(&train(&many, &cut_short, &from));
    assert!(cut_short.join("checkpoints/step-00000000").is_dir(), "what it began with is saved");
    std::fs::remove_dir_all(cut_short.join("checkpoints")).unwrap();
    std::fs::create_dir(cut_short.join("checkpoints")).unwrap();
    let again = train(&many, &cut_short, &[]);
    let again: Vec<&str> = again.iter().map(String::as_str).collect();
    refused(&again, 2, &["began with another checkpoint", "give --from again"]);

    // A run that exists goes on with its own weights, whatever --from says.
    let before = std::fs::read(child.join("from.json")).unwrap();
    ran(&train(&many, &child, &["--from", "/nowhere", "--set", "train.max_steps=3", "--set", "optim.lr=1e-30"]));
    assert_eq!(std::fs::read(child.join("from.json")).unwrap(), before);
}

#[test]
fn a_parent_that_does_not_fit_is_refused_and_leaves_no_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let (few, many) = (shard(dir.path(), 12), shard(dir.path(), 16));
    let (parent, child) = (dir.path().join("parent"), dir.path().join("child"));
    ran(&train(&few, &parent, &[]));
    let from = |more: &[&str]| train(&many, &child, &[&["--from", parent.to_str().unwrap()], more].concat());
    let no = |args: Vec<String>, code, fragments: &[&str]| {
        refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), code, fragments);
        assert!(
            !child.join("from.json").exists()
                && std::fs::read_dir(child.join("checkpoints")).map_or(0, Iterator::count) == 0
        );
    };
    no(from(&["--min-genes", "0.8"]), 5, &["only 12 of the data's 16 genes", "--min-genes 0.8"]);
    no(from(&["--set", "model.spackle.d=64"]), 5, &["linear.weight has shape", "sizes of the checkpoint's config"]);
    no(train(&many, &child, &["--from", dir.path().join("nothing").to_str().unwrap()]), 5, &["nothing"]);
    no(from(&["--set", "task.layer=c_d_log1p"]), 3, &["c_d_log1p"]);
    no(from(&["--min-genes", "2"]), 2, &["--min-genes", "between 0 and 1"]);
    no(from(&["--set", "train.freeze=[\"linaer\"]"]), 2, &["train.freeze", "linaer", "linear"]);
}

/// A network that nobody trained is never counted as learned, and no network learns on vectors of an encoder that it does
/// not have below it.
#[test]
fn a_stage_begins_only_with_the_level_below_and_with_that_levels_own_vectors() {
    let chain = Chain::get();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let cells = chain.path("cells");
    let embed = |from: &str, out: &str, more: &[&str]| {
        done(&[&["embed", from, "--shards", &cells, "--out", &path(out)][..], more].concat());
    };
    let stage = |config: &str, run: &str, from: &str, vectors: &str| {
        let config = format!("configs/spatia/tiny-{config}.toml");
        chain::train(&config, &cells, &path(run), 2, &["--from", from, "--vectors", vectors])
    };
    let no = |args: Vec<String>, code: i32, fragments: &[&str]| {
        refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), code, fragments);
        assert!(!Path::new(&path("no/checkpoints/step-00000000")).exists());
    };
    let [run, niches, tissues, of_cells, of_niches] =
        ["run", "niches", "tissues", "of-cells", "of-niches"].map(|name| chain.path(name));
    // its niche network would stay as initialised
    no(stage("tissue", "no", &run, &of_niches), 5, &["\"cells\"", "not learned the niche level", "\"tissues\""]);
    // of another encoder: another checkpoint of the very run is one
    let earlier = Path::new(&run).join("checkpoints/step-00000002");
    let earlier = earlier.to_str().unwrap();
    embed(earlier, "others", &[]);
    no(stage("niche", "no", &run, &path("others")), 5, &["vectors of records given were made by", "--level cell"]);
    no(stage("niche", "no", earlier, &of_cells), 5, &["vectors of records given were made by", "--from"]);
    no(stage("niche", "no", &niches, &path("others")), 5, &["or give those it learned from"]);
    let niches_earlier = Path::new(&niches).join("checkpoints/step-00000002");
    no(
        stage("tissue", "no", niches_earlier.to_str().unwrap(), &of_niches),
        5,
        &["vectors of niches given were made by", "--level niche"],
    );
    // of one side of a cell, or of several levels: whatever it begins with
    embed(&run, "genes", &["--modality", "genes"]);
    embed(&run, "image", &["--modality", "image"]);
    for (vectors, what) in [
        (path("genes"), "vectors of genes alone"),
        (path("image"), "vectors of pictures alone"),
        (chain.path("of-all"), "fused vectors"),
    ] {
        no(stage("niche", "no", &run, &vectors), 3, &[&vectors, what, "--level cell"]);
        let meant = ["--vectors", &vectors, "--set", "train.freeze_untrained=true"];
        no(chain::train("configs/spatia/tiny-niche.toml", &cells, &path("no"), 2, &meant), 3, &[what]);
    }
    // a stage once more, on what its parent learned from or on the parent's own vectors of the level below
    ran(&stage("niche", "again", &niches, &of_cells));
    embed(&niches, "own", &[]);
    ran(&stage("niche", "own-niches", &niches, &path("own")));
    ran(&stage("tissue", "again-tissues", &tissues, &of_niches));
}
