use super::omega::OmegaConfig;
use super::prompt::PromptConfig;
use super::psi::{Known, Psi};
use super::psi_config::{AROUND, Gelu, PsiConfig, Tokens, Visible};
use super::*;
use crate::model::layers::reference::{tensor, values};
use crate::model::params;
use crate::tensor::{Tensor, cpu};

/// ψ's sizes (`spotdiff.md` §4).
fn sized(d: usize, blocks: usize, heads: usize) -> PsiConfig {
    PsiConfig {
        d,
        blocks,
        heads,
        patch: None,
        tokens: Tokens::Whole,
        neighbours: false,
        visible: Visible::Token,
        gelu: Gelu::Tanh,
        rna_channel: true,
        use_rna: true,
        use_text: true,
        dropout: 0.0,
    }
}

/// As stDiff's release has it (`spotdiff.md` §4).
fn stdiff(d: usize, blocks: usize, heads: usize) -> PsiConfig {
    PsiConfig {
        tokens: Tokens::Batch,
        visible: Visible::Condition,
        gelu: Gelu::Exact,
        use_rna: false,
        use_text: false,
        ..sized(d, blocks, heads)
    }
}

/// The model that tests train.
pub fn tiny() -> SpotdiffConfig {
    SpotdiffConfig {
        omega: OmegaConfig { widths: [32, 16, 8], dropout: 0.1 },
        prompt: PromptConfig { width: 16, attention: 8, heads: 2, most: 2, least: 2, ..PromptConfig::default() },
        psi: PsiConfig { dropout: 0.1, ..sized(16, 2, 2) },
    }
}

#[test]
fn the_sizes_have_as_many_parameters_as_they_say() {
    // d, blocks, heads, genes: ψ's parameters with tokens of some genes and of all; the spec's rounded counts are 67 k, 1.3 M, 7.5 M, 7.5 M, 17 M, 31 M
    let sizes = [
        ((32, 2, 2, 32), 51_236, 55_520),
        ((128, 4, 4, 33), 1_277_989, 1_295_554),
        ((256, 6, 8, 84), 7_396_696, 7_494_056),
        ((256, 6, 8, 268), 7_452_436, 7_777_048),
        ((384, 6, 8, 1020), 16_950_796, 18_855_288),
        ((512, 6, 8, 2000), 30_418_416, 35_426_720),
    ];
    for ((d, blocks, heads, genes), of_patches, of_whole) in sizes {
        for (tokens, n) in [(Tokens::Spot, of_patches), (Tokens::Whole, of_whole)] {
            let psi = PsiConfig { tokens, ..sized(d, blocks, heads) };
            assert_eq!(psi.n_parameters(genes), f64::from(n), "{tokens:?}, d = {d}, {genes} genes");
        }
    }
    // stDiff's release has 29.3 M at 33 genes and 29.7 M at 268, with a table of cell types that it does not use
    for (genes, n) in [(33, 29_329_441), (268, 29_690_636)] {
        assert_eq!(stdiff(512, 6, 16).n_parameters(genes), f64::from(n), "{genes} genes");
    }
    let device = cpu();
    for psi in [
        sized(32, 2, 2),
        PsiConfig { use_rna: false, use_text: false, ..sized(32, 2, 2) },
        PsiConfig { tokens: Tokens::Batch, ..sized(32, 2, 2) },
        PsiConfig { neighbours: true, ..sized(32, 2, 2) },
        PsiConfig { tokens: Tokens::Spot, neighbours: true, rna_channel: false, ..sized(32, 2, 2) },
        PsiConfig { tokens: Tokens::Spot, patch: Some(3), ..sized(32, 2, 2) },
        stdiff(32, 2, 2),
    ] {
        let config = SpotdiffConfig { psi, ..tiny() };
        let built = Spotdiff::new(&config, 10, 1, &device);
        assert_eq!(params::to_flat(&built).len() as f64, config.n_parameters(10), "{psi:?}");
    }
}

/// Every tensor whose shape goes with the panel says where its genes are, so that another panel takes its rows along.
#[test]
fn tensors_of_another_panel_know_where_their_genes_are() {
    let device = cpu();
    let whole = PsiConfig { neighbours: true, ..sized(32, 2, 2) };
    for psi in [whole, PsiConfig { tokens: Tokens::Batch, ..whole }, stdiff(32, 2, 2)] {
        let config = SpotdiffConfig { psi, ..tiny() };
        let [few, many] = [10, 12].map(|genes| Spotdiff::new(&config, genes, 1, &device));
        for (a, b) in params::specs(&few).iter().zip(&params::specs(&many)) {
            let found: Vec<(usize, usize)> = few.gene_axes(&a.path).iter().map(|at| (at.axis, at.blocks * 2)).collect();
            let grown = (0..a.shape.len()).map(|axis| (axis, b.shape[axis] - a.shape[axis])).filter(|(_, by)| *by > 0);
            assert_eq!(found, grown.collect::<Vec<_>>(), "{} with {psi:?}", a.path);
        }
        assert_eq!(crate::model::ModelConfig::Spotdiff(config).one_panel(), None);
    }
    let patches = SpotdiffConfig { psi: PsiConfig { tokens: Tokens::Spot, ..whole }, ..tiny() };
    assert!(crate::model::ModelConfig::Spotdiff(patches).one_panel().is_some());
}

fn psi(config: &PsiConfig, genes: usize) -> Psi {
    let (device, sites) = (cpu(), Cell::new(0));
    let psi = Psi::new(&Scope::root(1, &device, &sites), config, genes);
    let flat: Vec<f32> = (0..params::to_flat(&psi).len()).map(|i| (0.7 * i as f32).sin() * 0.1).collect();
    params::from_flat(psi, &flat, &device)
}

