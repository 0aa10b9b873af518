//! A model's parameters in two parts: those that train, and those that stay as they are (`train.freeze`). What trains is
//! numbered by itself, so that frozen parts have no gradient, no optimizer state and no place in the reduction.

use std::ops::Range;

use crate::model::Model;
use crate::model::params::ParamSpec;
use crate::tensor::Device;

/// A model's parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// All, in declaration order.
    pub all: Vec<ParamSpec>,
    /// Of each whether it trains.
    pub trains: Vec<bool>,
    /// Those that train, with their places in training's flat buffers.
    pub trained: Vec<ParamSpec>,
    /// The same places alone.
    pub tensors: Vec<Range<usize>>,
}

impl Parts {
    /// `freeze`: the first words of dotted paths: `niche` holds `niche.blocks.0.qkv.weight`.
    ///
    /// # Errors
    /// In words: a beginning that no parameter has; nothing left to train.
    pub fn new(all: Vec<ParamSpec>, freeze: &[String]) -> Result<Parts, String> {
        let begins = |path: &str, with: &str| {
            path.strip_prefix(with).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if let Some(unknown) = freeze.iter().find(|with| !all.iter().any(|spec| begins(&spec.path, with))) {
            let mut parts: Vec<&str> = all.iter().filter_map(|spec| spec.path.split('.').next()).collect();
            parts.dedup();
            return Err(format!(
                "train.freeze: no parameter begins with \"{unknown}\"; the model's parts are {}",
                parts.join(", ")
            ));
        }
        let trains: Vec<bool> = all.iter().map(|spec| !freeze.iter().any(|with| begins(&spec.path, with))).collect();
        let mut trained: Vec<ParamSpec> = Vec::new();
        for spec in all.iter().zip(&trains).filter_map(|(spec, &trains)| trains.then_some(spec)) {
            let offset = trained.last().map_or(0, |last| last.range().end);
            trained.push(ParamSpec { offset, ..spec.clone() });
        }
        if trained.is_empty() {
            return Err(format!("train.freeze = {freeze:?} leaves nothing to train"));
        }
        let tensors = trained.iter().map(ParamSpec::range).collect();
        Ok(Parts { all, trains, trained, tensors })
    }

    /// All parameters, cut into (trained, frozen), each in declaration order.
    pub fn split(&self, flat: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (mut trained, mut frozen) = (Vec::new(), Vec::new());
        for (spec, &trains) in self.all.iter().zip(&self.trains) {
            if trains { &mut trained } else { &mut frozen }.extend_from_slice(&flat[spec.range()]);
        }
        (trained, frozen)
    }

    /// What [`Parts::split`] cut.
    pub fn join<'a>(&self, mut trained: &'a [f32], mut frozen: &'a [f32]) -> Vec<f32> {
        let mut flat = Vec::with_capacity(trained.len() + frozen.len());
        for (spec, &trains) in self.all.iter().zip(&self.trains) {
            let part = if trains { &mut trained } else { &mut frozen };
            let (values, rest) = part.split_at(spec.len());
            flat.extend_from_slice(values);
            *part = rest;
        }
        flat
    }

    /// The model with leaves of its own for all parameters, of which the trained ones ask for gradients.
    pub fn model(&self, model: &Model, trained: &[f32], frozen: &[f32], device: &Device) -> Model {
        model.clone().from_flat(&self.join(trained, frozen), device).freeze(&self.trains)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(freeze: &[&str]) -> Result<Parts, String> {
        let sizes = [("cell.a.weight", 2), ("cell.b", 1), ("cells", 3), ("niche.a", 2)];
        let mut offset = 0;
        let spec = |(path, n): (&str, usize)| {
            offset += n;
            ParamSpec { path: path.to_owned(), shape: vec![n], offset: offset - n }
        };
        let all = sizes.map(spec).to_vec();
        Parts::new(all, &freeze.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn frozen_parameters_have_no_place_among_those_that_train_and_come_back_where_they_were() {
        let parts = parts(&["cell"]).unwrap();
        assert_eq!(parts.trains, [false, false, true, true]);
        assert_eq!(parts.tensors, [0..3, 3..5]);
        let flat: Vec<f32> = (0..8u8).map(f32::from).collect();
        let (trained, frozen) = parts.split(&flat);
        assert_eq!((&trained[..], &frozen[..]), (&flat[3..], &flat[..3]));
        assert_eq!(parts.join(&trained, &frozen), flat);
    }

    #[test]
    fn a_part_that_is_not_there_is_named_with_those_that_are() {
        let error = parts(&["cel"]).unwrap_err();
        assert!(error.contains("\"cel\"") && error.contains("cell, cells, niche"), "{error}");
        assert!(parts(&["cell", "cells", "niche"]).unwrap_err().contains("nothing to train"));
    }
}
