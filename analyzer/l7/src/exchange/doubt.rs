//! Pairs of a stream whose first requests may not have been seen. Responses come in order: whose one is depends on how many
//! requests were open when the stream was seen first. At least as many were as responses came for which no request was seen. Just as
//! many were if then none was open at a moment at which none seems to be, and such moments show with time: a request that was open would
//! have had its response.

use super::span::{Half, Ready};
use super::{Exchanges, HALF_BYTES, Order};
use crate::parser::Role;
use std::collections::VecDeque;
use wirespan_records::ResponseStatus;

/// A client that waited for all that it seemed to have asked for, so many times in a row, waits each time.
const ROUNDS: u8 = 16;
/// When nothing seemed to be open for so many times as long as a response takes to come, altogether, and none came, nothing was.
const RESTS: u32 = 8;
/// A rest is measured in so many parts of the time that a response takes.
const PARTS: u32 = 16;
/// Less is what a client takes to send the next request, in which nothing can come.
const SHORTEST_REST: u32 = PARTS / 8;
/// A long one may have a reason of its own.
const LONGEST_REST: u32 = 2 * PARTS;
/// The same when it was so for this long.
const QUIET_NS: u64 = 250_000_000;
/// Pairs that wait to be proven.
const MAX_HELD: usize = 256;

#[derive(Default)]
pub(super) struct Doubt {
    /// See [`ROUNDS`].
    rounds: u8,
    /// See [`RESTS`], in parts.
    rests: u32,
    /// A response came since the newest request.
    answered: bool,
    /// When bytes came last; 0 for never.
    last_ns: u64,
    /// Since when the server has had something to do, or, when nothing seems to be open, nothing; 0 for unknown.
    since_ns: u64,
    /// Time to the next response while requests are open, about; 0 for unknown.
    wait_ns: u64,
    /// What are pairs if no more requests were open than responses showed, with the memory that each takes.
    held: VecDeque<(usize, Ready)>,
}

impl Doubt {
    /// Bytes come, while `open` requests that were seen have no response; says whether there was a moment at which none was open.
    pub(super) fn bytes(&mut self, ts_ns: u64, role: Role, open: usize) -> bool {
        let quiet = self.last_ns > 0 && ts_ns >= self.quiet_ns();
        let took_ns = ts_ns.saturating_sub(self.since_ns);
        self.last_ns = ts_ns;
        match role {
            Role::Client if open > 0 => return false,
            Role::Client if self.since_ns > 0 && self.wait_ns > 0 => {
                let parts =
                    (took_ns / (self.wait_ns / u64::from(PARTS)).max(1)).min(LONGEST_REST.into()) as u32;
                if parts >= SHORTEST_REST {
                    self.rests = self.rests.saturating_add(parts);
                }
            }
            Role::Server if self.since_ns > 0 && open > 0 => {
                self.wait_ns = if self.wait_ns > 0 { (self.wait_ns * 7 + took_ns) / 8 } else { took_ns };
            }
            _ => {}
        }
        self.since_ns = ts_ns;
        role == Role::Client && (quiet || self.is_over())
    }

    fn is_over(&self) -> bool {
        self.rounds >= ROUNDS || self.rests >= RESTS * PARTS
    }

    /// From when on it is quiet.
    fn quiet_ns(&self) -> u64 {
        self.last_ns.saturating_add(QUIET_NS)
    }

    /// The same, while pairs wait for that.
    fn settles_ns(&self) -> Option<u64> {
        (!self.held.is_empty()).then(|| self.quiet_ns())
    }

    /// A request is seen while `open` others have no response; says whether the client did not wait for those.
    pub(super) fn request(&mut self, open: usize) -> bool {
        let overlaps = std::mem::take(&mut self.answered) && open > 0;
        if overlaps {
            self.rounds = 0;
        }
        overlaps
    }

    /// A response is seen that leaves `open` requests without one.
    fn response(&mut self, open: usize) {
        self.answered = true;
        if open == 0 {
            self.rounds = self.rounds.saturating_add(1);
        }
    }

