//! Initial parameters: keyed by seed and tensor path, so that they need no order and no communication to agree.

use syncytia_shards::draw;

use crate::tensor::{Device, Param, Tensor, TensorData};

/// How a tensor starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// U(−b, b) with b = √(6 / (fan_in + fan_out)).
    XavierUniform,
    /// U(−b, b) with b = 1/√fan_in: PyTorch's `Linear` default, Kaiming with a = √5; `fan_in` is given for a bias.
    FanIn(usize),
    /// All this value.
    Constant(f64),
    /// N(0, sd²).
    Normal(f64),
}

/// Where in the module tree a constructor stands, and what it draws with.
///
/// Sites number the drawing modules (dropout) in declaration order (`docs/step.md` §3).
#[derive(Debug)]
pub struct Scope<'a> {
    seed: u64,
    path: String,
    device: &'a Device,
    sites: &'a std::cell::Cell<u32>,
}

impl<'a> Scope<'a> {
    /// The root of a model's tree.
    pub fn root(seed: u64, device: &'a Device, sites: &'a std::cell::Cell<u32>) -> Self {
        Self { seed, path: String::new(), device, sites }
    }

    /// The scope of a child named `name`.
    pub fn child(&self, name: &str) -> Scope<'a> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Scope { seed: self.seed, path, device: self.device, sites: self.sites }
    }

    /// The next drawing site.
    pub fn next_site(&self) -> u32 {
        let site = self.sites.get();
        self.sites.set(site + 1);
        site
    }

    /// A parameter `name` of this shape, `[out, in]` for weights.
    pub fn param<const D: usize>(&self, name: &str, shape: [usize; D], init: Init) -> Param<Tensor<D>> {
        let n: usize = shape.iter().product();
        let path = self.child(name).path;
        let values: Vec<f32> = match init {
            Init::Zeros => vec![0.0; n],
            Init::Ones => vec![1.0; n],
            Init::Constant(value) => vec![value as f32; n],
            Init::XavierUniform => uniform(self.seed, &path, n, (6.0 / (shape[0] + shape[D - 1]) as f64).sqrt()),
            Init::FanIn(fan_in) => uniform(self.seed, &path, n, 1.0 / (fan_in as f64).sqrt()),
            Init::Normal(sd) => {
                draw::init_normals(self.seed, &path, n).into_iter().map(|z| (f64::from(z) * sd) as f32).collect()
            }
        };
        Param::from_data(TensorData::new(values, shape), self.device)
    }
}

fn uniform(seed: u64, path: &str, n: usize, bound: f64) -> Vec<f32> {
    draw::init_uniforms(seed, path, n).into_iter().map(|u| ((2.0 * f64::from(u) - 1.0) * bound) as f32).collect()
}
