//! Layer normalisation on a GPU: one pass forward, three backward. Sums are of f32 whatever the values are, in an order that knows
//! nothing but the width of a row.

use burn::backend::{Cube, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{DType, bf16};
use cubecl::prelude::*;

use super::launch::{UNITS, cubes, units, unwritten, whole};
use super::row::{across, cubes_of_rows, sum_over_row};
use super::sums::{self, ROWS};

/// Mean and 1/√(var + eps) of the row that begins at `from`; of a row that is not there, whatever.
#[cube]
fn moments<F: Float>(
    x: &[F],
    from: usize,
    width: usize,
    there: bool,
    eps: f32,
    meeting: &mut Shared<[f32]>,
    unit: usize,
    #[comptime] across: usize,
) -> (f32, f32) {
    let mut sum = 0.0f32;
    let mut i = unit;
    while there && i < width {
        sum += f32::cast_from(x[from + i]);
        i += across;
    }
    let mean = sum_over_row(sum, meeting, unit, across) / width as f32;
    let mut squares = 0.0f32;
    let mut i = unit;
    while there && i < width {
        let off = f32::cast_from(x[from + i]) - mean;
        squares += off * off;
        i += across;
    }
    let variance = sum_over_row(squares, meeting, unit, across) / width as f32;
    (mean, 1.0f32 / (variance + eps).sqrt())
}

#[cube(launch_unchecked)]
fn forward<F: Float>(
    x: &[F],
    weight: &[f32],
    bias: &[f32],
    out: &mut [F],
    rows: usize,
    of_part: usize,
    width: usize,
    eps: f32,
    #[comptime] across: usize,
) {
    let mut meeting = Shared::<[f32]>::new_slice(UNITS as usize);
    let unit = UNIT_POS as usize % across;
    let at_once = UNITS as usize / across;
    let mut first = CUBE_POS * at_once;
    while first < rows {
        let row = first + UNIT_POS as usize / across;
        let (mean, scale) = moments(x, row * width, width, row < rows, eps, &mut meeting, unit, across);
        let parameters = row / of_part * width;
        let mut i = unit;
        while row < rows && i < width {
            let value = (f32::cast_from(x[row * width + i]) - mean) * scale;
            out[row * width + i] = F::cast_from(value * weight[parameters + i] + bias[parameters + i]);
            i += across;
        }
        first += CUBE_COUNT * at_once;
    }
}

/// Gradients of the rows, and of each row its mean and scale. With x̂ = (x − mean)·scale and h = g·w:
/// scale·(h − mean(h) − x̂·mean(h·x̂)).
#[cube(launch_unchecked)]
fn backward<F: Float>(
    x: &[F],
    weight: &[f32],
    gradient: &[F],
    out: &mut [F],
    seen: &mut [f32],
    rows: usize,
    of_part: usize,
    width: usize,
    eps: f32,
    #[comptime] across: usize,
) {
    let mut meeting = Shared::<[f32]>::new_slice(UNITS as usize);
    let unit = UNIT_POS as usize % across;
    let at_once = UNITS as usize / across;
    let mut first = CUBE_POS * at_once;
    while first < rows {
        let row = first + UNIT_POS as usize / across;
        let from = row * width;
        let parameters = row / of_part * width;
        let (mean, scale) = moments(x, from, width, row < rows, eps, &mut meeting, unit, across);
        let mut plain = 0.0f32;
        let mut along = 0.0f32;
        let mut i = unit;
        while row < rows && i < width {
            let h = f32::cast_from(gradient[from + i]) * weight[parameters + i];
            plain += h;
            along += h * ((f32::cast_from(x[from + i]) - mean) * scale);
            i += across;
        }
        let plain = sum_over_row(plain, &mut meeting, unit, across) / width as f32;
        let along = sum_over_row(along, &mut meeting, unit, across) / width as f32;
        let mut i = unit;
        while row < rows && i < width {
            let h = f32::cast_from(gradient[from + i]) * weight[parameters + i];
            let normal = (f32::cast_from(x[from + i]) - mean) * scale;
            out[from + i] = F::cast_from(scale * (h - plain - normal * along));
            i += across;
        }
        if row < rows && unit == 0 {
            seen[2 * row] = mean;
            seen[2 * row + 1] = scale;
        }
        first += CUBE_COUNT * at_once;
    }
}

/// Σ g·x̂ and Σ g over blocks of a part's rows, `[2, parts, blocks, width]`.
#[cube(launch_unchecked)]
fn of_parameters<F: Float>(
    x: &[F],
    gradient: &[F],
    seen: &[f32],
    out: &mut [f32],
    parts: usize,
    of_part: usize,
    width: usize,
) {
    let blocks = of_part.div_ceil(ROWS);
    let n = parts * blocks * width;
    let mut at = ABSOLUTE_POS;
    while at < n {
        let column = at % width;
        let block = at / width % blocks;
        let part = at / width / blocks;
        let mut row = part * of_part + block * ROWS;
        let end = min(row + ROWS, (part + 1) * of_part);
        let mut of_weight = 0.0f32;
        let mut of_bias = 0.0f32;
        while row < end {
            let g = f32::cast_from(gradient[row * width + column]);
            let normal = (f32::cast_from(x[row * width + column]) - seen[2 * row]) * seen[2 * row + 1];
            of_weight += g * normal;
            of_bias += g;
            row += 1;
        }
        out[at] = of_weight;
        out[n + at] = of_bias;
        at += CUBE_DIM as usize * CUBE_COUNT;
    }
}

/// Rows, their width, and the parts of them that share weight and bias.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    of_part: usize,
    parts: usize,
    width: usize,
}

