//! What a generated image is to show: tokens to look at and a vector, or a learned nothing in their place.

use std::sync::Arc;

use crate::model::init::{Init, Scope};
use crate::tensor::{Module, Param, Tensor, TensorData};

/// The condition of a micro-batch. It must not know the image: the encoder's image branch is off (`spatia.md` §6).
#[derive(Debug, Clone)]
pub struct Condition {
    /// `[b, s, condition]`.
    pub tokens: Tensor<3>,
    /// `[b, s]`, row-major: true where a token is padding; every record has one that is not.
    pub absent: Option<Vec<bool>>,
    /// `[b, condition]`.
    pub vector: Tensor<2>,
    /// `[b]`: records whose condition is replaced by the null condition.
    pub dropped: Vec<bool>,
}

/// What the blocks attend to.
#[derive(Debug, Clone)]
pub struct Keys {
    /// `[b, s, condition]`.
    pub tokens: Tensor<3>,
    /// `[b, s]`, row-major: true where a token is padding.
    pub absent: Option<Arc<Vec<bool>>>,
}

/// One token and one vector, learned, that stand for "no condition".
#[derive(Module, Debug)]
pub struct NullCondition {
    /// `[condition]`.
    pub token: Param<Tensor<1>>,
    /// `[condition]`.
    pub vector: Param<Tensor<1>>,
}

impl NullCondition {
    /// N(0, .02²).
    pub fn new(scope: &Scope, width: usize) -> Self {
        let of = |name| scope.param(name, [width], Init::Normal(0.02));
        Self { token: of("token"), vector: of("vector") }
    }
}

impl Condition {
    /// The condition with `dropped` for all of its records.
    pub fn dropped(self, dropped: bool) -> Condition {
        Condition { dropped: vec![dropped; self.dropped.len()], ..self }
    }

    /// Keys and vector, those of dropped records replaced by the null condition: its token is then the only one that is
    /// not padding, so that a dropped record's output does not depend on the condition's length.
    ///
    /// Panics when a record is dropped and there is no null condition: whoever draws the flags knows the config.
    pub(super) fn with_null(&self, null: Option<&NullCondition>) -> (Keys, Tensor<2>) {
        let [b, s, width] = self.tokens.dims();
        let any = self.dropped.contains(&true);
        assert_eq!(self.dropped.len(), b, "a flag for every record");
        assert!(null.is_some() || !any, "a dropped condition needs a null condition (condition_dropout above 0)");
        let device = self.tokens.device();
        let absent = (any || self.absent.is_some()).then(|| {
            let absent = self.absent.clone().unwrap_or_else(|| vec![false; b * s]);
            assert_eq!(absent.len(), b * s, "a flag for every token");
            let flag = |(i, padding): (usize, bool)| if self.dropped[i / s] { i % s > 0 } else { padding };
            Arc::new(absent.into_iter().enumerate().map(flag).collect())
        });
        let Some(null) = null else {
            return (Keys { tokens: self.tokens.clone(), absent }, self.vector.clone());
        };
        // multiplied, not chosen: the null condition has a gradient in every lane, zero where nothing is dropped
        let kept: Vec<f32> = self.dropped.iter().map(|&dropped| f32::from(!dropped)).collect();
        let kept = Tensor::<1>::from_data(TensorData::new(kept, [b]), &device).reshape([b, 1]);
        let lost = kept.clone().neg().add_scalar(1.0);
        let (kept3, lost3) = (kept.clone().unsqueeze_dim::<3>(2), lost.clone().unsqueeze_dim::<3>(2));
        let token = null.token.val().reshape([1, 1, width]);
        let vector = null.vector.val().reshape([1, width]);
        let tokens = self.tokens.clone() * kept3 + token * lost3;
        (Keys { tokens, absent }, self.vector.clone() * kept + vector * lost)
    }
}
