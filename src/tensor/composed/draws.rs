//! Dropout of rows of records, out of masks.

use std::sync::Arc;

use super::super::masks::dropout_mask;
use super::super::spans::Spans;
use super::super::{DropoutDraws, Tensor};
use super::pack::Padded;

/// `x` `[rows, width]` with elements dropped, counted inside of a record.
pub fn dropout(x: Tensor<2>, records: &Arc<Spans>, draws: DropoutDraws) -> Tensor<2> {
    let ([_, width], device) = (x.dims(), x.device());
    let padded = Padded::new(records, &device);
    let [b, n] = padded.shape();
    let mask = dropout_mask(draws, b, n * width, &device).reshape([b * n, width]);
    x.clone() * padded.unpad(mask).cast(x.dtype())
}
