//! Smooth weighted round robin: every candidate gains its weight, the one with most is chosen and pays for all.

use std::ops::Range;

use crate::group::{Group, Weights};
use crate::peer::FULL_RAMP;

/// Chooses among the peers of `range` that are `candidates`.
pub(crate) fn choose(
    group: &Group,
    weights: &mut [Weights],
    range: Range<usize>,
    now_ms: u64,
    candidates: impl Fn(usize) -> bool,
) -> Option<usize> {
    let (best, total) = gain(group, weights, range, now_ms, candidates);
    let best = best?;
    weights[best].current -= total;
    Some(best)
}

/// As if peer `taken` had been chosen, unless that was the case so often that it owes a whole round.
pub(crate) fn take(
    group: &Group,
    weights: &mut [Weights],
    range: Range<usize>,
    now_ms: u64,
    candidates: impl Fn(usize) -> bool,
    taken: usize,
) {
    let all: i64 = range.clone().map(|index| i64::from(group.peers()[index].weight)).sum();
    let others = all - i64::from(group.peers()[taken].weight);
    if weights[taken].current <= -others * FULL_RAMP {
        return;
    }
    let (_, total) = gain(group, weights, range, now_ms, candidates);
    weights[taken].current -= total;
}

/// Every candidate gains its weight; tells the one with most, and the sum of all gains.
pub(crate) fn gain(
    group: &Group,
    weights: &mut [Weights],
    range: Range<usize>,
    now_ms: u64,
    candidates: impl Fn(usize) -> bool,
) -> (Option<usize>, i64) {
    let mut best: Option<usize> = None;
    let mut total = 0;
    for index in range.filter(|index| candidates(*index)) {
        let (peer, state) = group.peer(index);
        let gain = weights[index].effective * state.ramp(peer, now_ms);
        weights[index].current += gain;
        total += gain;
        // What a failure took comes back by one with every choice.
        if weights[index].effective < i64::from(peer.weight) {
            weights[index].effective += 1;
        }
        if best.is_none_or(|best| weights[index].current > weights[best].current) {
            best = Some(index);
        }
    }
    (best, total)
}
