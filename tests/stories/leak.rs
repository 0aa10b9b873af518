//! Hidden values reach nothing: neither the model's predictions nor any simple fill, under both protocols
//! (`spackle.md` §4, `evaluation.md` §8).

use syncytia::evaluate::baselines::{Baseline, Fit, RidgeLocal};
use syncytia::evaluate::block::{Block, Pipeline, Seen};
use syncytia::evaluate::correction::{Correction, TrainPiece};
use syncytia::model::{DataShape, Model};
use syncytia::task::inference::{self, Visible};
use syncytia::tensor::cpu;
use syncytia_shards::draw::{self, DrawKey, Purpose};
use syncytia_shards::panel::Panel;
use syncytia_shards::process::{Combat, CombatKey, Normalize};
use syncytia_shards::processed::{Matrix, Piece, Split};

use crate::stage;

/// With context genes beside the layers': they are never hidden, but their shares are of sums that hidden counts are part of.
const CONTEXT: usize = 24;

fn piece() -> (Piece, Pipeline) {
    let processed = stage::processed_with(&format!("top_moran = 16\ncontext_genes = {CONTEXT}"));
    let Panel { genes, selected, context, .. } = processed.panel;
    let pipeline = Pipeline {
        normalize: Normalize::Tpm,
        lengths: genes.iter().map(|g| g.length.unwrap()).collect(),
        selected,
        hops: 4,
        completion_graph: syncytia_shards::process::NearestGraph::Symmetrised,
        context,
        correction: None,
    };
    (processed.pieces.into_iter().find(|p| p.split == Split::Val).unwrap(), pipeline)
}

/// A batch correction against a training section that lies half a unit higher and wider.
fn correction() -> Correction {
    let train = stage::processed().pieces.into_iter().find(|p| p.split == Split::Train).unwrap();
    let mut completed = train.layers["d_log1p"].clone();
    completed.values.iter_mut().for_each(|v| *v = 1.2 * *v + 0.5);
    let train = vec![TrainPiece { section: 9, batch: "another section".into(), completed }];
    Correction { combat: Combat::Standard, key: CombatKey::Section, train }
}

/// An untrained model, every weight moved: a zero-initialised head would hide a leak.
fn model(name: &str, genes: usize) -> Model {
    let model = stage::shipped(name).model.build(DataShape { genes, spots: 19, covariates: CONTEXT }, 1, &cpu());
    let flat: Vec<f32> = model.to_flat().iter().enumerate().map(|(i, w)| w + 0.1 * (i as f32 * 0.7).sin()).collect();
    model.from_flat(&flat, &cpu())
}

fn hidden(block: &Block) -> Matrix<bool> {
    let p = vec![0.4; block.n_genes()];
    let key = DrawKey::new(1, Purpose::AssayMask);
    block.hidden(&|id, out: &mut [bool]| draw::assay_bernoulli(key, 1, id, &p, out))
}

/// Everything that is predicted from what is seen, bit by bit.
fn predictions(block: &Block, seen: &Seen, hidden: &Matrix<bool>, ridge: &RidgeLocal) -> Vec<(String, Vec<u32>)> {
    let bits = |m: &Matrix<f32>| m.values.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
    let mut out: Vec<(String, Vec<u32>)> =
        Baseline::ALL.iter().map(|b| (b.name().to_owned(), bits(&b.fill(block, seen, ridge)))).collect();
    for name in ["tiny", "paper"] {
        let neighbours = &block.piece.neighbours;
        let (values, covariates) = (&seen.input, &seen.covariates);
        let visible = Visible { values, visible: &seen.visible, covariates, neighbours };
        out.push((name.to_owned(), bits(&inference::complete(&model(name, block.n_genes()), &visible, &cpu()))));
    }
    assert!(hidden.values.contains(&true));
    out
}

