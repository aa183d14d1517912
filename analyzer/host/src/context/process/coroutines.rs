//! Whom coroutines are made for. Servers of HTTP/2 in Go make one for each request that a connection brings, in their order, with
//! one go statement: whoever reads makes them, or who made that one.

use super::ProcessState;
use crate::context::actor::{Actor, ActorId};
use crate::context::evidence::{Class, Evidence, Node, Nodes};
use crate::context::happening::Moment;
use smallvec::SmallVec;
use std::collections::VecDeque;
use wirespan_records::Rule;

/// Coroutines that are followed from one to its maker.
const MAX_GENERATIONS: usize = 8;
/// Requests of one reader that are remembered.
const MAX_READ: usize = 1024;
/// Places where one goroutine makes others that are remembered.
const MAX_PLACES: usize = 16;

/// What a goroutine reads, and makes.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Streams {
    /// The connection that the last of them came on.
    pub(super) conn: Option<u64>,
    /// Requests of HTTP/2 that it read.
    count: u32,
    /// The last of them.
    last: VecDeque<u64>,
    /// The goroutine that reads for it, and that it made.
    reader: Option<u64>,
    /// Several do.
    several: bool,
    /// How many goroutines it made at each place.
    made: SmallVec<[(u32, u32); 2]>,
}

impl Streams {
    fn read(&mut self, span: u64, conn: u64) {
        self.conn = Some(conn);
        self.count += 1;
        if self.last.len() == MAX_READ {
            self.last.pop_front();
        }
        self.last.push_back(span);
    }

    /// The one that came as this, counted from 0.
    fn at(&self, index: u32) -> Option<u64> {
        let from_end = self.count.checked_sub(index)? as usize;
        self.last.get(self.last.len().checked_sub(from_end)?).copied()
    }

    /// A goroutine is made at this place: says how many were before.
    fn makes(&mut self, place: u32) -> Option<u32> {
        if let Some((_, made)) = self.made.iter_mut().find(|(known, _)| *known == place) {
            *made += 1;
            return Some(*made - 1);
        }
        if self.made.len() == MAX_PLACES {
            return None;
        }
        self.made.push((place, 1));
        Some(0)
    }
}

impl ProcessState {
    /// A request of HTTP/2 came.
    pub(super) fn reads_stream(&mut self, at: &Moment, span: u64, conn: u64) {
        if at.coroutine == 0 {
            return;
        }
        let actor = self.actor(at);
        actor.streams.read(span, conn);
        let maker = actor.maker.0;
        if let Some(maker) = self.actors.get_mut(&ActorId::Coroutine(maker)) {
            maker.streams.several |= maker.streams.reader.is_some_and(|reader| reader != at.coroutine);
            maker.streams.reader = Some(at.coroutine);
        }
    }

    /// The request for which a goroutine is made at this place, if it was made for one.
    pub(super) fn stream_of(&mut self, at: &Moment, place: u32) -> Option<u64> {
        if at.coroutine == 0 || place == 0 {
            return None;
        }
        let streams = &mut self.actor(at).streams;
        let index = streams.makes(place)?;
        let reader = match streams.reader.filter(|_| !streams.several) {
            _ if streams.count > 0 => at.coroutine,
            reader => reader?,
        };
        let reader = self.actors.get(&ActorId::Coroutine(reader))?;
        // All requests were seen since it began.
        let (maker, made_ns) = reader.maker;
        let whole = maker != 0 && self.lost_ns.is_none_or(|lost_ns| lost_ns < made_ns);
        let span = reader.streams.at(index).filter(|_| whole)?;
        self.servers.get(&span).filter(|server| server.closed_ns.is_none()).map(|_| span)
    }

    /// A coroutine is made by these go statements for `nodes`. Gives the request that these are for.
    pub(super) fn born_for(&mut self, nodes: &Nodes, made_at: u32) -> Option<u64> {
        let [node] = nodes.as_slice() else { return None };
        let span = self.root(*node, 0).filter(|_| made_at != 0)?;
        self.outlive.entry(made_at).or_default().count(false);
        Some(span)
    }

    /// A coroutine makes a request, or has another make one. Where the one that it was made for was answered before, it does more
    /// than that, as the workers of a pool do.
    pub(super) fn lives(&mut self, at: &Moment) {
        let Some(actor) = self.actors.get_mut(&ActorId::of(at)) else { return };
        let Some(span) = actor.made_for else { return };
        let is_open = self.servers.get(&span).is_some_and(|server| server.closed_ns.is_none());
        if !is_open {
            actor.made_for = None;
            self.outlive.entry(actor.born_at).or_default().count(true);
        }
    }

    /// What coroutines do that these go statements made need not be for the request that they were made for.
    pub(in super::super) fn often_outlive(&self, made_at: u32) -> bool {
        self.outlive.get(&made_at).is_some_and(|tally| tally.is_common())
    }

    /// What the coroutine that answers, and those that it made, asked others since the request came, they asked for it. Where
    /// a loop reads for all coroutines, this alone tells which of them a request is for.
    pub(super) fn answering_coroutine(&mut self, at: &Moment, span: u64) {
        let Some(heard_ns) = self.servers.get(&span).map(|server| server.heard_ns) else { return };
        let theirs: Vec<(u64, u32)> = self
            .sent
            .range((heard_ns, 0)..)
            .filter_map(|&(_, span)| {
                let coroutine = self.clients.get(&span)?.coroutine;
                let other =
                    self.actors.get(&ActorId::Coroutine(coroutine)).filter(|_| coroutine != at.coroutine);
                let made_at = other.map_or(0, |other| other.born_at);
                self.descends(coroutine, at.coroutine, heard_ns).then_some((span, made_at))
            })
            .collect();
        for (client, made_at) in theirs {
            let nodes = Nodes::from_iter([Node::Server(span)]);
            let piece = Evidence::new(nodes, Class::Coroutine, Rule::Coroutine);
            self.connect(client, Evidence { made_at, ..piece });
        }
    }

    /// A coroutine is `ancestor`, or was made since by it or by one that was.
    fn descends(&self, mut coroutine: u64, ancestor: u64, since_ns: u64) -> bool {
        for _ in 0..MAX_GENERATIONS {
            if coroutine == 0 || coroutine == ancestor {
                break;
            }
            coroutine = match self.actors.get(&ActorId::Coroutine(coroutine)) {
                Some(Actor { maker: (maker, made_ns), .. }) if *made_ns >= since_ns => *maker,
                _ => 0,
            };
        }
        coroutine != 0 && coroutine == ancestor
    }
}
