//! Which spans are one exchange, in which order they are on its path, and what that proves of where they were seen.

use super::node::Node;
use crate::facts::{Facts, Key};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::cmp::Reverse;
use wirespan_records::ObservationPoint::{self, *};

/// Exchanges with the same key that a span is held against: one, unless numbers came again.
const MAX_CANDIDATES: usize = 16;

/// The exchanges, each with the indexes of its spans. `nodes` are in the order they began.
pub(super) fn group(nodes: &mut [Node]) -> Vec<Vec<usize>> {
    let mut exchanges: Vec<(Facts, Vec<usize>)> = Vec::new();
    let mut by_key: HashMap<Key, Vec<usize>, RandomState> = HashMap::default();
    for (index, node) in nodes.iter_mut().enumerate() {
        let mut best: Option<(f32, usize)> = None;
        for key in node.facts.keys() {
            let candidates = by_key.get(&key).map_or(&[][..], Vec::as_slice);
            for &exchange in candidates.iter().rev().take(MAX_CANDIDATES) {
                let Some((facts, _)) = exchanges.get(exchange) else { continue };
                let Some(certainty) = facts.same(&node.facts) else { continue };
                if best.is_none_or(|(known, _)| certainty > known) {
                    best = Some((certainty, exchange));
                }
            }
        }
        let exchange = match best {
            Some((certainty, exchange)) => {
                node.certainty = certainty;
                exchange
            }
            None => {
                exchanges.push((node.facts, Vec::new()));
                exchanges.len() - 1
            }
        };
        if let Some((facts, members)) = exchanges.get_mut(exchange) {
            facts.complete_with(&node.facts);
            members.push(index);
        }
        for key in node.facts.keys() {
            let known = by_key.entry(key).or_default();
            if !known.contains(&exchange) {
                known.push(exchange);
            }
        }
    }
    exchanges.into_iter().map(|(_, members)| members).collect()
}

/// Sorts the spans of an exchange from the client to the server.
///
/// The processes are at the ends. Of the others, those that see the addresses of the client's end come before those that see
/// the addresses of the server's (NAT is between them); then by what is known of the point; a tunnel is in the middle of what is
/// outside it. What is left is told by duration, which does not depend on clocks: nearer to the client it is longer.
pub(super) fn order(path: &mut [usize], nodes: &[Node]) {
    if path.len() < 2 {
        return;
    }
    let of = |index: &usize| nodes.get(*index);
    let ends = Ends::of(path, nodes);
    let complete = path.iter().filter_map(of).all(|n| n.complete);
    let tunnelled: Vec<i64> =
        path.iter().filter_map(of).filter(|n| n.row.tunnel.is_some()).map(Node::duration).collect();
    let inside = match tunnelled.len() {
        0 => None,
        n => Some(tunnelled.iter().sum::<i64>() / n as i64),
    };
    path.sort_by_cached_key(|index| {
        let node = of(index)?;
        let end = match node.point {
            ClientProcess => 0,
            ServerProcess => 2,
            _ => 1,
        };
        let tunnel = match inside {
            None => 0,
            Some(_) if node.row.tunnel.is_some() => 1,
            Some(mean) if node.duration() >= mean => 0,
            Some(_) => 2,
        };
        let duration = if complete { Reverse(node.duration()) } else { Reverse(0) };
        Some((end, ends.zone(node), rank(node.point), tunnel, duration, node.start, node.id))
    });
}

/// Points in order; what is not known better is in the middle.
fn rank(point: ObservationPoint) -> u8 {
    match point {
        Local => Rest as u8,
        point => point as u8,
    }
}

/// The addresses at both ends of a path.
struct Ends {
    client: (u32, u32),
    server: (u32, u32),
}

impl Ends {
    fn of(path: &[usize], nodes: &[Node]) -> Self {
        let all = || path.iter().filter_map(|&i| nodes.get(i));
        let at = |point| all().find(|n| n.point == point);
        let client = at(ClientProcess).or_else(|| all().max_by_key(|n| (n.duration(), Reverse(n.id))));
        let server = at(ServerProcess).or_else(|| all().min_by_key(|n| (n.duration(), Reverse(n.id))));
        let tuple = |node: Option<&Node>| node.map_or((0, 0), |n| n.facts.tuple());
        Self { client: tuple(client), server: tuple(server) }
    }

