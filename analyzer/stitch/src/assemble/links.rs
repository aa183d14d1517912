//! What each exchange was done for: an edge from a path to a span of another path.

use super::node::Node;
use crate::facts::{hash_of, usable_id};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use wirespan_records::Rule;

/// Exchanges that are looked at to find the one around another. With more at the same time, it stays without a parent.
const MAX_CANDIDATES: usize = 64;
/// How far a call may stick out of the request it was made for when their hosts' clocks differ.
const CLOCK_SLACK_NS: i64 = 1_000_000;

/// What an exchange was done for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// Index of the span.
    pub node: usize,
    pub rule: Rule,
    pub confidence: f32,
}

/// The parent of each path. `paths` are in order and not empty.
pub(super) fn find(paths: &[Vec<usize>], nodes: &[Node], path_of: &[usize]) -> Vec<Option<Link>> {
    let by_id: HashMap<u64, usize, RandomState> = nodes.iter().enumerate().map(|(i, n)| (n.id, i)).collect();
    let ends: Vec<_> = paths.iter().map(|path| Ends::of(path, nodes)).collect();
    let mut links: Vec<_> = paths
        .iter()
        .enumerate()
        .map(|(number, path)| of_process(number, path, nodes, path_of, &by_id))
        .collect();
    let wire = Index::new(&ends, |n| {
        Some(hash_of(&(usable_id(n.row.trace_id.as_deref())?, n.row.span_id.as_deref()?)))
    });
    let request = Index::new(&ends, |n| Some(hash_of(&usable_id(n.row.x_request_id.as_deref())?)));
    let trace = Index::new(&ends, |n| Some(hash_of(&usable_id(n.row.trace_id.as_deref())?)));
    for (number, link) in links.iter_mut().enumerate() {
        if link.is_none() {
            *link = wire
                .nearest(number)
                .map(|(at, confidence)| (at, Rule::WireId, confidence))
                .or_else(|| request.nearest(number).map(|(at, c)| (at, Rule::RequestId, c)))
                .or_else(|| trace.only(number).map(|at| (at, Rule::WireId, 0.9)))
                .and_then(|(at, rule, confidence)| {
                    let node = *paths.get(at)?.last()?;
                    Some(Link { node, rule, confidence })
                });
        }
    }
    cut_cycles(&mut links, path_of);
    links
}

/// The parent that was found out on the host.
fn of_process(
    number: usize,
    path: &[usize],
    nodes: &[Node],
    path_of: &[usize],
    by_id: &HashMap<u64, usize, RandomState>,
) -> Option<Link> {
    path.iter().filter_map(|&i| nodes.get(i)?.row.parent.as_ref()).find_map(|parent| {
        let &node = by_id.get(&parent.span.parse::<u64>().ok()?)?;
        let elsewhere = path_of.get(node).is_some_and(|&p| p != number);
        elsewhere.then_some(Link { node, rule: parent.rule, confidence: parent.confidence })
    })
}

/// The ends of a path: its first and its last span.
struct Ends<'a> {
    head: &'a Node,
    tail: &'a Node,
}

impl<'a> Ends<'a> {
    fn of(path: &[usize], nodes: &'a [Node]) -> Option<Self> {
        Some(Self { head: nodes.get(*path.first()?)?, tail: nodes.get(*path.last()?)? })
    }

    /// This exchange, as its server saw it, is around the other as its client saw it.
    fn is_around(&self, inner: &Self) -> bool {
        let slack = if self.tail.clock == inner.head.clock { 0 } else { CLOCK_SLACK_NS };
        self.tail.start <= inner.head.start.saturating_add(slack)
            && inner.head.end <= self.tail.end.saturating_add(slack)
    }

    /// Who answered here asked there; of processes, the same one.
    fn server_is_client_of(&self, inner: &Self) -> bool {
        self.tail.row.server_ip == inner.head.row.client_ip
            && match (&self.tail.row.process, &inner.head.row.process) {
                (Some(server), Some(client)) => {
                    (server.pid, server.start_ns) == (client.pid, client.start_ns)
                }
                _ => true,
            }
    }

    /// Two requests of one client: none is in the other.
    fn has_client_of(&self, other: &Self) -> bool {
        self.head.row.client_ip == other.head.row.client_ip
    }
}

/// Exchanges by an id that they carry, each list in the order they began.
struct Index<'a, 'n> {
    ends: &'a [Option<Ends<'n>>],
    ids: Vec<Option<u64>>,
    /// By id and address of the server.
    by_server: HashMap<(u64, &'n str), Vec<usize>, RandomState>,
    by_id: HashMap<u64, Vec<usize>, RandomState>,
}

