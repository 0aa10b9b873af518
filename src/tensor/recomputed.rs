//! A block whose forward runs again in backward: in between nothing is kept but its inputs (activation checkpointing).
//!
//! The second forward has leaves of its own, for the inputs and for the parameters. Burn holds a lock for each graph while
//! its backward runs: on a leaf of the first graph the second would wait for itself. What the small graph finds is handed to
//! the large one, whose nodes know nothing of the block's inside. Within the block operations have the same depths from its
//! inputs as without all this, so that gradients are added up in the same order.

use std::fmt;
use std::sync::Arc;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::ops::FloatTensorOps;
use burn::backend::{
    Autodiff, AutodiffBackend, Backend, BackendTensor, Dispatch, DispatchKindConversion, DispatchTensor, Flex,
    TensorMetadata, backend_extension, tensor::FloatTensor,
};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Shape, Tensor};

#[cfg(test)]
thread_local! {
    /// Blocks that ran again on this thread: nothing else tells a model that recomputes from one that does not.
    pub(crate) static RAN_AGAIN: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many inputs of a block may have gradients.
const INPUTS: usize = 3;

/// The second forward and its backward: of the gradient of what came out it makes those of what went in.
#[derive(Clone)]
pub struct Again(Arc<RunAgain>);

type RunAgain = dyn Fn(DispatchTensor) -> Vec<Option<DispatchTensor>> + Send + Sync;

impl fmt::Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Again")
    }
}

/// The operations on a backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub trait Recompute: Backend {
    /// `out`, whose backward runs `again` and gives each tensor of `of` its gradient. The first `n_inputs` of them, or where
    /// these are none the first alone, are what backward goes on to.
    fn recompute(out: FloatTensor<Self>, of: Vec<DispatchTensor>, n_inputs: usize, again: Again) -> FloatTensor<Self> {
        let _ = (of, n_inputs, again);
        out
    }

    /// One value, whose backward gives `y` this gradient.
    fn begin_with(y: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let _ = gradient;
        y
    }
}

impl Recompute for Flex {}

#[cfg(feature = "cube")]
impl Recompute for burn::backend::Cube {}

impl<B: Backend, C: CheckpointStrategy> Recompute for Autodiff<B, C>
where
    DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B, C>>,
{
    fn recompute(out: FloatTensor<Self>, of: Vec<DispatchTensor>, n_inputs: usize, again: Again) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Recomputed;
        impl<B: Backend> Backward<B, INPUTS> for Recomputed
        where
            DispatchTensor: DispatchKindConversion<B>,
        {
            type State = (Vec<NodeId>, Again);

            fn backward(self, ops: Ops<Self::State, INPUTS>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let gradient = gradients.consume::<B>(&ops.node);
                let (of, Again(again)) = ops.state;
                let found = again(DispatchTensor::from_backend(BackendTensor::<B>::Float(gradient)));
                assert_eq!(of.len(), found.len(), "the second forward has what the first had");
                for (id, gradient) in of.into_iter().zip(found) {
                    if let Some(gradient) = gradient {
                        gradients.register::<B>(id, of_backend::<B>(gradient));
                    }
                }
            }
        }
        let of: Vec<FloatTensor<Self>> = of.into_iter().map(of_backend::<Self>).collect();
        assert!(!of.is_empty() && n_inputs <= INPUTS, "a block has at most {INPUTS} inputs with gradients");
        // Each input once; there are always as many parents, and to name one twice means nothing.
        let parents = std::array::from_fn(|i| of[if i < n_inputs { i } else { 0 }].node());
        match Recomputed.prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                prepared.finish((of.iter().map(|x| x.id()).collect(), again), out.into_primitive())
            }
            OpsKind::UnTracked(prepared) => prepared.finish(out.into_primitive()),
        }
    }

    fn begin_with(y: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct BeginWith;
        impl<B: Backend> Backward<B, 1> for BeginWith {
            type State = FloatTensor<B>;

            fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let _one = gradients.consume::<B>(&ops.node);
                if let [Some(y)] = ops.parents {
                    gradients.register::<B>(y.id, ops.state);
                }
            }
        }
        let one = B::float_zeros(Shape::from([1]), &y.device(), y.dtype().into());
        match BeginWith.prepare::<C>([y.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(gradient.into_primitive(), one),
            OpsKind::UnTracked(prepared) => prepared.finish(one),
        }
    }
}

