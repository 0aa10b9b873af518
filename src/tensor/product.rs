//! Products of matrices that lie between other values, without copies: the `gemm` crate, which flex's own products use.

use std::ops::Range;

/// `[rows, columns]` of f32, rows `stride` apart; or that transposed.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    values: &'a [f32],
    /// Rows and columns, and how far each is from the next.
    shape: [usize; 2],
    strides: [usize; 2],
}

/// The same to write to.
#[derive(Debug)]
pub(super) struct ViewMut<'a> {
    values: &'a mut [f32],
    shape: [usize; 2],
    stride: usize,
}

/// The columns of `rows` rows of `width` values each; all of them must lie in the `len` values.
fn checked(len: usize, rows: usize, width: usize, columns: &Range<usize>) {
    assert!(columns.start <= columns.end && columns.end <= width, "columns {columns:?} of {width}");
    assert!(rows.checked_mul(width).is_some_and(|n| n <= len), "{rows} rows of {width} in {len} values");
}

impl<'a> View<'a> {
    /// Columns of the first `rows` rows of `width` values.
    pub(super) fn new(values: &'a [f32], rows: usize, width: usize, columns: Range<usize>) -> Self {
        checked(values.len(), rows, width, &columns);
        let shape = [rows, columns.len()];
        Self { values: &values[columns.start.min(values.len())..], shape, strides: [width, 1] }
    }

    /// All of `[rows, columns]` values.
    pub(super) fn whole(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::new(values, rows, columns, 0..columns)
    }

    pub(super) fn transposed(self) -> Self {
        let ([rows, columns], [down, right]) = (self.shape, self.strides);
        Self { shape: [columns, rows], strides: [right, down], ..self }
    }
}

impl<'a> ViewMut<'a> {
    /// Columns of the first `rows` rows of `width` values.
    pub(super) fn new(values: &'a mut [f32], rows: usize, width: usize, columns: Range<usize>) -> Self {
        checked(values.len(), rows, width, &columns);
        let (at, shape) = (columns.start.min(values.len()), [rows, columns.len()]);
        Self { values: &mut values[at..], shape, stride: width }
    }

    /// All of `[rows, columns]` values.
    pub(super) fn whole(values: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self::new(values, rows, columns, 0..columns)
    }
}

/// `out` = a b, on one thread.
pub(super) fn product(out: ViewMut<'_>, a: View<'_>, b: View<'_>) {
    let [m, _, n] = sizes(a, b);
    assert!(out.shape == [m, n], "a product of [{m}, {n}] is not {:?}", out.shape);
    // SAFETY: `checked` has shown that every element of `out` lies in its slice, which is borrowed alone.
    unsafe { multiply(out.values.as_mut_ptr(), out.stride, false, a, b, gemm::Parallelism::None) }
}

/// a b, row by row, on the threads at hand where that is worth it; how many they are changes no bit.
pub(super) fn product_of(a: View<'_>, b: View<'_>) -> Vec<f32> {
    let [m, k, n] = sizes(a, b);
    if k == 0 {
        return vec![0.0; m * n];
    }
    let mut out = Vec::with_capacity(m * n);
    // SAFETY: `[m, n]` values have room. None of them is read, and with k > 0 all are written.
    unsafe {
        multiply(out.as_mut_ptr(), n, false, a, b, threads(m * k * n));
        out.set_len(m * n);
    }
    out
}

/// `out` + a b, row by row, as [`product_of`].
pub(super) fn add_product(out: &mut [f32], a: View<'_>, b: View<'_>) {
    let [m, k, n] = sizes(a, b);
    assert!(out.len() == m * n, "a product of [{m}, {n}] is not {} values", out.len());
    if k > 0 {
        // SAFETY: `out` has `[m, n]` values and is borrowed alone.
        unsafe { multiply(out.as_mut_ptr(), n, true, a, b, threads(m * k * n)) }
    }
}

/// m, k, n of `[m, k]` times `[k, n]`.
fn sizes(a: View<'_>, b: View<'_>) -> [usize; 3] {
    let ([m, k], [inner, n]) = (a.shape, b.shape);
    assert!(k == inner, "[{m}, {k}] times [{inner}, {n}]");
    [m, k, n]
}

/// As flex's own products: below this many multiplications a thread alone is faster.
fn threads(multiplications: usize) -> gemm::Parallelism {
    if multiplications < 192 * 192 * 192 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(0) }
}

/// `out` = a b, or `out` + a b where it `adds`; its rows `stride` apart.
///
/// # Safety
/// Every element of `out` must be ours to write, and to read where it adds.
unsafe fn multiply(out: *mut f32, stride: usize, adds: bool, a: View<'_>, b: View<'_>, threads: gemm::Parallelism) {
    let [m, k, n] = sizes(a, b);
    if m == 0 || n == 0 {
        return;
    }
    let step = |stride: usize| isize::try_from(stride).expect("a stride inside of a slice");
    // SAFETY: `checked` has shown that every element of the two views lies in its slice, the caller that those of `out` do; where
    // `read_dst` is false nothing of it is read.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            1,
            step(stride),
            adds,
            a.values.as_ptr(),
            step(a.strides[1]),
            step(a.strides[0]),
            b.values.as_ptr(),
            step(b.strides[1]),
            step(b.strides[0]),
            f32::from(u8::from(adds)),
            1.0f32,
            false,
            false,
            false,
            threads,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_columns_and_of_transposed_ones_leave_what_lies_between() {
        let a: Vec<f32> = (0..15).map(|i| i as f32).collect(); // [3, 5]
        let b: Vec<f32> = (0..12).map(|i| (i * i) as f32).collect(); // [4, 3]
        let mut out = vec![-1.0; 3 * 6];
        let (left, right) = (View::new(&a, 3, 5, 1..3), View::new(&b, 4, 3, 1..3).transposed());
        product(ViewMut::new(&mut out, 3, 6, 1..5), left, right);
        for row in 0..3 {
            assert_eq!((out[row * 6], out[row * 6 + 5]), (-1.0, -1.0));
            for column in 0..4 {
                let by_hand: f32 = (0..2).map(|i| a[row * 5 + 1 + i] * b[column * 3 + 1 + i]).sum();
                assert_eq!(out[row * 6 + 1 + column], by_hand);
            }
        }
    }

    #[test]
    #[should_panic(expected = "4 rows of 5 in 15 values")]
    fn a_view_beyond_its_values_is_refused() {
        View::new(&[0.0; 15], 4, 5, 0..2);
    }
}
