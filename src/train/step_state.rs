//! What training keeps from one step to the next.

/// What a step is a function of, and what it changes.
#[derive(Debug, Clone, PartialEq)]
pub struct StepState {
    /// Parameters, flat in declaration order.
    pub parameters: Vec<f32>,
    /// Adam's first moment.
    pub adam_m: Vec<f32>,
    /// Adam's second moment.
    pub adam_v: Vec<f32>,
    /// Moving average of the parameters, when on.
    pub ema: Option<Vec<f32>>,
    /// Per tensor: binary exponent of the largest |g| over lanes, in the last applied step where it was not all zero.
    pub exponents: Vec<Option<i16>>,
    /// Batches consumed.
    pub global_step: u64,
    /// Updates applied.
    pub optim_step: u64,
    /// Steps skipped in a row for non-finite values.
    pub skipped_in_a_row: u32,
}

impl StepState {
    /// The state before the first step.
    pub fn new(parameters: Vec<f32>, tensors: usize, with_ema: bool) -> Self {
        let n = parameters.len();
        Self {
            adam_m: vec![0.0; n],
            adam_v: vec![0.0; n],
            ema: with_ema.then(|| parameters.clone()),
            exponents: vec![None; tensors],
            global_step: 0,
            optim_step: 0,
            skipped_in_a_row: 0,
            parameters,
        }
    }

    /// The weights that evaluation uses: the average when on.
    pub fn evaluated(&self) -> &[f32] {
        self.ema.as_ref().unwrap_or(&self.parameters)
    }
}
