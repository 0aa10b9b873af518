//! `evaluate` for SPATIA's three stages, and `embed --input`: the numbers are all in report.json, the same twice, and a file
//! of cells gets the vectors that its shards have.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use syncytia_shards::ingest::h5ad_write::{self, AnnData};
use syncytia_shards::ingest::{self, Images, IngestOptions};
use syncytia_shards::processed::{Matrix, Split};
use syncytia_shards::reader::Shards;
use syncytia_shards::section::Section;
use syncytia_shards::tables::vectors::{Vectors, VectorsOf};

use crate::chain::{Chain, ran, train};
use crate::command::{cut, done, refused, syncytia};

/// Everything that an evaluation left, by file name.
fn report(run: &str) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(Path::new(run).join("report")).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap());
    files.map(named).collect()
}

fn json(files: &BTreeMap<String, Vec<u8>>) -> Value {
    serde_json::from_slice(&files["report.json"]).unwrap()
}

fn names(of: &Value) -> Vec<&str> {
    of.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn cells_are_judged_beside_each_side_alone_and_components_and_every_number_is_in_the_json() {
    let chain = Chain::get();
    let run = chain.path("run");
    let said = done(&["evaluate", &run]);
    let first = report(&run);
    let found = json(&first);
    assert_eq!(
        (&found["task"], &found["split"], &found["protocol"]),
        (&"cells".into(), &"val".into(), &"kmeans".into())
    );
    let beside =
        ["chance", "genes_only", "image_only", "pca", "pca_both", "pca_image", "pca_ridge", "random", "untrained"];
    assert_eq!(names(&found["baselines"]), beside);
    for metric in
        ["ari", "nmi", "ami", "homogeneity", "f1_macro", "accuracy", "recall1_gene_to_image", "mrr_image_to_gene"]
    {
        let figure = &found["model"][metric];
        assert!(figure["value"].is_f64() && figure["n_used"] == 400 && figure["n_skipped"] == 0, "{metric}: {figure}");
    }
    assert!(found["model"]["ari"]["se"].as_f64().unwrap() > 0.0 && found["model"]["nmi"]["se"].is_null());
    assert!(found["model"]["ari"]["sd"].is_f64() && found["model"]["mrr_image_to_gene"]["sd"].is_null());
    // A pool of 400 has a floor that is known.
    assert_eq!(found["baselines"]["chance"]["recall10_gene_to_image"]["value"], 0.025);
    // The cells' types are told by genes and picture together: components of both see them, drawn clusters do not.
    let ari = |name: &str| found["baselines"][name]["ari"]["value"].as_f64().unwrap();
    assert!(ari("pca_both") > 0.2 && ari("random").abs() < 0.05, "{} {}", ari("pca_both"), ari("random"));
    // table.csv has no number that the JSON lacks, and neither has the page.
    let page = String::from_utf8(first["report.html"].clone()).unwrap();
    let mut n = 0;
    for line in csv::Reader::from_reader(&first["table.csv"][..]).deserialize::<BTreeMap<String, String>>() {
        let line = line.unwrap();
        let of = if line["method"] == "spatia" { &found["model"] } else { &found["baselines"][&line["method"]] };
        let value = of[&line["metric"]]["value"].as_f64().unwrap();
        assert_eq!(line["value"].parse::<f64>().unwrap(), value, "{line:?}");
        assert!(page.contains(&format!(">{value:.3}")), "{value} of {line:?} is not on the page");
        n += 1;
    }
    assert_eq!(n, 7 * 5 + 4 + 7 * 2 + 4 * 8);
    // Drawn clusters have no vectors, so no silhouette.
    let dashes = page.matches("number\">–</td>").count();
    assert_eq!(
        (page.matches("class=\"number").count(), dashes),
        (n + 1, 1),
        "the page has no other numbers in its tables"
    );
    assert!(said.contains("Clusters of the model's vectors agree with cell_type"), "{said}");
    let verdict = found["page"]["verdict"].as_str().unwrap();
    let named = |name: &&str| verdict.contains(&format!("{name} ("));
    assert!(["genes_only", "image_only", "untrained", "pca", "pca_image", "pca_both"].iter().all(named), "{verdict}");
    // What one side alone means, and that no label was learned from.
    assert!(verdict.contains("not networks trained on one side"), "{verdict}");
    let lead = found["page"]["lead"].as_str().unwrap();
    assert!(lead.contains("Nothing of these labels was seen in training."), "{lead}");
    // Twice the same bytes, and the page again from what is stored.
    done(&["evaluate", &run]);
    assert!(report(&run) == first, "evaluated twice");
    let again = tempfile::tempdir().unwrap();
    done(&["report", &run, "--out", again.path().to_str().unwrap()]);
    assert!(fs::read(again.path().join("report.html")).unwrap() == first["report.html"], "the page again");
    refused(&["report", &run, &run, "--out", again.path().to_str().unwrap()], 2, &["cells", "runs of completion"]);
}

#[test]
fn a_fusion_is_judged_by_its_vectors_and_its_pictures_are_found_by_its_network() {
    let chain = Chain::get();
    let run = chain.path("fusion");
    done(&["evaluate", &run, "--vectors", &chain.path("of-all")]);
    let found = json(&report(&run));
    let beside = ["genes_only", "image_only", "spatia", "untrained"];
    assert!(beside.iter().all(|name| found["baselines"][name]["ari"]["value"].is_f64()));
    let share = 100.0 * found["baselines"]["spatia"]["recall10_gene_to_image"]["value"].as_f64().unwrap();
    assert!(share > 0.0, "the table has a share");
    let verdict = found["page"]["verdict"].as_str().unwrap();
    assert!(verdict.contains(&format!("found by its genes for {share:.1} % of 400 cells")), "{verdict}");
    // Of its parents' labels it tells what it knows.
    let lead = found["page"]["lead"].as_str().unwrap();
    assert!(lead.contains("has no class head of cell_type; it began with checkpoint"), "{lead}");
}

#[test]
fn labels_that_were_learned_from_are_told_of() {
    let chain = Chain::get();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let families = "model.spatia.gene.families=[{name=\"tissue\"}, {name=\"cell_type\", \
                    classes=[\"type_0\", \"type_1\", \"type_2\", \"type_3\"]}]";
    let cells = chain.path("cells");
    let learn = |run: &str, config: &str, more: &[&str]| {
        let sets = ["--set", "train.micro_batch=4", "--set", families];
        ran(&train(config, &cells, &at(run), 2, &[&sets[..], more].concat()));
    };
    let lead = |run: &str, more: &[&str]| -> String {
        done(&[&["evaluate", &at(run)][..], more].concat());
        json(&report(&at(run)))["page"]["lead"].as_str().unwrap().to_owned()
    };
    let tiny = "configs/spatia/tiny.toml";
    learn("learned", tiny, &[]);
    let said = lead("learned", &[]);
    assert!(said.contains("ATTENTION") && said.contains("labels of cell_type were learned from"), "{said}");
    assert!(!said.contains("othing of these labels"), "{said}");
    let said = lead("learned", &["--label", "niche_type"]);
    assert!(said.contains("Nothing of these labels was seen in training; those of cell_type were."), "{said}");
    learn("without", tiny, &["--set", "task.classes=0"]);
    let said = lead("without", &[]);
    assert!(said.contains("Nothing of these labels was seen in training.") && !said.contains("ATTENTION"), "{said}");
    // A later stage carries the head of the first.
    let (learned, vectors) = (at("learned"), at("of-cells"));
    done(&["embed", &learned, "--shards", &cells, "--out", &vectors]);
    learn("niches", "configs/spatia/tiny-niche.toml", &["--from", &learned, "--vectors", &vectors]);
    let said = lead("niches", &["--vectors", &vectors, "--label", "cell_type"]);
    assert!(said.contains("ATTENTION") && said.contains("class head of cell_type"), "{said}");
}

#[test]
fn niches_and_tissues_are_judged_by_the_majority_of_their_cells() {
    let chain = Chain::get();
    for (run, vectors, of) in [("niches", "of-cells", VectorsOf::Niche), ("tissues", "of-niches", VectorsOf::Tissue)] {
        let (path, given) = (chain.path(run), chain.path(vectors));
        done(&["evaluate", &path, "--vectors", &given, "--label", "niche_type"]);
        let found = json(&report(&path));
        assert_eq!(found["task"], run);
        assert_eq!(names(&found["baselines"]), ["member", "member_mean", "pca", "random", "untrained"]);
        let shards = Shards::open(Path::new(&chain.path("cells"))).unwrap();
        let n = shards.places(of, Split::Val).unwrap().n();
        assert_eq!(found["model"]["ari"]["n_used"], n);
    }
    let niches = chain.path("niches");
    refused(&["evaluate", &niches], 3, &["--vectors", "embed"]);
    // Vectors of the same cells by another checkpoint: the niche run's own cell level.
    let dir = tempfile::tempdir().unwrap();
    let others = dir.path().join("others").to_str().unwrap().to_owned();
    done(&["embed", &niches, "--shards", &chain.path("cells"), "--out", &others]);
    refused(&["evaluate", &niches, "--vectors", &others], 3, &["was made by checkpoint", "embed"]);
}

#[test]
fn labels_that_cannot_judge_are_refused_and_without_labels_cells_are_judged_by_retrieval() {
    let chain = Chain::get();
    let run = chain.path("run");
    refused(&["evaluate", &run, "--label", "celltype"], 2, &["--label celltype", "cell_type", "niche_type"]);
    refused(&["evaluate", &run, "--label", "donor_id"], 3, &["donor_id", "the same one"]);
    refused(&["evaluate", &run, "--label", "truth_radius"], 3, &["truth_radius", "too few"]);
    refused(&["evaluate", &run, "--sweep"], 2, &["--sweep is for spackle and spotdiff"]);
    refused(&["evaluate", &run, "--vectors", &chain.path("of-cells")], 2, &["--vectors is for runs of niches"]);
    // The cohort again without a label.
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(dir.path().join("cohort")).unwrap();
    for file in fs::read_dir(chain.path("cohort")).unwrap().map(|entry| entry.unwrap().path()) {
        let copy = dir.path().join("cohort").join(file.file_name().unwrap());
        match file.extension().is_some_and(|ending| ending == "h5ad") {
            true => {
                let mut section = ingest::read_section(&file, &IngestOptions::default()).unwrap();
                (section.labels, section.donor_id) = (Vec::new(), None);
                h5ad_write::write(&copy, &AnnData::from_section(&section)).unwrap();
            }
            false => drop(fs::copy(&file, &copy).unwrap()),
        }
    }
    let sets = ["process.crop_px=32", "process.tissue_um=108.8", "data.row_group_records=128"];
    let shard = ["shard", &at("cohort"), "--config", "configs/spatia/shard.toml", "--out", &at("cells")];
    done(&[&shard[..], &sets.map(|set| ["--set", set]).concat()].concat());
    let best = Path::new(&run).join("checkpoints/best");
    let said = done(&["evaluate", best.to_str().unwrap(), "--shards", &at("cells"), "--json"]);
    let found: Value = serde_json::from_str(&said).unwrap();
    assert!(found["model"]["ari"].is_null() && found["model"]["recall1_gene_to_image"]["value"].is_f64());
    let note = found["page"]["notes"][0].as_str().unwrap();
    assert!(note.contains("No label column") && note.contains("retrieval only"), "{note}");
}

/// A file's section with the vectors in its `obsm`.
fn embedded(path: &Path, names: &[&str]) -> Section {
    let features = names.iter().map(|name| (*name).to_owned()).collect();
    ingest::read_section(path, &IngestOptions { features, images: Images::None, ..IngestOptions::default() }).unwrap()
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    // The same networks on the same cells in other batches: the last bits differ.
    let far = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 1e-5 && found.len() == expected.len(), "{what}: {far}");
}