    /// Keeps a pair that takes `cost` bytes; gives one that waits for too long.
    fn hold(&mut self, cost: usize, ready: Ready) -> Option<(usize, Ready)> {
        self.held.push_back((cost, ready));
        if self.held.len() > MAX_HELD { self.held.pop_front() } else { None }
    }
}

impl Exchanges {
    /// Which requests are answered is not known any more, or not yet; the last bytes came at `last_ns`, 0 for an unknown time.
    pub(super) fn doubt_pairs(&mut self, last_ns: u64) {
        self.release(false);
        self.doubt = Some(Doubt { last_ns, ..Doubt::default() });
        self.was_doubted = true;
    }

    /// Hands on the pairs that wait, as such if they are `proven`.
    pub(super) fn release(&mut self, proven: bool) {
        let held = self.doubt.as_mut().map(|doubt| std::mem::take(&mut doubt.held));
        for (cost, ready) in held.into_iter().flatten() {
            self.pending_bytes -= cost;
            if proven { self.ready.push(ready) } else { self.split(ready) }
        }
    }

    /// Tells a request and a response that may not belong together.
    fn split(&mut self, Ready { mut request, response, unanswered }: Ready) {
        if let Some(request) = &mut request {
            request.at.truncated = true;
        }
        self.unpaired += 1;
        self.ready.push(Ready { request, response: None, unanswered });
        self.ready.extend(response.map(|response| Ready {
            request: None,
            response: Some(response),
            unanswered,
        }));
    }

    /// What can be said at once of the request that a response seems to answer.
    pub(super) fn believed(&mut self, request: Option<Half>, at_ns: u64) -> Option<Half> {
        if request.is_none() && self.was_doubted && self.order == Order::Kept {
            // One was open that was not seen: there may be more.
            self.doubt_pairs(at_ns);
        }
        let open = self.pending.len();
        let Some(doubt) = &mut self.doubt else { return request };
        if request.is_some() {
            doubt.response(open);
        }
        if !self.cautious {
            return request;
        }
        let unanswered = ResponseStatus::Unknown;
        if request.is_some() {
            self.split(Ready { request, response: None, unanswered });
        }
        None
    }

    /// Bytes of `role` come.
    #[inline]
    pub(crate) fn bytes(&mut self, role: Role, ts_ns: u64) {
        let open = self.pending.len();
        if let Some(doubt) = &mut self.doubt
            && doubt.bytes(ts_ns, role, open)
            && self.order != Order::Broken
        {
            self.believe();
        }
    }

    /// Pairs are what they seem to be.
    fn believe(&mut self) {
        self.release(true);
        self.doubt = None;
    }

    /// Pairs that wait to be proven are so when nothing was sent for long.
    pub(crate) fn settle(&mut self, now_ns: u64) {
        if self.settles_ns().is_some_and(|settles_ns| settles_ns <= now_ns) {
            self.believe();
        }
    }

    /// When that will be, as far as that is known.
    pub(crate) fn settles_ns(&self) -> Option<u64> {
        let idle = self.pending.is_empty() && self.response_open.is_none() && self.order == Order::Kept;
        self.doubt.as_ref().filter(|_| idle)?.settles_ns()
    }

    /// No more will be known of the pairs that wait: a client that was never seen to send before it had its response did wait.
    pub(super) fn judge_held(&mut self) {
        let is_over = self.doubt.as_ref().is_some_and(Doubt::is_over);
        self.release(is_over || !self.pipelines);
    }

    /// Pairs that were not told since the last time.
    pub(crate) fn take_unpaired(&mut self) -> u64 {
        std::mem::take(&mut self.unpaired)
    }

    pub(super) fn complete(&mut self, ready: Ready) {
        match (&mut self.doubt, &ready) {
            (Some(doubt), Ready { request: Some(request), response: Some(response), .. }) => {
                let cost = 2 * HALF_BYTES + request.message.heap_bytes() + response.message.heap_bytes();
                self.pending_bytes += cost;
                if let Some((cost, ready)) = doubt.hold(cost, ready) {
                    self.pending_bytes -= cost;
                    self.split(ready);
                }
            }
            _ => self.ready.push(ready),
        }
    }
}
