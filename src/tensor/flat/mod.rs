//! What training keeps of a model, flat and where the model is: sums of gradients, parameters, Adam's moments, the average.
//!
//! On a GPU each of these is one pass of a kernel of ours over memory (`tensor::cube::flat`); what the host learns of a lane are three numbers
//! a tensor, read when all lanes are done. The cores have the same operations (`elementwise`), so that a test on any machine says what
//! the kernels must say. All change their first argument where it lies: whoever else holds that memory sees the change.

mod lend;

use std::ops::Range;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

pub use self::lend::{Lendable, Lent};
use super::cause;
use super::values::slice;
use crate::elementwise::adamw::{self, Constants};
use crate::elementwise::{average, fixed_point};

/// Units that share a sum of squares; the host adds up their parts in order.
pub(super) const PARTS: usize = 1 << 14;

/// Where a tensor lies among flat values, and its fixed point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fixed {
    /// Its first value.
    pub at: usize,
    /// Which row of the facts is its.
    pub row: usize,
    /// e: a value counts 2^e.
    pub shift: i32,
    /// Lanes of a step: a lane's largest value may take 2⁶² / lanes.
    pub lanes: usize,
}

/// The operations on a backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub trait Flat: Backend {
    /// Facts `[rows, 2]`, of this row: the bits of the largest |g|, and how many are not finite; and, `[rows]`, that it was looked at.
    fn flat_look(
        facts: IntTensor<Self>,
        looked: IntTensor<Self>,
        gradient: FloatTensor<Self>,
        row: usize,
    ) -> (IntTensor<Self>, IntTensor<Self>);
    /// Sums with the gradient's fixed point added, if by its facts it is finite and has room.
    fn flat_add_fixed(
        sums: IntTensor<Self>,
        gradient: FloatTensor<Self>,
        facts: IntTensor<Self>,
        place: Fixed,
    ) -> IntTensor<Self>;
    /// Sums with the gradient added from `at` on.
    fn flat_add(sums: FloatTensor<Self>, gradient: FloatTensor<Self>, at: usize) -> FloatTensor<Self>;
    /// The gradient with f32(f64(Σq) · 2^−e) in the values `to`, of the sums from `from` on.
    fn flat_from_fixed(
        gradient: FloatTensor<Self>,
        sums: IntTensor<Self>,
        from: usize,
        to: Range<usize>,
        shift: i32,
    ) -> FloatTensor<Self>;
    /// Σ g² in f64, in as many parts as `parts` has values.
    fn flat_squares(parts: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;
    /// Parameters, and moments in one `[2, n]`, after an update.
    fn flat_adamw(
        parameters: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        by: Constants,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// keep · average + take · parameters.
    fn flat_average(
        average: FloatTensor<Self>,
        parameters: FloatTensor<Self>,
        keep: f32,
        take: f32,
    ) -> FloatTensor<Self>;
}

/// What gradients look like, a row each.
///
/// A kernel that a device cannot run (no memory for what it reads, no way to compile what made that) is left out, and who reads what it
/// would have written is told. But Burn does not see what a kernel writes by atomics: the facts of a gradient that was never made would be
/// those of zeros, and a run would train nothing. So each look also leaves a plain mark, and [`Facts::read`] wants every one.
pub struct Facts {
    facts: Tensor<1, Int>,
    looked: Tensor<1, Int>,
    rows: Vec<usize>,
}

impl Facts {
    /// Of `rows` gradients that were not looked at.
    pub fn none(rows: usize, device: &Device) -> Facts {
        let zeros = |n| Tensor::zeros([n], (device, DType::U32));
        Facts { facts: zeros(2 * rows), looked: zeros(rows), rows: Vec::new() }
    }

    /// Looks at a gradient: what `row` is then.
    pub fn look(self, gradient: Tensor<1>, row: usize) -> Facts {
        let (facts, looked) = (self.facts.into_dispatch(), self.looked.into_dispatch());
        let (facts, looked) = <Dispatch as Flat>::flat_look(facts, looked, gradient.into_dispatch(), row);
        let mut rows = self.rows;
        rows.push(row);
        Facts { facts: Tensor::from_dispatch(facts), looked: Tensor::from_dispatch(looked), rows }
    }

    /// `(bits of the largest |g|, how many are not finite)` of each row; zeros of those that were not looked at.
    ///
    /// # Errors
    /// Why a gradient that was looked at was not made, in the device's words.
    pub fn read(self) -> Result<Vec<(u32, u64)>, String> {
        let read = |tensor: Tensor<1, Int>| {
            let data = tensor.try_into_data().map_err(|error| cause(&error.to_string()))?;
            Ok::<_, String>(data.try_to_vec::<u32>().expect("facts were made of u32"))
        };
        let looked = read(self.looked)?;
        if self.rows.iter().any(|&row| looked[row] == 0) {
            return Err("it left out the kernel that looks at a gradient, and said nothing".to_owned());
        }
        Ok(read(self.facts)?.chunks_exact(2).map(|pair| (pair[0], u64::from(pair[1]))).collect())
    }
}

/// Sums of fixed point, zero.
pub fn no_sums(n: usize, device: &Device) -> Tensor<1, Int> {
    Tensor::zeros([n], (device, DType::I64))
}

/// Sums of fixed point of the host.
pub fn sums(words: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let n = words.len();
    Tensor::from_data(TensorData::new(words, [n]), (device, DType::I64))
}

/// Zeros of f32.
pub fn zeros(n: usize, device: &Device) -> Tensor<1> {
    Tensor::zeros([n], (device, DType::F32))
}

/// Values of the host.
pub fn values(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

/// Adds a gradient's fixed point; nothing where by its facts it is not finite or leaves its room.
pub fn add_fixed(sums: Tensor<1, Int>, gradient: Tensor<1>, facts: &Facts, place: Fixed) -> Tensor<1, Int> {
    let (sums, gradient, facts) = (sums.into_dispatch(), gradient.into_dispatch(), facts.facts.clone().into_dispatch());
    Tensor::from_dispatch(<Dispatch as Flat>::flat_add_fixed(sums, gradient, facts, place))
}

/// Adds a gradient in f32.
pub fn add(sums: Tensor<1>, gradient: Tensor<1>, at: usize) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as Flat>::flat_add(sums.into_dispatch(), gradient.into_dispatch(), at))
}

