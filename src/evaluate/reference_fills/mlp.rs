//! `reference_mlp`: a perceptron from the visible genes to the others, fitted on cells that hide a random share of them.
//!
//! [visible × bits, bits] → 256 → 256 → H with GELU and dropout .3; 1,500 steps of 256 cells, squared error, AdamW at 1e-3. Each
//! cell of a step hides a share of 0 … .8 of its genes, drawn for it. Written out here, forward and back: judging knows no
//! tensors, and three layers are little. One perceptron runs on one thread, so its sums have one order.

use rayon::prelude::*;
use syncytia_shards::draw::{self, DrawKey, Purpose, uniform};
use syncytia_shards::processed::Matrix;

use super::product::{product, view};
use super::{Standard, mean};
use crate::elementwise::gelu;
use crate::optim::schedule::Schedule;
use crate::optim::{OptimConfig, adamw};

/// Units of a hidden layer.
const WIDTH: usize = 256;
/// Cells of a step.
const CELLS: usize = 256;
/// Dropout after each hidden layer.
const DROPOUT: f64 = 0.3;
/// Largest share of a cell's genes that is hidden.
const HIDDEN: f32 = 0.8;

/// What a key draws: the third counter word of a step's streams.
#[repr(u32)]
#[derive(Clone, Copy)]
enum Draw {
    Cells = 0,
    Shares = 1,
    Bits = 2,
    FirstDropout = 3,
    SecondDropout = 4,
}

/// Mean of the predictions of perceptrons `0..seeds`.
pub(super) fn fill(standard: &Standard, steps: u64, seeds: u64) -> Matrix<f32> {
    let all: Vec<Matrix<f32>> = (0..seeds)
        .into_par_iter()
        .map(|seed| Perceptron::fitted(&standard.cells, &standard.unseen, steps, seed).predict(&standard.spots))
        .collect();
    mean(&all.iter().collect::<Vec<_>>())
}

/// Weights `[inputs, outputs]` and biases of three layers in one buffer.
struct Perceptron {
    parameters: Vec<f32>,
    /// Inputs and outputs of each layer.
    layers: [[usize; 2]; 3],
}

/// What a forward pass leaves for the way back.
struct Passed {
    /// Before each activation, `[b, 256]`.
    before: [Vec<f32>; 2],
    /// After activation and dropout, `[b, 256]`.
    after: [Vec<f32>; 2],
    /// `[b, H]`.
    out: Vec<f32>,
}

impl Perceptron {
    fn new(n_visible: usize, n_unseen: usize, seed: u64) -> Perceptron {
        let layers = [[2 * n_visible, WIDTH], [WIDTH, WIDTH], [WIDTH, n_unseen]];
        // PyTorch's default: weights and biases uniform within ±1/√inputs.
        let layer = |(at, [inputs, outputs]): (usize, &[usize; 2])| {
            let bound = 1.0 / (*inputs as f32).sqrt();
            let drawn = draw::init_uniforms(seed, &format!("reference_mlp.{at}"), (inputs + 1) * outputs);
            drawn.into_iter().map(move |u| bound * (2.0 * u - 1.0))
        };
        Perceptron { parameters: layers.iter().enumerate().flat_map(layer).collect(), layers }
    }

    /// Trained from `[c, V]` to `[c, H]`.
    fn fitted(visible: &Matrix<f32>, unseen: &Matrix<f32>, steps: u64, seed: u64) -> Perceptron {
        let mut network = Perceptron::new(visible.n_cols, unseen.n_cols, seed);
        let config = OptimConfig {
            lr: 1e-3,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.01,
            clip_norm: None,
            ema: None,
            schedule: Schedule::Constant,
            warmup_steps: 0,
            schedule_steps: None,
        };
        let key = DrawKey::new(seed, Purpose::ReferenceFill);
        let n = network.parameters.len();
        let (mut first, mut second, mut gradient) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        for step in 0..steps {
            let (input, cells) = drawn_cells(visible, key, step as u32);
            let masks = [Draw::FirstDropout, Draw::SecondDropout].map(|site| {
                let mut mask = vec![1.0; CELLS * WIDTH];
                draw::drop_elements(&mut mask, DROPOUT, key, [0, step as u32, site as u32]);
                mask
            });
            let passed = network.forward(&input, CELLS, Some(&masks));
            let scale = 2.0 / passed.out.len() as f32;
            let truth = cells.iter().flat_map(|&cell| unseen.row(cell));
            let error: Vec<f32> = passed.out.iter().zip(truth).map(|(out, truth)| scale * (out - truth)).collect();
            network.backward(&input, &passed, &masks, error, &mut gradient);
            adamw::update(&config, config.lr, step + 1, &gradient, &mut network.parameters, &mut first, &mut second);
        }
        network
    }

