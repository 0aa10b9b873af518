use super::verdict::verdict;
use super::*;
use crate::evaluate::random_features::RandomFeatures;

fn scores(r: Option<f64>, w1: f64, ssim: f64, without_region: usize) -> Scores {
    let feature = FeatureScores { w1, w1_scaled: Some(w1), ks: w1, pcc: r };
    Scores {
        n: 10,
        without_region,
        features: Some([feature; NAMES.len()]),
        swd: Some(w1),
        fid_rand: Some(w1),
        kid_rand: Some(w1),
        ssim: Some(ssim),
        psnr: 20.0,
    }
}

fn method(name: &'static str, scores: Scores) -> Method {
    Method { name, what: String::new(), compared: Compared::All, scores }
}

#[test]
fn the_verdict_says_of_every_fill_in_what_it_is_beaten_and_in_what_not() {
    let ours = scores(Some(0.8), 0.2, 0.6, 0);
    let fills = [
        method("worse", scores(Some(0.1), 0.3, 0.5, 0)),
        method("better", scores(Some(0.9), 0.1, 0.7, 0)),
        method("mean", scores(None, 0.9, 0.7, 0)),
        method("other_n", scores(Some(0.1), 0.3, 0.5, 1)),
        method("equal", ours.clone()),
        Method { compared: Compared::CellByCell, ..method("same_set", scores(Some(0.1), 0.1, 0.5, 0)) },
    ];
    let said = verdict(&ours, &fills.iter().collect::<Vec<_>>());
    for sentence in [
        "Over n = 10 cells the model beats 3 of 6 fills in everything.",
        "It beats worse in all that can be compared (r, SSIM, W1, KS, FID-rand, KID-rand).",
        "It does not beat better in anything (r, SSIM, W1, KS, FID-rand, KID-rand).",
        "It beats mean in W1, KS, FID-rand, KID-rand, not in SSIM.",
        "It beats other_n in all that can be compared (SSIM, FID-rand, KID-rand); r, W1, KS not compared: of another n.",
        "It does not beat equal in anything",
        "It beats same_set in all that can be compared (r, SSIM).",
    ] {
        assert!(said.contains(sentence), "no {sentence:?} in {said}");
    }
}

#[test]
fn findings_hold_every_number_and_every_picture() {
    let pixel = |i: usize, k: usize| if k % 16 > 4 && k % 16 < 8 + i && k / 16 > 5 && k / 16 < 9 { 220 } else { 20 };
    let bytes = (0..30).flat_map(|i| (0..256).map(move |k| pixel(i % 7, k))).collect();
    let real = Measured::of(Pictures { side: 16, channels: 1, bytes }, &RandomFeatures::new(1));
    let names: Vec<String> = (0..30).map(|i| format!("cell {i}")).collect();
    let judged = |noise_of| Judged {
        methods: vec![
            method("generator", scores(Some(0.8), 0.2, 0.6, 0)),
            method("mean_image", scores(None, 0.9, 0.7, 1)),
        ],
        noise: method("real_other", Scores { n: noise_of, ..scores(Some(0.0), 0.1, 0.3, 0) }),
        n_records: 70,
        names: &names,
        real: &real,
        painted: &real,
        beside: vec![("nearest", &real.pictures)],
        split: "val".to_owned(),
        lead: String::new(),
        notes: Vec::new(),
        provenance: BTreeMap::new(),
    };
    let findings = judged(30).findings();
    assert!(findings.notes.is_empty());
    assert!((findings.value("generator", "pcc_shape").unwrap() - 0.8).abs() < 1e-12);
    assert!((findings.value("generator", "ks_score").unwrap() - 0.8).abs() < 1e-12);
    assert_eq!(findings.value("mean_image", "pcc.area"), None, "not defined");
    assert_eq!(findings.value("mean_image", "without_region"), Some(1.0));
    assert_eq!(findings.value("real_other", "w1_scaled.solidity"), Some(0.1));
    let pictures: Vec<&Picture> = findings.galleries.iter().flat_map(|g| &g.pictures).collect();
    assert_eq!(pictures.len(), NAMES.len() + SHEET);
    assert!(pictures.iter().all(|p| !p.bytes.is_empty()));
    let other_n = judged(15).findings();
    assert_eq!(other_n.value("real_other", "fid_rand"), None, "what is of another n stands in no table");
    assert!(other_n.notes[0].contains("n = 15") && other_n.notes[0].contains("--cells 35"), "{:?}", other_n.notes);
}
