//! `train --from`: a new run that begins with the weights of another, gene by gene where the panel is another one.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::checkpoint::NamedTensor;
use super::state;
use crate::model::Model;
use crate::model::params::GeneAxis;

/// Names listed in words; all are in the ledger's file.
const SHOWN: usize = 5;

/// What became of a parent's genes and tensors.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// Gene ids that both have: their rows go on.
    pub kept: Vec<String>,
    /// Gene ids the parent did not have: their rows begin at the mean of the parent's.
    pub new: Vec<String>,
    /// Gene ids of the parent that the data do not have.
    pub lost: Vec<String>,
    /// Tensors the parent did not have: they begin as in any new run.
    pub fresh_tensors: Vec<String>,
    /// Tensors of the parent that this model does not have.
    pub unused_tensors: Vec<String>,
}

impl Ledger {
    fn of_genes(old: &[String], new: &[String]) -> Ledger {
        let (is_old, is_new): (HashMap<_, _>, HashMap<_, _>) = (places(old), places(new));
        let (kept, added) = new.iter().cloned().partition(|g| is_old.contains_key(g.as_str()));
        let lost = old.iter().filter(|g| !is_new.contains_key(g.as_str())).cloned().collect();
        Ledger { kept, new: added, lost, ..Ledger::default() }
    }

    /// Genes kept, new and lost.
    pub fn counts(&self) -> [usize; 3] {
        [&self.kept, &self.new, &self.lost].map(Vec::len)
    }

    /// One line for a user.
    pub fn in_words(&self) -> String {
        let few = |what: &str, names: &[String]| match names {
            [] => String::new(),
            names if names.len() <= SHOWN => format!("; {what}: {}", names.join(", ")),
            names => format!("; {what}: {} and {} more", names[..SHOWN].join(", "), names.len() - SHOWN),
        };
        let [kept, new, lost] = self.counts();
        format!(
            "genes: {kept} kept, {new} new, {lost} lost{}{}; tensors that begin anew: {}{}",
            few("new", &self.new),
            few("lost", &self.lost),
            self.fresh_tensors.len(),
            few("of the parent and not used", &self.unused_tensors),
        )
    }
}

/// `model`'s parameters, flat, with the values of `parent` (over `old_genes`) for all that it has, under their own names or
/// those of [`Model::other_name`]; the model's genes are `new_genes`.
///
/// # Errors
/// In words: fewer than `min_genes` of the new genes are known; a tensor of another shape; nothing in common.
pub fn adopt(
    parent: &[NamedTensor],
    old_genes: &[String],
    model: &Model,
    new_genes: &[String],
    min_genes: f64,
) -> Result<(Vec<f32>, Ledger), String> {
    let mut ledger = Ledger::of_genes(old_genes, new_genes);
    let share = ledger.kept.len() as f64 / new_genes.len().max(1) as f64;
    if share < min_genes {
        return Err(format!(
            "only {} of the data's {} genes are known to it, less than --min-genes {min_genes} ({})",
            ledger.kept.len(),
            new_genes.len(),
            ledger.in_words()
        ));
    }
    let old_of = places(old_genes);
    let genes = Genes {
        n_old: old_genes.len(),
        old_of_new: new_genes.iter().map(|g| old_of.get(g.as_str()).copied()).collect(),
    };
    let mut tensors: BTreeMap<&str, &NamedTensor> = parent.iter().map(|t| (t.name.as_str(), t)).collect();
    let mut flat = model.to_flat();
    for spec in model.specs() {
        let mut take = |path: &str| tensors.remove(state::tensor_name(path).as_str());
        let Some(tensor) = take(&spec.path).or_else(|| take(model.other_name(&spec.path)?)) else {
            ledger.fresh_tensors.push(spec.path.clone());
            continue;
        };
        let (mut values, mut shape) = (tensor.values.clone(), tensor.shape.clone());
        for axis in model.gene_axes(&spec.path) {
            values = genes
                .onto(&values, &mut shape, axis)
                .ok_or_else(|| other_shape(&spec.path, &tensor.shape, &spec.shape))?;
        }
        if shape != spec.shape {
            return Err(other_shape(&spec.path, &tensor.shape, &spec.shape));
        }
        flat[spec.range()].copy_from_slice(&values);
    }
    ledger.unused_tensors = tensors.into_keys().map(str::to_owned).collect();
    if ledger.fresh_tensors.len() == model.specs().len() {
        return Err("it has no tensor of this model: it is of another kind".to_owned());
    }
    Ok((flat, ledger))
}