/// Writes a tensor's gradient to its place from its sums, which begin at `from`.
pub fn from_fixed(gradient: Tensor<1>, sums: &Tensor<1, Int>, from: usize, to: Range<usize>, shift: i32) -> Tensor<1> {
    let (gradient, sums) = (gradient.into_dispatch(), sums.clone().into_dispatch());
    Tensor::from_dispatch(<Dispatch as Flat>::flat_from_fixed(gradient, sums, from, to, shift))
}

/// Euclidean norm, in f64. Its order is the device's own and the same each time.
pub fn norm(gradient: &Tensor<1>) -> f64 {
    let parts = Tensor::<1>::zeros([PARTS], (&gradient.device(), DType::F64));
    let parts = <Dispatch as Flat>::flat_squares(parts.into_dispatch(), gradient.clone().into_dispatch());
    let parts = Tensor::<1>::from_dispatch(parts).into_data();
    let parts = parts.try_to_vec::<f64>().expect("parts were made of f64");
    libm::sqrt(parts.into_iter().sum())
}

/// One update: parameters, moments (the first of all, then the second of all).
pub fn adamw(parameters: Tensor<1>, moments: Tensor<1>, gradient: &Tensor<1>, by: Constants) -> (Tensor<1>, Tensor<1>) {
    let gradient = gradient.clone().into_dispatch();
    let (parameters, moments) =
        <Dispatch as Flat>::flat_adamw(parameters.into_dispatch(), moments.into_dispatch(), gradient, by);
    (Tensor::from_dispatch(parameters), Tensor::from_dispatch(moments))
}

