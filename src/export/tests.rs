//! Exports of a small paper model, and of what must not be exported.

use std::collections::BTreeMap;

use syncytia_shards::panel::{Panel, PanelGene};

use super::*;
use crate::model::DataShape;
use crate::tensor::cpu;
use crate::train::checkpoint::{CheckpointContents, load, save, write_best};
use crate::train::config::TrainConfig;
use crate::train::parts::Parts;
use crate::train::state::{Best, to_contents};
use crate::train::step_state::StepState;

/// A checkpoint of `configs/spackle/<name>.toml` at step 0, with the initial weights.
fn contents(name: &str, genes: usize) -> CheckpointContents {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("configs/spackle/{name}.toml"));
    let config: TrainConfig = toml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let shape = DataShape { genes, spots: 19, covariates: 0 };
    let model = config.model.build(shape, config.train.seed, &cpu());
    let parts = Parts::new(model.specs(), &[]).unwrap();
    let run = RunState {
        step_version: 1,
        global_step: 0,
        optim_step: 0,
        skipped_in_a_row: 0,
        exponents: vec![None; parts.all.len()],
        best: Some(Best { global_step: 0, value: 0.25 }),
        validation_due: false,
        vectors: Vec::new(),
        data_hash: "0123".to_owned(),
        text_encoder: None,
        shape,
        genes: (0..genes).map(|g| format!("ENSMUSG{g:011}")).collect(),
        symbols: (0..genes).map(|g| format!("Gene{g}")).collect(),
        panel: panel_of(genes),
        shard_config: "[process]\nnormalize = \"tpm\"\n".to_owned(),
        config: config.clone(),
        version: "0.1.0".to_owned(),
        parent: None,
    };
    let state = StepState::new(model.to_flat(), parts.all.len(), config.optim.ema.is_some());
    to_contents(&run, &state, &parts, &[])
}

/// One gene more than the layers have: the panel is larger than the selection.
fn panel_of(genes: usize) -> Panel {
    let gene = |g: usize| PanelGene {
        id: format!("ENSMUSG{g:011}"),
        symbol: format!("Gene{g}"),
        length: (g != 1).then_some(1000.5),
        exp_frac: 0.75,
        glob_exp_frac: 0.875,
        moran: Some(0.5),
    };
    let selected = (0..genes as u32).rev().collect();
    Panel {
        species: "mouse".into(),
        annotation: None,
        genes: (0..=genes).map(gene).collect(),
        selected,
        context: Vec::new(),
        combat: None,
    }
}

struct Stage {
    folder: tempfile::TempDir,
    run: RunFolder,
}

