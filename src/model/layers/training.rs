//! What a training forward has beside its input: the place its draws are keyed by, and who is told of gradients on the way
//! back. Knows no rank.

use std::collections::HashMap;
use std::sync::Arc;

use syncytia_shards::draw::{DrawKey, Purpose};

use crate::tensor::{DType, Inputs, Listener, Module, ModuleVisitor, Param, ParamId, Tensor, recomputed, tap};

/// A micro-batch's forward in training.
#[derive(Debug, Clone)]
pub struct Training {
    dropout: DrawKey,
    global_step: u32,
    first_slot: u32,
    taps: Option<Arc<Taps>>,
    narrow: bool,
    recomputes: bool,
}

/// Who is told of gradients, and the places of the parameters.
#[derive(Debug)]
struct Taps {
    listener: Listener,
    places: HashMap<ParamId, usize>,
}

impl Training {
    /// The micro-batch that begins with `first_slot` of `global_step`.
    pub fn new(seed: u64, global_step: u64, first_slot: usize) -> Self {
        let global_step = u32::try_from(global_step).expect("max_steps is checked to fit 32 bits");
        let dropout = DrawKey::new(seed, Purpose::Dropout);
        Self { dropout, global_step, first_slot: first_slot as u32, taps: None, narrow: false, recomputes: false }
    }

    /// As it is, and `listener` is told of gradients as soon as they are complete. `ids`: the parameters that train, in
    /// declaration order; their places in it are what the listener gets.
    pub fn with_listener(self, listener: Listener, ids: Vec<ParamId>) -> Self {
        let places = ids.into_iter().enumerate().map(|(place, id)| (id, place)).collect();
        Self { taps: Some(Arc::new(Taps { listener, places })), ..self }
    }

    /// As it is, for a forward of `n` rows per slot, one slot's rows after the other's or not: row r of the forward draws as
    /// slot `n · first + r`, which no row of another lane does.
    pub fn with_rows_per_slot(&self, n: u32) -> Self {
        Self { first_slot: self.first_slot * n, ..self.clone() }
    }

    /// As it is, with products in bf16: their factors are rounded where they enter and what comes out is f32 again, as are
    /// parameters, norms, residuals, losses and gradients of parameters. bf16 has f32's range: no loss is scaled.
    pub fn in_bf16(self, narrow: bool) -> Self {
        Self { narrow, ..self }
    }

    /// As it is, and blocks that are repeated keep their inputs alone and run again in backward ([`in_block`]).
    pub fn recomputing_blocks(self, recomputes: bool) -> Self {
        Self { recomputes, ..self }
    }

    /// Whether repeated blocks run again in backward.
    pub fn recomputes_blocks(&self) -> bool {
        self.recomputes
    }

    /// Whether products are in bf16.
    pub fn is_narrow(&self) -> bool {
        self.narrow
    }

    /// Key of dropout's draws.
    pub fn dropout_key(&self) -> DrawKey {
        self.dropout
    }

    /// Batches consumed before this one.
    pub fn global_step(&self) -> u32 {
        self.global_step
    }

    /// Slot of the micro-batch's first record.
    pub fn first_slot(&self) -> u32 {
        self.first_slot
    }

    /// `x` as it is, before `block`: when backward comes by, the gradients of `block` are complete and are told. Only for
    /// parameters that nothing before `x` uses. Where nobody is told the tap stands as well: with it and without it
    /// backward adds in different orders, and a rank's last lane, which alone is told, must have the bits of any other.
    pub fn before<const D: usize>(&self, x: Tensor<D>, block: &impl Module) -> Tensor<D> {
        let mut attach = Attach { taps: self.taps.as_deref(), x: Some(x) };
        block.visit(&mut attach);
        attach.x.expect("every visit puts it back")
    }
}

/// `f` of a factor, in bf16 where the training says so, and f32 again.
pub fn in_products<const D: usize>(
    training: Option<&Training>,
    x: Tensor<D>,
    f: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Tensor<D> {
    match training {
        Some(training) if training.narrow => f(x.cast(DType::BF16)).cast(DType::F32),
        _ => f(x),
    }
}

/// `forward` of a block that a model repeats and its `inputs`: all tensors with gradients that it is given. What it draws
/// must be keyed: where the training says so it runs again in backward instead of being kept.
pub fn in_block<M, I, const D: usize>(
    training: Option<&Training>,
    block: &M,
    inputs: I,
    forward: impl Fn(&M, I, Option<&Training>) -> Tensor<D> + Send + Sync + 'static,
) -> Tensor<D>
where
    M: Module + Sync + 'static,
    I: Inputs,
{
    match training {
        Some(training) if training.recomputes => {
            let training = training.clone();
            recomputed(block, inputs, move |block, inputs| forward(block, inputs, Some(&training)))
        }
        _ => forward(block, inputs, training),
    }
}

/// [`Training::before`] where there may be no training.
pub fn before<const D: usize>(training: Option<&Training>, x: Tensor<D>, block: &impl Module) -> Tensor<D> {
    match training {
        Some(training) => training.before(x, block),
        None => x,
    }
}

struct Attach<'a, const D: usize> {
    taps: Option<&'a Taps>,
    x: Option<Tensor<D>>,
}

impl<const D: usize> ModuleVisitor for Attach<'_, D> {
    fn visit_float<const P: usize>(&mut self, param: &Param<Tensor<P>>) {
        if !param.is_require_grad() {
            return; // it does not train: there is nothing to tell
        }
        let place = self.taps.map_or(0, |taps| taps.places[&param.id]);
        let x = self.x.take().expect("every visit puts it back");
        self.x = Some(tap(x, param.val(), place, self.taps.map(|taps| &taps.listener)));
    }
}
