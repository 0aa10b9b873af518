//! What the owner of a run should know before its first step, though nothing forbids it.

use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::row_group::Columns;

use super::config::Reduction;
use super::error::TrainError;
use super::ready::Ready;

/// Warnings, in words. Reads the counts of one row group, no more.
///
/// # Errors
/// Damage; the system's errors.
pub fn warnings(ready: &Ready<'_>, shards: &Shards) -> Result<Vec<String>, TrainError> {
    let mut warnings = Vec::new();
    if ready.val.is_none() {
        warnings.push("the shards have no val split: nothing is selected, the last checkpoint is the model".to_owned());
    }
    let reduction = ready.config.train.reduction;
    if reduction != Reduction::Exact {
        warnings.push(format!(
            "gradients are summed in {} (train.reduction): the same bits are promised for \"exact\" alone",
            reduction.precision()
        ));
    }
    let context = ready.config.model.gene_context().filter(|_| ready.task.columns().counts);
    if let (Some(context), Some(entry)) = (context, shards.row_groups(Split::Train).first()) {
        let group = shards.read_row_group(entry, &Columns { counts: true, ..Columns::default() })?;
        let counts = group.counts.as_ref().expect("counts were asked for");
        let longer = (0..group.n_own).filter(|&row| counts.row(row).0.len() > context).count();
        if longer > 0 {
            warnings.push(format!(
                "{longer} of the {} records looked at express more genes than the {context} that are read of one \
                 (gene.context): of those a random subset is read, another one each step",
                group.n_own
            ));
        }
    }
    Ok(warnings)
}
