//! About how many values the blocks that a model repeats keep for its backward.

/// A block and how often it stands.
#[derive(Debug, Clone, Copy)]
pub struct Stack {
    /// How many there are.
    pub blocks: usize,
    /// Values that one is given.
    pub input: f64,
    /// Values that one keeps.
    pub block: f64,
}

/// What `stacks` keep. Of blocks that are `recomputed` it is their inputs, and all of the one that runs again.
pub fn of_stacks(stacks: &[Stack], recomputed: bool) -> f64 {
    let all = |of: fn(&Stack) -> f64| -> f64 { stacks.iter().map(|stack| stack.blocks as f64 * of(stack)).sum() };
    if !recomputed {
        return all(|stack| stack.block);
    }
    let one = stacks.iter().filter(|stack| stack.blocks > 0).map(|stack| stack.block).fold(0.0, f64::max);
    all(|stack| stack.input) + one
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_run_again_keep_their_inputs_and_the_largest_once() {
        let stack = |blocks, input, block| Stack { blocks, input, block };
        let stacks = [stack(3, 2.0, 10.0), stack(0, 5.0, 90.0), stack(2, 1.0, 40.0)];
        assert_eq!(of_stacks(&stacks, false), 3.0 * 10.0 + 2.0 * 40.0);
        assert_eq!(of_stacks(&stacks, true), 3.0 * 2.0 + 2.0 * 1.0 + 40.0);
    }
}
