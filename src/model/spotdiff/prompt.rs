//! The prompt of a spot: its most and least expressed genes, read by cross-attention to all genes (`spotdiff.md` §2).
//!
//! The spot's tokens and the genes' come from a frozen text encoder, or from tables of genes and of value
//! buckets that are learned with ψ (`encoder = "hash"`): the same interface, no text needed.

use serde::{Deserialize, Serialize};

use crate::model::init::{Init, Scope};
use crate::model::layers::{Linear, Training};
use crate::tensor::{Int, Module, Param, Tensor, TensorData, attend_to, enter, look_up, matmul};

/// Steps between −1 and 1 in which the tables know a value.
pub const BUCKETS: usize = 16;

/// Where the tokens come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoder {
    /// Learned tables of genes and value buckets.
    #[default]
    Hash,
    /// Sentences read by a T5 encoder beforehand.
    T5,
}

/// `[model.spotdiff.prompt]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptConfig {
    /// Where the tokens come from.
    pub encoder: Encoder,
    /// Their width; that of the T5's output.
    pub width: usize,
    /// Width of the attention.
    pub attention: usize,
    /// Its heads.
    pub heads: usize,
    /// Most expressed genes that are named.
    pub most: usize,
    /// Least expressed genes that are named.
    pub least: usize,
}

impl Default for PromptConfig {
    fn default() -> Self {
        Self { encoder: Encoder::Hash, width: 512, attention: 256, heads: 4, most: 10, least: 10 }
    }
}

/// What the prompts of a micro-batch say.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one per forward")]
pub enum Said {
    /// Genes and value buckets, `[b, n]` row-major; a spot with fewer genes is filled up with `absent`.
    Named {
        /// Gene numbers.
        genes: Vec<u32>,
        /// Buckets of their values.
        buckets: Vec<u8>,
        /// True where a spot has no further gene.
        absent: Vec<bool>,
        /// n.
        n: usize,
    },
    /// Vectors of an encoder.
    Encoded {
        /// Mean over a prompt's tokens, `[b, width]`.
        spots: Tensor<2>,
        /// Mean over the tokens of a gene's name, `[G, width]`.
        genes: Tensor<2>,
    },
}

/// The tables of the text-free encoder.
#[derive(Module, Debug)]
pub struct Tables {
    /// `[G, width]`.
    pub genes: Param<Tensor<2>>,
    /// `[16, width]`.
    pub values: Param<Tensor<2>>,
}

/// The module: f_text = Attn(f_spot, f_gene, f_gene), its mean, and a map to ψ's width.
#[derive(Module, Debug)]
pub struct Prompt {
    /// Where no encoder gives the tokens.
    pub tables: Option<Tables>,
    /// Spot tokens → attention's width, no bias.
    pub spot: Param<Tensor<2>>,
    /// Gene tokens → attention's width, no bias: keys and values alike.
    pub gene: Param<Tensor<2>>,
    /// Attention's width → ψ's.
    pub out: Linear,
    #[module(skip)]
    heads: usize,
}

impl PromptConfig {
    /// What is wrong with it, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, size) in [("width", self.width), ("attention", self.attention), ("heads", self.heads)] {
            if size == 0 {
                problems.push(format!("model.spotdiff.prompt.{name} = 0: must be at least 1"));
            }
        }
        if self.heads > 0 && !self.attention.is_multiple_of(self.heads) {
            problems.push(format!(
                "model.spotdiff.prompt.attention = {} is not a multiple of heads = {}",
                self.attention, self.heads
            ));
        }
        if self.most + self.least == 0 {
            problems.push("model.spotdiff.prompt.most and least are both 0: a prompt names a gene at least".to_owned());
        }
        problems
    }

    /// How many parameters it has for `genes` genes and a ψ of width `d`.
    pub fn n_parameters(&self, genes: usize, d: usize) -> f64 {
        let [width, attention, genes, d] = [self.width, self.attention, genes, d].map(|n| n as f64);
        let tables = match self.encoder {
            Encoder::Hash => (genes + BUCKETS as f64) * width,
            Encoder::T5 => 0.0,
        };
        tables + 2.0 * width * attention + (attention + 1.0) * d
    }
}