fn of_backend<B: Backend>(x: DispatchTensor) -> FloatTensor<B>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    <DispatchTensor as DispatchKindConversion<B>>::try_into_backend(x).expect("a block is on one device").float()
}

/// What a block is given: a tensor or some.
pub trait Inputs {
    /// As a list.
    fn into_list(self) -> Vec<DispatchTensor>;
    /// Of a list, from its first on.
    fn from_list(list: &mut dyn Iterator<Item = DispatchTensor>) -> Self;
}

impl<const D: usize> Inputs for Tensor<D> {
    fn into_list(self) -> Vec<DispatchTensor> {
        vec![self.into_dispatch()]
    }

    fn from_list(list: &mut dyn Iterator<Item = DispatchTensor>) -> Self {
        Tensor::from_dispatch(list.next().expect("as many as there were"))
    }
}

impl<X: Inputs, Y: Inputs> Inputs for (X, Y) {
    fn into_list(self) -> Vec<DispatchTensor> {
        [self.0.into_list(), self.1.into_list()].concat()
    }

    fn from_list(list: &mut dyn Iterator<Item = DispatchTensor>) -> Self {
        (X::from_list(list), Y::from_list(list))
    }
}

impl<X: Inputs, Y: Inputs, Z: Inputs> Inputs for (X, Y, Z) {
    fn into_list(self) -> Vec<DispatchTensor> {
        [self.0.into_list(), self.1.into_list(), self.2.into_list()].concat()
    }

    fn from_list(list: &mut dyn Iterator<Item = DispatchTensor>) -> Self {
        (X::from_list(list), Y::from_list(list), Z::from_list(list))
    }
}

/// `forward` of `block` and `inputs`, of which only `inputs` are kept: it runs a second time in backward, and must then say
/// the same. Taps inside tell of their gradients then.
///
/// # Panics
/// If more than three inputs have gradients, or `forward` holds on to a tensor that has: all of these must be inputs.
pub fn recomputed<M, I, const D: usize>(
    block: &M,
    inputs: I,
    forward: impl Fn(&M, I) -> Tensor<D> + Send + Sync + 'static,
) -> Tensor<D>
where
    M: Module + Sync + 'static,
    I: Inputs,
{
    let inputs = inputs.into_list();
    let tracked: Vec<bool> = inputs.iter().map(Dispatch::is_tracked).collect();
    let mut of: Vec<DispatchTensor> = inputs.iter().filter(|x| Dispatch::is_tracked(x)).cloned().collect();
    let n_inputs = of.len();
    let trains = Trained::of(block, &mut of);

    let values: Vec<DispatchTensor> = inputs.into_iter().map(|x| leaf(x, false)).collect();
    let plain = block.clone().no_grad();
    let out = forward(&plain, I::from_list(&mut values.iter().cloned()));
    assert!(!out.is_tracked(), "what a block is given and has gradients must be among its inputs");
    if of.is_empty() {
        return out;
    }

    let again = move |gradient: DispatchTensor| {
        #[cfg(test)]
        RAN_AGAIN.set(RAN_AGAIN.get() + 1);
        let block = plain.clone().map(&mut Leaves(trains.iter()));
        let inputs: Vec<_> = values.iter().zip(&tracked).map(|(x, &tracked)| leaf(x.clone(), tracked)).collect();
        let y = forward(&block, I::from_list(&mut inputs.iter().cloned()));
        let begin = <Dispatch as Recompute>::begin_with(y.into_dispatch(), gradient);
        let mut found = Dispatch::backward(begin);
        // An input that came to nothing has a gradient as well: backward goes on to it.
        let of_input = |x: &DispatchTensor| Dispatch::grad_remove(x, &mut found).or_else(|| Some(zeros(x)));
        let mut all: Vec<_> = inputs.iter().filter(|x| Dispatch::is_tracked(x)).map(of_input).collect();
        let mut parameters = Vec::new();
        Trained::of(&block, &mut parameters);
        all.extend(parameters.iter().map(|parameter| Dispatch::grad_remove(parameter, &mut found)));
        all
    };
    let out = out.into_dispatch();
    Tensor::from_dispatch(<Dispatch as Recompute>::recompute(out, of, n_inputs, Again(Arc::new(again))))
}

