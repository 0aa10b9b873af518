//! Sparse data: the same run of SpotDiff, and every simple fill, where less and more is hidden than the shards hide (`spotdiff.md` §6.1).
//!
//! Scored are entries that the shards hide and no others, for whoever was trained has seen those. Above the shards' share further
//! entries are hidden; below it a part of the hidden ones is shown, to the model and to the fills alike: only who judges can. All that
//! is made of values (totals, scales, neighbours, pairs, prompts) is made anew of what is then visible.

use syncytia_shards::holdout::hidden_at;
use syncytia_shards::matrix::Matrix;
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::tables::held::{self, Held};

use super::UsageError;
use super::folds::{MODEL, SMOOTHED};
use crate::cmd::imputed::impute_seen;
use crate::cmd::trained::Trained;
use crate::evaluate::imputation::{FRACTIONS, Point, Protocol, Sparse, points};
use crate::train::pairing;

/// Shares that are scored: those of every sweep, and the shards' own.
pub fn fractions(protocol: Protocol) -> Result<Vec<f64>, UsageError> {
    let Protocol::Entries(share) = protocol else {
        let what = "--sweep hides entries at random, and these shards hide folds of genes: shard with --set data.holdout=entries, train \
                    on those and sweep that run";
        return Err(UsageError(what.to_owned()));
    };
    let mut fractions = FRACTIONS.to_vec();
    fractions.push(share);
    fractions.sort_by(f64::total_cmp);
    fractions.dedup();
    Ok(fractions)
}

/// Model and fills at every share; `notes` get what a reader must know.
pub fn sweep(
    run: &Trained,
    shards: &Shards,
    split: Split,
    fractions: &[f64],
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Point>> {
    let holdout = shards.manifest().holdout.as_ref().expect("its protocol was looked at");
    let share = holdout.fraction.expect("its protocol was looked at");
    let splits =
        [Split::Train, Split::Val, Split::Test].into_iter().filter(|&split| !shards.row_groups(split).is_empty());
    let held: Vec<Held> = splits.map(|split| held::read(shards, split, None)).collect::<Result<_, _>>()?;
    let of_record = |id: u64| {
        let found = held.iter().find_map(|held| Some((held, held.ids.binary_search(&id).ok()?)));
        let (held, row) = found.expect("every record is of a split");
        (held.values.row(row), held.hidden.row(row))
    };
    let as_trained = pairing::view(shards, &run.run.config)?;
    let mut found = Vec::new();
    for &fraction in fractions {
        eprintln!("imputing where {} % are hidden", percent(fraction));
        let change = |id: u64, values: &mut [f32], bits: &mut [bool]| {
            let (of_hidden, hidden) = of_record(id);
            for (gene, hides) in hidden_at(holdout.seed, id, hidden, share, fraction).into_iter().enumerate() {
                bits[gene] = !hides;
                match (hides, hidden[gene]) {
                    (true, _) => values[gene] = 0.0,
                    (false, true) => values[gene] = of_hidden[gene],
                    (false, false) => {}
                }
            }
        };
        let imputed = impute_seen(run, &as_trained.changed(&change)?, split, false)?;
        let seen = &imputed.seen;
        let n_cols = imputed.hides.len();
        let mut truth = Matrix { n_cols, values: vec![f32::NAN; seen.bits.len()] };
        let mut scored = Matrix { n_cols, values: vec![false; seen.bits.len()] };
        for (row, &id) in seen.ids.iter().enumerate() {
            let (of_hidden, hidden) = of_record(id);
            for gene in (0..n_cols).filter(|&gene| hidden[gene] && !seen.bits[row * n_cols + gene]) {
                truth.values[row * n_cols + gene] = seen.scale.level(row, of_hidden[gene]) as f32;
                scored.values[row * n_cols + gene] = true;
            }
        }
        if !seen.left_out.is_empty() {
            notes.push(format!(
                "At {} % hidden {} spots show nothing and are not scored.",
                percent(fraction),
                seen.left_out.len()
            ));
        }
        found.extend(points(&Sparse {
            hidden: fraction,
            visible: Matrix { n_cols, values: imputed.seen.bits },
            values: imputed.seen.levels,
            xyz: imputed.seen.xyz,
            truth,
            scored,
            models: vec![(MODEL, imputed.values), (SMOOTHED, imputed.smooth)],
        }));
    }
    if fractions.iter().any(|fraction| *fraction < share) {
        notes.push(format!(
            "Sparse data: below {} %, the share that the shards hide, some of what they hide was shown to model and fills, and the \
             rest of it scored: only who judges can show it.",
            percent(share)
        ));
    }
    Ok(found)
}

/// For people: 0.35 → 35.
fn percent(share: f64) -> f64 {
    (1000.0 * share).round() / 10.0
}