impl Prompt {
    /// For `genes` genes and a ψ of width `d`.
    pub fn new(scope: &Scope, config: &PromptConfig, genes: usize, d: usize) -> Self {
        let (width, attention) = (config.width, config.attention);
        let tables = |scope: &Scope| Tables {
            genes: scope.param("genes", [genes, width], Init::Normal(1.0)),
            values: scope.param("values", [BUCKETS, width], Init::Normal(1.0)),
        };
        Self {
            tables: (config.encoder == Encoder::Hash).then(|| tables(&scope.child("tables"))),
            spot: scope.param("spot", [attention, width], Init::FanIn(width)),
            gene: scope.param("gene", [attention, width], Init::FanIn(width)),
            out: Linear::new(&scope.child("out"), attention, d),
            heads: config.heads,
        }
    }

    /// f_text of every record, `[b, d]`.
    ///
    /// # Panics
    /// If genes are named and there are no tables: whoever prepares the batch knows the config.
    pub fn forward(&self, said: &Said, training: Option<&Training>) -> Tensor<2> {
        let mapped = |x: Tensor<2>, by: &Param<Tensor<2>>| {
            let by = enter(by.val(), &x);
            matmul(x, by.transpose())
        };
        let (queries, genes, n, shares) = match said {
            Said::Named { genes, buckets, absent, n } => {
                let tables = self.tables.as_ref().expect("named genes are looked up in tables");
                let device = tables.genes.val().device();
                let index = |of: Vec<i64>| Tensor::<1, Int>::from_data(TensorData::new(of, [genes.len()]), &device);
                // The map of a sum is the sum of maps: the tables are mapped, which have fewer rows than there are tokens.
                let by_gene = mapped(tables.genes.val(), &self.spot);
                let by_gene = look_up(by_gene, index(genes.iter().map(|&g| i64::from(g)).collect()));
                let by_value = mapped(tables.values.val(), &self.spot);
                let by_value = look_up(by_value, index(buckets.iter().map(|&v| i64::from(v)).collect()));
                let shares = Tensor::from_data(TensorData::new(shares(absent, *n), [genes.len(), 1]), &device);
                (by_gene + by_value, tables.genes.val(), *n, shares)
            }
            Said::Encoded { spots, genes } => {
                let shares = Tensor::ones([spots.dims()[0], 1], &spots.device());
                (mapped(spots.clone(), &self.spot), genes.clone(), 1, shares)
            }
        };
        let [rows, _] = queries.dims();
        let keys = mapped(genes, &self.gene);
        let kv = Tensor::cat(vec![keys.clone(), keys], 1).unsqueeze::<3>();
        let mixed = attend_to(queries.unsqueeze::<3>(), kv, self.heads, None);
        let [_, _, attention] = mixed.dims();
        let mixed = mixed.reshape([rows, attention]) * shares;
        let means: Tensor<2> = mixed.reshape([rows / n, n, attention]).sum_dim(1).squeeze_dim(1);
        self.out.forward2(means, training)
    }
}

/// 1 / (tokens present) for each present token of a record, 0 for the others.
fn shares(absent: &[bool], n: usize) -> Vec<f32> {
    let of_record = |absent: &[bool]| {
        let present = absent.iter().filter(|a| !**a).count().max(1) as f32;
        absent.iter().map(|&a| if a { 0.0 } else { 1.0 / present }).collect::<Vec<_>>()
    };
    absent.chunks(n).flat_map(of_record).collect()
}

/// Numbers of the genes that a prompt names, the most expressed first, then the least expressed from below; of `expression`
/// (`[G]`, ln-space) only what is visible and above 0. Ties go to the smaller number.
///
/// With fewer than `most + least` such genes the first half of them, rounded up, is the most expressed.
pub fn named(expression: &[f32], visible: &[bool], most: usize, least: usize) -> (Vec<u32>, Vec<u32>) {
    let mut genes: Vec<u32> =
        (0..expression.len() as u32).filter(|&g| visible[g as usize] && expression[g as usize] > 0.0).collect();
    let of = |g: u32| expression[g as usize];
    genes.sort_by(|&a, &b| of(b).total_cmp(&of(a)).then(a.cmp(&b)));
    let most = if genes.len() < most + least { most.min(genes.len().div_ceil(2)) } else { most };
    let least = least.min(genes.len() - most);
    let mut low = genes.split_off(genes.len() - least);
    low.sort_by(|&a, &b| of(a).total_cmp(&of(b)).then(a.cmp(&b)));
    genes.truncate(most);
    (genes, low)
}

/// The bucket of a value in [−1, 1].
pub fn bucket(value: f32) -> u8 {
    ((value + 1.0) * (BUCKETS / 2) as f32).floor().clamp(0.0, (BUCKETS - 1) as f32) as u8
}

