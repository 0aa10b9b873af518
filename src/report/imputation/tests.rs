use syncytia_shards::processed::Matrix;

use super::*;
use crate::evaluate::imputation::{Sparse, judge, points, raw_clusters};
use crate::report::findings;

/// 90 spots of three kinds, 6 genes.
fn spots() -> (Matrix<f32>, Vec<u32>) {
    let value = |i: usize, g: usize| 2.0 + ((i / 30 * 4 + g) as f32).sin() + 0.1 * ((i * 13 + g * 7) as f32).cos();
    let values = (0..90).flat_map(|i| (0..6).map(move |g| value(i, g))).collect();
    (Matrix { n_cols: 6, values }, (0..90).map(|i| i / 30).collect())
}

#[test]
fn a_page_holds_every_table_and_says_what_was_published() {
    let (values, classes) = spots();
    let genes: Vec<String> = (0..6).map(|g| format!("gene{g}")).collect();
    let hidden = Matrix { n_cols: 6, values: (0..540).map(|at| at % 3 == at / 6 % 3).collect() };
    let truth = Truth {
        values: &values,
        genes: &genes,
        protocol: Protocol::Entries(0.3),
        hidden: Some(&hidden),
        markers: &genes[1..3],
        classes: Some(&classes),
    };
    let noisy =
        Matrix { n_cols: 6, values: values.values.iter().enumerate().map(|(at, v)| v + (at as f32).sin()).collect() };
    let flat = Matrix { n_cols: 6, values: vec![2.0; 540] };
    let methods = [
        judge(&truth, "model", "ours", &noisy),
        judge(&truth, "perfect", "", &values),
        judge(&truth, "mean", "", &flat),
    ];
    let visible = Matrix { n_cols: 6, values: hidden.values.iter().map(|h| !h).collect() };
    let sparse = Sparse {
        hidden: 0.3,
        values: values.clone(),
        visible,
        xyz: (0..90).map(|i| [i as f32, 0.0, 0.0]).collect(),
        truth: values.clone(),
        scored: hidden.clone(),
        models: vec![("model", noisy.clone())],
    };
    let points = points(&sparse);
    let report = Report {
        truth,
        data_set: "FISH",
        split: "all",
        methods: &methods,
        own: 1,
        beside: 0,
        imputed: &noisy,
        raw: raw_clusters(&truth),
        sweep: &points,
        xy: &(0..90).map(|i| [f64::from(i % 10), f64::from(i / 10)]).collect::<Vec<_>>(),
        lead: "lead".to_owned(),
        notes: Vec::new(),
        provenance: BTreeMap::new(),
    };
    let found = report.findings();
    let beside = Report { beside: 1, lead: String::new(), notes: Vec::new(), provenance: BTreeMap::new(), ..report };
    let said = beside.findings().verdict;
    assert!(said.contains("above all 1 simple fills. Trained here beside it: perfect (1.0000)."), "{said}");
    assert!(found.verdict.contains("above 1 of 2 simple fills, not above perfect (1.0000)"), "{}", found.verdict);
    assert!(found.notes.iter().any(|note| note.contains("Not to be held against the published column FISH")));
    assert_eq!(found.value("perfect", "pcc"), Some(1.0));
    assert_eq!(found.value("mean", "pcc"), Some(0.0));
    assert!(found.value("model", "pcc_at_0.3").is_some() && found.value("measured", "ari") == Some(1.0));
    assert!(found.value("measured", "marker0_0").is_some() && found.value("measured", "marker1_0").is_some());
    assert_eq!(found.value("SpotDiff (published)", "published_pcc_FISH"), Some(0.6215));
    assert_eq!(found.value("SpaGE (published)", "published_benchmark_FISH"), Some(0.561));
    let folder = tempfile::tempdir().unwrap();
    let written = findings::write(&found, folder.path()).unwrap();
    let page = std::fs::read_to_string(written.page).unwrap();
    for text in [
        "Sparse data",
        "Clusters against labels",
        "Marker gene1",
        "Published: ablation",
        "MMD²",
        "Markers on the tissue",
    ] {
        assert!(page.contains(text), "no {text:?} on the page");
    }
    let again = findings::load(folder.path()).unwrap().unwrap();
    assert_eq!(findings::numbers(&again), findings::numbers(&found));
}
