//! Rows of a sequence averaged into fewer, and copied back: the two ends of token merging, each the other's backward.
//!
//! Which row goes where is a constant of the host; values flow through. One pass over the rows: gather and scatter-add of
//! Burn would take an index per element.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::{Tensor, TensorData};

/// Where each row of a long sequence goes in a short one, record by record.
#[derive(Debug, Clone, PartialEq)]
pub struct RowMap {
    n_long: usize,
    n_short: usize,
    /// `[b, n_long]`: place in the short sequence.
    short_of: Vec<u32>,
    /// `[b, n_short]`: 1 / how many rows went there.
    share: Vec<f32>,
}

impl RowMap {
    /// `short_of`: `[b, n_long]`, places below `n_short`; every place must be taken by some row of each record.
    pub fn new(n_long: usize, n_short: usize, short_of: Vec<u32>) -> RowMap {
        assert!(n_long > 0 && short_of.len().is_multiple_of(n_long), "whole records of {n_long} rows");
        let mut counts = vec![0u32; short_of.len() / n_long * n_short];
        for (long, counts) in short_of.chunks(n_long).zip(counts.chunks_mut(n_short)) {
            long.iter().for_each(|&short| counts[short as usize] += 1);
        }
        assert!(!counts.contains(&0), "a place of the short sequence that no row goes to has no mean");
        RowMap { n_long, n_short, short_of, share: counts.into_iter().map(|n| 1.0 / n as f32).collect() }
    }

    /// Rows of the short sequence.
    pub fn n_short(&self) -> usize {
        self.n_short
    }

    /// `[b, n_long]`: place in the short sequence.
    pub fn short_of(&self) -> &[u32] {
        &self.short_of
    }

    /// `[b, n_short]`: 1 / how many rows went there.
    pub(super) fn share(&self) -> &[f32] {
        &self.share
    }

    fn records(&self) -> usize {
        self.short_of.len() / self.n_long
    }

    /// `[b, n_long, d]` → `[b, n_short, d]`: sums in the order of the rows, or means.
    fn sum(&self, x: &[f32], d: usize, mean: bool) -> Vec<f32> {
        let mut out = vec![0.0; self.records() * self.n_short * d];
        for (record, long) in self.short_of.chunks(self.n_long).enumerate() {
            let (x, out) = (&x[record * self.n_long * d..], &mut out[record * self.n_short * d..]);
            for (row, &short) in x.chunks_exact(d).zip(long) {
                let out = &mut out[short as usize * d..][..d];
                out.iter_mut().zip(row).for_each(|(o, x)| *o += x);
            }
        }
        if mean {
            scale_rows(&mut out, d, &self.share);
        }
        out
    }

    /// `[b, n_short, d]` → `[b, n_long, d]`: each row a copy of its place, or of its share of it.
    fn copy(&self, y: &[f32], d: usize, mean: bool) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.short_of.len() * d);
        for (record, long) in self.short_of.chunks(self.n_long).enumerate() {
            for &short in long {
                let place = record * self.n_short + short as usize;
                let row = &y[place * d..][..d];
                match self.share[place] {
                    share if mean && share != 1.0 => out.extend(row.iter().map(|y| y * share)),
                    _ => out.extend_from_slice(row),
                }
            }
        }
        out
    }
}

fn scale_rows(rows: &mut [f32], d: usize, by: &[f32]) {
    for (row, &by) in rows.chunks_exact_mut(d).zip(by) {
        if by != 1.0 {
            row.iter_mut().for_each(|x| *x *= by);
        }
    }
}

/// The two on a backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub trait Rows: Backend {
    /// See [`sum_rows`]; with `mean` [`average_rows`].
    fn sum_rows(x: FloatTensor<Self>, map: Arc<RowMap>, mean: bool) -> FloatTensor<Self>;

    /// See [`copy_rows`]; with `mean` each row has its share only.
    fn spread_rows(y: FloatTensor<Self>, map: Arc<RowMap>, mean: bool) -> FloatTensor<Self>;
}

impl Rows for Flex {
    fn sum_rows(x: FloatTensor<Self>, map: Arc<RowMap>, mean: bool) -> FloatTensor<Self> {
        through(&x, map.n_short, |x, d| map.sum(x, d, mean))
    }

    fn spread_rows(y: FloatTensor<Self>, map: Arc<RowMap>, mean: bool) -> FloatTensor<Self> {
        through(&y, map.n_long, |y, d| map.copy(y, d, mean))
    }
}

/// `f` on the values of `[b, _, d]`, giving `[b, n, d]`.
fn through(x: &FloatTensor<Flex>, n: usize, f: impl Fn(&[f32], usize) -> Vec<f32>) -> FloatTensor<Flex> {
    let x = x.to_contiguous();
    let dims = x.layout().shape().to_vec();
    let values = f(x.as_slice().expect("contiguous f32"), dims[2]);
    FloatTensor::<Flex>::from_data(TensorData::new(values, [dims[0], n, dims[2]]))
}

