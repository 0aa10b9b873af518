//! Which genes of a cell are read: a random subset of the expressed ones where there are too many, zero-count genes on top
//! where there are too few (`spatia.md` §2). Draws belong to (record, gene).

use syncytia_shards::draw::DrawKey;

/// Ascending genes of one cell, at most `most`.
///
/// `expressed`: ascending, below `genes`. If more than `most`: those with the smallest words (ties to the lower gene). If
/// fewer than `least`: zero-count genes with the smallest words fill up to it. Element = gene; streams: (slot, global_step,
/// 0) in training, (id low, id high, assay) else.
pub fn gene_list(
    key: DrawKey,
    stream: [u32; 3],
    expressed: &[u32],
    genes: usize,
    least: usize,
    most: usize,
) -> Vec<u32> {
    debug_assert!(expressed.is_sorted_by(|a, b| a < b), "expressed genes come ascending");
    let smallest = |of: &mut Vec<(u32, u32)>, n: usize| {
        if n < of.len() {
            of.select_nth_unstable(n);
            of.truncate(n);
        }
        of.iter().map(|&(_, gene)| gene).collect::<Vec<u32>>()
    };
    let wanted = least.min(most).min(genes);
    let mut list = if expressed.len() > most {
        let mut words = expressed.iter().map(|&gene| (key.word(gene, stream), gene)).collect();
        smallest(&mut words, most)
    } else if expressed.len() < wanted {
        let mut words = Vec::with_capacity(genes - expressed.len());
        let mut there = expressed.iter().peekable();
        key.for_each(genes, stream, |gene, word| {
            if there.next_if(|&&expressed| expressed as usize == gene).is_none() {
                words.push((word, gene as u32));
            }
        });
        [expressed.to_vec(), smallest(&mut words, wanted - expressed.len())].concat()
    } else {
        expressed.to_vec()
    };
    list.sort_unstable();
    list
}

#[cfg(test)]
mod tests {
    use syncytia_shards::draw::Purpose;

    use super::*;

    #[test]
    fn a_list_is_cut_filled_or_left_and_its_draws_are_the_records() {
        let key = DrawKey::new(4, Purpose::GeneSubset);
        let expressed: Vec<u32> = (0..40).map(|i| i * 3).collect();
        let list = |stream, expressed: &[u32], least, most| gene_list(key, stream, expressed, 128, least, most);
        assert_eq!(list([0; 3], &expressed, 30, 40), expressed, "enough and not too many");
        let cut = list([0; 3], &expressed, 5, 10);
        assert!(cut.len() == 10 && cut.iter().all(|gene| expressed.contains(gene)));
        let filled = list([0; 3], &expressed, 50, 64);
        assert!(filled.len() == 50 && expressed.iter().all(|gene| filled.contains(gene)));
        for list in [&cut, &filled] {
            assert!(list.is_sorted_by(|a, b| a < b), "ascending, each gene once");
        }
        assert_ne!(cut, list([1, 0, 0], &expressed, 5, 10), "records have draws of their own");
        // What stays of a set stays of a subset that holds it: a gene's word does not know the others.
        let fewer: Vec<u32> = expressed.iter().copied().filter(|gene| cut.contains(gene) || gene % 2 == 0).collect();
        assert_eq!(list([0; 3], &fewer, 5, 10), cut);
        assert_eq!(list([0; 3], &[], 500, 1_000).len(), 128, "never more than there are");
    }
}