impl Stage {
    fn of(contents: &CheckpointContents) -> (Stage, Checkpoint) {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path().join("R")).unwrap();
        let dir = save(&run, 0, contents).unwrap();
        (Stage { folder, run }, load(&dir).unwrap())
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn json_of(path: PathBuf) -> Value {
    serde_json::from_str(&read(path)).unwrap()
}

/// Names and shapes of an exported file.
fn shapes(out: &Path) -> BTreeMap<String, Vec<usize>> {
    let bytes = fs::read(out.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.tensors().into_iter().map(|(name, view)| (name, view.shape().to_vec())).collect()
}

/// Names and shapes of the release for G = 32, d = 128, written down from `spackle.md` §5.
fn golden(template: bool) -> BTreeMap<String, Vec<usize>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/spackle_names.json");
    let golden = json_of(path);
    let mut names: BTreeMap<String, Vec<usize>> = serde_json::from_value(golden["used"].clone()).unwrap();
    if template {
        names.extend(serde_json::from_value::<BTreeMap<_, _>>(golden["template"].clone()).unwrap());
    }
    names
}

#[test]
fn an_export_has_the_names_and_shapes_of_the_release_and_no_other() {
    let (stage, checkpoint) = Stage::of(&contents("paper", 32));
    for (layout, template, n_values) in [(Layout::Plain, false, 1_194_400), (Layout::Spared, true, 1_194_400 + 593_024)]
    {
        let out = stage.out(layout.name());
        export(&checkpoint, &out, layout).unwrap();
        assert_eq!(shapes(&out), golden(template), "{}", layout.name());
        let n: usize = shapes(&out).values().map(|s| s.iter().product::<usize>()).sum();
        assert_eq!(n, n_values, "parameters as spackle.md §5 counts them");
    }
}

#[test]
fn every_file_is_there_and_says_what_the_checkpoint_says() {
    let (stage, checkpoint) = Stage::of(&contents("paper", 32));
    let out = stage.out("nested/export");
    export(&checkpoint, &out, Layout::Plain).unwrap();
    let mut names: Vec<_> =
        fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let mut expected = FILES.map(str::to_owned);
    expected.sort();
    assert_eq!(names, expected);
    let panel = read(out.join("panel.tsv"));
    assert_eq!(panel.lines().count(), 33);
    assert_eq!(
        panel.lines().nth(1),
        Some("0\tENSMUSG00000000031\tGene31\t1000.5\t0.75\t0.875\t0.5"),
        "selection's order"
    );
    assert_eq!(panel.lines().nth(31), Some("30\tENSMUSG00000000001\tGene1\t\t0.75\t0.875\t0.5"));
    let config = json_of(out.join("config.json"));
    assert_eq!(
        (&config["model_type"], &config["model"]["d"], &config["n_genes"]),
        (&json!("spackle"), &json!(128), &json!(32))
    );
    let provenance = json_of(out.join("provenance.json"));
    assert_eq!(provenance["checkpoint"]["blake3"], json!(checkpoint.manifest.digest()));
    let model = fs::read(out.join("model.safetensors")).unwrap();
    assert_eq!(provenance["model_blake3"], json!(blake3::hash(&model).to_hex().as_str()));
    assert_eq!(model, fs::read(checkpoint.dir.join("model.safetensors")).unwrap(), "the plain layout changes nothing");
    let card = read(out.join("README.md"));
    for said in ["32 genes", "1194400", "not recorded", "Not evaluated yet", "0.25", &checkpoint.manifest.digest()] {
        assert!(card.contains(said), "{said}\n{card}");
    }
}

#[test]
fn the_card_tells_the_reports_numbers_beside_the_baselines() {
    let contents = contents("paper", 32);
    let (stage, _) = Stage::of(&contents);
    let best = load(&write_best(&stage.run, 0, &contents).unwrap()).unwrap();
    let metric = |v: f64| json!({"mse": {"value": v, "n_used": 1, "n_skipped": 0}});
    let report =
        json!({"split": "val", "protocol": "paper", "model": metric(0.5), "baselines": {"ring1_mean": metric(0.75)}});
    fs::create_dir(stage.run.report()).unwrap();
    fs::write(stage.run.report_json(), serde_json::to_vec(&report).unwrap()).unwrap();
    let out = stage.out("export");
    export(&best, &out, Layout::Plain).unwrap();
    let card = read(out.join("README.md"));
    for said in ["split val", "| **this model** | 0.5000 |", "| ring1_mean | 0.7500 |"] {
        assert!(card.contains(said), "{said}\n{card}");
    }
}

#[test]
fn what_is_there_is_never_overwritten_and_an_empty_folder_is_used() {
    let (stage, checkpoint) = Stage::of(&contents("paper", 4));
    let out = stage.out("export");
    fs::create_dir(&out).unwrap();
    export(&checkpoint, &out, Layout::Plain).unwrap();
    let before = read(out.join("README.md"));
    let refused = export(&checkpoint, &out, Layout::Spared).unwrap_err();
    assert_eq!(refused.exit_code(), ExitCode::Usage);
    assert_eq!(read(out.join("README.md")), before);
    let file = stage.out("file");
    fs::write(&file, "mine").unwrap();
    assert!(matches!(export(&checkpoint, &file, Layout::Plain), Err(ExportError::OutputExists { .. })));
    assert_eq!(read(file), "mine");
}

#[test]
fn a_model_the_release_does_not_know_has_no_spared_layout_and_says_why() {
    let (stage, checkpoint) = Stage::of(&contents("best", 4));
    let out = stage.out("export");
    let refused = export(&checkpoint, &out, Layout::Spared).unwrap_err().to_string();
    assert!(refused.contains("which the release does not know"), "{refused}");
    assert!(!out.exists());
    export(&checkpoint, &out, Layout::Plain).unwrap();
}

#[test]
fn a_state_of_another_kind_is_refused_and_leaves_nothing() {
    let strange = CheckpointContents { state: json!({"global_step": 0}), ..contents("paper", 4) };
    let (stage, checkpoint) = Stage::of(&strange);
    let out = stage.out("export");
    assert_eq!(export(&checkpoint, &out, Layout::Plain).unwrap_err().exit_code(), ExitCode::Checkpoint);
    assert!(!out.exists());
}

/// Writes the exports that `tests/python/test_export.py` reads, when it asks for them.
#[test]
fn exports_for_python() {
    let Some(folder) = std::env::var_os("SYNCYTIA_TEST_EXPORT").map(PathBuf::from) else { return };
    let (_stage, checkpoint) = Stage::of(&contents("paper", 32));
    export(&checkpoint, &folder.join("plain"), Layout::Plain).unwrap();
    export(&checkpoint, &folder.join("spared"), Layout::Spared).unwrap();
}
