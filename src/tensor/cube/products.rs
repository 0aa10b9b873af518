//! Products on a GPU by a kernel that is a function of their kind of numbers and their shape, not of a timing: true f32 without
//! tensor cores, or what tensor cores take.

use std::sync::Once;

use burn::backend::{Cube, TensorMetadata, ops::FloatTensorOps, tensor::FloatTensor};
use burn::tensor::{DType, Shape, bf16};
use cubecl::prelude::*;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level;
use cubek::matmul::strategy::Strategy;
use cubek::std::InputBinding;

use super::launch::whole;
use super::{down, reshaped, sums, up};
use crate::tensor::Tensor;
use crate::tensor::affine::weight_gradient;
use crate::tensor::matmul::{Products, tf32_is_allowed};

impl Products for Cube {
    fn product(lhs: FloatTensor<Cube>, rhs: FloatTensor<Cube>) -> FloatTensor<Cube> {
        let (before, after) = (lhs.shape(), rhs.shape());
        let empty = before.num_elements() == 0 || after.num_elements() == 0;
        let of_tensor_cores = tf32_is_allowed() || lhs.dtype() != DType::F32;
        if empty || (of_tensor_cores && cfg!(feature = "tuned")) {
            return <Cube as FloatTensorOps<Cube>>::float_matmul(lhs, rhs);
        }
        let by_kernel = |lhs: &FloatTensor<Cube>, rhs: &FloatTensor<Cube>| {
            if of_tensor_cores { by_tensor_cores(lhs, rhs) } else { true_f32(lhs, rhs) }
        };
        // What no kernel takes as it lies, one takes in a piece; Burn's choice would be tensor cores.
        let product = by_kernel(&lhs, &rhs).or_else(|| by_kernel(&in_order(lhs), &in_order(rhs)));
        product.unwrap_or_else(|| panic!("no kernel of this device takes a product {before:?} · {after:?}"))
    }
}

/// Rows of a part, at least: fewer are no work for a cube.
const PART: usize = 256;
/// Cubes that are wanted, and values along a side of what one makes (64 or 128, by kernel).
const WANTED: usize = 256;
const SIDE: usize = 64;

/// Into how many parts rows are cut.
fn parts(rows: usize, n_out: usize, n_in: usize) -> usize {
    let cubes = (n_out.div_ceil(SIDE) * n_in.div_ceil(SIDE)).max(1);
    (WANTED / cubes).min(rows / PART).min(sums::ROWS)
}

/// gradientᵀ · x, where rows are many and what comes of them is small: rows are cut into parts by their shape alone, whose products
/// run side by side and are added up in order, in f32 (each of bf16 was rounded to it, as a whole would be). No kernel cuts them by itself, so that one cube would go through all rows.
pub fn over_rows(gradient: FloatTensor<Cube>, x: FloatTensor<Cube>) -> FloatTensor<Cube> {
    let (rows, n_out, n_in) = (gradient.shape()[0], gradient.shape()[1], x.shape()[1]);
    let parts = parts(rows, n_out, n_in);
    if parts < 2 {
        return weight_gradient::<Cube>(gradient, x);
    }
    let (each, wide) = (rows / parts, gradient.dtype());
    let whole = parts * each;
    let (gradient, x): (Tensor<2>, Tensor<2>) = (up(gradient), up(x));
    let cut = |t: &Tensor<2>| t.clone().narrow(0, 0, whole).reshape([parts, each, t.dims()[1]]);
    let by = cut(&gradient).cast(x.dtype()).swap_dims(1, 2);
    let products = Cube::product(down(by), down(cut(&x)));
    let sum = sums::of_rows(products, 1, n_out * n_in).expect("products are f32 or bf16");
    let sum = up::<2>(reshaped(sum, [n_out, n_in])).cast(wide);
    if whole == rows {
        return down(sum);
    }
    let rest = |t: Tensor<2>| down(t.narrow(0, whole, rows - whole));
    down(sum + up(weight_gradient::<Cube>(rest(gradient), rest(x))))
}

/// Its values one after the other.
fn in_order(x: FloatTensor<Cube>) -> FloatTensor<Cube> {
    let shape = x.shape();
    reshaped(whole(x), shape)
}

/// None where no kernel takes such a shape.
fn true_f32(lhs: &FloatTensor<Cube>, rhs: &FloatTensor<Cube>) -> Option<FloatTensor<Cube>> {
    let kernels = [multi_level::Strategy::SimpleUnit(Default::default()), multi_level::Strategy::Naive];
    first_of(kernels, lhs, rhs).map(|(_, product)| product)
}

