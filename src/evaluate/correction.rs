//! Batch correction under the strict protocol: estimated again from what is visible (`spackle.md` §4).

use syncytia_shards::process::{Combat, CombatKey, ProcessError, batch_name, combat};
use syncytia_shards::processed::{Matrix, Piece, Split};

/// What the strict protocol estimates a batch correction from: the training sections, and what is visible of the judged one.
#[derive(Debug, Clone)]
pub struct Correction {
    /// Which ComBat.
    pub combat: Combat,
    /// What a batch is.
    pub key: CombatKey,
    /// Completed layers of the training pieces, not corrected.
    pub train: Vec<TrainPiece>,
}

/// One training piece of a correction.
#[derive(Debug, Clone)]
pub struct TrainPiece {
    /// Its section.
    pub section: u32,
    /// Its batch.
    pub batch: String,
    /// `d_log1p`, `[n, G]`.
    pub completed: Matrix<f32>,
}

impl Correction {
    /// From the training pieces of a data set; `completed` makes their layers again from their counts, not corrected.
    pub fn new(
        combat: Combat,
        key: CombatKey,
        pieces: &[Piece],
        completed: impl Fn(&Piece) -> Matrix<f32>,
    ) -> Result<Self, ProcessError> {
        let train = pieces.iter().filter(|piece| piece.split == Split::Train).map(|piece| {
            let batch = batch_name(&piece.library_id, piece.donor_id.as_deref(), key)?.to_owned();
            Ok(TrainPiece { section: piece.section, batch, completed: completed(piece) })
        });
        Ok(Self { combat, key, train: train.collect::<Result<_, _>>()? })
    }

    /// `completed` of `piece`, corrected by what an estimate over the training sections and itself gives; as it is where
    /// there is one batch.
    pub fn apply(&self, piece: &Piece, completed: Matrix<f32>) -> Matrix<f32> {
        // A training piece is judged with what is visible of it, not with the whole of it beside.
        let own_place = |t: &&TrainPiece| piece.split != Split::Train || t.section != piece.section;
        let others: Vec<&TrainPiece> = self.train.iter().filter(own_place).collect();
        let Ok(own) = batch_name(&piece.library_id, piece.donor_id.as_deref(), self.key) else { return completed };
        let mut names = vec![own];
        let mut batch_of = vec![0];
        for other in &others {
            batch_of.push(names.iter().position(|n| *n == other.batch).unwrap_or(names.len()));
            if batch_of.last() == Some(&names.len()) {
                names.push(&other.batch);
            }
        }
        let layers: Vec<&Matrix<f32>> =
            std::iter::once(&completed).chain(others.iter().map(|t| &t.completed)).collect();
        match combat::estimate(&layers, &batch_of, self.combat) {
            Some(parameters) => combat::apply(&parameters, &completed, 0),
            None => completed,
        }
    }
}
