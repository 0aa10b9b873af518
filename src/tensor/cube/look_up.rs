//! The gradient of a looked-up table on a GPU: positions sorted by row, then one unit per row that was read and column, which adds up
//! in the order of the positions. No atomics: the bits are the cores'.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{
    Cube, TensorMetadata,
    ops::{FloatTensorOps, IntTensorOps},
};
use burn::tensor::{DType, FloatDType, IntDType};
use cubecl::prelude::*;

use super::launch::{cubes, units, whole};
use super::reshaped;
use crate::tensor::look_up::{LookUp, assigned};

/// Positions that are sorted at a time: each is compared with all of them. The next ones go on from the sums of those before, so
/// that work grows with the positions and not with their square.
const AT_ONCE: usize = 1 << 14;
/// Positions of a row that are read before the first is added: reads take long, sums wait for one another.
const AHEAD: usize = 8;

/// `order`: positions by row, those of one row as they come. `runs`: how many there are of a row, at the first of them; else 0.
#[cube(launch_unchecked)]
fn sort<I: Int>(rows: &[I], order: &mut [u32], runs: &mut [u32], first: usize, n: usize, stride: usize) {
    let i = ABSOLUTE_POS;
    if i < n {
        let row = rows[(first + i) * stride];
        let mut smaller = 0u32;
        let mut before = 0u32;
        let mut behind = 0u32;
        for j in 0..i {
            let other = rows[(first + j) * stride];
            smaller += u32::cast_from(other < row);
            before += u32::cast_from(other == row);
        }
        for j in i + 1..n {
            let other = rows[(first + j) * stride];
            smaller += u32::cast_from(other < row);
            behind += u32::cast_from(other == row);
        }
        let place = (smaller + before) as usize;
        order[place] = i as u32;
        runs[place] = select(before == 0u32, behind + 1u32, 0u32);
    }
}

/// Adds to the table's gradient what these positions have. Rows that the table does not have are left out.
#[cube(launch_unchecked)]
fn add_runs<I: Int>(
    table: &mut [f32],
    gradient: &[f32],
    rows: &[I],
    order: &[u32],
    runs: &[u32],
    first: usize,
    n: usize,
    stride: usize,
    n_rows: usize,
    width: usize,
) {
    let mut at = ABSOLUTE_POS;
    while at < n * width {
        let place = at / width;
        let column = at % width;
        let end = place + runs[place] as usize;
        let row = rows[(first + order[place] as usize) * stride];
        if end > place && row >= I::from_int(0) && row < I::cast_from(n_rows) {
            let to = usize::cast_from(row) * width + column;
            let mut sum = table[to];
            let mut next = place;
            while next + AHEAD <= end {
                #[unroll]
                for ahead in 0..AHEAD {
                    sum += gradient[(first + order[next + ahead] as usize) * width + column];
                }
                next += AHEAD;
            }
            while next < end {
                sum += gradient[(first + order[next] as usize) * width + column];
                next += 1;
            }
            table[to] = sum;
        }
        at += CUBE_DIM as usize * CUBE_COUNT;
    }
}

impl LookUp for Cube {
    fn look_up_backward(gradient: FloatTensor<Cube>, rows: IntTensor<Cube>, n_rows: usize) -> FloatTensor<Cube> {
        match (gradient.dtype(), rows.dtype()) {
            (DType::F32, DType::I32) => summed::<i32>(gradient, &rows, n_rows, AT_ONCE),
            (DType::F32, DType::I64) => summed::<i64>(gradient, &rows, n_rows, AT_ONCE),
            _ => assigned::<Cube>(gradient, rows, n_rows),
        }
    }
}

