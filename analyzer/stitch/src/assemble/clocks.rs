//! How far hosts' clocks are apart, told by the exchanges between them.
//!
//! Nearer to the server, an exchange begins later and ends earlier. For each pair of hosts, the shifts that make it so for every
//! exchange between them are an interval; the smallest shift in it is taken. From the root's host on, they add up.

use super::node::Node;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// The shifts of one clock against another that fit all exchanges, ns.
struct Interval {
    low: i64,
    high: i64,
    exchanges: u32,
}

/// What to add to the times of each clock, ns. `paths` are in order, `base` is the clock that stays.
pub(super) fn shifts(paths: &[Vec<usize>], nodes: &[Node], clocks: usize, base: usize) -> Vec<i64> {
    let mut shifts = vec![0; clocks];
    if clocks < 2 {
        return shifts;
    }
    let mut pairs: HashMap<(usize, usize), Interval, RandomState> = HashMap::default();
    for path in paths {
        for hop in path.windows(2) {
            let [outer, inner] = hop else { continue };
            let (Some(outer), Some(inner)) = (nodes.get(*outer), nodes.get(*inner)) else { continue };
            if outer.clock != inner.clock && outer.complete && inner.complete {
                add(&mut pairs, outer, inner);
            }
        }
    }
    let mut edges: Vec<_> = pairs.into_iter().collect();
    edges.sort_by_key(|((a, b), interval)| (std::cmp::Reverse(interval.exchanges), *a, *b));
    let mut known = vec![false; clocks];
    if let Some(known) = known.get_mut(base) {
        *known = true;
    }
    // The best known pair that touches what is known, again and again: hosts of one trace are few.
    while let Some((from, to, low, high)) = edges.iter().find_map(|((a, b), interval)| {
        let is = |clock: &usize| known.get(*clock) == Some(&true);
        match (is(a), is(b)) {
            (true, false) => Some((*a, *b, interval.low, interval.high)),
            (false, true) => Some((*b, *a, -interval.high, -interval.low)),
            _ => None,
        }
    }) {
        let before = shifts.get(from).copied().unwrap_or_default();
        // Measured durations may contradict each other by their noise: then the middle.
        let (low, high) = (low.saturating_add(before), high.saturating_add(before));
        let shift = if low <= high { 0.clamp(low, high) } else { low / 2 + high / 2 };
        if let (Some(slot), Some(known)) = (shifts.get_mut(to), known.get_mut(to)) {
            (*slot, *known) = (shift, true);
        }
    }
    shifts
}

fn add(pairs: &mut HashMap<(usize, usize), Interval, RandomState>, outer: &Node, inner: &Node) {
    let (mut low, mut high) = (outer.start.saturating_sub(inner.start), outer.end.saturating_sub(inner.end));
    if low > high {
        (low, high) = (high, low);
    }
    let key = (outer.clock.min(inner.clock), outer.clock.max(inner.clock));
    if outer.clock > inner.clock {
        (low, high) = (-high, -low);
    }
    let interval = pairs.entry(key).or_insert(Interval { low: i64::MIN, high: i64::MAX, exchanges: 0 });
    interval.low = interval.low.max(low);
    interval.high = interval.high.min(high);
    interval.exchanges += 1;
}