/// The average after the parameters have moved.
pub fn average(average: Tensor<1>, parameters: &Tensor<1>, keep: f32, take: f32) -> Tensor<1> {
    let (average, parameters) = (average.into_dispatch(), parameters.clone().into_dispatch());
    Tensor::from_dispatch(<Dispatch as Flat>::flat_average(average, parameters, keep, take))
}

/// The cores' own.
impl Flat for Flex {
    fn flat_look(
        mut facts: IntTensor<Flex>,
        mut looked: IntTensor<Flex>,
        gradient: FloatTensor<Flex>,
        row: usize,
    ) -> (IntTensor<Flex>, IntTensor<Flex>) {
        let seen = fixed_point::scan(slice(&gradient.to_contiguous()));
        let of_row = &mut facts.storage_mut::<u32>()[2 * row..][..2];
        of_row[0] = of_row[0].max(seen.max_bits);
        of_row[1] += seen.non_finite as u32;
        looked.storage_mut::<u32>()[row] = 1;
        (facts, looked)
    }

    fn flat_add_fixed(
        mut sums: IntTensor<Flex>,
        gradient: FloatTensor<Flex>,
        facts: IntTensor<Flex>,
        Fixed { at, row, shift, lanes }: Fixed,
    ) -> IntTensor<Flex> {
        let facts = &facts.storage::<u32>()[2 * row..][..2];
        if facts[1] == 0 && !fixed_point::overflows(facts[0], shift, lanes) {
            let gradient = gradient.to_contiguous();
            fixed_point::quantise_add(slice(&gradient), shift, &mut sums.storage_mut::<i64>()[at..]);
        }
        sums
    }

    fn flat_add(mut sums: FloatTensor<Flex>, gradient: FloatTensor<Flex>, at: usize) -> FloatTensor<Flex> {
        let gradient = gradient.to_contiguous();
        let sum = sums.storage_mut::<f32>()[at..].iter_mut();
        sum.zip(slice(&gradient)).for_each(|(sum, g)| *sum += g);
        sums
    }

    fn flat_from_fixed(
        mut gradient: FloatTensor<Flex>,
        sums: IntTensor<Flex>,
        from: usize,
        to: Range<usize>,
        shift: i32,
    ) -> FloatTensor<Flex> {
        let sums = &sums.storage::<i64>()[from..][..to.len()];
        fixed_point::dequantise(sums, shift, &mut gradient.storage_mut::<f32>()[to]);
        gradient
    }

    fn flat_squares(mut parts: FloatTensor<Flex>, gradient: FloatTensor<Flex>) -> FloatTensor<Flex> {
        let parts_of = parts.storage_mut::<f64>();
        for (i, &g) in slice(&gradient).iter().enumerate() {
            parts_of[i % PARTS] += f64::from(g) * f64::from(g);
        }
        parts
    }

    fn flat_adamw(
        mut parameters: FloatTensor<Flex>,
        mut moments: FloatTensor<Flex>,
        gradient: FloatTensor<Flex>,
        by: Constants,
    ) -> (FloatTensor<Flex>, FloatTensor<Flex>) {
        let p = parameters.storage_mut::<f32>();
        let (m, v) = moments.storage_mut::<f32>().split_at_mut(p.len());
        adamw::update(&by, slice(&gradient), p, m, v);
        (parameters, moments)
    }

    fn flat_average(
        mut average: FloatTensor<Flex>,
        parameters: FloatTensor<Flex>,
        keep: f32,
        take: f32,
    ) -> FloatTensor<Flex> {
        average::mix(average.storage_mut::<f32>(), slice(&parameters), keep, take);
        average
    }
}

#[cfg(test)]
mod tests;
