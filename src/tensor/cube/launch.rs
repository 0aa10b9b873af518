//! What all launches have in common: cubes of so many units, and tensors as kernels read them, one value after the other.

use burn::backend::{Cube, TensorMetadata, ops::FloatTensorOps, tensor::FloatTensor};
use burn::tensor::{DType, Shape};
use cubecl::prelude::*;

use super::reshaped;

/// Units of a cube.
pub const UNITS: u32 = 256;
/// Most cubes: beyond it units go round.
const CUBES: usize = 1 << 15;

/// A cube's units, in a row.
pub fn units() -> CubeDim {
    CubeDim::new_1d(UNITS)
}

/// Cubes for a unit to each of `n` values.
pub fn cubes(n: usize) -> CubeCount {
    n_cubes(n.div_ceil(UNITS as usize))
}

/// So many cubes, as far as that goes.
pub fn n_cubes(n: usize) -> CubeCount {
    CubeCount::new_1d(n.clamp(1, CUBES) as u32)
}

/// The values in one piece. A buffer may be longer: CUDA's are padded, so that kernels are told how many there are.
///
/// # Panics
/// If there are more than kernels can count.
pub fn whole(x: FloatTensor<Cube>) -> FloatTensor<Cube> {
    let n = counted(x.shape().num_elements());
    let x = reshaped(x, [n]);
    if x.is_contiguous() {
        return x;
    }
    // One value for all of them is a row already, and no reshape writes it out; times one it keeps its bits.
    let ones = <Cube as FloatTensorOps<Cube>>::float_ones(Shape::from([n]), &x.device, x.dtype().into());
    let x = <Cube as FloatTensorOps<Cube>>::float_mul(x, ones);
    assert!(x.is_contiguous(), "a flat tensor lies in one piece");
    x
}

/// Kernels count with 32 bits, and the last unit's next value is a round of all cubes further.
pub fn counted(n: usize) -> usize {
    let most = u32::MAX as usize - UNITS as usize * CUBES;
    assert!(
        n <= most,
        "a kernel counts up to {most} values, not {n}: train.micro_batch is what mostly makes them so many"
    );
    n
}

/// `n` values to be written, in one piece: of more axes than one CUDA's rows would be further apart than they are wide.
pub fn unwritten(n: usize, like: &FloatTensor<Cube>, dtype: DType) -> FloatTensor<Cube> {
    <Cube as FloatTensorOps<Cube>>::float_empty(Shape::from([counted(n)]), &like.device, dtype.into())
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::*;
    use crate::tensor::cube::{down, up};
    use crate::tensor::flat;

    /// As the gradient of a sum is.
    #[test]
    fn one_value_for_all_is_written_out() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        let one = down(flat::values(vec![-0.0], &device).expand([300]));
        assert!(!one.is_contiguous());
        let whole = whole(one);
        assert!(whole.is_contiguous());
        let values = up::<1>(whole).into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(values.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), [(-0.0f32).to_bits(); 300]);
    }

    #[test]
    #[should_panic(expected = "train.micro_batch")]
    fn more_values_than_a_kernel_counts_are_refused() {
        counted(u32::MAX as usize);
    }
}
