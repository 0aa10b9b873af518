//! Gradients before backward has ended: identities whose backward says where it is.
//!
//! Burn's backward runs operations by depth, deepest first, and a parameter's own views (a transpose, a broadcast) are of
//! depth 1: without help every parameter's gradient is complete only at the very end. [`enter`] gives a parameter the depth
//! of the activation it meets; [`tap`] stands before a block, and when backward comes by, the block's gradients are there.
//! An affine map's own gradients come before that of its input ([`super::parameters_first`]), so that a tap can stand between.

use std::fmt;
use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::{
    Autodiff, Backend, Dispatch, DispatchKindConversion, DispatchTensor, Flex, backend_extension, tensor::FloatTensor,
};
use burn::tensor::{Shape, Tensor};

/// Who is told of a gradient: the parameter's place, as given to [`tap`], and the gradient, flat and where it is. Nothing has
/// waited for the device that computes it.
#[derive(Clone)]
pub struct Listener(Arc<dyn Fn(usize, Tensor<1>) + Send + Sync>);

impl Listener {
    /// Calls `f`, on the thread that runs backward.
    pub fn new(f: impl Fn(usize, Tensor<1>) + Send + Sync + 'static) -> Listener {
        Listener(Arc::new(f))
    }

    /// Tells of a gradient.
    pub fn tell(&self, place: usize, gradient: Tensor<1>) {
        (self.0)(place, gradient);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

/// The identities on a backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub trait Taps: Backend {
    /// `x`; see [`tap`].
    fn tap_gradient(
        x: FloatTensor<Self>,
        parameter: FloatTensor<Self>,
        place: usize,
        listener: Option<Listener>,
    ) -> FloatTensor<Self> {
        let _ = (parameter, place, listener);
        x
    }

    /// `parameter`; see [`enter`].
    fn enter_at(parameter: FloatTensor<Self>, x: FloatTensor<Self>) -> FloatTensor<Self> {
        let _ = x;
        parameter
    }
}

impl Taps for Flex {}

impl<B: Backend + Taps, C: CheckpointStrategy> Taps for Autodiff<B, C>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    fn tap_gradient(
        x: FloatTensor<Self>,
        parameter: FloatTensor<Self>,
        place: usize,
        listener: Option<Listener>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Tap;
        impl<B: Backend> Backward<B, 1> for Tap
        where
            DispatchTensor: DispatchKindConversion<B>,
        {
            type State = (FloatTensor<Autodiff<B>>, usize, Option<Listener>);

            fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let (parameter, place, listener) = ops.state;
                let taken = listener.and_then(|listener| Some((gradients.remove::<B>(&parameter)?, listener)));
                if let Some((gradient, listener)) = taken {
                    let n = gradient.shape().num_elements();
                    let flat = B::float_reshape(gradient, Shape::from([n]));
                    listener.tell(place, Tensor::from_primitive::<B>(flat));
                }
                unary::<B, _>(ops.parents, ops.node, gradients, |gradient| gradient);
            }
        }
        match Tap.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((parameter, place, listener), x.into_primitive()),
            OpsKind::UnTracked(prepared) => prepared.finish(x.into_primitive()),
        }
    }

    fn enter_at(parameter: FloatTensor<Self>, x: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Enter;
        impl<B: Backend> Backward<B, 2> for Enter {
            type State = ();

            fn backward(self, ops: Ops<(), 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let gradient = gradients.consume::<B>(&ops.node);
                let [parameter, _for_its_depth_only] = ops.parents;
                if let Some(parameter) = parameter {
                    gradients.register::<B>(parameter.id, gradient);
                }
            }
        }
        match Enter.prepare::<C>([parameter.node(), x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((), parameter.into_primitive()),
            OpsKind::UnTracked(prepared) => prepared.finish(parameter.into_primitive()),
        }
    }
}

/// `x` as it is. When backward comes by, the gradient of `parameter` is taken and told to `listener` with its `place`;
/// nothing is told of one that has none yet. Without a listener nothing is taken, and backward goes the same way: where
/// three gradients meet, the bits of their sum depend on the depth they come from, and thus on whether a tap stands there.
/// Every use of the parameter must come after `x`, through [`enter`].
pub fn tap<const D: usize, const P: usize>(
    x: Tensor<D>,
    parameter: Tensor<P>,
    place: usize,
    listener: Option<&Listener>,
) -> Tensor<D> {
    let (x, parameter) = (x.into_dispatch(), parameter.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Taps>::tap_gradient(x, parameter, place, listener.cloned()))
}

/// `parameter` as it is, met by `x`: backward finishes with it when it has come as far back as `x`.
pub fn enter<const P: usize, const D: usize>(parameter: Tensor<P>, x: &Tensor<D>) -> Tensor<P> {
    Tensor::from_dispatch(<Dispatch as Taps>::enter_at(parameter.into_dispatch(), x.clone().into_dispatch()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::tensor::TensorData;
    use crate::tensor::cpu;

    fn leaf<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values, shape), &cpu().autodiff()).require_grad()
    }

    /// y = (x Wᵀ) Vᵀ: V's gradient is told before W's exists, and both are those of plain backward.
    #[test]
    fn a_tap_tells_the_gradients_of_what_comes_after_it() {
        type Told = Vec<(usize, Vec<f32>)>;
        let told: Arc<Mutex<Told>> = Arc::default();
        let listener = {
            let told = Arc::clone(&told);
            Listener::new(move |place, gradient: Tensor<1>| {
                told.lock().unwrap().push((place, gradient.into_data().try_to_vec().unwrap()));
            })
        };
        let (w, v) = (leaf(vec![1., 2., 3., 4.], [2, 2]), leaf(vec![0.5, -1., 2., 0.25], [2, 2]));
        let x = leaf(vec![1., -2., 0.5, 3.], [2, 2]);
        let through = |x: Tensor<2>, w: &Tensor<2>| {
            let w = enter(w.clone(), &x);
            x.matmul(w.transpose())
        };
        let plain = x.clone().matmul(w.clone().transpose()).matmul(v.clone().transpose()).sum().backward();
        let expected = |t: &Tensor<2>| -> Vec<f32> { t.grad(&plain).unwrap().into_data().try_to_vec().unwrap() };
        let (of_w, of_v) = (expected(&w), expected(&v));
        let h = through(tap(x, w.clone(), 0, Some(&listener)), &w);
        let y = through(tap(h, v.clone(), 1, Some(&listener)), &v);
        let gradients = y.sum().backward();
        assert_eq!(*told.lock().unwrap(), [(1, of_v), (0, of_w)]);
        assert!(w.grad(&gradients).is_none() && v.grad(&gradients).is_none(), "what was told was taken");
    }
}