/// f32 as TF32, bf16 as it is; without tensor cores where a device or a shape has none.
fn by_tensor_cores(lhs: &FloatTensor<Cube>, rhs: &FloatTensor<Cube>) -> Option<FloatTensor<Cube>> {
    let kernels = [
        multi_level::Strategy::SimpleCyclicCmma(Default::default()),
        multi_level::Strategy::SimpleUnit(Default::default()),
        multi_level::Strategy::Naive,
    ];
    let (at, product) = first_of(kernels, lhs, rhs)?;
    if at > 0 {
        static SAID: Once = Once::new();
        let (lhs, rhs) = (lhs.shape(), rhs.shape());
        SAID.call_once(|| {
            tracing::warn!("no tensor cores for a product {lhs:?} · {rhs:?}, and perhaps for others: slower, not wrong")
        });
    }
    Some(product)
}

/// The first that takes such a shape, and which it was.
fn first_of<const N: usize>(
    kernels: [multi_level::Strategy; N],
    lhs: &FloatTensor<Cube>,
    rhs: &FloatTensor<Cube>,
) -> Option<(usize, FloatTensor<Cube>)> {
    let mut shape = lhs.shape();
    let last = shape.num_dims() - 1;
    shape[last] = rhs.shape()[last];
    kernels.into_iter().enumerate().find_map(|(at, kernel)| Some((at, by(kernel, lhs, rhs, shape.clone())?)))
}