impl<'a, 'n> Index<'a, 'n> {
    fn new(ends: &'a [Option<Ends<'n>>], id: impl Fn(&Node) -> Option<u64>) -> Self {
        let mut by_server: HashMap<_, Vec<usize>, RandomState> = HashMap::default();
        let mut by_id: HashMap<_, Vec<usize>, RandomState> = HashMap::default();
        let of = |ends: &Option<Ends<'n>>| ends.as_ref().and_then(|e| id(e.head).or_else(|| id(e.tail)));
        let ids: Vec<_> = ends.iter().map(of).collect();
        let begin = |number: usize| ends.get(number).and_then(Option::as_ref).map(|e| e.tail.start);
        let mut order: Vec<usize> = (0..ends.len()).collect();
        order.sort_by_cached_key(|&number| begin(number));
        for number in order {
            let (Some(Some(id)), Some(Some(ends))) = (ids.get(number), ends.get(number)) else { continue };
            by_server.entry((*id, ends.tail.row.server_ip.as_str())).or_default().push(number);
            by_id.entry(*id).or_default().push(number);
        }
        Self { ends, ids, by_server, by_id }
    }

    /// The exchanges of a list that are around this one, the latest first.
    fn around(&self, list: &'a [usize], number: usize) -> impl Iterator<Item = (usize, &'a Ends<'n>)> {
        let inner = self.ends.get(number).and_then(Option::as_ref);
        let begin = |&other: &usize| self.ends.get(other).and_then(Option::as_ref).map(|e| e.tail.start);
        let limit = inner.map(|i| i.head.start.saturating_add(CLOCK_SLACK_NS));
        let end = list.partition_point(|other| begin(other) <= limit);
        let candidates = list.get(..end).unwrap_or_default().iter().rev().take(MAX_CANDIDATES);
        candidates.filter_map(move |&other| {
            let outer = self.ends.get(other)?.as_ref()?;
            (other != number && outer.is_around(inner?)).then_some((other, outer))
        })
    }

    /// The nearest exchange around this one with the same id, and how sure it is: the latest that this one's client answered.
    /// Where no addresses fit, as behind NAT, it must be the only one.
    fn nearest(&'a self, number: usize) -> Option<(usize, f32)> {
        let id = (*self.ids.get(number)?)?;
        let inner = self.ends.get(number)?.as_ref()?;
        let served =
            self.by_server.get(&(id, inner.head.row.client_ip.as_str())).map_or(&[][..], Vec::as_slice);
        if let Some((at, _)) = self.around(served, number).find(|(_, outer)| outer.server_is_client_of(inner))
        {
            return Some((at, 1.0));
        }
        let all = self.by_id.get(&id)?;
        let mut others = self.around(all, number).filter(|(_, outer)| !outer.has_client_of(inner));
        let (at, _) = others.next()?;
        (others.next().is_none() && all.len() <= MAX_CANDIDATES).then_some((at, 0.8))
    }

    /// The only exchange around this one with the same id that this one's client answered.
    fn only(&'a self, number: usize) -> Option<usize> {
        let id = (*self.ids.get(number)?)?;
        let inner = self.ends.get(number)?.as_ref()?;
        let served = self.by_server.get(&(id, inner.head.row.client_ip.as_str()))?;
        let mut around = self.around(served, number).filter(|(_, outer)| outer.server_is_client_of(inner));
        let (at, _) = around.next()?;
        (around.next().is_none() && served.len() <= MAX_CANDIDATES).then_some(at)
    }
}

/// Where paths are each other's parents, as wrong ids could make them, the least sure link goes.
fn cut_cycles(links: &mut [Option<Link>], path_of: &[usize]) {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Walked(usize),
    }
    let mut marks = vec![Mark::New; links.len()];
    for start in 0..links.len() {
        let mut walk = Vec::new();
        let mut at = start;
        loop {
            match marks.get(at) {
                Some(Mark::New) => {}
                // On this walk: what lies behind it is the cycle.
                Some(Mark::Walked(walk_of)) if *walk_of == start => {
                    let cycle = walk.iter().skip_while(|&&p| p != at);
                    let sure = |p: &usize| {
                        links.get(*p).and_then(Option::as_ref).map_or(f32::MAX, |link| link.confidence)
                    };
                    let weakest = cycle.copied().min_by(|a, b| sure(a).total_cmp(&sure(b)));
                    if let Some(link) = weakest.and_then(|p| links.get_mut(p)) {
                        *link = None;
                    }
                    break;
                }
                _ => break,
            }
            if let Some(mark) = marks.get_mut(at) {
                *mark = Mark::Walked(start);
            }
            walk.push(at);
            let parent = links.get(at).copied().flatten().and_then(|link| path_of.get(link.node).copied());
            match parent {
                Some(parent) => at = parent,
                None => break,
            }
        }
    }
}