/// See [`LookUp::look_up_backward`], so many positions `at_once`.
fn summed<I: Int>(
    gradient: FloatTensor<Cube>,
    rows: &IntTensor<Cube>,
    n_rows: usize,
    at_once: usize,
) -> FloatTensor<Cube> {
    let (n, width, stride) = (gradient.shape()[0], gradient.shape()[1], rows.meta.strides()[0]);
    let (client, device) = (gradient.client.clone(), gradient.device.clone());
    // Flat: rows of a matrix may be padded on a device.
    let table = <Cube as FloatTensorOps<Cube>>::float_zeros([n_rows * width].into(), &device, FloatDType::F32);
    let gradient = whole(gradient);
    let numbers = || <Cube as IntTensorOps<Cube>>::int_empty([n.min(at_once)].into(), &device, IntDType::U32);
    let (order, runs) = (numbers(), numbers());
    for first in (0..n).step_by(at_once) {
        let now = at_once.min(n - first);
        // SAFETY: rows have `n` numbers so far apart, the gradient `n · width` values, order and runs the `now` of all positions, whose
        // places are different; of the table a unit writes one value of a row that is there, which no other unit has.
        unsafe {
            sort::launch_unchecked::<I>(
                &client,
                cubes(now),
                units(),
                rows.clone().into_buffer_arg(),
                order.clone().into_buffer_arg(),
                runs.clone().into_buffer_arg(),
                first,
                now,
                stride,
            );
            add_runs::launch_unchecked::<I>(
                &client,
                cubes(now * width),
                units(),
                table.clone().into_buffer_arg(),
                gradient.clone().into_buffer_arg(),
                rows.clone().into_buffer_arg(),
                order.clone().into_buffer_arg(),
                runs.clone().into_buffer_arg(),
                first,
                now,
                stride,
                n_rows,
                width,
            );
        }
    }
    reshaped(table, [n_rows, width])
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::{Device, Int, Tensor, TensorData};

    use super::*;
    use crate::tensor::cube::flat::tests::padded;
    use crate::tensor::cube::{down, up};

    const N_ROWS: usize = 40;

    /// Of 40 rows some never, most of them now and then, row 3 every other time.
    fn rows(n: usize) -> Vec<i64> {
        (0..n as i64).map(|i| if i % 2 == 0 { 3 } else { i * i % 37 }).collect()
    }

    /// From 2⁻²⁰ to 2¹⁹: in another order sums have other bits.
    fn values(n: usize) -> Vec<f32> {
        (0..n).map(|i| (0.1 + 1.37 * i as f32).sin() * 2f32.powi((i * 7 % 40) as i32 - 20)).collect()
    }

    fn numbers(rows: &[i64], device: &Device, dtype: DType) -> Tensor<1, Int> {
        Tensor::from_data(TensorData::new(rows.to_vec(), [rows.len()]), (device, dtype))
    }

    fn there(rows: &[i64], device: &Device, dtype: DType) -> IntTensor<Cube> {
        numbers(rows, device, dtype).try_into_primitive::<Cube>().expect("of this backend")
    }

    fn bits(x: FloatTensor<Cube>) -> Vec<u32> {
        up::<2>(x).into_data().try_to_vec::<f32>().expect("f32").into_iter().map(f32::to_bits).collect()
    }

    /// What the cores say.
    fn cores(rows: &[i64], values: &[f32], n_rows: usize, width: usize) -> Vec<u32> {
        let device = crate::tensor::cpu();
        let gradient = Tensor::<2>::from_data(TensorData::new(values.to_vec(), [rows.len(), width]), &device);
        let gradient = gradient.try_into_primitive::<Flex>().expect("of this backend");
        let rows = numbers(rows, &device, DType::I64).try_into_primitive::<Flex>().expect("of this backend");
        let sums = Tensor::<2>::from_primitive::<Flex>(Flex::look_up_backward(gradient, rows, n_rows));
        sums.into_data().try_to_vec::<f32>().expect("f32").into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn sums_of_rows_are_the_cores_bits_whatever_is_sorted_at_once() {
        let (device, name) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        for (n, width) in [(1, 1), (300, 7), (515, 64)] {
            let (rows, values) = (rows(n), values(n * width));
            let expected = cores(&rows, &values, N_ROWS, width);
            let gradient = || down(Tensor::<2>::from_data(TensorData::new(values.clone(), [n, width]), &device));
            for at_once in [AT_ONCE, 256, 100] {
                let (i32s, i64s) = (there(&rows, &device, DType::I32), there(&rows, &device, DType::I64));
                let ours = [
                    summed::<i32>(gradient(), &i32s, N_ROWS, at_once),
                    summed::<i64>(gradient(), &i64s, N_ROWS, at_once),
                ];
                assert_eq!(ours.map(bits), [&expected, &expected].map(Vec::clone), "{name}: {n} of {at_once} at once");
            }
        }
    }

    /// Values that go on behind the end, as CUDA's buffers do, rows further apart than they are wide, columns before rows, one value
    /// for all, one number for all.
    #[test]
    fn however_gradients_and_numbers_lie_they_are_read_as_rows() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        let (n, width) = (301, 12);
        let (rows, values) = (rows(n), values(n * width));
        let mut long = there(&[&rows[..], &[3; 28]].concat(), &device, DType::I64);
        long.meta = there(&rows, &device, DType::I64).meta;
        let of = |values: &[f32], shape: [usize; 2]| {
            Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), &device)
        };
        let wide: Vec<f32> = values.chunks(width).flat_map(|row| [row, &[f32::NAN; 64]].concat()).collect();
        let turned: Vec<f32> = (0..n * width).map(|i| values[i % n * width + i / n]).collect();
        for (gradient, contiguous) in [
            (padded(&values, &device).reshape([n, width]), true),
            (of(&wide, [n, width + 64]).narrow(1, 0, width), false),
            (of(&turned, [width, n]).transpose(), false),
        ] {
            let gradient = down(gradient);
            assert_eq!(gradient.is_contiguous(), contiguous);
            let ours = Cube::look_up_backward(gradient, long.clone(), N_ROWS);
            assert_eq!(bits(ours), cores(&rows, &values, N_ROWS, width));
        }
        let (one, third) = (of(&[0.1], [1, 1]).expand([n, width]), numbers(&[3], &device, DType::I64).expand([n]));
        let third = third.try_into_primitive::<Cube>().expect("of this backend");
        let ours = Cube::look_up_backward(down(one), third, N_ROWS);
        assert_eq!(bits(ours), cores(&vec![3; n], &vec![0.1; n * width], N_ROWS, width));
    }

    #[test]
    fn rows_that_the_table_lacks_are_left_out() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        let values = values(5 * 3);
        let expected = cores(&[1, 0], &[&values[3..6], &values[9..12]].concat(), 2, 3);
        for dtype in [DType::I32, DType::I64] {
            let rows = there(&[2, 1, -1, 0, i64::from(i32::MAX)], &device, dtype);
            let gradient = down(Tensor::<2>::from_data(TensorData::new(values.clone(), [5, 3]), &device));
            assert_eq!(bits(Cube::look_up_backward(gradient, rows, 2)), expected);
        }
    }

    #[test]
    fn no_positions_and_no_columns_are_zeros() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        for (n, width) in [(0, 3), (2, 0)] {
            let gradient = down(Tensor::<2>::zeros([n, width], &device));
            let sums = Cube::look_up_backward(gradient, there(&vec![1; n], &device, DType::I64), 4);
            assert_eq!((sums.shape().as_slice(), bits(sums.clone())), (&[4, width][..], vec![0; 4 * width]));
        }
    }

    /// Other numbers than these two go Burn's way.
    #[test]
    fn unsigned_numbers_are_rows_as_well() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        let (rows, values) = (rows(50), values(50 * 3));
        let gradient = down(Tensor::<2>::from_data(TensorData::new(values.clone(), [50, 3]), &device));
        let ours = Cube::look_up_backward(gradient, there(&rows, &device, DType::U32), N_ROWS);
        assert_eq!(bits(ours), cores(&rows, &values, N_ROWS, 3));
    }
}