impl<B: Backend + Rows, C: CheckpointStrategy> Rows for Autodiff<B, C> {
    fn sum_rows(x: FloatTensor<Self>, map: Arc<RowMap>, mean: bool) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct SumRows;
        impl<B: Backend + Rows> Backward<B, 1> for SumRows {
            type State = (Arc<RowMap>, bool);

            fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let (map, mean) = ops.state;
                unary::<B, _>(ops.parents, ops.node, gradients, |gradient| B::spread_rows(gradient, map, mean));
            }
        }
        match SumRows.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                prepared.finish((Arc::clone(&map), mean), B::sum_rows(x.into_primitive(), map, mean))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::sum_rows(x.into_primitive(), map, mean)),
        }
    }

    fn spread_rows(y: FloatTensor<Self>, map: Arc<RowMap>, mean: bool) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct SpreadRows;
        impl<B: Backend + Rows> Backward<B, 1> for SpreadRows {
            type State = (Arc<RowMap>, bool);

            fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let (map, mean) = ops.state;
                unary::<B, _>(ops.parents, ops.node, gradients, |gradient| B::sum_rows(gradient, map, mean));
            }
        }
        match SpreadRows.prepare::<C>([y.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                prepared.finish((Arc::clone(&map), mean), B::spread_rows(y.into_primitive(), map, mean))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::spread_rows(y.into_primitive(), map, mean)),
        }
    }
}

/// `[b, n_long, d]` → `[b, n_short, d]`: the sum of the rows that go to a place, in their order.
pub fn sum_rows(x: Tensor<3>, map: &Arc<RowMap>) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as Rows>::sum_rows(x.into_dispatch(), Arc::clone(map), false))
}

/// `[b, n_long, d]` → `[b, n_short, d]`: the plain mean of the rows that go to a place.
pub fn average_rows(x: Tensor<3>, map: &Arc<RowMap>) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as Rows>::sum_rows(x.into_dispatch(), Arc::clone(map), true))
}

/// `[b, n_short, d]` → `[b, n_long, d]`: every row a copy of the place it went to.
pub fn copy_rows(y: Tensor<3>, map: &Arc<RowMap>) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as Rows>::spread_rows(y.into_dispatch(), Arc::clone(map), false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::cpu;

    fn leaf(values: &[f32], shape: [usize; 3]) -> Tensor<3> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &cpu().autodiff()).require_grad()
    }

    fn values(x: Tensor<3>) -> Vec<f32> {
        x.into_data().try_to_vec().unwrap()
    }

    /// Two records of three rows; in the first rows 0 and 2 share a place, in the second rows 1 and 2.
    fn map() -> Arc<RowMap> {
        Arc::new(RowMap::new(3, 2, vec![1, 0, 1, 0, 1, 1]))
    }

    #[test]
    fn rows_are_averaged_and_copied_back_record_by_record() {
        let x = leaf(&[1., 2., 3., 4., 5., 8., 10., 20., 30., 40., 50., 60.], [2, 3, 2]);
        let short = average_rows(x, &map());
        assert_eq!(values(short.clone()), [3., 4., 3., 5., 10., 20., 40., 50.]);
        assert_eq!(values(copy_rows(short, &map())), [3., 5., 3., 4., 3., 5., 10., 20., 40., 50., 40., 50.]);
    }

    #[test]
    fn gradients_flow_through_the_mean_and_the_copies() {
        let x = leaf(&[1., 2., 3., 4., 5., 8., 10., 20., 30., 40., 50., 60.], [2, 3, 2]);
        let weights = leaf(&[1., 2., 3., 4., 5., 6., 7., 8.], [2, 2, 2]);
        let gradients = (average_rows(x.clone(), &map()) * weights).sum().backward();
        let of_x = x.grad(&gradients).unwrap();
        assert_eq!(values(of_x), [1.5, 2., 1., 2., 1.5, 2., 5., 6., 3.5, 4., 3.5, 4.]);

        let y = leaf(&[1., 2., 3., 4., 5., 6., 7., 8.], [2, 2, 2]);
        let weights = leaf(&[1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12.], [2, 3, 2]);
        let gradients = (copy_rows(y.clone(), &map()) * weights).sum().backward();
        assert_eq!(values(y.grad(&gradients).unwrap()), [3., 4., 6., 8., 7., 8., 20., 22.]);
    }

    #[test]
    #[should_panic(expected = "no row goes to")]
    fn a_place_without_rows_is_refused() {
        RowMap::new(2, 3, vec![0, 1]);
    }
}
