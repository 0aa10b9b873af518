//! The refinement: every community is put together again from its single nodes.
//!
//! A node that is still alone and well connected to the rest of its community joins one of the refined communities there that
//! are well connected themselves, drawn with a probability that grows with what the merge gains. No merge loses, none leaves
//! the community, and a refined community is connected: a node joins only where it has an edge.

use syncytia_shards::draw::ShuffleStream;

use super::Towards;
use crate::evaluate::graph::Graph;

/// θ: how much a gain, in edges' weight, decides the draw.
const RANDOMNESS: f64 = 0.01;

/// Refined communities, named by one of their nodes.
pub(super) fn refine(graph: &Graph, community_of: &[u32], resolution: f64, draws: &mut ShuffleStream) -> Vec<u32> {
    let n = graph.n_nodes();
    let per_strength = resolution / graph.total().max(f64::MIN_POSITIVE);
    let mut whole = vec![0.0; n]; // strength of each community
    (0..n).for_each(|node| whole[community_of[node] as usize] += graph.strength(node));
    let inside = |node: usize| {
        let same = move |&(other, _): &(usize, f64)| other != node && community_of[other] == community_of[node];
        graph.neighbours(node).filter(same)
    };
    let mut refined: Vec<u32> = (0..n as u32).collect();
    let mut alone = vec![true; n];
    let mut strengths: Vec<f64> = (0..n).map(|node| graph.strength(node)).collect();
    // Weight of the edges from a refined community to the rest of its community.
    let mut outward: Vec<f64> = (0..n).map(|node| inside(node).map(|(_, weight)| weight).sum()).collect();
    let well_connected =
        |outward: f64, strength: f64, whole: f64| outward >= per_strength * strength * (whole - strength);
    let mut towards = Towards::new(n);
    for node in draws.permutation(n) {
        let node = node as usize;
        let of = whole[community_of[node] as usize];
        if !alone[node] || !well_connected(outward[node], strengths[node], of) {
            continue;
        }
        // Neighbours outside count for no candidate: they are gathered under the node itself.
        towards.gather(graph, node, |other| {
            if community_of[other] == community_of[node] { refined[other] } else { node as u32 }
        });
        let gain = |to: u32| towards.weight(to) - per_strength * graph.strength(node) * strengths[to as usize];
        let open = |to: u32| to as usize != node && well_connected(outward[to as usize], strengths[to as usize], of);
        let candidates: Vec<(u32, f64)> =
            towards.seen.iter().filter(|&&to| open(to)).map(|&to| (to, gain(to))).filter(|(_, g)| *g >= 0.0).collect();
        let Some(to) = drawn(&candidates, draws) else { continue };
        refined[node] = to;
        (alone[node], alone[to as usize]) = (false, false);
        strengths[to as usize] += graph.strength(node);
        outward[to as usize] += outward[node] - 2.0 * towards.weight(to);
    }
    refined
}

/// One of the candidates, or to stay alone (a gain of 0), by exp(gain / θ).
fn drawn(candidates: &[(u32, f64)], draws: &mut ShuffleStream) -> Option<u32> {
    let most = candidates.iter().map(|of| of.1).fold(f64::NEG_INFINITY, f64::max);
    if candidates.is_empty() {
        return None;
    }
    let odds = |gain: f64| libm::exp((gain - most) / RANDOMNESS);
    let stay = odds(0.0);
    let sum = stay + candidates.iter().map(|of| odds(of.1)).sum::<f64>();
    let mut left = f64::from(draws.below(1 << 31)) / f64::from(1u32 << 31) * sum - stay;
    if left < 0.0 {
        return None;
    }
    for &(to, gain) in candidates {
        left -= odds(gain);
        if left < 0.0 {
            return Some(to);
        }
    }
    candidates.last().map(|of| of.0)
}
