//! Rows averaged into fewer, and copied back. No scatter: sums read the rows of a place side by side, so that they have an
//! order.

use super::super::Tensor;
use super::super::{RowMap, TensorData};
use super::integers;
use super::pack::with_a_zero_row;

/// `[b, n_long, d]` → `[b, n_short, d]`: sums of the rows that go to a place, or means.
pub fn sum_rows(x: Tensor<3>, map: &RowMap, mean: bool) -> Tensor<3> {
    let [b, n_long, d] = x.dims();
    let n_short = map.n_short();
    let mut rows_of = vec![Vec::new(); b * n_short];
    for (row, &short) in map.short_of().iter().enumerate() {
        rows_of[row / n_long * n_short + short as usize].push(row as i64);
    }
    let most = rows_of.iter().map(Vec::len).max().unwrap_or(0);
    let nothing = (b * n_long) as i64;
    rows_of.iter_mut().for_each(|rows| rows.resize(most, nothing));
    let rows = with_a_zero_row(x.reshape([b * n_long, d])).select_rows(rows_of.concat());
    let sums = rows.reshape([b * n_short, most, d]).sum_dim(1).reshape([b * n_short, d]);
    let sums = if mean { sums.clone() * shares(&sums, map.share()) } else { sums };
    sums.reshape([b, n_short, d])
}

/// `[b, n_short, d]` → `[b, n_long, d]`: each row a copy of its place, or of its share of it.
pub fn spread_rows(y: Tensor<3>, map: &RowMap, mean: bool) -> Tensor<3> {
    let [b, n_short, d] = y.dims();
    let n_long = map.short_of().len() / b.max(1);
    let place = |(row, &short): (usize, &u32)| (row / n_long * n_short + short as usize) as i64;
    let places: Vec<i64> = map.short_of().iter().enumerate().map(place).collect();
    let y = y.reshape([b * n_short, d]);
    let y = if mean { y.clone() * shares(&y, map.share()) } else { y };
    let places = integers(places, [b * n_long], &y.device());
    y.select(0, places).reshape([b, n_long, d])
}

fn shares(like: &Tensor<2>, share: &[f32]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(share.to_vec(), [share.len(), 1]), (&like.device(), like.dtype()))
}