#[test]
fn a_file_gets_the_vectors_of_its_cells_niches_and_tissues_that_its_shards_have() {
    let chain = Chain::get();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("with.h5ad");
    let input = Path::new(&chain.path("cohort")).join("synthetic-3-000.h5ad");
    let (input, text) = (input.to_str().unwrap(), out.to_str().unwrap());
    let said = done(&["embed", &chain.path("tissues"), "--input", input, "--output", text]);
    assert!(said.contains("400 cells × 32 values in obsm[\"X_spatia\"], obsm[\"X_spatia_niche\"]"), "{said}");
    let names = ["X_spatia", "X_spatia_niche", "X_spatia_tissue"];
    let section = embedded(&out, &names);
    assert_eq!(section.obs_ids, embedded(Path::new(input), &[]).obs_ids, "every row in its order");
    let of = |name: &str| -> &Matrix<f32> { &section.features.iter().find(|f| f.name == name).unwrap().values };
    let shards = Shards::open(Path::new(&chain.path("cells"))).unwrap();
    let read =
        |name: &str, of| Vectors::read(Path::new(&chain.path(name)), of, &shards.manifest().data_hash()).unwrap();
    let (cells, niches) = (read("of-cells", VectorsOf::Obs), read("of-niches", VectorsOf::Niche));
    let tissues = read("of-tissues", VectorsOf::Tissue);
    // Section 0 is whole in one split, so its niches are the same; a record's id is its row.
    let table = shards.niches(Split::Train).unwrap();
    let mut n = 0;
    for (i, &niche) in table.niche_ids.iter().enumerate().filter(|(i, _)| table.sections[*i] == 0) {
        for &record in table.members(i).0 {
            let row = record as usize;
            assert_close(of("X_spatia").row(row), cells.get(record).unwrap(), "cell");
            assert_close(of("X_spatia_niche").row(row), niches.get(niche).unwrap(), "niche");
            assert_close(of("X_spatia_tissue").row(row), tissues.get(table.tissue_ids[i]).unwrap(), "tissue");
            n += 1;
        }
    }
    assert_eq!(n, 400);
}

