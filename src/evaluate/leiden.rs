//! Communities of a graph by the Leiden algorithm (Traag, Waltman & van Eck 2019) with modularity at a resolution.
//!
//! Nodes move while it helps; every community found is taken apart and put together again from single nodes, whose merges are
//! drawn (that is the refinement: what it gives is connected inside); the refined communities become the nodes of a smaller
//! graph, which starts from the unrefined ones. Rounds go on until one adds nothing. Every draw has its key: the same
//! communities of one seed on every host.

mod refine;

use std::collections::VecDeque;

use syncytia_shards::draw::{Purpose, ShuffleStream};

use super::graph::Graph;

/// Rounds over the whole graph, at most; a few are enough.
const ROUNDS: u64 = 50;
/// A gain below this share of all edges' weight is rounding.
const NOTHING: f64 = 1e-13;

/// The community of each node: `0..n` by falling size, of equals by their first node.
pub fn communities(graph: &Graph, resolution: f64, seed: u64) -> Vec<u32> {
    let mut found: Vec<u32> = (0..graph.n_nodes() as u32).collect();
    let mut quality = graph.modularity(&found, resolution);
    for round in 0..ROUNDS {
        let next = one_round(graph, &found, resolution, seed, round);
        let improved = graph.modularity(&next, resolution);
        if improved <= quality + NOTHING {
            break;
        }
        (found, quality) = (next, improved);
    }
    by_size(&found)
}

/// Moves, refines and aggregates from a partition until no node of the smaller graph moves.
fn one_round(graph: &Graph, from: &[u32], resolution: f64, seed: u64, round: u64) -> Vec<u32> {
    let mut level = graph.clone();
    let mut community_of = dense(from);
    // Which node of the smaller graph each node has become.
    let mut node_of: Vec<u32> = (0..graph.n_nodes() as u32).collect();
    for depth in 0.. {
        let draws = Draws { seed, words: [round, depth] };
        move_nodes(&level, &mut community_of, resolution, &mut draws.stream(0));
        community_of = dense(&community_of);
        let n = count(&community_of);
        if n == level.n_nodes() {
            break;
        }
        let mut refined = dense(&refine::refine(&level, &community_of, resolution, &mut draws.stream(1)));
        if count(&refined) == level.n_nodes() {
            refined.clone_from(&community_of); // nothing was put together: go on with what was found
        }
        let n_refined = count(&refined);
        let mut of_refined = vec![0; n_refined];
        refined.iter().zip(&community_of).for_each(|(&part, &whole)| of_refined[part as usize] = whole);
        level = level.aggregated(&refined, n_refined);
        node_of.iter_mut().for_each(|node| *node = refined[*node as usize]);
        community_of = of_refined;
    }
    node_of.iter().map(|&node| community_of[node as usize]).collect()
}

/// The streams of one level.
struct Draws {
    seed: u64,
    words: [u64; 2],
}

impl Draws {
    fn stream(&self, phase: u64) -> ShuffleStream {
        ShuffleStream::new(self.seed, Purpose::Communities, &[self.words[0], self.words[1], phase])
    }
}

/// Moves nodes to the community that gains most, in a drawn order, and again those whose neighbours moved away from them.
fn move_nodes(graph: &Graph, community_of: &mut [u32], resolution: f64, draws: &mut ShuffleStream) {
    let n = graph.n_nodes();
    let (mut strengths, mut sizes) = (vec![0.0; n], vec![0u32; n]);
    for node in 0..n {
        strengths[community_of[node] as usize] += graph.strength(node);
        sizes[community_of[node] as usize] += 1;
    }
    let mut empty: Vec<u32> = (0..n as u32).rev().filter(|&c| sizes[c as usize] == 0).collect();
    let mut queue: VecDeque<u32> = draws.permutation(n).into();
    let mut waiting = vec![true; n];
    let mut towards = Towards::new(n);
    while let Some(node) = queue.pop_front() {
        let node = node as usize;
        waiting[node] = false;
        let own = community_of[node];
        let strength = graph.strength(node);
        towards.gather(graph, node, |other| community_of[other]);
        strengths[own as usize] -= strength;
        sizes[own as usize] -= 1;
        let share = resolution * strength / graph.total().max(f64::MIN_POSITIVE);
        let gain = |community: u32| towards.weight(community) - share * strengths[community as usize];
        let (mut best, mut most) = (own, gain(own));
        let threshold = NOTHING * graph.total();
        for &community in &towards.seen {
            let gained = gain(community);
            if gained > most + threshold {
                (best, most) = (community, gained);
            }
        }
        if most < -threshold && sizes[own as usize] > 0 {
            best = *empty.last().expect("as many communities as nodes, and one has several");
        }
        strengths[best as usize] += strength;
        sizes[best as usize] += 1;
        if best == own {
            continue;
        }
        if empty.last() == Some(&best) {
            empty.pop();
        }
        if sizes[own as usize] == 0 {
            empty.push(own);
        }
        community_of[node] = best;
        for (other, _) in graph.neighbours(node) {
            if community_of[other] != best && !waiting[other] {
                waiting[other] = true;
                queue.push_back(other as u32);
            }
        }
    }
}

/// Weights from one node to the communities around it.
struct Towards {
    weights: Vec<f64>,
    /// In the order of the neighbours.
    seen: Vec<u32>,
}

impl Towards {
    fn new(n: usize) -> Towards {
        Towards { weights: vec![0.0; n], seen: Vec::new() }
    }

    /// Of `node`; its loop goes with it and counts for none.
    fn gather(&mut self, graph: &Graph, node: usize, community_of: impl Fn(usize) -> u32) {
        for community in self.seen.drain(..) {
            self.weights[community as usize] = 0.0;
        }
        for (other, weight) in graph.neighbours(node).filter(|&(other, _)| other != node) {
            let community = community_of(other);
            if self.weights[community as usize] == 0.0 {
                self.seen.push(community);
            }
            self.weights[community as usize] += weight;
        }
    }

    fn weight(&self, community: u32) -> f64 {
        self.weights[community as usize]
    }
}

/// The same partition numbered `0..n` by first node.
fn dense(community_of: &[u32]) -> Vec<u32> {
    let mut number = vec![u32::MAX; community_of.iter().max().map_or(0, |&most| most as usize + 1)];
    let mut n = 0;
    let mut of = |community: u32| {
        let number = &mut number[community as usize];
        if *number == u32::MAX {
            *number = n;
            n += 1;
        }
        *number
    };
    community_of.iter().map(|&community| of(community)).collect()
}

/// Communities of a dense partition.
fn count(community_of: &[u32]) -> usize {
    community_of.iter().max().map_or(0, |&most| most as usize + 1)
}

fn by_size(community_of: &[u32]) -> Vec<u32> {
    let first = dense(community_of);
    let mut sizes = vec![0u32; count(&first)];
    first.iter().for_each(|&community| sizes[community as usize] += 1);
    let mut order: Vec<u32> = (0..sizes.len() as u32).collect();
    order.sort_by_key(|&community| (std::cmp::Reverse(sizes[community as usize]), community));
    let mut rank = vec![0; sizes.len()];
    order.iter().enumerate().for_each(|(at, &community)| rank[community as usize] = at as u32);
    first.iter().map(|&community| rank[community as usize]).collect()
}

#[cfg(test)]
mod tests;
