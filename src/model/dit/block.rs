//! One block: self-attention, cross-attention to the condition's tokens and a feed-forward, the first and last between
//! an adaptive norm and a gate (adaLN-zero, `spatia.md` §6).

use std::sync::Arc;

use super::attention::{CrossAttention, SelfAttention};
use super::config::{DitConfig, FEED_FORWARD};
use super::{Keys, norm::adaptive_norm, norm::plain_norm};
use crate::model::init::{Init, Scope};
use crate::model::layers::{Linear, Training};
use crate::tensor::{Module, RowMap, Tensor, add_gated, average_rows, copy_rows, enter, gelu_tanh};

/// One block; starts as the identity.
#[derive(Module, Debug)]
pub struct DitBlock {
    /// Time and condition → shift, scale and gate of the attention, then of the feed-forward; zero at the start.
    pub ada_ln: Linear,
    /// Self-attention.
    pub attn: SelfAttention,
    /// Cross-attention to the condition's tokens.
    pub cross: CrossAttention,
    /// Feed-forward.
    pub mlp: FeedForward,
}

/// d → 4d → d with GELU (tanh form).
#[derive(Module, Debug)]
pub struct FeedForward {
    /// d → 4d.
    pub fc1: Linear,
    /// 4d → d.
    pub fc2: Linear,
}

/// What a block does on merged tokens.
#[derive(Debug, Clone)]
pub struct Merged {
    /// Which token goes where.
    pub map: Arc<RowMap>,
    /// Also the feed-forward.
    pub mlp: bool,
    /// Also the cross-attention.
    pub cross: bool,
}

impl DitBlock {
    /// Linear layers Xavier uniform with bias 0, as in DiT.
    pub fn new(scope: &Scope, config: &DitConfig) -> Self {
        let d = config.d;
        Self {
            ada_ln: Linear::zeros(&scope.child("ada_ln"), d, 6 * d),
            attn: SelfAttention::new(&scope.child("attn"), d, config.heads),
            cross: CrossAttention::new(&scope.child("cross"), d, config.condition, config.heads),
            mlp: FeedForward::new(&scope.child("mlp"), d),
        }
    }

    /// `x`: `[b, N, d]`; `c`: SiLU of time and condition, `[b, d]`.
    pub fn forward(
        &self,
        x: Tensor<3>,
        c: &Tensor<2>,
        keys: &Keys,
        merged: Option<&Merged>,
        training: Option<&Training>,
    ) -> Tensor<3> {
        let d = c.dims()[1];
        // met here, so that backward finishes with this block's parameters before it comes to the block before
        let ada = self.ada_ln.forward2(enter(c.clone(), &x), training);
        let part = |i: usize| ada.clone().narrow(1, i * d, d).unsqueeze_dim::<3>(1); // [b, 1, d]

        let h = adaptive_norm(x.clone(), part(0), part(1));
        let x = add_gated(x, on_merged(h, merged, |h| self.attn.forward(h, training)), part(2));

        let look = |h| self.cross.forward(h, keys, training);
        let x = x.clone() + on_merged(plain_norm(x), merged.filter(|m| m.cross), look);

        let h = adaptive_norm(x.clone(), part(3), part(4));
        let fed = on_merged(h, merged.filter(|m| m.mlp), |h| self.mlp.forward(h, training));
        add_gated(x, fed, part(5))
    }
}

/// `f` on the short sequence, its output copied back to the grid.
fn on_merged(h: Tensor<3>, merged: Option<&Merged>, f: impl FnOnce(Tensor<3>) -> Tensor<3>) -> Tensor<3> {
    match merged {
        Some(Merged { map, .. }) => copy_rows(f(average_rows(h, map)), map),
        None => f(h),
    }
}

impl FeedForward {
    /// Xavier uniform, biases 0.
    pub fn new(scope: &Scope, d: usize) -> Self {
        let linear =
            |name, n_in, n_out| Linear::with_init(&scope.child(name), n_in, n_out, Init::XavierUniform, Init::Zeros);
        Self { fc1: linear("fc1", d, FEED_FORWARD * d), fc2: linear("fc2", FEED_FORWARD * d, d) }
    }

    /// `[b, n, d]`.
    pub fn forward(&self, x: Tensor<3>, training: Option<&Training>) -> Tensor<3> {
        self.fc2.forward(gelu_tanh(self.fc1.forward(x, training)), training)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dit::config::tests::tiny;
    use crate::model::params;
    use crate::tensor::{TensorData, cpu};

    #[test]
    fn a_new_block_is_the_identity() {
        let device = cpu();
        let sites = std::cell::Cell::new(0);
        let block = DitBlock::new(&Scope::root(1, &device, &sites), &tiny());
        let wave = |shape: [usize; 3]| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|i| (0.3 + 1.37 * i as f32).sin()).collect();
            Tensor::<3>::from_data(TensorData::new(values, shape), &device)
        };
        let x = wave([2, 16, 64]);
        let keys = Keys { tokens: wave([2, 3, 32]), absent: None };
        let out = block.forward(x.clone(), &wave([1, 2, 64]).reshape([2, 64]), &keys, None, None);
        assert_eq!(out.into_data(), x.into_data());
    }

    /// `spatia.md` §11 (f64); 2e-6: ours is f32 with values near 3.
    #[test]
    fn a_block_equals_the_reference_forward() {
        let device = cpu();
        let sites = std::cell::Cell::new(0);
        let config = DitConfig { d: 4, heads: 1, condition: 4, ..tiny() };
        let block = DitBlock::new(&Scope::root(1, &device, &sites), &config);
        let first = |path: &str| match path.rsplit_once('.').unwrap().0 {
            "ada_ln" => 1.0,
            "attn.qkv" => 3.0,
            "attn.proj" => 5.0,
            "cross.q" => 7.0,
            "cross.kv" => 9.0,
            "cross.proj" => 11.0,
            "mlp.fc1" => 13.0,
            "mlp.fc2" => 15.0,
            p => panic!("no reference fill for {p}"),
        };
        let mut flat = Vec::new();
        for spec in params::specs(&block) {
            let (s, k) = match spec.path.ends_with("bias") {
                true => (0.1, first(&spec.path) + 1.0),
                false => (0.5, first(&spec.path)),
            };
            flat.extend((0..spec.len()).map(|i| (s * (k + i as f64).sin()) as f32));
        }
        let block = params::from_flat(block, &flat, &device);
        let tensor = |v: &[f32], shape: [usize; 3]| Tensor::<3>::from_data(TensorData::new(v.to_vec(), shape), &device);
        let x = tensor(&[1., 0., 2., -1., 0.5, 1.5, 0., 1., 0., 0., 3., 0.5], [1, 3, 4]);
        let y = tensor(&[2., 1., 0., 0.5, 1., -1., 1., 1.], [1, 2, 4]);
        let c = tensor(&[0.5, -1., 2., 0.25], [1, 1, 4]).reshape([1, 4]);
        let keys = Keys { tokens: y, absent: None };
        let out = block.forward(x, &crate::tensor::silu(c), &keys, None, None);
        let expected = [
            0.9640392301,
            0.2499359186,
            2.0109376034,
            -0.9253770494,
            0.4516922971,
            1.5932116741,
            -0.1717226367,
            1.0720868755,
            -0.0005339867,
            0.2437214675,
            3.1358092434,
            0.6703676916,
        ];
        let out: Vec<f32> = out.into_data().try_to_vec().unwrap();
        for (ours, reference) in out.iter().zip(expected) {
            assert!((f64::from(*ours) - reference).abs() < 2e-6, "{ours} against {reference}");
        }
    }
}
