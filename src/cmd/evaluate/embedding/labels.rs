//! Which label column judges: the one asked for, else one whose name says that it is of this level.

use std::collections::BTreeMap;

use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::row_group::Columns;
use syncytia_shards::tables::vectors::VectorsOf;

use super::UsageError;
use crate::train::error::TrainError;

/// Names of label columns that are looked for, the first that is there is taken.
fn usual(of: VectorsOf) -> &'static [&'static str] {
    match of {
        VectorsOf::Niche | VectorsOf::Region => {
            &["niche_type", "niche", "region", "domain", "layer", "cell_type", "celltype"]
        }
        VectorsOf::Tissue => &["tissue_type", "tissue", "region", "domain", "niche_type", "niche"],
        _ => &["cell_type", "celltype", "cell_types", "cell_class", "subclass", "class", "cluster"],
    }
}

/// The column to judge by; none where none is asked for and no usual one is there.
pub fn column(shards: &Shards, of: VectorsOf, asked: Option<&str>) -> Result<Option<String>, UsageError> {
    let have = &shards.manifest().labels;
    match asked {
        Some(name) if have.iter().any(|label| label == name) => Ok(Some(name.to_owned())),
        Some(name) => Err(UsageError(format!("--label {name}: {}", available(have)))),
        None => Ok(usual(of).iter().find(|name| have.iter().any(|h| h == *name)).map(|name| (*name).to_owned())),
    }
}

fn available(have: &[String]) -> String {
    match have {
        [] => "the shards hold no label column: their inputs had none in obs; add one and shard again".to_owned(),
        _ => format!("the shards hold no such label column, they hold {}", have.join(", ")),
    }
}

/// That nothing can be judged without labels.
pub fn none(shards: &Shards, of: VectorsOf) -> TrainError {
    let have = &shards.manifest().labels;
    let what = match have.is_empty() {
        true => available(have),
        false => {
            format!("none of {} is there: name one by --label, there are {}", usual(of).join(", "), have.join(", "))
        }
    };
    TrainError::Data(format!("vectors of {} are judged by labels and no column is known: {what}", of.plural()))
}

/// The label of every record of a split.
pub fn of_records(shards: &Shards, split: Split, column: &str) -> anyhow::Result<BTreeMap<u64, Option<String>>> {
    let mut labels = BTreeMap::new();
    for entry in shards.row_groups(split) {
        let group = shards.read_row_group(entry, &Columns { names: true, ..Columns::default() })?;
        let values = &group.labels.iter().find(|l| l.name == column).expect("the column is there").values;
        labels.extend(group.record_ids.iter().copied().zip(values.iter().cloned()).take(group.n_own));
    }
    Ok(labels)
}
