//! Exact GELU on a GPU by the fit that the cores use (`elementwise::gelu`): not every device's erf is exact to f32.

use burn::tensor::{DType, Tensor, bf16};
use cubecl::prelude::*;

use super::launch::{cubes, units, whole};
use super::{down, up};

/// Φ(x) and exp(−x²/2).
#[cube]
fn cdf_and_bell(x: f32) -> (f32, f32) {
    let z = x.abs() * 0.707_106_77f32;
    let t = 1.0f32 / (1.0f32 + 0.5f32 * z);
    let mut p = 0.170_872_77f32;
    p = p * t - 0.822_152_23f32;
    p = p * t + 1.488_515_9f32;
    p = p * t - 1.135_204f32;
    p = p * t + 0.278_868_07f32;
    p = p * t - 0.186_288_06f32;
    p = p * t + 0.096_784_18f32;
    p = p * t + 0.374_091_96f32;
    p = p * t + 1.000_023_7f32;
    p = p * t - 1.265_512_2f32;
    let bell = (-0.5f32 * (x * x)).exp();
    let half_erfc = 0.5f32 * t * p.exp() * bell;
    (select(x < 0.0f32, half_erfc, 1.0f32 - half_erfc), bell)
}

#[cube(launch_unchecked)]
fn value<F: Float>(x: &[F], out: &mut [F], n: usize) {
    let mut i = ABSOLUTE_POS;
    while i < n {
        let v = f32::cast_from(x[i]);
        let (cdf, _bell) = cdf_and_bell(v);
        out[i] = F::cast_from(v * cdf);
        i += CUBE_DIM as usize * CUBE_COUNT;
    }
}

#[cube(launch_unchecked)]
fn slope<F: Float>(x: &[F], by: &[F], out: &mut [F], n: usize) {
    let mut i = ABSOLUTE_POS;
    while i < n {
        let v = f32::cast_from(x[i]);
        let (cdf, bell) = cdf_and_bell(v);
        out[i] = F::cast_from(f32::cast_from(by[i]) * (cdf + v * (bell * 0.398_942_3f32)));
        i += CUBE_DIM as usize * CUBE_COUNT;
    }
}

/// x·Φ(x); none where there is no kernel for its kind of numbers.
pub(super) fn exact_gelu(x: Tensor<1>) -> Option<Tensor<1>> {
    let out = down(Tensor::<1>::empty(x.dims(), (&x.device(), x.dtype())));
    let (n, dtype, client) = (x.dims()[0], x.dtype(), out.client.clone());
    let (cubes, units) = (cubes(n), units());
    let (x, y) = (whole(down(x)).into_buffer_arg(), out.clone().into_buffer_arg());
    // SAFETY: both have `n` values, a buffer may have more.
    unsafe {
        match dtype {
            DType::F32 => value::launch_unchecked::<f32>(&client, cubes, units, x, y, n),
            DType::BF16 => value::launch_unchecked::<bf16>(&client, cubes, units, x, y, n),
            _ => return None,
        }
    }
    Some(up(out))
}

/// gradient·(Φ(x) + x·φ(x)); none as above.
pub(super) fn exact_gelu_backward(x: Tensor<1>, gradient: Tensor<1>) -> Option<Tensor<1>> {
    let out = down(Tensor::<1>::empty(x.dims(), (&x.device(), x.dtype())));
    let (n, dtype, client) = (x.dims()[0], x.dtype(), out.client.clone());
    let (cubes, units) = (cubes(n), units());
    if gradient.dtype() != dtype {
        return None;
    }
    let [x, by] = [x, gradient].map(|x| whole(down(x)).into_buffer_arg());
    let y = out.clone().into_buffer_arg();
    // SAFETY: all have `n` values, a buffer may have more.
    unsafe {
        match dtype {
            DType::F32 => slope::launch_unchecked::<f32>(&client, cubes, units, x, by, y, n),
            DType::BF16 => slope::launch_unchecked::<bf16>(&client, cubes, units, x, by, y, n),
            _ => return None,
        }
    }
    Some(up(out))
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::*;
    use crate::tensor::cube::flat::tests::padded;

    #[test]
    fn what_lies_behind_the_values_is_not_read() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        let xs: Vec<f32> = (-50..50).map(|i| 0.1 * i as f32).collect();
        let x = crate::tensor::flat::values(xs.clone(), &crate::tensor::cpu().autodiff()).require_grad();
        let y = crate::tensor::gelu(x.clone());
        let slopes = x.grad(&y.clone().sum().backward()).expect("it asks for one");
        let there = exact_gelu(padded(&xs, &device)).expect("f32");
        let slopes_there = exact_gelu_backward(padded(&xs, &device), padded(&[1.0; 100], &device)).expect("f32");
        for (cores, there) in [(y.inner(), there), (slopes, slopes_there)] {
            let [a, b] = [cores, there].map(|x| x.into_data().try_to_vec::<f32>().expect("f32"));
            assert!(a.len() == 100 && a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-6), "{a:?} and {b:?}");
        }
    }
}
