//! A transformer over the members of a place: cells of a niche, niches of a tissue (`spatia.md` §5).

use syncytia_shards::draw::DrawKey;

use super::config::{LevelConfig, POSITION_FEATURES};
use super::{norm_last, positions};
use crate::model::init::{Init, Scope};
use crate::model::layers::{EncoderConfig, LayerNorm, Linear, Training, TransformerEncoder};
use crate::tensor::{Bool, Module, Padding, Param, Tensor};

/// Standard deviation of the query and of the masked member's token at the start.
const TOKEN_SD: f64 = 0.02;

/// Places with their members, padded to the most.
#[derive(Debug, Clone)]
pub struct ContextInput {
    /// `[b, n, h]`: the members' vectors, as they were made at the level below.
    pub members: Tensor<3>,
    /// `[b, n, 2]`: x and y of the members from the place's centre, µm; 0 where padded.
    pub offsets_um: Tensor<3>,
    /// Of `[b, n]` members; `None` if none is padding.
    pub padding: Option<Padding>,
    /// `[b, n]`: true where a member is hidden by the learned token (the masked objective); its position stays.
    pub hidden: Option<Tensor<2, Bool>>,
    /// Of niches: the picture of the region, where it is read.
    pub region: Option<RegionInput>,
}

/// Pictures of the places' regions.
#[derive(Debug, Clone)]
pub struct RegionInput {
    /// `[b, e]`: the image encoder's vectors; 0 where there is no picture.
    pub vectors: Tensor<2>,
    /// Of `[b, 1]`, those that are not there; `None` if all are.
    pub absent: Option<Padding>,
}

/// What comes out.
#[derive(Debug, Clone)]
pub struct ContextOutput {
    /// `[b, h]`: the place's vector, the query's output.
    pub z: Tensor<2>,
    /// `[b, n, h]`: the members' outputs; where hidden, the prediction of the member's vector.
    pub members: Tensor<3>,
}

/// The network.
#[derive(Module, Debug)]
pub struct Context {
    /// The blocks.
    pub encoder: TransformerEncoder,
    /// Norm of the last block's output.
    pub norm: LayerNorm,
    /// 64 position features → h.
    pub position: Linear,
    /// `[h]`.
    pub query: Param<Tensor<1>>,
    /// `[h]`: stands for a hidden member, when `masked_token`.
    pub masked: Option<Param<Tensor<1>>>,
    #[module(skip)]
    wavelengths_um: (f64, f64),
}

impl Context {
    /// Of vectors of width `h`; `wavelengths_um`: shortest and longest of the position features.
    pub fn new(
        scope: &Scope,
        level: LevelConfig,
        h: usize,
        dropout: f64,
        masked_token: bool,
        wavelengths_um: (f64, f64),
    ) -> Self {
        let encoder = EncoderConfig::pre_norm(h, level.blocks, level.heads, dropout);
        Self {
            encoder: TransformerEncoder::new(&scope.child("encoder"), &encoder),
            norm: LayerNorm::new(&scope.child("norm"), h),
            position: Linear::new(&scope.child("position"), POSITION_FEATURES, h),
            query: scope.param("query", [h], Init::Normal(TOKEN_SD)),
            masked: masked_token.then(|| scope.param("masked", [h], Init::Normal(TOKEN_SD))),
            wavelengths_um,
        }
    }

    /// Sequence [query; members + positions; `image`], `image` being `[b, 1, h]`, the token of the region's picture. `hidden`
    /// needs `masked_token`. With `training` once in a forward only: z and the predictions of the hidden come from the same pass.
    pub fn forward(
        &self,
        input: &ContextInput,
        image: Option<Tensor<3>>,
        training: Option<&Training>,
    ) -> ContextOutput {
        let [b, n, h] = input.members.dims();
        let members = match &input.hidden {
            Some(hidden) => {
                let token = self.masked.as_ref().expect("hidden members need model.spatia.masked_token = true");
                let token = token.val().reshape([1, 1, h]).expand([b, n, h]);
                let hidden = hidden.clone().unsqueeze_dim::<3>(2).expand([b, n, h]);
                input.members.clone().mask_where(hidden, token)
            }
            None => input.members.clone(),
        };
        let at = positions::offsets(input.offsets_um.clone(), self.wavelengths_um);
        let query = self.query.val().reshape([1, 1, h]).expand([b, 1, h]);
        let mut parts = vec![query, members + self.position.forward(at, training)];
        let region = input.region.as_ref().filter(|_| image.is_some());
        parts.extend(image);
        let mut padding = vec![(1, None), (n, input.padding.as_ref())];
        padding.extend(region.map(|region| (1, region.absent.as_ref())));
        let absent = Padding::side_by_side(b, &padding);
        let tokens = self.encoder.forward(Tensor::cat(parts, 1), absent.as_ref(), training);
        let tokens = norm_last(&self.norm, tokens, training);
        ContextOutput { z: tokens.clone().narrow(1, 0, 1).squeeze_dim(1), members: tokens.narrow(1, 1, n) }
    }
}

/// Which of a place's `members` the masked objective hides: ⌊ratio·n + ½⌋ of them, at least one and never all, those with
/// the smallest words (ties to the lower place in the list); none of a place with one member. Element = place in the list;
/// streams: (slot, global_step, 0) in training, (id low, id high, assay) else.
pub fn hidden_members(key: DrawKey, stream: [u32; 3], members: usize, ratio: f64) -> Vec<bool> {
    let mut hidden = vec![false; members];
    if members > 1 {
        let n = ((ratio * members as f64 + 0.5) as usize).clamp(1, members - 1);
        let mut words = Vec::with_capacity(members);
        key.for_each(members, stream, |member, word| words.push((word, member)));
        words.sort_unstable();
        words[..n].iter().for_each(|&(_, member)| hidden[member] = true);
    }
    hidden
}

#[cfg(test)]
mod tests {
    use syncytia_shards::draw::Purpose;

    use super::*;

    #[test]
    fn some_members_are_hidden_and_never_all() {
        let key = DrawKey::new(2, Purpose::MemberMask);
        let n = |members, slot| hidden_members(key, [slot, 0, 0], members, 0.15).iter().filter(|h| **h).count();
        assert_eq!([0, 1, 2, 4, 16, 64].map(|members| n(members, 3)), [0, 0, 1, 1, 2, 10]);
        let each: Vec<Vec<bool>> = (0..8).map(|slot| hidden_members(key, [slot, 0, 0], 16, 0.15)).collect();
        assert!(each.iter().any(|hidden| *hidden != each[0]), "places have draws of their own");
    }
}