/// The sentence of a prompt: names and values in ln-space, two decimals.
pub fn sentence(expression: &[f32], (most, least): &(Vec<u32>, Vec<u32>), symbols: &[String]) -> String {
    let list = |genes: &[u32]| {
        let one = |&g: &u32| format!("{} {:.2}", symbols[g as usize], expression[g as usize]);
        genes.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    format!("A spatial spot. Highly expressed genes: {}. Lowly expressed genes: {}.", list(most), list(least))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::model::layers::reference::{assert_near, tensor, values};
    use crate::model::params;
    use crate::tensor::cpu;

    /// `spotdiff.md` §2: one head, no projections.
    #[test]
    fn the_attention_equals_its_vector() {
        let q = tensor(vec![1., 0., 0., 1.], [1, 2, 2]);
        let of = |v: [f32; 6]| {
            let k = tensor(vec![1., 0., 0., 2., 1., 1.], [1, 3, 2]);
            Tensor::cat(vec![k, tensor(v.to_vec(), [1, 3, 2])], 2)
        };
        let mixed = attend_to(q.clone(), of([1., 0., 0., 2., 1., 1.]), 1, None);
        assert_near(&values(mixed), &[0.80222419, 0.79666372, 0.42402465, 1.4359461], 1e-7);
        let first_two = attend_to(q.clone(), of([1., 0., 0., 1., 0., 0.]), 1, None);
        assert_near(&values(first_two), &[0.40111209, 0.19777581, 0.14002925, 0.57597535], 1e-7);
        let third = attend_to(q, of([0., 0., 0., 0., 1., 1.]), 1, None);
        assert_near(&values(third), &[0.40111209, 0.40111209, 0.28399541, 0.28399541], 1e-7);
    }

    #[test]
    fn a_prompt_names_the_most_and_the_least_expressed_visible_genes() {
        let expression = [0.0, 2.0, 1.0, 3.0, 0.5, 2.0, 0.25];
        let all = [true; 7];
        assert_eq!(named(&expression, &all, 2, 2), (vec![3, 1], vec![6, 4]));
        let but_one = [true, true, true, false, true, true, true];
        assert_eq!(named(&expression, &but_one, 2, 2), (vec![1, 5], vec![6, 4]));
        assert_eq!(named(&expression, &all, 10, 10), (vec![3, 1, 5], vec![6, 4, 2])); // 6 genes: 3 and 3
        assert_eq!(named(&[1.0, 0.0, 2.0, 3.0], &[true; 4], 10, 10), (vec![3, 2], vec![0]));
        assert_eq!(named(&[0.0; 3], &[true; 3], 10, 10), (vec![], vec![]));
    }

    #[test]
    fn the_sentence_is_the_template() {
        let symbols: Vec<String> = ["Kr", "eve", "ftz"].map(str::to_owned).to_vec();
        let said = sentence(&[1.234, 0.5, 2.0], &(vec![2, 0], vec![1]), &symbols);
        assert_eq!(said, "A spatial spot. Highly expressed genes: ftz 2.00, Kr 1.23. Lowly expressed genes: eve 0.50.");
    }

    #[test]
    fn buckets_cover_minus_one_to_one() {
        assert_eq!([-1.0, -0.876, -0.874, 0.0, 0.99, 1.0, 3.0].map(bucket), [0, 0, 1, 8, 15, 15, 15]);
    }

    #[test]
    fn padding_says_nothing_and_records_do_not_hear_each_other() {
        let (device, sites) = (cpu(), Cell::new(0));
        let config = PromptConfig { width: 6, attention: 8, heads: 2, ..PromptConfig::default() };
        let prompt = Prompt::new(&Scope::root(1, &device, &sites), &config, 5, 4);
        assert_eq!(params::to_flat(&prompt).len() as f64, config.n_parameters(5, 4));
        let say = |genes: [u32; 6], absent: [bool; 6]| {
            let said = Said::Named { genes: genes.to_vec(), buckets: vec![3; 6], absent: absent.to_vec(), n: 3 };
            values(prompt.forward(&said, None))
        };
        let one = say([0, 1, 2, 3, 4, 0], [false, false, true, false, false, false]);
        let other = say([0, 1, 4, 3, 4, 0], [false, false, true, false, false, false]);
        assert_eq!(one, other, "padding was heard");
        let third = say([0, 1, 2, 3, 3, 3], [false, false, true, false, false, false]);
        assert_eq!(one[..4], third[..4]);
        assert_ne!(one[4..], third[4..]);
        let none = say([0; 6], [true; 6]);
        assert_eq!(none[..4], none[4..]);
    }
}