impl Sizes {
    /// None where there is nothing to normalise.
    fn of(x: &FloatTensor<Cube>, weight: &FloatTensor<Cube>) -> Option<Sizes> {
        let (shape, n_weights) = (x.shape(), weight.shape().num_elements());
        let width = shape[shape.num_dims() - 1];
        let (n, parts) = (shape.num_elements(), n_weights / width.max(1));
        let rows = n / width.max(1);
        (n > 0 && parts > 0).then(|| Sizes { rows, of_part: rows / parts, parts, width })
    }
}

/// The normalised rows; none where there is no kernel for their kind of numbers.
pub fn norm_rows(
    x: &FloatTensor<Cube>,
    weight: &FloatTensor<Cube>,
    bias: &FloatTensor<Cube>,
    eps: f64,
) -> Option<FloatTensor<Cube>> {
    let (sizes, dtype, client) = (Sizes::of(x, weight)?, x.dtype(), x.client.clone());
    if [weight, bias].iter().any(|p| p.dtype() != DType::F32) {
        return None;
    }
    let out = unwritten(sizes.rows * sizes.width, x, dtype);
    let [x, weight, bias] = [x, weight, bias].map(|x| whole(x.clone()).into_buffer_arg());
    let (y, eps, across) = (out.clone().into_buffer_arg(), eps as f32, across(sizes.width));
    let Sizes { rows, of_part, width, .. } = sizes;
    // SAFETY: `x` and `out` have `rows · width` values, weight and bias `width` for every `of_part` rows.
    unsafe {
        match dtype {
            DType::F32 => forward::launch_unchecked::<f32>(
                &client,
                cubes_of_rows(rows, across),
                units(),
                x,
                weight,
                bias,
                y,
                rows,
                of_part,
                width,
                eps,
                across,
            ),
            DType::BF16 => forward::launch_unchecked::<bf16>(
                &client,
                cubes_of_rows(rows, across),
                units(),
                x,
                weight,
                bias,
                y,
                rows,
                of_part,
                width,
                eps,
                across,
            ),
            _ => return None,
        }
    }
    Some(out)
}