fn by(
    kernel: multi_level::Strategy,
    lhs: &FloatTensor<Cube>,
    rhs: &FloatTensor<Cube>,
    shape: Shape,
) -> Option<FloatTensor<Cube>> {
    let dtype = lhs.dtype();
    let numbers = match dtype {
        DType::F32 => f32::elem_type_native(),
        DType::BF16 => bf16::elem_type_native(),
        _ => return None,
    };
    let out = <Cube as FloatTensorOps<Cube>>::float_empty(shape, &lhs.device, dtype.into());
    let mut elements = MatmulElems::from_globals(&MatmulGlobalElems { lhs: numbers, rhs: numbers, out: numbers });
    let [left, right] = [lhs, rhs].map(|factor| InputBinding::new(factor.clone().binding(), numbers));
    let done =
        launch_ref(&Strategy::MultiLevel(kernel), &lhs.client, left, right, out.clone().binding(), &mut elements);
    done.ok().map(|()| out)
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    /// Every layout that a model's products have: whole, turned, one row, one column, a batch, long sums. Whole numbers, so that every
    /// order of sums has the same value.
    #[test]
    fn a_kernel_of_true_f32_takes_every_shape_and_layout() {
        let (device, name) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        let made = |shape: [usize; 3], turned: bool| {
            let n = shape.iter().product();
            let values: Vec<f32> = (0..n).map(|i: usize| (i * 7 % 11) as f32 - 5.0).collect();
            let stored = if turned { [shape[0], shape[2], shape[1]] } else { shape };
            let of = |device: &_| Tensor::<3>::from_data(TensorData::new(values.clone(), stored), device);
            let turn = |x: Tensor<3>| if turned { x.swap_dims(1, 2) } else { x };
            (turn(of(&crate::tensor::cpu())), turn(of(&device)))
        };
        for [b, n, k, m] in
            [[1, 1, 1, 1], [1, 1, 128, 128], [2, 64, 1, 5], [3, 70, 40, 33], [1, 19, 512, 1], [8, 19, 16, 19]]
        {
            for turned in [[false, false], [true, false], [false, true], [true, true]] {
                let ((lhs, lhs_there), (rhs, rhs_there)) = (made([b, n, k], turned[0]), made([b, k, m], turned[1]));
                let (lhs_there, rhs_there) = (down(lhs_there), down(rhs_there));
                let here = lhs.matmul(rhs).into_data().try_to_vec::<f32>().unwrap();
                // The second without tensor cores, which a device in software has none of: the way past a kernel that does not fit.
                for product in [true_f32(&lhs_there, &rhs_there), by_tensor_cores(&lhs_there, &rhs_there)] {
                    let product = product.unwrap_or_else(|| panic!("{name}: none for {b} × {n} × {k} × {m}"));
                    let there = up::<3>(product).into_data().try_to_vec::<f32>().unwrap();
                    assert_eq!(there, here, "{b} × {n} × {k} × {m}, turned: {turned:?}");
                }
            }
        }
    }

    #[test]
    fn rows_are_cut_where_they_are_many_and_what_comes_of_them_is_small() {
        assert_eq!(parts(16_000, 128, 128), 62, "every part has 256 rows or more");
        assert_eq!(parts(1 << 20, 128, 128), 64, "as many as make 256 cubes");
        assert_eq!(parts(1 << 20, 1, 1), sums::ROWS, "as many as one unit adds up");
        assert!(parts(1 << 20, 1024, 1024) < 2 && parts(511, 8, 8) < 2, "cubes enough, or rows too few");
    }

    /// The sums of whole numbers are the same in any order; of these their parts are seen.
    #[test]
    fn a_weights_gradient_is_the_sum_of_its_parts_in_order() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        let (rows, n) = (1024, 3);
        let values =
            |of: f32| (0..rows * n).map(|i| (of * i as f32).sin() * 2f32.powi(i as i32 % 9)).collect::<Vec<_>>();
        let made = |of: f32| Tensor::<2>::from_data(TensorData::new(values(of), [rows, n]), &device);
        let (gradient, x) = (made(1.37), made(0.71));
        let read = |x: Tensor<2>| x.into_data().try_to_vec::<f32>().unwrap();
        let part = |at: usize| {
            let [gradient, x] = [&gradient, &x].map(|t| down(t.clone().narrow(0, at * PART, PART)));
            read(up(weight_gradient::<Cube>(gradient, x)))
        };
        let sum = (0..rows / PART).map(part).reduce(|a, b| a.iter().zip(&b).map(|(a, b)| a + b).collect()).unwrap();
        assert_eq!(read(up(over_rows(down(gradient.clone()), down(x.clone())))), sum);
        assert_ne!(read(up(weight_gradient::<Cube>(down(gradient), down(x)))), sum, "one product of all rows");
    }

    #[test]
    fn what_is_turned_is_put_in_order() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        let values: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let turned = Tensor::<2>::from_data(TensorData::new(values, [3, 4]), &device).transpose();
        let in_order = in_order(down(turned.clone()));
        assert!(in_order.is_contiguous());
        let [a, b] = [turned, up(in_order)].map(|x| x.into_data().try_to_vec::<f32>().unwrap());
        assert_eq!(a, b);
    }

    #[test]
    fn products_over_many_rows_are_the_sums_of_their_parts() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        // No part, parts that take all rows, and some that leave a few.
        for (rows, n_out, n_in) in [(200, 3, 5), (1024, 70, 65), (1003, 7, 130), (600, 1, 1)] {
            let values = |n: usize| (0..n).map(|i: usize| (i * 7 % 11) as f32 - 5.0).collect::<Vec<f32>>();
            let of =
                |n: usize, device: &_| Tensor::<2>::from_data(TensorData::new(values(rows * n), [rows, n]), device);
            let cores = of(n_out, &crate::tensor::cpu()).transpose().matmul(of(n_in, &crate::tensor::cpu()));
            let cores = cores.into_data().try_to_vec::<f32>().unwrap();
            // Rows further apart than they are wide, as CUDA lays them.
            let apart = |x: Tensor<2>| {
                let [rows, n] = x.dims();
                Tensor::cat(vec![x, Tensor::full([rows, 3], f32::NAN, &device)], 1).narrow(1, 0, n)
            };
            let (gradient, x) = (of(n_out, &device), of(n_in, &device));
            for (gradient, x) in [(gradient.clone(), x.clone()), (apart(gradient), apart(x))] {
                let there: Tensor<2> = up(over_rows(down(gradient), down(x)));
                assert_eq!(there.into_data().try_to_vec::<f32>().unwrap(), cores, "{rows} rows, {n_out} × {n_in}");
            }
        }
    }

    /// Rows with others' values between them, as CUDA pads them.
    #[test]
    fn rows_that_are_further_apart_than_they_are_wide_are_read_as_rows() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        let values: Vec<f32> = (0..20 * 128).map(|i: usize| (i * 7 % 11) as f32 - 5.0).collect();
        let of =
            |device: &_| Tensor::<2>::from_data(TensorData::new(values.clone(), [20, 128]), device).narrow(1, 0, 64);
        let there = down(of(&device));
        assert!(!there.is_contiguous(), "the cut is a view");
        let product: Tensor<2> = up(true_f32(&there, &down(of(&device).transpose())).expect("a kernel"));
        let cores = of(&crate::tensor::cpu());
        let [a, b] =
            [product, cores.clone().matmul(cores.transpose())].map(|x| x.into_data().try_to_vec::<f32>().unwrap());
        assert_eq!(a, b);
    }
}