#[test]
fn without_a_picture_beside_it_a_file_gets_vectors_of_genes_alone_and_is_told_so() {
    let chain = Chain::get();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let input = Path::new(&chain.path("cohort")).join("synthetic-3-000.h5ad");
    fs::copy(&input, at("alone.h5ad")).unwrap();
    let run = chain.path("run");
    let output = syncytia(&["embed", &run, "--input", &at("alone.h5ad"), "--output", &at("a.h5ad"), "--json"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("the vectors are of genes alone"));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["modality"], &said["without"]["X_spatia"]), (&"genes".into(), &0.into()));
    done(&["embed", &run, "--input", input.to_str().unwrap(), "--output", &at("b.h5ad"), "--modality", "genes"]);
    let vectors = |name: &str| embedded(Path::new(&at(name)), &["X_spatia"]).features[0].values.clone();
    assert!(vectors("a.h5ad") == vectors("b.h5ad"), "asked for and fallen back to");
    // Refusals leave no file.
    let out = at("none.h5ad");
    let embed = |input: &str, more: &[&str], code: i32, words: &[&str]| {
        refused(&[&["embed", &run, "--input", input, "--output", &out][..], more].concat(), code, words);
        assert!(!Path::new(&out).exists());
    };
    embed(&cut(), &[], 2, &["lacks 100 % of the model's genes"]);
    embed(&at("alone.h5ad"), &["--modality", "image"], 3, &["alone"]);
    embed(&at("nowhere.h5ad"), &[], 3, &["nowhere.h5ad"]);
    refused(&["embed", &run, "--input", &at("a.h5ad"), "--output", &at("a.h5ad")], 2, &["is an input"]);
    refused(&["embed", &run, "--input", &at("a.h5ad")], 2, &["--output"]);
}