/// Gradients of x, weight and bias, in one piece each; none as above.
pub fn norm_rows_backward(
    x: &FloatTensor<Cube>,
    weight: &FloatTensor<Cube>,
    gradient: &FloatTensor<Cube>,
    eps: f64,
) -> Option<[FloatTensor<Cube>; 3]> {
    let (sizes, dtype, client) = (Sizes::of(x, weight)?, x.dtype(), x.client.clone());
    if gradient.dtype() != dtype || weight.dtype() != DType::F32 {
        return None;
    }
    let Sizes { rows, of_part, parts, width } = sizes;
    let out = unwritten(rows * width, x, dtype);
    let seen = unwritten(2 * rows, x, DType::F32);
    let blocks = of_part.div_ceil(ROWS);
    let n = parts * blocks * width;
    let sums = unwritten(2 * n, x, DType::F32);
    let [x, weight, gradient] = [x, weight, gradient].map(|x| whole(x.clone()));
    let (eps, across) = (eps as f32, across(sizes.width));
    macro_rules! launch {
        ($number:ty) => {{
            backward::launch_unchecked::<$number>(
                &client,
                cubes_of_rows(rows, across),
                units(),
                x.clone().into_buffer_arg(),
                weight.into_buffer_arg(),
                gradient.clone().into_buffer_arg(),
                out.clone().into_buffer_arg(),
                seen.clone().into_buffer_arg(),
                rows,
                of_part,
                width,
                eps,
                across,
            );
            of_parameters::launch_unchecked::<$number>(
                &client,
                cubes(n),
                units(),
                x.into_buffer_arg(),
                gradient.into_buffer_arg(),
                seen.into_buffer_arg(),
                sums.clone().into_buffer_arg(),
                parts,
                of_part,
                width,
            );
        }};
    }
    // SAFETY: as forward; the gradient is as long as x, `seen` holds two values of each row, `sums` two of each block and column.
    unsafe {
        match dtype {
            DType::F32 => launch!(f32),
            DType::BF16 => launch!(bf16),
            _ => return None,
        }
    }
    let sums = sums::of_rows(sums, 2 * parts, width)?;
    let [weight, bias] = [0, 1].map(|which| sums::part(sums.clone(), which * parts * width, parts * width));
    Some([out, weight, bias])
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use crate::tensor::cube::flat::tests::padded;
    use crate::tensor::cube::{down, reshaped, up};
    use crate::tensor::{Tensor, TensorData, cpu, layer_norm_by_record};

    /// Widths with units to spare and units that go round, rows that fill no cube, blocks that are not full, a part and many.
    #[test]
    fn rows_of_every_width_are_the_cores_and_what_lies_behind_them_is_not_read() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        for [parts, of_part, width] in [[1, 1, 1], [1, 300, 7], [3, 130, 33], [2, 9, 1100], [5, 1, 256]] {
            let wave = |n: usize, step: f32| (0..n).map(|i| (step * i as f32).sin() + 0.3).collect::<Vec<f32>>();
            let n = parts * of_part * width;
            let (x, by) = (wave(n, 0.37), wave(n, 0.11));
            let (weight, bias) = (wave(parts * width, 0.7), wave(parts * width, 0.2));
            let cores = |values: &[f32], rows: usize| {
                let data = TensorData::new(values.to_vec(), [parts, rows, width]);
                Tensor::<3>::from_data(data, &cpu().autodiff()).require_grad()
            };
            let inputs = [cores(&x, of_part), cores(&weight, 1), cores(&bias, 1)];
            let [rows, w, b] = inputs.clone();
            let y = layer_norm_by_record(rows, w, b, 1e-5);
            let by_cores =
                Tensor::<3>::from_data(TensorData::new(by.clone(), [parts, of_part, width]), &cpu().autodiff());
            let gradients = (y.clone() * by_cores).sum().backward();
            let mut expected = vec![y.inner()];
            expected.extend(inputs.iter().map(|x| x.grad(&gradients).expect("it asks for one")));

            let there = |values: &[f32], rows: usize| reshaped(down(padded(values, &device)), [parts * rows, width]);
            let [rows, w, b] = [there(&x, of_part), there(&weight, 1), there(&bias, 1)];
            let y = super::norm_rows(&rows, &w, &b, 1e-5).expect("f32");
            let gradients = super::norm_rows_backward(&rows, &w, &there(&by, of_part), 1e-5).expect("f32");
            for (which, (cores, there)) in expected.into_iter().zip([y].into_iter().chain(gradients)).enumerate() {
                let cores = cores.into_data().try_to_vec::<f32>().unwrap();
                let there = up::<1>(there).into_data().try_to_vec::<f32>().unwrap();
                let largest = cores.iter().fold(1.0f32, |most, v| most.max(v.abs()));
                let apart = cores.iter().zip(&there).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                let case = [parts, of_part, width];
                assert!(
                    there.len() == cores.len() && apart <= 2e-6 * largest,
                    "{case:?}, {which}: {apart} of {largest}"
                );
            }
        }
    }
}
