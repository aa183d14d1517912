//! Where the time went.

use super::node::{Node, us};
use crate::trace::{Breakdown, Hop};
use wirespan_records::ObservationPoint::{self, *};

/// From each span of a path in order to the next.
pub(super) fn hops(path: &[usize], nodes: &[Node]) -> Vec<Hop> {
    let of = |index: &usize| nodes.get(*index);
    let hop = |step: &[usize]| {
        let (from, to) = (step.first().and_then(of)?, step.last().and_then(of)?);
        let complete = from.complete && to.complete;
        Some(Hop {
            from: from.row.id.clone(),
            to: to.row.id.clone(),
            latency_us: complete.then(|| us(from.duration() - to.duration())),
            request_us: us(to.start - from.start),
            response_us: complete.then(|| us(from.end - to.end)),
        })
    };
    path.windows(2).filter_map(hop).collect()
}

/// Whose host a point is on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Between,
    Server,
}

fn side(point: ObservationPoint, before: bool) -> Side {
    match point {
        ClientProcess | Client | ClientNode => Side::Client,
        Server | ServerNode | ServerProcess => Side::Server,
        // Both hosts are one: what comes before it is the client's part.
        Local if before => Side::Server,
        Local => Side::Client,
        _ => Side::Between,
    }
}

/// Adds the time of one path. `last_self` is the self time of its last span, ns.
pub(super) fn add(breakdown: &mut Breakdown, path: &[usize], nodes: &[Node], last_self: i64) {
    let positive = |ns: i64| u64::try_from(us(ns)).unwrap_or(0);
    for step in path.windows(2) {
        let [from, to] = step else { continue };
        let (Some(from), Some(to)) = (nodes.get(*from), nodes.get(*to)) else { continue };
        if !(from.complete && to.complete) {
            continue;
        }
        let there_and_back = positive(from.duration() - to.duration());
        match (side(from.point, true), side(to.point, false)) {
            (Side::Client, Side::Client) if from.point == ClientProcess => {
                breakdown.client_node_us += positive(to.start - from.start);
                breakdown.client_process_us += positive(from.end - to.end);
            }
            (Side::Client, Side::Client) => breakdown.client_node_us += there_and_back,
            (Side::Server, Side::Server) => breakdown.server_node_us += there_and_back,
            _ => breakdown.network_us += there_and_back,
        }
    }
    let Some(last) = path.last().and_then(|&i| nodes.get(i)) else { return };
    if last.point == ServerProcess {
        breakdown.server_process_us += positive(last_self);
    } else {
        breakdown.beyond_us += positive(last_self);
    }
}
