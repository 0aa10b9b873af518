//! Small messages among ranks, carried by the integer sum: who writes only its own place makes the sum a gather. So every
//! engine has them, and a message is ordered with the reductions around it.

use super::{Engine, EngineError};

/// Rank 0's bytes on every rank; what the others give is not looked at.
pub fn broadcast(engine: &mut dyn Engine, operation: &'static str, bytes: &[u8]) -> Result<Vec<u8>, EngineError> {
    let mine = if engine.rank() == 0 { bytes } else { &[] };
    let mut length = vec![mine.len() as i64];
    engine.all_reduce_i64(operation, &mut length)?;
    let length = length[0] as usize;
    let mut words = vec![0i64; length.div_ceil(8)];
    put(&mut words, mine);
    engine.all_reduce_i64(operation, &mut words)?;
    Ok(take(&words, length))
}

/// Every rank's bytes, in rank order, on every rank.
pub fn gather(engine: &mut dyn Engine, operation: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>, EngineError> {
    let mut lengths = vec![0i64; engine.world_size()];
    lengths[engine.rank()] = bytes.len() as i64;
    engine.all_reduce_i64(operation, &mut lengths)?;
    let words_of = |length: &i64| (*length as usize).div_ceil(8);
    let first: usize = lengths[..engine.rank()].iter().map(words_of).sum();
    let mut words = vec![0i64; lengths.iter().map(words_of).sum()];
    put(&mut words[first..first + bytes.len().div_ceil(8)], bytes);
    engine.all_reduce_i64(operation, &mut words)?;
    let mut at = 0;
    let parts = lengths.iter().map(|length| {
        let part = &words[at..at + words_of(length)];
        at += words_of(length);
        take(part, *length as usize)
    });
    Ok(parts.collect())
}

fn put(words: &mut [i64], bytes: &[u8]) {
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut eight = [0; 8];
        eight[..chunk.len()].copy_from_slice(chunk);
        *word = i64::from_le_bytes(eight);
    }
}

fn take(words: &[i64], length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::ThreadsEngine;

    #[test]
    fn messages_of_any_length_arrive_whole_on_every_rank() {
        let text = |rank: usize| "αβγ-πλοῖον".repeat(rank).into_bytes();
        let results: Vec<_> = std::thread::scope(|scope| {
            let ranks = ThreadsEngine::group(4, Duration::from_secs(20)).into_iter().map(|mut engine| {
                scope.spawn(move || {
                    let mine = text(engine.rank());
                    let told = broadcast(&mut engine, "told", &[mine.clone(), b"from 0".to_vec()].concat()).unwrap();
                    (told, gather(&mut engine, "gathered", &mine).unwrap())
                })
            });
            let ranks: Vec<_> = ranks.collect();
            ranks.into_iter().map(|r| r.join().unwrap()).collect()
        });
        for (told, gathered) in results {
            assert_eq!(told, b"from 0");
            assert_eq!(gathered, (0..4).map(text).collect::<Vec<_>>());
        }
    }
}
