//! Makes one trace of its rows.
//!
//! Takes in rows in any order; hands on the tree, its paths, and where the time went. No clock, no store. The work grows with
//! n log n; ids that are wrong or hostile cost links, never a loop.
//!
//! Application spans, when there are some, are one rule more in `links`: their parent is named by id.
//!
//! | module | what |
//! |---|---|
//! | `node` | rows as they are worked on |
//! | `paths` | exchanges, the order of their points, and what that proves of these |
//! | `clocks` | offsets between hosts |
//! | `links` | what each exchange was done for |
//! | `tree` | order, depth, self time |
//! | `time` | hops and the breakdown |

mod clocks;
mod links;
mod node;
mod paths;
mod time;
mod tree;

use crate::facts::usable_id;
use crate::row::SpanRow;
use crate::trace::{Path, Trace, TraceSpan};
use foldhash::fast::RandomState;
use hashbrown::HashSet;
use node::{Clocks, Node, us};
use std::cmp::Reverse;

/// Spans of one trace at most.
pub const MAX_SPANS: usize = 10_000;
/// What begins later than this after the first span is left out, ns.
const MAX_TIME_NS: i64 = 3600 * 1_000_000_000;

/// The trace that these rows are. `key` is its name in the store, `left_out` what its reader already left out.
pub fn assemble(rows: Vec<SpanRow>, key: u64, left_out: Option<String>) -> Trace {
    let mut notes: Vec<String> = left_out.into_iter().collect();
    let mut clocks = Clocks::default();
    let mut nodes = nodes(rows, &mut clocks, &mut notes);
    let mut paths = paths::group(&mut nodes);
    for path in &mut paths {
        paths::order(path, &nodes);
        paths::refine(path, &mut nodes);
    }
    let longest =
        paths.iter().filter_map(|p| nodes.get(*p.first()?)).max_by_key(|n| (n.duration(), Reverse(n.id)));
    let shifts = clocks::shifts(&paths, &nodes, clocks.len(), longest.map_or(0, |n| n.clock));
    for node in &mut nodes {
        let shift = shifts.get(node.clock).copied().unwrap_or_default();
        node.start = node.start.saturating_add(shift);
        node.end = node.end.saturating_add(shift);
    }
    let mut path_of = vec![0; nodes.len()];
    for (number, path) in paths.iter().enumerate() {
        for &index in path {
            if let Some(slot) = path_of.get_mut(index) {
                *slot = number;
            }
        }
    }
    let parents = links::find(&paths, &nodes, &path_of);
    let tree = tree::build(&paths, &parents, &nodes);
    if tree.too_deep > 0 {
        notes.push(format!("{} spans lie deeper than {} levels", tree.too_deep, tree::MAX_DEPTH));
    }

    let mut trace = Trace { trace_key: format!("{key:016x}"), ..Trace::default() };
    // Paths are numbered as the tree comes to them.
    let mut numbers: Vec<Option<usize>> = vec![None; paths.len()];
    for place in &tree.places {
        let Some(&path) = path_of.get(place.node) else { continue };
        let (Some(members), Some(number)) = (paths.get(path), numbers.get_mut(path)) else { continue };
        let number = *number.get_or_insert_with(|| {
            let last = members.last().map_or(0, |&last| tree.self_time(last, &nodes));
            time::add(&mut trace.breakdown, members, &nodes, last);
            trace.paths.push(path_answer(members, &nodes));
            trace.paths.len() - 1
        });
        let Some(node) = nodes.get(place.node) else { continue };
        let mut row = node.row.clone();
        row.start_ns = u64::try_from(node.start).unwrap_or(0);
        row.end_ns = u64::try_from(node.end).unwrap_or(0);
        row.observation_point = node.point.as_str().into();
        trace.spans.push(TraceSpan {
            parent_id: place.link.and_then(|link| nodes.get(link.node)).map(|parent| parent.row.id.clone()),
            parent_rule: place.link.map(|link| link.rule),
            parent_confidence: place.link.map(|link| link.confidence),
            self_us: u64::try_from(us(tree.self_time(place.node, &nodes))).unwrap_or(0),
            depth: place.depth,
            clock_shift_us: us(shifts.get(node.clock).copied().unwrap_or_default()),
            path: number,
            row,
        });
    }
    let wire_id = trace.spans.iter().find_map(|s| usable_id(s.row.trace_id.as_deref()));
    trace.trace_id = wire_id.map_or_else(|| trace.trace_key.clone(), Into::into);
    trace.start_ns = trace.spans.iter().map(|s| s.row.start_ns).min().unwrap_or(0);
    let end_ns = trace.spans.iter().map(|s| s.row.end_ns).max().unwrap_or(0);
    trace.duration_us = end_ns.saturating_sub(trace.start_ns) / 1000;
    trace.truncated = (!notes.is_empty()).then(|| format!("Left out: {}.", notes.join("; ")));
    trace
}

/// The rows that are taken, each once, in the order they began.
fn nodes(mut rows: Vec<SpanRow>, clocks: &mut Clocks, notes: &mut Vec<String>) -> Vec<Node> {
    rows.sort_by(|a, b| (a.start_ns, Reverse(a.end_ns), &a.id).cmp(&(b.start_ns, Reverse(b.end_ns), &b.id)));
    let mut ids: HashSet<String, RandomState> = HashSet::default();
    rows.retain(|row| ids.insert(row.id.clone()));
    if rows.len() > MAX_SPANS {
        notes.push(format!("{} of {} spans, those that began last", rows.len() - MAX_SPANS, rows.len()));
        rows.truncate(MAX_SPANS);
    }
    let mut nodes: Vec<_> = rows.into_iter().map(|row| Node::new(row, clocks)).collect();
    let last = nodes.first().map_or(i64::MAX, |first| first.start.saturating_add(MAX_TIME_NS));
    let in_time = nodes.partition_point(|node| node.start <= last);
    if in_time < nodes.len() {
        notes.push(format!("{} spans that began more than an hour after the first", nodes.len() - in_time));
        nodes.truncate(in_time);
    }
    nodes
}

/// A path in order, as it is answered.
fn path_answer(path: &[usize], nodes: &[Node]) -> Path {
    let spans = path.iter().filter_map(|&i| nodes.get(i)).map(|n| n.row.id.clone()).collect();
    Path { spans, hops: time::hops(path, nodes) }
}

#[cfg(test)]
mod tests;
