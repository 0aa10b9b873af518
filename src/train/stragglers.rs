//! Which rank holds the others up, and with what: from the times that every step's tail carries. Pure.

use std::collections::VecDeque;

/// Steps that are looked at together.
const WINDOW: usize = 10;
/// A rank is slow when a section takes it a multiple of what it takes the others, and the excess is this share of the others' step: half as much again of nothing holds nobody up.
const SHARE: f64 = 0.2;
/// … and this many seconds: below it is the noise of a shared machine.
const LEAST_S: f64 = 0.01;
/// Steps between two warnings of the same thing.
const AGAIN: u64 = 500;

/// The sections of a step, with their place among the tail's times, how many times the others' time is slow, and what is
/// usual to look at. A collective call is slow for all when it is for one: only a great difference tells whose fault it is.
const SECTIONS: [(&str, usize, f64, &str); 3] = [
    ("data", 0, 1.5, "its shards may lie on slow or busy storage: stage them on the node's own disk"),
    ("compute", 1, 1.5, "another program may run on its cores, or they are throttled"),
    ("reduce", 3, 3.0, "its way to the others may be slow, or its memory"),
];

/// The last steps' times.
#[derive(Debug)]
pub struct Stragglers {
    lanes_of: Vec<f64>,
    steps: VecDeque<Vec<[f64; 3]>>,
    said: Option<(usize, usize, u64)>,
    seen: u64,
}

impl Stragglers {
    /// For `lanes` lanes on `world_size` ranks.
    pub fn new(lanes: usize, world_size: usize) -> Stragglers {
        let lanes_of = (0..world_size).map(|rank| (lanes - rank).div_ceil(world_size) as f64).collect();
        Stragglers { lanes_of, steps: VecDeque::with_capacity(WINDOW), said: None, seen: 0 }
    }

    /// Takes a step's times per rank (data, compute, reduce with waiting, reduce without) and names a rank that has been
    /// slow, with the section, once it is plain.
    pub fn look(&mut self, seconds: &[[f64; 4]]) -> Option<String> {
        if seconds.len() < 2 {
            return None;
        }
        if self.steps.len() == WINDOW {
            self.steps.pop_front();
        }
        // Ranks may have one lane more or less: compute is compared per lane.
        let per_lane = |(s, &lanes): (&[f64; 4], &f64)| {
            SECTIONS.map(|(name, at, ..)| if name == "compute" { s[at] / lanes } else { s[at] })
        };
        self.steps.push_back(seconds.iter().zip(&self.lanes_of).map(per_lane).collect());
        self.seen += 1;
        if self.steps.len() < WINDOW {
            return None;
        }
        let usual = |rank: usize, section: usize| median(self.steps.iter().map(|step| step[rank][section]).collect());
        let step_s: Vec<f64> = (0..seconds.len()).map(|r| usual(r, 0) + usual(r, 1) * self.lanes_of[r]).collect();
        let step_s = median(step_s);
        let mut slowest: Option<(f64, usize, usize, f64, f64)> = None;
        for (section, (name, _, factor, _)) in SECTIONS.iter().enumerate() {
            for rank in 0..seconds.len() {
                let lanes = if *name == "compute" { self.lanes_of[rank] } else { 1.0 };
                let own = usual(rank, section) * lanes;
                let others = (0..seconds.len()).filter(|&r| r != rank).map(|r| usual(r, section)).collect();
                let others = median(others) * lanes;
                let excess = own - others;
                let slow = own > factor * others && excess > LEAST_S.max(SHARE * step_s);
                if slow && slowest.is_none_or(|s| excess > s.0) {
                    slowest = Some((excess, rank, section, own, others));
                }
            }
        }
        let (_, rank, section, own, others) = slowest?;
        if self.said.is_some_and(|(r, s, at)| (r, s) == (rank, section) && self.seen < at + AGAIN) {
            return None;
        }
        self.said = Some((rank, section, self.seen));
        let (name, _, _, advice) = SECTIONS[section];
        let (own, others) = (own * 1e3, others * 1e3);
        Some(format!("rank {rank} is slow in {name}: {own:.1} ms a step, the others {others:.1} ms; {advice}"))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let n = values.len();
    (values[(n - 1) / 2] + values[n / 2]) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of three ranks, 20 ms each with one in ten disturbed, and what `slow` adds to rank 1; the words and the step.
    fn first_warning(slow: [f64; 4]) -> Option<(usize, String)> {
        let mut stragglers = Stragglers::new(8, 3);
        (1..=40).find_map(|step| {
            let noise = if step % 10 == 3 { 0.05 } else { 0.0 };
            let usual = |lanes: f64| [0.001 + noise, 0.02 * lanes, 0.004, 0.002];
            let mut seconds = vec![usual(3.0), usual(3.0), usual(2.0)];
            seconds[1].iter_mut().zip(slow).for_each(|(s, more)| *s += more);
            stragglers.look(&seconds).map(|words| (step, words))
        })
    }

    #[test]
    fn a_slow_rank_is_named_with_its_section_within_twenty_steps() {
        for (section, slow) in
            [("data", [0.03, 0.0, 0.0, 0.0]), ("compute", [0.0, 0.05, 0.0, 0.0]), ("reduce", [0.0, 0.0, 0.0, 0.02])]
        {
            let (step, words) = first_warning(slow).expect(section);
            assert!(step <= 20 && words.starts_with(&format!("rank 1 is slow in {section}:")), "step {step}: {words}");
        }
    }

    #[test]
    fn a_lane_more_waiting_and_single_hiccups_are_no_slowness() {
        assert_eq!(first_warning([0.0; 4]), None);
        assert_eq!(first_warning([0.0, 0.0, 0.5, 0.0]), None, "waiting for others is theirs");
        assert_eq!(first_warning([0.002, 0.0, 0.0, 0.003]), None, "twice as much of nothing");
    }

    #[test]
    fn the_same_thing_is_not_said_at_every_step() {
        let mut stragglers = Stragglers::new(2, 2);
        let said =
            (0..100).filter(|_| stragglers.look(&[[0.0, 0.02, 0.0, 0.0], [0.0, 0.09, 0.0, 0.0]]).is_some()).count();
        assert_eq!(said, 1);
    }
}
