//! A batch's values on the host, which may have been sent to a device before they are used there.

use std::fmt;
use std::ops::{Deref, DerefMut};

use burn::tensor::kind::Basic;
use burn::tensor::{Bool, Device, Element, Float, Int, Tensor, TensorData};

/// What a tensor may be made of, and which kind it is then.
pub trait Value: Element + Clone {
    /// The kind.
    type Kind: Basic;
}

impl Value for f32 {
    type Kind = Float;
}

impl Value for i64 {
    type Kind = Int;
}

impl Value for bool {
    type Kind = Bool;
}

/// Values on the host; a vector in all that is asked of it.
///
/// [`Values::send`] copies them to a device ahead of their use: Burn gives each thread a stream of its own there, so a copy that
/// another thread asked for runs beside the step's kernels, and whoever uses the tensor waits for it on the device. What is
/// changed afterwards is as if it had not been sent.
#[derive(Clone)]
pub struct Values<T: Value> {
    host: Vec<T>,
    /// Boxed: mostly there is none, and a tensor's handle is large.
    sent: Option<Box<Tensor<1, T::Kind>>>,
}

impl<T: Value> Values<T> {
    /// Copies the values to `device`, which is that of [`Values::tensor`] later on; gives how many.
    pub fn send(&mut self, device: &Device) -> usize {
        if !self.host.is_empty() {
            let data = TensorData::new(self.host.clone(), [self.host.len()]);
            self.sent = Some(Box::new(Tensor::from_data(data, device)));
        }
        self.host.len()
    }

    /// As a tensor of this shape on `device`.
    pub fn tensor<const D: usize>(&self, shape: [usize; D], device: &Device) -> Tensor<D, T::Kind> {
        match &self.sent {
            Some(sent) if same(&sent.device(), device) => Tensor::clone(sent).reshape(shape),
            _ => Tensor::from_data(TensorData::new(self.host.clone(), shape), device),
        }
    }

    /// Whether they were sent.
    pub fn is_sent(&self) -> bool {
        self.sent.is_some()
    }
}

/// Whether tensors of both can meet without being moved: Burn's equality ignores gradients.
fn same(a: &Device, b: &Device) -> bool {
    a == b && a.is_autodiff() == b.is_autodiff()
}

impl<T: Value> From<Vec<T>> for Values<T> {
    fn from(host: Vec<T>) -> Self {
        Self { host, sent: None }
    }
}

impl<T: Value> FromIterator<T> for Values<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Vec::from_iter(values).into()
    }
}

impl<T: Value> Default for Values<T> {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl<T: Value> Deref for Values<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.host
    }
}

impl<T: Value> DerefMut for Values<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        self.sent = None;
        &mut self.host
    }
}

impl<T: Value + PartialEq> PartialEq for Values<T> {
    fn eq(&self, other: &Self) -> bool {
        self.host == other.host
    }
}

impl<T: Value> fmt::Debug for Values<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::cpu;

    #[test]
    fn what_was_sent_is_what_would_have_been_sent_later() {
        let device = cpu().autodiff();
        let mut values: Values<f32> = vec![1.0, -2.0, 0.5, 3.0, f32::MIN_POSITIVE, 7.0].into();
        let late = values.tensor([2, 3], &device).into_data();
        values.send(&device);
        assert!(values.is_sent());
        let sent = values.tensor([2, 3], &device);
        assert!(sent.is_autodiff() && !sent.is_tracked());
        assert_eq!(sent.into_data(), late);
        assert!(!values.tensor([6], &cpu()).is_autodiff(), "where it was not sent it is made anew");
        let mut genes: Values<i64> = vec![3, -1].into();
        genes.send(&device);
        assert_eq!(genes.tensor([2, 1], &device).into_data().iter::<i64>().collect::<Vec<_>>(), [3, -1]);
        let mut padding: Values<bool> = vec![true, false].into();
        padding.send(&device);
        assert_eq!(padding.tensor([1, 2], &device).into_data().try_to_vec::<bool>().unwrap(), [true, false]);
    }

    #[test]
    fn what_is_changed_after_it_was_sent_is_sent_anew() {
        let mut values: Values<f32> = vec![1.0, 2.0].into();
        values.send(&cpu());
        values[1] = 5.0;
        assert!(!values.is_sent());
        assert_eq!(values.tensor([2], &cpu()).into_data().try_to_vec::<f32>().unwrap(), [1.0, 5.0]);
        let mut none: Values<f32> = Values::default();
        none.send(&cpu());
        assert!(!none.is_sent(), "an empty tensor is no copy");
    }
}
