//! A bucket's sum on its way to the other ranks. What is asked of the device is asked where the bucket became whole; the rest of the
//! way, which waits for the device and for others, may be another thread's: Burn gives each thread a stream and memory of its own.

use std::fmt::Display;
use std::time::Duration;

use super::added::Sum;
use crate::engine::{self, Engine, EngineError};
use crate::tensor::flat::{self, Lendable, Lent};
use crate::tensor::{Device, cause};
use crate::train::own_time::OwnTime;

/// The operation by way of the host; and where the sums lie.
pub const GRADIENTS: &str = "sum of gradients";
pub const IN_PLACE: &str = "sum of gradients, in place";

/// How ranks' sums become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A rank alone has nothing to add.
    Nobody,
    /// Where they lie.
    Device,
    /// By way of the host: not every engine adds in a device's memory.
    Host,
}

impl By {
    pub fn of(engine: &dyn Engine) -> By {
        match (engine.world_size(), engine.sums_there()) {
            (1, _) => By::Nobody,
            (_, true) => By::Device,
            (_, false) => By::Host,
        }
    }
}

/// This rank's sum.
pub enum Leaving {
    Alone(Sum),
    InPlace(Sum, Result<Lent, String>),
    Fixed(Result<Vec<i64>, String>),
    Plain(Result<Vec<f32>, String>),
}

/// The sum of all ranks.
pub enum Arrived {
    There(Box<Sum>),
    Fixed(Vec<i64>),
    Plain(Vec<f32>),
}

impl Leaving {
    /// Asks of the device what the way takes. What goes by way of the host is read here and now, the rest waits for nothing.
    pub fn begin(sum: Sum, by: By) -> Leaving {
        match (by, sum) {
            (By::Nobody, sum) => Leaving::Alone(sum),
            (By::Device, Sum::Fixed(sum)) => {
                let (sum, lent) = Lendable::lend(sum);
                Leaving::InPlace(Sum::Fixed(sum), lent)
            }
            (By::Device, Sum::Plain(sum)) => {
                let (sum, lent) = Lendable::lend(sum);
                Leaving::InPlace(Sum::Plain(sum), lent)
            }
            (By::Host, Sum::Fixed(sum)) => {
                Leaving::Fixed(told(sum.try_into_data()).map(|sums| sums.try_to_vec().expect("sums are i64")))
            }
            (By::Host, Sum::Plain(sum)) => {
                Leaving::Plain(told(sum.try_into_data()).map(|sums| sums.try_to_vec().expect("sums are f32")))
            }
        }
    }

    /// Waits until the device has made this rank's sum, and adds the others'. `own` grows by the time in the engine, less waiting for
    /// others.
    pub fn sum(self, engine: &mut dyn Engine, own: &mut Duration) -> Result<Arrived, EngineError> {
        // The others are on their way into the sum: there is no other way for this rank alone.
        let rank = engine.rank();
        let lost = |message| EngineError::Memory { rank, operation: GRADIENTS, message };
        match self {
            Leaving::Alone(sum) => Ok(Arrived::There(Box::new(sum))),
            Leaving::InPlace(sum, lent) => {
                let mut lent = lent.map_err(lost)?;
                lent.wait().map_err(lost)?;
                let sum = timed(engine, own, |engine| in_place(engine, sum, lent))?;
                Ok(Arrived::There(Box::new(sum)))
            }
            Leaving::Fixed(words) => {
                let mut words = words.map_err(lost)?;
                timed(engine, own, |engine| engine.all_reduce_i64(GRADIENTS, &mut words))?;
                Ok(Arrived::Fixed(words))
            }
            Leaving::Plain(values) => {
                let mut values = values.map_err(lost)?;
                timed(engine, own, |engine| engine.all_reduce_f32(GRADIENTS, &mut values))?;
                Ok(Arrived::Plain(values))
            }
        }
    }
}

impl Arrived {
    /// On the device.
    pub fn there(self, device: &Device) -> Sum {
        match self {
            Arrived::There(sum) => *sum,
            Arrived::Fixed(words) => Sum::Fixed(flat::sums(words, device)),
            Arrived::Plain(values) => Sum::Plain(flat::values(values, device)),
        }
    }
}

fn told<T>(read: Result<T, impl Display>) -> Result<T, String> {
    read.map_err(|error| cause(&error.to_string()))
}

/// `f`, whose time is the engine's.
pub fn timed<T>(engine: &mut dyn Engine, own: &mut Duration, f: impl FnOnce(&mut dyn Engine) -> T) -> T {
    let clock = OwnTime::start(engine);
    let result = f(engine);
    *own += clock.stop(engine);
    result
}

/// The sum of all ranks in the place of this rank's.
fn in_place(engine: &mut dyn Engine, sum: Sum, lent: Lent) -> Result<Sum, EngineError> {
    let of = match sum {
        Sum::Fixed(_) => engine::Sum::I64,
        Sum::Plain(_) => engine::Sum::F32,
    };
    // SAFETY: the memory is this tensor's alone, of this rank's device, which has done all that was asked of it for this tensor;
    // it is lent until the engine returns.
    match unsafe { engine.all_reduce_there(IN_PLACE, lent.address(), lent.length(), of) } {
        Ok(()) => Ok(sum),
        Err(error) => {
            lent.forget(); // a sum that waits for a lost peer may still write there
            std::mem::forget(sum);
            Err(error)
        }
    }
}