/// `x` without its past; `tracked`: it asks for a gradient.
fn leaf(x: DispatchTensor, tracked: bool) -> DispatchTensor {
    Dispatch::float_set_require_grad(Dispatch::float_set_require_grad(x, false), tracked)
}

fn zeros(x: &DispatchTensor) -> DispatchTensor {
    let x = Dispatch::inner(x.clone());
    Dispatch::float_zeros(x.shape(), &x.device(), x.dtype().into())
}

/// Finds the parameters that train.
struct Trained<'a> {
    parameters: &'a mut Vec<DispatchTensor>,
    trains: Vec<bool>,
}

impl Trained<'_> {
    /// Adds the parameters of `block` that train to `parameters`; says of each whether it does.
    fn of(block: &impl Module, parameters: &mut Vec<DispatchTensor>) -> Vec<bool> {
        let mut visitor = Trained { parameters, trains: Vec::new() };
        block.visit(&mut visitor);
        visitor.trains
    }
}

impl ModuleVisitor for Trained<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let trains = param.is_require_grad();
        if trains {
            self.parameters.push(param.val().into_dispatch());
        }
        self.trains.push(trains);
    }
}

/// New leaves of the same values, under the same ids.
struct Leaves<'a>(std::slice::Iter<'a, bool>);

impl ModuleMapper for Leaves<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let trains = *self.0.next().expect("there is a word for every parameter");
        param.map(|value| value.set_require_grad(false).set_require_grad(trains))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use burn::tensor::TensorData;
    use syncytia_shards::draw::{DrawKey, Purpose};

    use super::*;
    use crate::tensor::{DropoutDraws, Listener, Spans, cpu, dropout, enter, gelu, tap};

    const ROWS: usize = 13;
    const WIDTH: usize = 10;

    #[derive(Module, Debug)]
    struct Block {
        weight: Param<Tensor<2>>,
        gain: Param<Tensor<1>>,
        #[module(skip)]
        site: u32,
    }

    fn wave<const D: usize>(shape: [usize; D], by: f32) -> Tensor<D> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|i| (by * i as f32 + by).sin()).collect();
        Tensor::from_data(TensorData::new(values, shape), &cpu().autodiff())
    }

    fn blocks() -> [Block; 2] {
        std::array::from_fn(|i| Block {
            weight: Param::from_tensor(wave([WIDTH, WIDTH], 0.7 + i as f32)),
            gain: Param::from_tensor(wave([WIDTH], 0.3 + i as f32)),
            site: i as u32,
        })
    }

    impl Block {
        /// Three uses of `x` meet; `c` is what all blocks are given.
        fn forward(&self, x: Tensor<2>, c: Tensor<2>, listener: Option<&Listener>) -> Tensor<2> {
            let place = self.site as usize;
            let x = if self.weight.is_require_grad() { tap(x, self.weight.val(), place, listener) } else { x };
            let draws = DropoutDraws {
                p: 0.3,
                key: DrawKey::new(3, Purpose::Dropout),
                first_slot: 0,
                global_step: 1,
                site: self.site,
            };
            let (weight, gain) = (enter(self.weight.val(), &x), enter(self.gain.val(), &x).unsqueeze::<2>());
            let hidden = gelu(x.clone().matmul(weight) + enter(c, &x));
            let hidden = dropout(hidden, &Spans::equal(1, ROWS).shared(), draws);
            x.clone() + hidden * gain * x.tanh()
        }
    }

    fn bits<const D: usize>(x: Tensor<D>) -> Vec<u32> {
        x.into_data().try_to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    }

    /// Of two blocks over each other, with one parameter frozen: the output, the gradients and what a listener was told.
    type Found = (Vec<u32>, Vec<Option<Vec<u32>>>, Told);

    type Told = Vec<(usize, Vec<u32>)>;

    fn through(again: bool, listens: bool) -> Found {
        let told: Arc<Mutex<Told>> = Arc::default();
        let listener = {
            let told = Arc::clone(&told);
            Listener::new(move |place, gradient| told.lock().unwrap().push((place, bits(gradient))))
        };
        let listener = listens.then_some(listener);
        let [first, second] = blocks();
        let second = Block { gain: second.gain.set_require_grad(false), ..second };
        let [x, c] = [0.9, 1.3].map(|by| wave([ROWS, WIDTH], by).require_grad());
        let given = x.clone() * 1.5; // not a leaf
        let y = [&first, &second].into_iter().fold(given, |x, block| {
            let listener = listener.clone();
            match again {
                true => recomputed(block, (x, c.clone()), move |block: &Block, (x, c)| {
                    block.forward(x, c, listener.as_ref())
                }),
                false => block.forward(x, c.clone(), listener.as_ref()),
            }
        });
        let found = (y.clone() * y.clone() * wave([ROWS, WIDTH], 0.2)).sum().backward();
        let of = [&x, &c, &first.weight, &second.weight].map(|x| x.grad(&found).map(bits));
        let of_gains = [&first.gain, &second.gain].map(|gain| gain.grad(&found).map(bits));
        let told = told.lock().unwrap().clone();
        (bits(y), [&of[..], &of_gains[..]].concat(), told)
    }

    #[test]
    fn values_gradients_and_what_a_listener_is_told_have_the_bits_of_the_plain_forward() {
        for listens in [false, true] {
            let plain = through(false, listens);
            assert!(through(true, listens) == plain, "listens: {listens}");
            let (_, gradients, told) = plain;
            let there: Vec<bool> = gradients.iter().map(Option::is_some).collect();
            assert_eq!(
                there,
                [true, true, !listens, !listens, true, false],
                "what is told is taken, what is frozen has none"
            );
            let places: Vec<usize> = told.iter().map(|told| told.0).collect();
            assert_eq!(places, if listens { vec![1, 0] } else { Vec::new() });
        }
    }

    #[test]
    fn parameters_learn_where_no_input_has_a_gradient_and_what_does_not_learn_runs_once() {
        let [block, _] = blocks();
        let runs = Arc::new(AtomicUsize::new(0));
        let forward = {
            let runs = Arc::clone(&runs);
            move |block: &Block, (x, c): (Tensor<2>, Tensor<2>)| {
                runs.fetch_add(1, Ordering::Relaxed);
                block.forward(x, c, None)
            }
        };
        let given = || (wave([ROWS, WIDTH], 0.9), wave([ROWS, WIDTH], 1.3));
        let of_weight = |y: Tensor<2>| block.weight.grad(&(y.clone() * y).sum().backward()).map(bits);
        let plain = of_weight(block.forward(given().0, given().1, None));
        let y = recomputed(&block, given(), forward.clone());
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        assert!(plain.is_some() && of_weight(y) == plain);
        assert_eq!(runs.load(Ordering::Relaxed), 2, "again in backward");
        assert!(!recomputed(&block.clone().no_grad(), given(), forward).is_tracked());
    }

    #[test]
    fn an_input_that_comes_to_nothing_has_a_gradient_of_zeros() {
        let [x, c] = [0.9, 1.3].map(|by| wave([ROWS, WIDTH], by).require_grad());
        let [block, _] = blocks();
        let y = recomputed(&block, (x.clone(), c.clone() * 2.0), |block: &Block, (x, _)| x.matmul(block.weight.val()));
        let found = y.sum().backward();
        assert!(bits(c.grad(&found).unwrap()).iter().all(|bits| *bits == 0) && x.grad(&found).is_some());
    }

    #[test]
    #[should_panic(expected = "must be among its inputs")]
    fn a_tensor_with_gradients_that_is_no_input_is_refused() {
        let [x, held] = [0.9, 1.3].map(|by| wave([ROWS, WIDTH], by).require_grad());
        let [block, _] = blocks();
        recomputed(&block, x, move |block: &Block, x: Tensor<2>| block.forward(x, held.clone(), None));
    }
}
