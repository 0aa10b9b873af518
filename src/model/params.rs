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
    let mut mapper = Place { flat, at: 0, device };
    let module = module.map(&mut mapper);
    assert_eq!(mapper.at, flat.len(), "a flat buffer must fill the module exactly");
    module
}

/// The module with new leaves holding `flat` for the parameters that train; the others stay as they are.
pub fn with_trained<M: Module>(module: M, flat: &[f32], device: &Device) -> M {
    let mut mapper = PlaceTrained(Place { flat, at: 0, device });
    let module = module.map(&mut mapper);
    assert_eq!(mapper.0.at, flat.len(), "a flat buffer must fill what trains exactly");
    module
}

/// The same from a flat tensor, which lies where `device` is; where tensors are cut from it without a copy they see its changes.
pub fn with_trained_there<M: Module>(module: M, flat: &Tensor<1>, device: &Device) -> M {
    let mut mapper = PlaceThere { flat, at: 0, device };
    let module = module.map(&mut mapper);
    assert_eq!(mapper.at, flat.dims()[0], "a flat tensor must fill what trains exactly");
    module
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

/// Takes the gradient of every parameter that trains and gives it to `each` with its place among them; those without one are
/// left out.
pub fn each_gradient<M: Module>(module: &M, gradients: &mut Gradients, each: &mut dyn FnMut(usize, TensorData)) {
    module.visit(&mut Take { gradients, each: &mut Each::OnHost(each), place: 0 });
}

/// The same, flat and where they are.
pub fn each_gradient_there<M: Module>(module: &M, gradients: &mut Gradients, each: &mut dyn FnMut(usize, Tensor<1>)) {
    module.visit(&mut Take { gradients, each: &mut Each::There(each), place: 0 });
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

struct Place<'a> {
    flat: &'a [f32],
    at: usize,
    device: &'a Device,
}

impl ModuleMapper for Place<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.val().dims();
        let n: usize = shape.iter().product();
        let values = self.flat[self.at..self.at + n].to_vec();
        self.at += n;
        Param::from_data(TensorData::new(values, shape), self.device)
    }
}

struct PlaceTrained<'a>(Place<'a>);

impl ModuleMapper for PlaceTrained<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if param.is_require_grad() { self.0.map_float(param) } else { param }
    }
}

struct PlaceThere<'a> {
    flat: &'a Tensor<1>,
    at: usize,
    device: &'a Device,
}

impl ModuleMapper for PlaceThere<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.is_require_grad() {
            return param;
        }
        let shape = param.val().dims();
        let n: usize = shape.iter().product();
        let values = self.flat.clone().slice(self.at..self.at + n).reshape(shape);
        self.at += n;
        Param::from_tensor(with_gradients(values, self.device))
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
    each: &'a mut Each<'a>,
    place: usize,
}

/// Who takes gradients.
enum Each<'a> {
    OnHost(&'a mut dyn FnMut(usize, TensorData)),
    There(&'a mut dyn FnMut(usize, Tensor<1>)),
}

impl ModuleVisitor for Take<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !param.is_require_grad() {
            return;
        }
        if let Some(gradient) = param.val().grad_remove(self.gradients) {
            match self.each {
                Each::OnHost(each) => each(self.place, gradient.into_data()),
                Each::There(each) => {
                    let n: usize = gradient.dims().iter().product();
                    each(self.place, gradient.reshape([n]));
                }
            }
        }
        self.place += 1;
    }
}
