//! Modules filled as the specs fill them for their vectors (`spatia.md` §11): fill(shape, s, k)[i] = s·sin(k + i).

use crate::model::init::Scope;
use crate::model::params;
use crate::tensor::{Module, Tensor, TensorData, cpu};

/// A module made by `new`, its weights filled with (.5, k) and its biases with (.1, k + 1), `fills` giving k for the
/// prefix of a path; what no prefix names stays as made.
pub fn filled<M: Module>(new: impl FnOnce(&Scope) -> M, fills: &[(&str, f64)]) -> M {
    let (device, sites) = (cpu(), std::cell::Cell::new(0));
    let module = new(&Scope::root(1, &device, &sites));
    let mut flat = params::to_flat(&module);
    let mut used = vec![false; fills.len()];
    for spec in params::specs(&module) {
        let Some(at) = fills.iter().position(|(prefix, _)| spec.path.starts_with(prefix)) else { continue };
        used[at] = true;
        let (s, k) = if spec.path.ends_with("bias") { (0.1, fills[at].1 + 1.0) } else { (0.5, fills[at].1) };
        for (i, value) in flat[spec.range()].iter_mut().enumerate() {
            *value = (s * (k + i as f64).sin()) as f32;
        }
    }
    assert!(used.iter().all(|used| *used), "a fill names no parameter");
    params::from_flat(module, &flat, &device)
}

/// x of §11, `[1, 3, 4]`.
pub fn x() -> Tensor<3> {
    tensor(vec![1., 0., 2., -1., 0.5, 1.5, 0., 1., 0., 0., 3., 0.5], [1, 3, 4])
}

/// y of §11, `[1, 2, 4]`.
pub fn y() -> Tensor<3> {
    tensor(vec![2., 1., 0., 0.5, 1., -1., 1., 1.], [1, 2, 4])
}

/// A tensor on the CPU.
pub fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), &cpu())
}

/// Values of a tensor.
pub fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

/// Every value within `tolerance` of its reference, the largest difference in the message.
pub fn assert_near(ours: &[f32], reference: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), reference.len());
    let far = |(&a, &b): (&f32, &f64)| (f64::from(a) - b).abs();
    let worst = ours.iter().zip(reference).map(far).fold(0.0, f64::max);
    assert!(worst <= tolerance, "{worst:e} off: {ours:?} against {reference:?}");
}