fn wave(b: usize, n: usize, phase: f32) -> Tensor<2> {
    tensor((0..b * n).map(|i| (phase + 1.37 * i as f32).sin()).collect(), [b, n])
}

fn known(b: usize, genes: usize, d: usize) -> Known {
    Known {
        visible: wave(b, genes, 0.1),
        bits: wave(b, genes, 0.5).sign(),
        pair: wave(b, genes, 0.9),
        around: Some(wave(b, AROUND * genes, 0.7)),
        text: Some(wave(b, d, 0.3)),
    }
}

fn say(psi: &Psi, noisy: Tensor<2>, known: &Known) -> Vec<f32> {
    let times = vec![0.25; noisy.dims()[0]];
    values(psi.forward(noisy, known, &times, None))
}

#[test]
fn a_new_network_says_nothing() {
    let (device, sites) = (cpu(), Cell::new(0));
    let psi = Psi::new(&Scope::root(1, &device, &sites), &sized(32, 2, 2), 10);
    assert!(say(&psi, wave(3, 10, 0.2), &known(3, 10, 32)).iter().all(|v| *v == 0.0));
}

/// With tokens of a spot a record is alone; with tokens of the batch it is not.
#[test]
fn who_attends_is_what_the_config_says() {
    for (tokens, alone) in [(Tokens::Whole, true), (Tokens::Spot, true), (Tokens::Batch, false)] {
        let psi = psi(&PsiConfig { tokens, ..sized(32, 2, 2) }, 10);
        let noisy = wave(3, 10, 0.2);
        let before = say(&psi, noisy.clone(), &known(3, 10, 32));
        let other = Tensor::cat(vec![noisy.narrow(0, 0, 2), wave(1, 10, 2.0)], 0);
        let after = say(&psi, other, &known(3, 10, 32));
        assert_eq!(before[..20] == after[..20], alone, "{tokens:?}");
        assert_ne!(before[20..], after[20..]);
    }
}

#[test]
fn every_condition_is_heard_unless_it_is_switched_off() {
    let heard = |config: &PsiConfig| {
        let psi = psi(config, 10);
        let (noisy, given) = (wave(2, 10, 0.2), known(2, 10, 32));
        let before = say(&psi, noisy.clone(), &given);
        let with = |change: &dyn Fn(&mut Known)| {
            let mut given = given.clone();
            change(&mut given);
            say(&psi, noisy.clone(), &given) != before
        };
        [
            with(&|k| k.visible = wave(2, 10, 3.0)),
            with(&|k| k.bits = k.bits.clone().neg()),
            with(&|k| k.pair = wave(2, 10, 3.0)),
            with(&|k| k.text = Some(wave(2, 32, 3.0))),
            with(&|k| k.around = Some(wave(2, AROUND * 10, 3.0))),
        ]
    };
    let all = PsiConfig { neighbours: true, ..sized(32, 2, 2) };
    assert_eq!(heard(&all), [true; 5]);
    assert_eq!(heard(&PsiConfig { tokens: Tokens::Spot, ..all }), [true; 5]);
    assert_eq!(heard(&PsiConfig { rna_channel: false, ..all }), [true; 5]);
    assert_eq!(heard(&PsiConfig { use_rna: false, ..all }), [true, true, false, true, true]);
    assert_eq!(heard(&PsiConfig { use_text: false, ..all }), [true, true, true, false, true]);
    assert_eq!(heard(&sized(32, 2, 2)), [true, true, true, true, false]);
    assert_eq!(heard(&stdiff(32, 2, 2)), [true, false, false, false, false]);
}

/// The two forms differ by less than 5e-4, so what is said by less than a hundredth.
#[test]
fn the_exact_gelu_is_another_one() {
    let said = |gelu| {
        let psi = psi(&PsiConfig { gelu, ..sized(32, 2, 2) }, 10);
        say(&psi, wave(3, 10, 0.2), &known(3, 10, 32))
    };
    let (tanh, exact) = (said(Gelu::Tanh), said(Gelu::Exact));
    assert_ne!(tanh, exact);
    assert!(tanh.iter().zip(&exact).all(|(a, b)| (a - b).abs() < 0.01), "{tanh:?} {exact:?}");
}

#[test]
fn what_cannot_be_built_is_refused_by_its_key() {
    let refused = |config: SpotdiffConfig, lanes: usize, words: &str| {
        let problems = config.problems((lanes, 8)).join("\n");
        assert!(problems.contains(words), "no {words:?} in {problems:?}");
    };
    assert_eq!(tiny().problems((8, 8)), Vec::<String>::new());
    let with = |psi: PsiConfig| SpotdiffConfig { psi, ..tiny() };
    refused(with(PsiConfig { d: 30, heads: 4, ..sized(30, 2, 4) }), 1, "model.spotdiff.psi.d = 30");
    refused(with(PsiConfig { patch: Some(0), ..sized(32, 2, 2) }), 1, "psi.patch = 0");
    let batch = with(PsiConfig { tokens: Tokens::Batch, ..sized(32, 2, 2) });
    refused(batch, 2, "demands train.lanes = 1");
    assert_eq!(batch.problems((1, 8)), Vec::<String>::new());
    let mut prompt = tiny();
    prompt.prompt.heads = 3;
    refused(prompt, 1, "model.spotdiff.prompt.attention = 8");
    let mut omega = tiny();
    omega.omega.widths[1] = 0;
    refused(omega, 1, "model.spotdiff.omega.widths");
}
