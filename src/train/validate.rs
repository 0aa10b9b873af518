//! Validation: every record of the split once, in the same lanes whatever the world size (`docs/step.md` §6).

use super::data::ValData;
use super::error::TrainError;
use super::ready::Ready;
use super::step_state::StepState;
use crate::engine::Engine;
use crate::model::Model;

/// Strictly lower wins; ties and NaN leave the earlier one.
pub fn is_better(value: f64, best: Option<f64>) -> bool {
    best.is_none_or(|best| value < best)
}

/// The selection metric on the validation split with the weights that evaluation uses.
///
/// Batch b goes to lane b mod lanes; each lane sums in f64 in batch order, the lanes' sums are added in lane order.
pub fn validate(
    engine: &mut dyn Engine,
    model: &Model,
    state: &StepState,
    ready: &Ready<'_>,
    frozen: &[f32],
    data: &ValData,
) -> Result<f64, TrainError> {
    let (task, device) = (&ready.task, ready.device.clone().without_autodiff());
    let model = model.clone().from_flat(&ready.parts.join(state.evaluated(), frozen), &device);
    let (lanes, micro_batch) = (ready.config.train.lanes, ready.config.train.micro_batch);
    let assay = task.validation_assay(state.global_step);
    let mut words = vec![0i64; 2 * lanes];
    for lane in (engine.rank()..lanes).step_by(engine.world_size()) {
        let (mut sum, mut weight) = (0.0, 0.0);
        for index in (lane..data.n_batches(micro_batch)).step_by(lanes) {
            let batch = data.batch(task, micro_batch, index, assay)?;
            let (s, w) = task.validate(&model, &batch, &device);
            sum += s;
            weight += w;
        }
        words[2 * lane] = sum.to_bits() as i64;
        words[2 * lane + 1] = weight.to_bits() as i64;
    }
    engine.all_reduce_i64("validation", &mut words)?;
    let total = |offset| words.iter().skip(offset).step_by(2).map(|&w| f64::from_bits(w as u64)).sum::<f64>();
    let (sum, weight): (f64, f64) = (total(0), total(1));
    Ok(if weight == 0.0 { 0.0 } else { sum / weight })
}

#[cfg(test)]
mod tests {
    use super::is_better;

    #[test]
    fn strictly_lower_wins() {
        assert!(is_better(2.0, None) && is_better(1.0, Some(2.0)));
        assert!(!is_better(2.0, Some(2.0)) && !is_better(3.0, Some(2.0)) && !is_better(f64::NAN, Some(2.0)));
    }
}
