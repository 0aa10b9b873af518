//! Parameters as the trainer sees them: one flat f32 buffer in declaration order, and the tensors' places in it.
//!
//! Burn's parameter ids are random per process, so everything is keyed by position and path (`docs/step.md` §5).
//! A thread-rank makes its own leaf tensors from values: shared leaves would merge two ranks' autodiff graphs.

use crate::tensor::{
    Device, Gradients, Module, ModuleMapper, ModuleVisitor, Param, ParamId, Tensor, TensorData, with_gradients,
};

/// Place of one parameter tensor in the flat buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamSpec {
    /// Dotted path, the name of the reference implementation: `transformer_encoder.layers.0.linear1.weight`.
    pub path: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// First element in the flat buffer.
    pub offset: usize,
}

/// An axis of a tensor that holds genes: `blocks` times all genes in panel order, then whatever else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneAxis {
    /// Which axis.
    pub axis: usize,
    /// How often it goes through the genes.
    pub blocks: usize,
}

impl ParamSpec {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tensor's elements in the flat buffer.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// Paths, shapes and offsets of a module's float parameters in declaration order.
pub fn specs<M: Module>(module: &M) -> Vec<ParamSpec> {
    let mut visitor = Collect::default();
    module.visit(&mut visitor);
    visitor.specs
}

/// The module's parameters as one flat buffer.
pub fn to_flat<M: Module>(module: &M) -> Vec<f32> {
    let mut visitor = Collect { with_values: true, ..Collect::default() };
    module.visit(&mut visitor);
    visitor.values
}

/// The module with its parameters replaced by new leaves holding `flat`, on `device`.
///
/// On an autodiff device the leaves ask for gradients.
pub fn from_flat<M: Module>(module: M, flat: &[f32], device: &Device) -> M {
    Place { flat: Flat::OnHost(flat), trained_only: false, at: 0, device }.fill(module)
}

/// The module with new leaves holding `flat` for the parameters that train; the others stay as they are.
pub fn with_trained<M: Module>(module: M, flat: &[f32], device: &Device) -> M {
    Place { flat: Flat::OnHost(flat), trained_only: true, at: 0, device }.fill(module)
}

/// The same from a flat tensor, which lies where `device` is; where tensors are cut from it without a copy they see its changes.
pub fn with_trained_there<M: Module>(module: M, flat: &Tensor<1>, device: &Device) -> M {
    Place { flat: Flat::There(flat), trained_only: true, at: 0, device }.fill(module)
}

/// The module with its parameters trained or not, in declaration order.
pub fn freeze<M: Module>(module: M, trains: &[bool]) -> M {
    module.map(&mut Freeze { trains: trains.iter() })
}

/// Ids of the parameters that train, in declaration order; random per process, the same as long as the module lives.
pub fn ids<M: Module>(module: &M) -> Vec<ParamId> {
    let mut visitor = Ids(Vec::new());
    module.visit(&mut visitor);
    visitor.0
}

/// Takes the gradient of every parameter that trains and gives it to `each` with its place among them, flat and where it is;
/// those without one are left out.
pub fn each_gradient<M: Module>(module: &M, gradients: &mut Gradients, each: &mut dyn FnMut(usize, Tensor<1>)) {
    module.visit(&mut Take { gradients, each, place: 0 });
}

struct Ids(Vec<ParamId>);

impl ModuleVisitor for Ids {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.is_require_grad() {
            self.0.push(param.id);
        }
    }
}

#[derive(Default)]
struct Collect {
    path: Vec<String>,
    specs: Vec<ParamSpec>,
    at: usize,
    with_values: bool,
    values: Vec<f32>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let shape = value.dims().to_vec();
        let spec = ParamSpec { path: self.path.join("."), shape, offset: self.at };
        self.at += spec.len();
        self.specs.push(spec);
        if self.with_values {
            let data = value.into_data();
            self.values.extend_from_slice(data.as_slice::<f32>().expect("parameters are f32"));
        }
    }
}

/// Where flat values lie.
enum Flat<'a> {
    OnHost(&'a [f32]),
    There(&'a Tensor<1>),
}

/// Puts flat values in the place of a module's parameters.
struct Place<'a> {
    flat: Flat<'a>,
    /// The others stay as they are.
    trained_only: bool,
    at: usize,
    device: &'a Device,
}

impl Place<'_> {
    fn fill<M: Module>(mut self, module: M) -> M {
        let module = module.map(&mut self);
        let length = match self.flat {
            Flat::OnHost(flat) => flat.len(),
            Flat::There(flat) => flat.dims()[0],
        };
        assert_eq!(self.at, length, "flat values must fill their parameters exactly");
        module
    }
}

impl ModuleMapper for Place<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.trained_only && !param.is_require_grad() {
            return param;
        }
        let shape = param.val().dims();
        let n: usize = shape.iter().product();
        let range = self.at..self.at + n;
        self.at += n;
        match self.flat {
            Flat::OnHost(flat) => Param::from_data(TensorData::new(flat[range].to_vec(), shape), self.device),
            Flat::There(flat) => {
                Param::from_tensor(with_gradients(flat.clone().slice(range).reshape(shape), self.device))
            }
        }
    }
}

struct Freeze<'a> {
    trains: std::slice::Iter<'a, bool>,
}

impl ModuleMapper for Freeze<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let trains = self.trains.next().expect("there is a word for every parameter");
        param.set_require_grad(*trains)
    }
}

struct Take<'a> {
    gradients: &'a mut Gradients,
    each: &'a mut dyn FnMut(usize, Tensor<1>),
    place: usize,
}

impl ModuleVisitor for Take<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !param.is_require_grad() {
            return;
        }
        if let Some(gradient) = param.val().grad_remove(self.gradients) {
            let n: usize = gradient.dims().iter().product();
            (self.each)(self.place, gradient.reshape([n]));
        }
        self.place += 1;
    }
}
