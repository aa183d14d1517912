//! Requests that go out together. What sends several with one event, as clients of HTTP/2 do at the end of a turn, collects them
//! first, so that they are for all requests that came in since it sent before, one behind the other.

use super::ProcessState;
use crate::context::actor::ActorId;
use crate::context::evidence::{Class, Evidence, Node, Nodes};
use crate::context::happening::Moment;
use wirespan_records::Rule;

/// Requests that came before one event sent others; of more it is not said which was for which.
const MAX_CAME: usize = 128;
/// Requests made for each of those that came.
const MAX_EACH: usize = 16;
/// Batches of a peer before it is known how many are made for each.
const ENOUGH: u32 = 4;

/// What one event sent, and for what.
#[derive(Debug)]
pub(super) struct Batch {
    /// The event.
    event: (u32, u32),
    group: u64,
    /// The requests that had come in, in their order; empty if there were none, or too many.
    came: Nodes,
    sent: u32,
}

/// How many requests are made to a peer for each one that comes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Shares {
    /// Batches, by requests made for each; first those where that is no whole number.
    batches: [u32; MAX_EACH + 1],
    /// Batches for several requests have differed in how many these were, or one was for a request which nothing else came with.
    varied: bool,
    /// Requests that the last batch was for.
    last: usize,
}

impl Shares {
    /// A batch was sent for `came` requests.
    fn count(&mut self, came: usize, sent: u32) {
        let sent = sent as usize;
        let each = sent.checked_div(came).filter(|each| each * came == sent && *each <= MAX_EACH);
        if let Some(batches) = self.batches.get_mut(each.unwrap_or_default()) {
            *batches = batches.saturating_add(1);
        }
        self.varied |= self.last != 0 && self.last != came && self.last.max(came) > 1;
        self.last = came;
    }

    /// The same number for each request, if it has always been the same. Where numbers differ, or requests are made for what came
    /// long before, sums do not fit for long.
    fn each(&self) -> Option<u32> {
        let all: u32 = self.batches.iter().fold(0, |sum, batches| sum.saturating_add(*batches));
        let whole = self.batches.iter().enumerate().skip(1);
        let (each, batches) = whole.max_by_key(|(_, batches)| **batches)?;
        let other = all - batches;
        (self.varied && *batches >= ENOUGH && u64::from(other) * 50 <= u64::from(*batches))
            .then_some(each as u32)
    }
}

impl ProcessState {
    /// The request `span` went out with others of a connection that collects them. Says what they are for.
    pub(super) fn share(&mut self, began: &Moment, span: u64, id: u64, peer: u64, since_ns: u64) {
        let event = (began.tid, began.thread_event);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.batch.as_ref().is_none_or(|batch| batch.event != event) {
            let clients = &self.clients;
            let together =
                |asked: &&u64| clients.get(*asked).is_some_and(|client| client.sent_ns == began.time_ns);
            let before: Vec<u64> = conn.asked.iter().rev().skip(1).take_while(together).copied().collect();
            self.groups += 1;
            let came = self.came_since(began, since_ns);
            if self.actor(began).brought_only(began, &came) {
                self.shares.entry(peer).or_default().varied = true;
            }
            let batch = Batch { event, group: self.groups, came, sent: 0 };
            self.put_batch(id, peer, Some(batch));
            before.into_iter().rev().for_each(|span| self.add_to_batch(span, id));
        }
        self.add_to_batch(span, id);
    }

    fn put_batch(&mut self, id: u64, peer: u64, batch: Option<Batch>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let last = std::mem::replace(&mut conn.batch, batch.map(Box::new));
        if let Some(last) = last {
            self.shares.entry(peer).or_default().count(last.came.len(), last.sent);
        }
    }

    fn add_to_batch(&mut self, span: u64, id: u64) {
        let Some(batch) = self.conns.get_mut(&id).and_then(|conn| conn.batch.as_mut()) else { return };
        let (group, position, nodes) = (batch.group, batch.sent, batch.came.clone());
        batch.sent += 1;
        if !nodes.is_empty() {
            self.made.entry(group).or_default().requests += 1;
            self.connect(
                span,
                Evidence { position, group, ..Evidence::new(nodes, Class::Share, Rule::Turn) },
            );
        }
    }

    /// Requests that this thread heard since then and did not answer; none if some may not have been seen.
    fn came_since(&self, began: &Moment, since_ns: u64) -> Nodes {
        let actor = ActorId::of(began);
        let mut came = Nodes::new();
        if self.unseen > 0 || self.lost_ns.is_some_and(|lost_ns| lost_ns >= since_ns) {
            return came;
        }
        for (_, span) in self.since.range((since_ns, 0)..) {
            let open = |server: &super::Server| server.closed_ns.is_none() && server.actor == actor;
            if self.servers.get(span).is_some_and(open) {
                if came.len() == MAX_CAME {
                    return Nodes::new();
                }
                came.push(Node::Server(*span));
            }
        }
        came
    }

    /// The request among those that came for which one of a batch was made, if it was the same number for each.
    pub(in super::super) fn share_of(&self, peer: u64, piece: &Evidence) -> Option<Node> {
        let each = self.shares.get(&peer)?.each()?;
        let sent = self.made.get(&piece.group)?.requests;
        let fits = sent == piece.nodes.len() * each as usize;
        piece.nodes.get((piece.position / each) as usize).filter(|_| fits).copied()
    }
}