    fn differ(&self) -> bool {
        self.client != self.server
    }

    /// 0 on the client's side of NAT, 2 on the server's, 1 between two of them.
    fn zone(&self, node: &Node) -> u8 {
        match node.facts.tuple() {
            tuple if tuple == self.client => 0,
            tuple if tuple == self.server => 2,
            _ => 1,
        }
    }
}

/// Says where packets were seen, where the path proves it: on the host of one of its processes, at a gateway before or after
/// NAT, or at the hypervisor of one side. `path` is in order.
pub(super) fn refine(path: &[usize], nodes: &mut [Node]) {
    let ends = Ends::of(path, nodes);
    let agent = |point, nodes: &[Node]| {
        path.iter().filter_map(|&i| nodes.get(i)).find(|n| n.point == point).map(|n| n.row.agent_id)
    };
    let (client, server) = (agent(ClientProcess, nodes), agent(ServerProcess, nodes));
    let unknown = |n: &Node| !n.is_process() && matches!(n.point, Rest | Local);
    let on = |host: Option<u32>, n: &Node| n.on_host() && Some(n.row.agent_id) == host;
    let seen: Vec<usize> = path
        .iter()
        .copied()
        .filter(|&i| nodes.get(i).is_some_and(|n| !n.is_process() && (on(client, n) || on(server, n))))
        .collect();
    let apart = client != server;
    for &index in path {
        let Some(node) = nodes.get_mut(index).filter(|n| unknown(n)) else { continue };
        let tunnel = node.row.tunnel.is_some();
        let (first, last) = (seen.first() == Some(&index), seen.last() == Some(&index));
        let gateway = node.row.tap_kind.as_deref() == Some("nfv-gateway") && ends.differ();
        node.point = match (on(client, node), on(server, node)) {
            (true, false) if tunnel && apart => ClientNode,
            (false, true) if tunnel && apart => ServerNode,
            (true, _) if first && last && !apart => Local,
            (true, _) if first && !tunnel => Client,
            (_, true) if last && !tunnel => Server,
            (true, false) if apart => ClientNode,
            (false, true) if apart => ServerNode,
            _ if gateway && ends.zone(node) == 0 => ClientGateway,
            _ if gateway && ends.zone(node) == 2 => ServerGateway,
            _ => node.point,
        };
    }
    name_hypervisors(path, nodes, &ends);
}

/// Says on which hypervisor taps of that kind are.
fn name_hypervisors(path: &[usize], nodes: &mut [Node], ends: &Ends) {
    let is_hypervisor = |n: &Node| n.point == Rest && n.row.tap_kind.as_deref() == Some("hypervisor");
    // Taps of mirrors in order, with the side of NAT and whether it is a hypervisor's.
    let taps: Vec<(u16, u8, bool)> = path
        .iter()
        .filter_map(|&index| nodes.get(index))
        .filter(|n| !n.is_process())
        .filter_map(|n| Some((n.row.tap_id?, ends.zone(n), is_hypervisor(n))))
        .collect();
    for &index in path {
        let Some(node) = nodes.get_mut(index).filter(|n| is_hypervisor(n)) else { continue };
        let (Some(tap), zone) = (node.row.tap_id, ends.zone(node)) else { continue };
        let mut of_side = taps.iter().filter(|(_, at, hypervisor)| *at == zone && *hypervisor);
        let first = of_side.next().is_some_and(|(first, ..)| *first == tap);
        let last = of_side.next_back().map_or(first, |(last, ..)| *last == tap);
        let begins_with = taps.first().is_some_and(|(first, ..)| *first == tap);
        let ends_with = taps.last().is_some_and(|(last, ..)| *last == tap);
        node.point = match (ends.differ().then_some(zone), first, last) {
            (Some(0), true, _) | (None, true, false) => ClientHypervisor,
            (Some(2), _, true) | (None, false, true) => ServerHypervisor,
            (Some(0), ..) => ClientGatewayHypervisor,
            (Some(2), ..) => ServerGatewayHypervisor,
            // One alone: what else packets pass is on its one side only.
            (None, true, true) if begins_with && !ends_with => ClientHypervisor,
            (None, true, true) if ends_with && !begins_with => ServerHypervisor,
            _ => Rest,
        };
    }
}