    /// Of rows `[n, V]` with all genes visible.
    fn predict(&self, rows: &Matrix<f32>) -> Matrix<f32> {
        let input: Vec<f32> =
            (0..rows.n_rows()).flat_map(|i| rows.row(i).iter().copied().chain(vec![1.0; rows.n_cols])).collect();
        Matrix { n_cols: self.layers[2][1], values: self.forward(&input, rows.n_rows(), None).out }
    }

    /// Where a layer's weights and biases are.
    fn place(&self, layer: usize) -> [std::ops::Range<usize>; 2] {
        let size = |[inputs, outputs]: &[usize; 2]| (inputs + 1) * outputs;
        let start: usize = self.layers[..layer].iter().map(size).sum();
        let [inputs, outputs] = self.layers[layer];
        [start..start + inputs * outputs, start + inputs * outputs..start + (inputs + 1) * outputs]
    }

    /// x · W + b, `[n, outputs]`.
    fn linear(&self, layer: usize, x: &[f32], n: usize) -> Vec<f32> {
        let [inputs, outputs] = self.layers[layer];
        let [weights, biases] = self.place(layer).map(|range| &self.parameters[range]);
        let mut out = vec![0.0; n * outputs];
        product(view(x, n, inputs), view(weights, inputs, outputs), &mut out);
        out.chunks_mut(outputs).for_each(|row| row.iter_mut().zip(biases).for_each(|(v, b)| *v += b));
        out
    }

    fn forward(&self, input: &[f32], n: usize, masks: Option<&[Vec<f32>; 2]>) -> Passed {
        let activated = |before: &[f32], at: usize| {
            let mut after = vec![0.0; before.len()];
            gelu::value(before, &mut after);
            if let Some(masks) = masks {
                after.iter_mut().zip(&masks[at]).for_each(|(v, m)| *v *= m);
            }
            after
        };
        let first = self.linear(0, input, n);
        let after_first = activated(&first, 0);
        let second = self.linear(1, &after_first, n);
        let after_second = activated(&second, 1);
        let out = self.linear(2, &after_second, n);
        Passed { before: [first, second], after: [after_first, after_second], out }
    }

    /// Fills `gradient` for `error` `[b, H]`, the loss's slope at the outputs.
    fn backward(&self, input: &[f32], passed: &Passed, masks: &[Vec<f32>; 2], error: Vec<f32>, gradient: &mut [f32]) {
        let n = masks[0].len() / WIDTH;
        let mut error = error;
        for layer in (0..3).rev() {
            let [inputs, outputs] = self.layers[layer];
            let x = if layer == 0 { input } else { &passed.after[layer - 1] };
            let [weights, biases] = self.place(layer);
            product(view(x, n, inputs).transpose(), view(&error, n, outputs), &mut gradient[weights.clone()]);
            let sums = &mut gradient[biases];
            sums.fill(0.0);
            error.chunks(outputs).for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, e)| *sum += e));
            if layer > 0 {
                let mut back = vec![0.0; n * inputs];
                let weights = view(&self.parameters[weights], inputs, outputs);
                product(view(&error, n, outputs), weights.transpose(), &mut back);
                back.iter_mut().zip(&masks[layer - 1]).for_each(|(v, m)| *v *= m);
                error = vec![0.0; n * inputs];
                gelu::slope(&passed.before[layer - 1], &back, &mut error);
            }
        }
    }
}