fn other_shape(path: &str, theirs: &[usize], ours: &[usize]) -> String {
    format!("{path} has shape {theirs:?} there and {ours:?} here: give [model] the sizes of the checkpoint's config")
}

fn places(genes: &[String]) -> HashMap<&str, usize> {
    genes.iter().enumerate().map(|(place, gene)| (gene.as_str(), place)).collect()
}

struct Genes {
    n_old: usize,
    old_of_new: Vec<Option<usize>>,
}

impl Genes {
    /// The tensor with one axis brought to the new genes; none where that axis does not hold the old ones.
    fn onto(&self, values: &[f32], shape: &mut [usize], axis: GeneAxis) -> Option<Vec<f32>> {
        let GeneAxis { axis, blocks } = axis;
        if axis >= shape.len() || self.n_old == 0 {
            return None;
        }
        let inner: usize = shape[axis + 1..].iter().product();
        let outer: usize = shape[..axis].iter().product();
        let n_old = shape[axis];
        let tail = n_old.checked_sub(blocks * self.n_old)?;
        let n_new = blocks * self.old_of_new.len() + tail;
        let mut out = Vec::with_capacity(outer * n_new * inner);
        for o in 0..outer {
            let row = |k: usize| &values[(o * n_old + k) * inner..][..inner];
            for block in 0..blocks {
                let first = block * self.n_old;
                let mean =
                    |i: usize| (0..self.n_old).map(|k| f64::from(row(first + k)[i])).sum::<f64>() / self.n_old as f64;
                let mean: Vec<f32> = (0..inner).map(|i| mean(i) as f32).collect();
                for old in &self.old_of_new {
                    out.extend_from_slice(old.map_or(&mean, |k| row(first + k)));
                }
            }
            (0..tail).for_each(|k| out.extend_from_slice(row(blocks * self.n_old + k)));
        }
        shape[axis] = n_new;
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(genes: &[&str]) -> Vec<String> {
        genes.iter().map(|g| (*g).to_owned()).collect()
    }

    #[test]
    fn known_genes_keep_their_rows_new_ones_begin_at_the_mean_and_what_is_no_gene_stays() {
        let genes = Genes { n_old: 2, old_of_new: vec![Some(1), None, Some(0)] };
        let mut shape = [5, 2];
        let rows = [[1., 2.], [3., 6.], [10., 20.], [30., 60.], [7., 8.]];
        let out = genes.onto(rows.as_flattened(), &mut shape, GeneAxis { axis: 0, blocks: 2 }).unwrap();
        let expected = [[3., 6.], [2., 4.], [1., 2.], [30., 60.], [20., 40.], [10., 20.], [7., 8.]];
        assert_eq!((shape, &out[..]), ([7, 2], expected.as_flattened()));
        let mut shape = [2, 2];
        let out = genes.onto(&[1., 2., 3., 4.], &mut shape, GeneAxis { axis: 1, blocks: 1 }).unwrap();
        assert_eq!((shape, out), ([2, 3], vec![2., 1.5, 1., 4., 3.5, 3.]));
        assert_eq!(genes.onto(&[1.], &mut [1, 1], GeneAxis { axis: 0, blocks: 1 }), None);
    }

    #[test]
    fn the_ledger_names_every_gene_once() {
        let ledger = Ledger::of_genes(&names(&["a", "b", "c"]), &names(&["c", "d", "a"]));
        assert_eq!((&ledger.kept, &ledger.new, &ledger.lost), (&names(&["c", "a"]), &names(&["d"]), &names(&["b"])));
        assert!(
            ledger.in_words().starts_with("genes: 2 kept, 1 new, 1 lost; new: d; lost: b"),
            "{}",
            ledger.in_words()
        );
    }
}
