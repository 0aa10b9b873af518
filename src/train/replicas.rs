//! Whether the ranks still hold the same weights (`docs/step.md` §5).

use super::error::TrainError;
use crate::engine::Engine;

/// Compares a digest of these parameters over ranks; names those that differ from rank 0.
pub fn agree(engine: &mut dyn Engine, global_step: u64, parameters: &[f32]) -> Result<(), TrainError> {
    let mut hasher = blake3::Hasher::new();
    for value in parameters {
        hasher.update(&value.to_le_bytes());
    }
    let digest = u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("eight bytes"));
    let mut words = vec![0i64; engine.world_size()];
    words[engine.rank()] = digest as i64;
    engine.all_reduce_i64("digest of the parameters", &mut words)?;
    let ranks: Vec<usize> = (1..words.len()).filter(|&r| words[r] != words[0]).collect();
    if ranks.is_empty() {
        return Ok(());
    }
    Err(TrainError::ReplicasDiffer { global_step, ranks })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::ThreadsEngine;

    #[test]
    fn a_rank_with_other_weights_is_named_by_all() {
        let results: Vec<_> = std::thread::scope(|scope| {
            let ranks = ThreadsEngine::group(3, Duration::from_secs(20)).into_iter().map(|mut engine| {
                scope.spawn(move || {
                    let mut parameters = [1.0, 0.0];
                    let same = agree(&mut engine, 7, &parameters).is_ok();
                    if engine.rank() == 2 {
                        parameters[1] = -0.0; // equal as a number, not as bits
                    }
                    (same, agree(&mut engine, 7, &parameters))
                })
            });
            let ranks: Vec<_> = ranks.collect();
            ranks.into_iter().map(|r| r.join().unwrap()).collect()
        });
        for (same, differ) in results {
            assert!(same);
            assert!(matches!(differ, Err(TrainError::ReplicasDiffer { ref ranks, .. }) if *ranks == [2]), "{differ:?}");
        }
    }
}
