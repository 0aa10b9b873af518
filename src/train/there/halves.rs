//! `reduction = "fast_bf16"` on the device: the sums go to the others as bf16, and come back as the f32 of bf16.

use std::time::Duration;

use super::leaving::{By, GRADIENTS, IN_PLACE, timed};
use crate::engine::{Engine, EngineError, HalvesThere};
use crate::tensor::flat::{Lendable, Lent};
use crate::tensor::halves;
use crate::tensor::{Int, Tensor};

/// The sum of all ranks' values. `own` grows by the time in the engine, less waiting for others.
pub fn sum(values: Tensor<1>, engine: &mut dyn Engine, own: &mut Duration) -> Result<Tensor<1>, EngineError> {
    let (n, ranks) = (values.dims()[0], engine.world_size());
    // A segment for every rank, of whole words.
    let segment = n.div_ceil(ranks).div_ceil(2);
    let words = halves::narrow(values, segment * ranks);
    let words = match By::of(engine) {
        By::Nobody => words,
        By::Device => in_place(words, segment, engine, own)?,
        By::Host => {
            let mut of_host = halves::read(words.clone());
            of_host.truncate(n);
            timed(engine, own, |engine| engine.all_reduce_bf16(GRADIENTS, &mut of_host))?;
            halves::words(&of_host, &words.device())
        }
    };
    Ok(halves::widen(words, n))
}

fn in_place(
    words: Tensor<1, Int>,
    segment: usize,
    engine: &mut dyn Engine,
    own: &mut Duration,
) -> Result<Tensor<1, Int>, EngineError> {
    let (rank, ranks, device) = (engine.rank(), engine.world_size(), words.device());
    let lost = |message| EngineError::Memory { rank, operation: IN_PLACE, message };
    let lend = |words| -> (_, Result<Lent, EngineError>) {
        let (words, lent) = Lendable::lend(words);
        (words, lent.map_err(lost))
    };
    let (words, mine) = lend(words);
    let (received, theirs) = lend(halves::no_words(segment * ranks, &device));
    let (sum, total) = lend(halves::no_words(segment, &device));
    let (mut mine, mut theirs, mut total) = (mine?, theirs?, total?);
    [&mut mine, &mut theirs, &mut total].into_iter().try_for_each(Lent::wait).map_err(lost)?;
    let at =
        HalvesThere { values: mine.address(), received: theirs.address(), sum: total.address(), segment: 2 * segment };
    let mut sum = Some(sum);
    let mut add = || {
        let (added, made) = Lendable::lend(halves::sum(sum.take().expect("it is added once"), &received, ranks));
        sum = Some(added);
        made.and_then(|mut made| made.wait())
    };
    // SAFETY: the memory is these tensors' alone, of this rank's device, which has done all that was asked of it for them; it is
    // lent until the engine returns, and `add` gives the sum's place back as it was.
    match timed(engine, own, |engine| unsafe { engine.all_reduce_bf16_there(IN_PLACE, at, &mut add) }) {
        Ok(()) => Ok(words),
        Err(error) => {
            [mine, theirs, total].into_iter().for_each(Lent::forget); // somebody may still write there
            std::mem::forget((words, received, sum));
            Err(error)
        }
    }
}
