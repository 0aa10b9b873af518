//! What every section must hold, whichever format it came from: unique names, true counts, finite places.

use std::collections::BTreeMap;
use std::path::Path;

use super::counts_window::Window;
use super::error::{IngestError, first_few};
use crate::section::{Csr, Gene};

/// Largest integer below which f32 holds every integer.
const F32_EXACT: f64 = (1u32 << f32::MANTISSA_DIGITS) as f64;

/// Refuses names that occur twice.
pub(super) fn unique<'n>(
    path: &Path,
    what: &'static str,
    names: impl Iterator<Item = &'n str>,
) -> Result<(), IngestError> {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    names.for_each(|name| *times.entry(name).or_default() += 1);
    let twice: Vec<&str> = times.into_iter().filter(|(_, n)| *n > 1).map(|(name, _)| name).collect();
    if twice.is_empty() {
        return Ok(());
    }
    let advice = if what == "gene" { "adata.var_names_make_unique()" } else { "adata.obs_names_make_unique()" };
    Err(IngestError::Duplicate { path: path.into(), what, n: twice.len(), first: first_few(&twice), advice })
}

/// Names for messages about one value of a matrix.
pub(super) struct Named<'a> {
    pub(super) path: &'a Path,
    pub(super) node: &'a str,
    pub(super) obs: &'a [String],
    pub(super) genes: &'a [Gene],
}

/// Leaves out genes that are NaN in every observation: they were not measured.
pub(super) fn measured(window: Window, genes: Vec<Gene>, notes: &mut Vec<String>) -> (Window, Vec<Gene>) {
    let n_obs = window.indptr.len() - 1;
    let mut n_nan = vec![0usize; window.n_vars];
    for (&column, value) in window.indices.iter().zip(&window.values) {
        n_nan[column as usize] += usize::from(value.is_nan());
    }
    let is_left_out = |column: usize| n_obs > 0 && n_nan[column] == n_obs;
    let names: Vec<&str> = (0..genes.len()).filter(|&c| is_left_out(c)).map(|c| genes[c].id.as_str()).collect();
    if names.is_empty() {
        return (window, genes);
    }
    notes.push(format!("{} genes that are NaN in every observation left out: {}", names.len(), names.join(", ")));
    let mut new_of = vec![None; window.n_vars];
    (0..window.n_vars).filter(|&c| !is_left_out(c)).enumerate().for_each(|(new, c)| new_of[c] = Some(new as u32));
    let mut left = Window {
        n_vars: window.n_vars - names.len(),
        indptr: vec![0],
        indices: Vec::new(),
        values: Vec::new(),
        ..window
    };
    for row in window.indptr.windows(2) {
        for k in row[0]..row[1] {
            if let Some(new) = new_of[window.indices[k] as usize] {
                left.indices.push(new);
                left.values.push(window.values[k]);
            }
        }
        left.indptr.push(left.indices.len());
    }
    let genes = genes.into_iter().zip(new_of).filter(|(_, new)| new.is_some()).map(|(gene, _)| gene).collect();
    (left, genes)
}

/// Turns a matrix as read into counts; refuses what no count can be. `declared`: values must be whole numbers.
pub(super) fn counts(
    window: Window,
    declared: bool,
    named: &Named,
    notes: &mut Vec<String>,
) -> Result<Csr, IngestError> {
    let refuse = |k: usize, fact| {
        Err(IngestError::BadCount {
            path: named.path.into(),
            node: named.node.into(),
            value: window.values[k],
            obs: named.obs[window.row_of(k)].clone(),
            gene: named.genes[window.indices[k] as usize].id.clone(),
            fact,
        })
    };
    let mut n_fractional = 0usize;
    let mut n_rounded = 0usize;
    for (k, &value) in window.values.iter().enumerate() {
        if value.is_nan() {
            return refuse(k, "not a number; drop the observation or gene, or mend the matrix");
        }
        if value.is_infinite() {
            return refuse(k, "infinite; mend the matrix");
        }
        if value < 0.0 {
            return refuse(k, "negative; this looks scaled, give raw counts (`input.counts`)");
        }
        if value > f64::from(f32::MAX) {
            return refuse(k, "beyond single precision; mend the matrix");
        }
        if value.fract() != 0.0 {
            if declared {
                return refuse(
                    k,
                    "not an integer where counts were declared; name the matrix of counts with `input.counts`, or set \
                     `input.declared_counts = false`",
                );
            }
            n_fractional += 1;
        } else if value > F32_EXACT {
            n_rounded += 1;
        }
    }
    if n_fractional > 0 {
        notes.push(format!("{n_fractional} values of `{}` are no integers, kept (counts not declared)", named.node));
    }
    if n_rounded > 0 {
        notes.push(format!("{n_rounded} counts of `{}` above 2^24 were rounded to single precision", named.node));
    }
    if window.n_summed > 0 {
        notes.push(format!("{} duplicate entries of `{}` were added up", window.n_summed, named.node));
    }
    Ok(window.into_csr())
}

/// Refuses coordinates that are no numbers.
pub(super) fn finite(path: &Path, obs: &[String], xy: &[[f64; 2]], z: Option<&[f64]>) -> Result<(), IngestError> {
    let bad = |i: usize| !xy[i].iter().chain(z.map(|z| &z[i])).all(|v| v.is_finite());
    match (0..xy.len()).find(|&i| bad(i)) {
        Some(i) => Err(IngestError::BadCoordinate { path: path.into(), obs: obs[i].clone() }),
        None => Ok(()),
    }
}