#[test]
fn changing_any_hidden_value_changes_no_prediction_bit() {
    let (piece, pipeline) = piece();
    let corrected = Pipeline { correction: Some(correction()), ..pipeline.clone() };
    let block = Block::new(piece.clone(), "d_log1p", &pipeline);
    let hidden = hidden(&block);
    // The targets and the raw counts of every hidden entry, changed.
    let mut other = piece;
    for (i, value) in other.layers.get_mut("d_log1p").unwrap().values.iter_mut().enumerate() {
        if hidden.values[i] {
            *value += 5.0;
        }
    }
    let mut changed = 0;
    for row in 0..other.counts.n_rows() {
        for at in other.counts.indptr[row]..other.counts.indptr[row + 1] {
            let column = other.counts.indices[at];
            let gene = pipeline.selected.iter().position(|&s| s == column);
            if gene.is_some_and(|g| hidden.row(row)[g]) {
                other.counts.values[at] = other.counts.values[at] * 7.0 + 3.0;
                changed += 1;
            }
        }
    }
    assert!(changed > 100, "{changed} hidden counts changed");
    let other = Block::new(other, "d_log1p", &pipeline);
    // One ridge for both: it is fitted on other sections.
    let seen = block.seen_as_in_the_paper(&hidden);
    let ridge = RidgeLocal::fit(&[Fit { block: &block, seen: &seen, hidden: &hidden }]);
    for (protocol, a, b) in [
        ("paper", block.seen_as_in_the_paper(&hidden), other.seen_as_in_the_paper(&hidden)),
        ("strict", block.seen_strictly(&hidden, &pipeline), other.seen_strictly(&hidden, &pipeline)),
        ("strict with ComBat", block.seen_strictly(&hidden, &corrected), other.seen_strictly(&hidden, &corrected)),
    ] {
        let (before, after) = (predictions(&block, &a, &hidden, &ridge), predictions(&other, &b, &hidden, &ridge));
        for ((name, x), (_, y)) in before.iter().zip(&after) {
            assert!(x == y, "{name} under {protocol} sees hidden values");
        }
    }
}

#[test]
fn a_corrected_block_is_judged_in_corrected_values() {
    let (piece, pipeline) = piece();
    let corrected = Pipeline { correction: Some(correction()), ..pipeline.clone() };
    let block = Block::new(piece, "d_log1p", &pipeline);
    let hidden = hidden(&block);
    let (plain, seen) = (block.seen_strictly(&hidden, &pipeline), block.seen_strictly(&hidden, &corrected));
    let mut moved = 0;
    for (i, &visible) in seen.visible.values.iter().enumerate() {
        assert_eq!(seen.values.values[i], if visible { seen.input.values[i] } else { 0.0 });
        moved += usize::from(visible && (seen.values.values[i] - plain.values.values[i]).abs() > 0.1);
        assert!(!hidden.values[i] || seen.input.values[i] == 0.0);
    }
    assert!(moved > 100, "{moved} visible values moved");
}

#[test]
fn context_is_seen_and_made_again_from_what_is_visible() {
    let (piece, pipeline) = piece();
    let block = Block::new(piece, "d_log1p", &pipeline);
    let hidden = hidden(&block);
    let nothing = Matrix { n_cols: hidden.n_cols, values: vec![false; hidden.values.len()] };
    assert!(block.seen_strictly(&nothing, &pipeline).covariates == block.piece.covariates, "as the shards have it");
    let seen = block.seen_strictly(&hidden, &pipeline);
    assert!(seen.covariates != block.piece.covariates, "hidden counts are still in the sums");
    let complete = |name: &str, seen: &Seen| {
        let (values, covariates) = (&seen.input, &seen.covariates);
        let visible = Visible { values, visible: &seen.visible, covariates, neighbours: &block.piece.neighbours };
        inference::complete(&model(name, block.n_genes()), &visible, &cpu())
    };
    let mut other = seen.clone();
    other.covariates.values[7] += 1.0;
    for name in ["tiny", "paper"] {
        assert_ne!(complete(name, &seen).row(0), complete(name, &other).row(0), "{name} does not see its covariates");
    }
}

#[test]
fn changing_visible_values_changes_every_prediction() {
    let (piece, pipeline) = piece();
    let block = Block::new(piece.clone(), "d_log1p", &pipeline);
    let hidden = hidden(&block);
    let mut other = piece;
    let visible = |i: usize| block.piece.measured.values[i] && !hidden.values[i];
    for (i, value) in other.layers.get_mut("d_log1p").unwrap().values.iter_mut().enumerate() {
        if visible(i) {
            *value += 1.0 + (i % 3) as f32;
        }
    }
    let other = Block::new(other, "d_log1p", &pipeline);
    let (a, b) = (block.seen_as_in_the_paper(&hidden), other.seen_as_in_the_paper(&hidden));
    let ridge = RidgeLocal::fit(&[Fit { block: &block, seen: &a, hidden: &hidden }]);
    let (before, after) = (predictions(&block, &a, &hidden, &ridge), predictions(&other, &b, &hidden, &ridge));
    for ((name, x), (_, y)) in before.iter().zip(&after) {
        assert!(x != y, "{name} does not see visible values");
    }
}