/// The cells of a step, and what they show: `[256, 2V]`, values where visible and the bits.
fn drawn_cells(visible: &Matrix<f32>, key: DrawKey, step: u32) -> (Vec<f32>, Vec<usize>) {
    let (n, genes) = (visible.n_rows(), visible.n_cols);
    let mut cells = vec![0; CELLS];
    key.for_each(CELLS, [0, step, Draw::Cells as u32], |i, word| {
        cells[i] = ((u64::from(word) * n as u64) >> 32) as usize;
    });
    let mut input = vec![0.0; CELLS * 2 * genes];
    for (i, row) in input.chunks_mut(2 * genes).enumerate() {
        let share = HIDDEN * uniform(key.word(i as u32, [0, step, Draw::Shares as u32]));
        let values = visible.row(cells[i]);
        key.for_each(genes, [i as u32, step, Draw::Bits as u32], |gene, word| {
            if uniform(word) >= share {
                row[gene] = values[gene];
                row[genes + gene] = 1.0;
            }
        });
    }
    (input, cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cells on a curve: 6 visible genes and 3 others that follow from them.
    fn cells(n: usize) -> (Matrix<f32>, Matrix<f32>) {
        let t = |i: usize| i as f32 * 0.37;
        let visible = (0..n).flat_map(|i| (0..6).map(move |g| (t(i) + g as f32).sin())).collect();
        let unseen = (0..n).flat_map(|i| (0..3).map(move |g| (t(i) * 2.0 + g as f32).sin())).collect();
        (Matrix { n_cols: 6, values: visible }, Matrix { n_cols: 3, values: unseen })
    }

    fn loss(network: &Perceptron, input: &[f32], truth: &[f32], masks: &[Vec<f32>; 2]) -> f64 {
        let out = network.forward(input, CELLS, Some(masks)).out;
        out.iter().zip(truth).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / out.len() as f64
    }

    #[test]
    fn the_way_back_is_the_slope_of_the_loss() {
        let (visible, unseen) = cells(90);
        let mut network = Perceptron::new(6, 3, 1);
        let key = DrawKey::new(1, Purpose::ReferenceFill);
        let (input, cells) = drawn_cells(&visible, key, 0);
        let truth: Vec<f32> = cells.iter().flat_map(|&cell| unseen.row(cell)).copied().collect();
        let masks = [3, 4].map(|site| {
            let mut mask = vec![1.0; CELLS * WIDTH];
            draw::drop_elements(&mut mask, DROPOUT, key, [0, 0, site]);
            mask
        });
        let passed = network.forward(&input, CELLS, Some(&masks));
        let scale = 2.0 / passed.out.len() as f32;
        let error = passed.out.iter().zip(&truth).map(|(a, b)| scale * (a - b)).collect();
        let mut gradient = vec![0.0; network.parameters.len()];
        network.backward(&input, &passed, &masks, error, &mut gradient);
        let places: Vec<usize> = (0..3).flat_map(|layer| network.place(layer)).map(|range| range.start + 2).collect();
        for at in places {
            let kept = network.parameters[at];
            let mut at_offset = |offset: f32| {
                network.parameters[at] = kept + offset;
                loss(&network, &input, &truth, &masks)
            };
            let slope = (at_offset(1e-2) - at_offset(-1e-2)) / 2e-2;
            network.parameters[at] = kept;
            // Differences of an f32 loss near 1 over 2e-2, and the loss's own curvature.
            let found = f64::from(gradient[at]);
            assert!((found - slope).abs() < 2e-5 + 0.01 * slope.abs(), "parameter {at}: {found} against {slope}");
        }
    }

    #[test]
    fn what_follows_from_the_visible_genes_is_learnt_and_a_seed_has_one_answer() {
        let (visible, unseen) = cells(300);
        let standard = |steps, seed| Perceptron::fitted(&visible, &unseen, steps, seed).predict(&visible);
        let told = standard(150, 0);
        let off = |told: &Matrix<f32>| {
            told.values.iter().zip(&unseen.values).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / 900.0
        };
        assert!(off(&told) < 0.1, "{} of a variance of .5", off(&told));
        assert_eq!(standard(5, 3), standard(5, 3));
        assert_ne!(standard(5, 3), standard(5, 4));
    }

    #[test]
    fn a_cell_hides_up_to_four_fifths_of_its_genes_and_shows_none_of_them() {
        let visible = Matrix { n_cols: 100, values: vec![7.0; 1000] };
        let (input, cells) = drawn_cells(&visible, DrawKey::new(0, Purpose::ReferenceFill), 3);
        assert!(cells.iter().all(|&cell| cell < 10));
        let shares: Vec<f32> = input.chunks(200).map(|row| 1.0 - row[100..].iter().sum::<f32>() / 100.0).collect();
        assert!(input.chunks(200).all(|row| (0..100).all(|g| row[g] == 7.0 * row[100 + g])));
        let mean = shares.iter().sum::<f32>() / 256.0;
        assert!((mean - 0.4).abs() < 0.06, "{mean}"); // 4 standard errors of .8/√12/16
        assert!(shares.iter().all(|s| *s < 0.95) && shares.iter().any(|s| *s > 0.7) && shares.iter().any(|s| *s < 0.1));
    }
}
