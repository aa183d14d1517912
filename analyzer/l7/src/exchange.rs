//! Pairs requests with responses.
//!
//! - `doubt`: pairs of a stream whose first requests may not have been seen
//! - `repeated`: responses to requests that were made more than once
//! - `span`: an exchange that is ready, and the span that it becomes
//! - `unseen`: requests that may have been made and were not seen

mod doubt;
mod repeated;
mod span;
mod unseen;

use crate::engine::{Config, Heard, Side};
use crate::parser::{Length, Message, Pairing, Role};
use doubt::Doubt;
use repeated::Repeated;
pub(crate) use span::{At, Out};
use span::{Half, Ready};
use std::collections::VecDeque;
use unseen::Unseen;
use wirespan_records::{L7Protocol, ResponseStatus};

/// A request that waits.
struct Pending {
    id: Option<u64>,
    cost: usize,
    half: Half,
    /// Times that it was made again.
    repetitions: u32,
}

/// Memory of one half, but for its texts.
const HALF_BYTES: usize = size_of::<Half>() + size_of::<Message>();

/// An exchange whose response goes on beside others.
struct Concurrent {
    id: u64,
    cost: usize,
    ready: Ready,
}

/// Whether responses in order can be told to belong to the requests that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Kept,
    /// Messages were lost.
    Broken,
    /// Messages were lost of a client that does not wait for responses, and a response came since.
    BrokenAndAnswered,
}

/// The requests of one stream that wait for their response, and the exchanges that are ready to be handed on.
pub(crate) struct Exchanges {
    pairing: Pairing,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    max_pending: usize,
    /// The newest request is the last of `pending` and its bytes are still being counted.
    request_open: bool,
    /// A paired response whose bytes are still being counted.
    response_open: Option<Ready>,
    /// Responses that go on at the same time, oldest first. Looked for from the newest on: those whose end was lost stay.
    concurrent: VecDeque<Concurrent>,
    ready: Vec<Ready>,
    /// Messages that the sink was not told of yet; `None` when it does not want to know.
    heard: Option<Vec<Heard>>,
    order: Order,
    /// The client was seen to send requests before it had the response of the one before.
    pipelines: bool,
    /// How many requests are open is not known: pairs are not told before they are proven.
    doubt: Option<Doubt>,
    /// There was such a time.
    was_doubted: bool,
    /// See [`crate::engine::Stats::unpaired`].
    unpaired: u64,
    /// See [`Config::cautious`].
    cautious: bool,
    /// Since the order was broken: requests may have been among what was lost.
    requests_lost: bool,
    /// The same, of a client that had sent several.
    burst_lost: bool,
    /// Requests that were given up while the order was kept: as many responses belong to them.
    late: usize,
    /// Of [`Pairing::ByStream`].
    unseen: Unseen,
    /// Of [`Pairing::ById`].
    repeated: Repeated,
    /// Requests may have been lost since the sink was told.
    newly_lost: bool,
    /// The sink was told that a request may be open that was not seen.
    told_unseen: bool,
    has_messages: bool,
    has_paired: bool,
}

impl Exchanges {
    pub(crate) fn new(pairing: Pairing, config: &Config) -> Self {
        Self {
            pairing,
            pending: VecDeque::new(),
            pending_bytes: 0,
            max_pending: config.max_pending,
            request_open: false,
            response_open: None,
            concurrent: VecDeque::new(),
            ready: Vec::new(),
            heard: config.messages.then(Vec::new),
            order: Order::Kept,
            pipelines: false,
            doubt: None,
            was_doubted: false,
            unpaired: 0,
            cautious: config.cautious,
            requests_lost: false,
            burst_lost: false,
            late: 0,
            unseen: Unseen::default(),
            repeated: Repeated::default(),
            newly_lost: false,
            told_unseen: false,
            has_messages: false,
            has_paired: false,
        }
    }

    /// What was sent before is not known.
    pub(crate) fn begins_in_the_middle(&mut self) {
        if self.pairing == Pairing::InOrder {
            self.doubt_pairs(0);
        }
        self.unseen.begins_in_the_middle();
    }

    /// A message was seen.
    pub(crate) fn has_messages(&self) -> bool {
        self.has_messages
    }

    /// A request had its response.
    pub(crate) fn has_paired(&self) -> bool {
        self.has_paired
    }

    /// Memory of the requests that wait and of the exchanges that go on at the same time.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    pub(crate) fn request(&mut self, message: Message, at: At, role: Role) {
        self.end(role);
        self.has_messages = true;
        if self.pairing != Pairing::InOrder {
            if self.repeats(&message) {
                return;
            }
            if let (Pairing::ByStream, Some(id)) = (self.pairing, message.id) {
                self.unseen.request(id, at.ts_ns);
            }
            // Whoever uses an id again does not wait for the response to its first use.
            let id = message.id;
            self.give_up(|pending| pending.id == id, ResponseStatus::Timeout);
            self.repeated.forget(id);
        } else {
            if self.order == Order::BrokenAndAnswered {
                // Clients that send several requests at once mostly wait for all the responses before they go on.
                self.give_up(|_| true, ResponseStatus::Unknown);
                (self.order, self.late, self.requests_lost) = (Order::Kept, 0, false);
            }
            if let Some(doubt) = &mut self.doubt {
                self.burst_lost |= doubt.request(self.pending.len());
            }
            if self.pending.is_empty() && !self.pipelines {
                self.late = 0;
            }
        }
        if self.pending.len() >= self.max_pending
            && let Some(oldest) = self.remove(0)
        {
            self.expect_late(1);
            self.ready.push(Ready {
                request: Some(oldest),
                response: None,
                unanswered: ResponseStatus::Unknown,
            });
        }
        self.hear(Role::Client, &message, at, at.seq);
        let half = Half::new(message, at);
        self.request_open = half.is_open();
        let cost = HALF_BYTES + half.message.heap_bytes();
        self.pending_bytes += cost;
        self.pending.push_back(Pending { id: half.message.id, cost, half, repetitions: 0 });
    }

    /// The same question again: one exchange that began with the first.
    fn repeats(&mut self, message: &Message) -> bool {
        let Some(first) = self.pending.iter_mut().find(|pending| pending.id == message.id) else {
            return false;
        };
        let half = &mut first.half;
        let same =
            half.message.resource == message.resource && half.message.request_type == message.request_type;
        if let (true, Length::Known(bytes)) = (same, message.length) {
            half.bytes += bytes;
            first.repetitions = first.repetitions.saturating_add(1);
        }
        same
    }

    pub(crate) fn one_way(&mut self, message: Message, at: At) {
        self.has_messages = true;
        self.hear(Role::Client, &message, at, at.seq);
        let request = Some(Half::new(message, at));
        self.ready.push(Ready { request, response: None, unanswered: ResponseStatus::Ok });
    }

    pub(crate) fn response(&mut self, message: Message, at: At, role: Role) {
        self.end(role);
        self.has_messages = true;
        if self.repeated.answers_again(message.id) {
            return;
        }
        let response = Half::new(message, at);
        let request = match self.pairing {
            Pairing::InOrder => {
                let request = self.next_in_order(at.ts_ns);
                self.has_paired |= request.is_some();
                self.believed(request, at.ts_ns)
            }
            Pairing::ById | Pairing::ByStream => {
                if let Some(id) = response.message.id {
                    self.closes_unseen(id, at);
                }
                self.remove_with(response.message.id)
            }
        };
        self.has_paired |= request.is_some();
        self.hear(Role::Server, &response.message, at, request.as_ref().and_then(|half| half.at.seq));
        self.answered(request, response);
    }

    fn hear(&mut self, role: Role, message: &Message, at: At, request_seq: Option<u32>) {
        if let Some(heard) = &mut self.heard {
            let (trace_id, x_request_id) = (message.trace_id.clone(), message.x_request_id.clone());
            let id = message.id;
            heard.push(Heard { role, seq: at.seq, ts_ns: at.ts_ns, request_seq, id, trace_id, x_request_id });
        }
    }

    /// Takes the request that is answered by a response that was sent at `ts_ns`.
    fn next_in_order(&mut self, ts_ns: u64) -> Option<Half> {
        if self.order != Order::Kept {
            let answered = self.answered_after_loss(ts_ns);
            // What comes before was answered by what was lost.
            for _ in 0..answered.unwrap_or(self.pending.len()) {
                if let Some(mut request) = self.remove(0) {
                    request.at.truncated = true;
                    let unanswered = ResponseStatus::Unknown;
                    self.ready.push(Ready { request: Some(request), response: None, unanswered });
                }
            }
            let certain = answered.is_some() && !self.requests_lost || !self.pipelines && !self.cautious;
            (self.order, self.requests_lost) = match certain {
                true => (Order::Kept, false),
                false => (Order::BrokenAndAnswered, self.requests_lost),
            };
            return answered.and_then(|_| self.remove(0));
        }
        if self.late > 0 {
            self.late -= 1;
            return None;
        }
        self.pipelines |= self.pending.get(1).is_some_and(|second| second.half.at.ts_ns < ts_ns);
        self.remove(0)
    }

    /// When every request was seen and one waits, that is it. A client that waits for each response has sent only one request
    /// since the last. Of the others nothing is certain.
    fn answered_after_loss(&self, ts_ns: u64) -> Option<usize> {
        if self.pending.len() == 1 && !self.requests_lost && self.doubt.is_none() {
            return Some(0);
        }
        if self.pipelines || self.cautious {
            return None;
        }
        self.pending.iter().rposition(|pending| pending.half.at.ts_ns <= ts_ns)
    }

    fn remove(&mut self, index: usize) -> Option<Half> {
        let removed = self.pending.remove(index)?;
        self.pending_bytes -= removed.cost;
        self.request_open &= !self.pending.is_empty();
        Some(removed.half)
    }

    fn remove_with(&mut self, id: Option<u64>) -> Option<Half> {
        let index = self.pending.iter().position(|pending| pending.id == id)?;
        let Pending { repetitions, half, .. } = self.pending.get(index)?;
        self.repeated.answered(id, *repetitions, half.at.ts_ns);
        self.remove(index)
    }

    pub(crate) fn begin_response(&mut self, id: u64, message: Message, at: At) {
        self.has_messages = true;
        self.finish(id);
        if self.concurrent.len() >= self.max_pending {
            self.finish_at(0);
        }
        let request = self.remove_with(Some(id));
        self.closes_unseen(id, at);
        self.has_paired |= request.is_some();
        self.hear(Role::Server, &message, at, request.as_ref().and_then(|half| half.at.seq));
        let request_cost = request.as_ref().map_or(0, |half| half.message.heap_bytes());
        let cost = 2 * HALF_BYTES + request_cost + message.heap_bytes();
        self.pending_bytes += cost;
        let response = Some(Half::new(message, at));
        let ready = Ready { request, response, unanswered: ResponseStatus::Unknown };
        self.concurrent.push_back(Concurrent { id, cost, ready });
    }

    /// A request with this id was made, of which nothing is known; or more of one that is known came.
    pub(crate) fn unread(&mut self, id: u64, at: At) {
        self.newly_lost |= self.pairing == Pairing::ByStream && self.unseen.unread(id, at.ts_ns);
    }

    /// The request with this id has its response, or will have none: it is not open, though it may not have been seen.
    pub(crate) fn closes_unseen(&mut self, id: u64, at: At) {
        if self.pairing == Pairing::ByStream {
            self.unseen.closes(id, at.ts_ns);
        }
    }

    /// `n` more bytes belong to the message of `role` with this id.
    pub(crate) fn extend(&mut self, role: Role, id: u64, n: u64) {
        let concurrent = self.concurrent.iter_mut().rfind(|concurrent| concurrent.id == id);
        let half = match (role, concurrent) {
            (Role::Server, concurrent) => {
                concurrent.and_then(|concurrent| concurrent.ready.response.as_mut())
            }
            (Role::Client, Some(concurrent)) => concurrent.ready.request.as_mut(),
            (Role::Client, None) => {
                let pending = self.pending.iter_mut().find(|pending| pending.id == Some(id));
                pending.map(|pending| &mut pending.half)
            }
        };
        if let Some(half) = half {
            half.bytes = half.bytes.saturating_add(n);
        }
    }

    pub(crate) fn concurrent_response(&mut self, id: u64) -> Option<&mut Message> {
        let concurrent = self.concurrent.iter_mut().rfind(|concurrent| concurrent.id == id)?;
        concurrent.ready.response.as_mut().map(|half| &mut *half.message)
    }

    /// The response that was begun with this id has all its bytes.
    pub(crate) fn finish(&mut self, id: u64) {
        if let Some(index) = self.concurrent.iter().rposition(|concurrent| concurrent.id == id) {
            self.finish_at(index);
        }
    }

    fn finish_at(&mut self, index: usize) {
        if let Some(concurrent) = self.concurrent.remove(index) {
            self.pending_bytes -= concurrent.cost;
            self.ready.push(concurrent.ready);
        }
    }

    /// The requests with such ids will have no response. Gives whether there were any.
    pub(crate) fn cancel(
        &mut self,
        which: impl Fn(u64) -> bool,
        unanswered: ResponseStatus,
        exception: &str,
    ) -> bool {
        let mut found = false;
        for pending in self.pending.iter_mut().filter(|pending| pending.id.is_some_and(&which)) {
            pending.half.message.exception = Some(exception.into());
            found = true;
        }
        self.give_up(|pending| pending.id.is_some_and(&which), unanswered);
        found
    }

    /// None of the responses that go on will get any further: their ends were not seen.
    fn finish_all(&mut self) {
        self.cut_concurrent();
        while !self.concurrent.is_empty() {
            self.finish_at(0);
        }
    }

    fn cut_concurrent(&mut self) {
        for half in self.concurrent.iter_mut().filter_map(|concurrent| concurrent.ready.response.as_mut()) {
            half.at.truncated = true;
        }
    }

    pub(crate) fn push(&mut self, message: Message, at: At) {
        self.end(Role::Server);
        self.has_messages = true;
        self.hear(Role::Server, &message, at, None);
        self.answered(None, Half::new(message, at));
    }

    fn answered(&mut self, request: Option<Half>, response: Half) {
        let open = response.is_open();
        let ready = Ready { request, response: Some(response), unanswered: ResponseStatus::Unknown };
        if open {
            self.response_open = Some(ready);
        } else {
            self.complete(ready);
        }
    }

    pub(crate) fn open_response(&mut self) -> Option<&mut Message> {
        self.open_half().map(|half| &mut *half.message)
    }

    fn open_half(&mut self) -> Option<&mut Half> {
        self.response_open.as_mut()?.response.as_mut()
    }

    /// The open message of `role` has all its bytes.
    pub(crate) fn end(&mut self, role: Role) {
        match role {
            Role::Client => self.request_open = false,
            Role::Server => {
                if let Some(ready) = self.response_open.take() {
                    self.complete(ready);
                }
            }
        }
    }

    /// `n` bytes of the open message of `role` went by.
    pub(crate) fn consumed(&mut self, role: Role, n: u64) {
        let open = match role {
            Role::Client if self.request_open => self.pending.back_mut().map(|pending| &mut pending.half),
            Role::Client => None,
            Role::Server => self.open_half(),
        };
        if let Some(half) = open {
            half.bytes = half.bytes.saturating_add(n);
        }
    }

    pub(crate) fn request_with(&self, id: Option<u64>) -> Option<&Message> {
        self.pending.iter().find(|pending| pending.id == id).map(|pending| &*pending.half.message)
    }

    /// The request that a response sent at `ts_ns` answers.
    pub(crate) fn oldest(&self, ts_ns: u64) -> Option<&Message> {
        let index = match self.order {
            Order::Kept if self.late > 0 => return None,
            Order::Kept => 0,
            _ if self.pairing != Pairing::InOrder => 0,
            _ => self.answered_after_loss(ts_ns)?,
        };
        self.pending.get(index).map(|pending| &*pending.half.message)
    }

    /// Message boundaries of `role` are lost, and with them any number of messages.
    pub(crate) fn lost(&mut self, role: Role) {
        match role {
            Role::Server => {
                if let Some(half) = self.open_half() {
                    half.at.truncated = true;
                }
                self.cut_concurrent();
            }
            Role::Client if self.request_open => {
                if let Some(request) = self.pending.back_mut() {
                    request.half.at.truncated = true;
                }
            }
            Role::Client => {}
        }
        self.end(role);
        self.judge_held();
        // A request that was lost has its response come while none waits, unless several are sent at once.
        if self.pairing == Pairing::InOrder && (role == Role::Server || self.pipelines || self.cautious) {
            (self.order, self.late) = (Order::Broken, 0);
            self.requests_lost |= role == Role::Client;
        }
        if role == Role::Client {
            self.unseen.lost();
            self.burst_lost |= self.pipelines || self.pending.len() > 1;
            self.newly_lost = true;
        }
    }

    /// The client may have made a request that was not seen, and that is not answered as far as is known.
    fn may_have_unseen(&mut self) -> bool {
        self.burst_lost &= self.order != Order::Kept || self.doubt.is_some();
        match self.pairing {
            Pairing::InOrder => self.burst_lost,
            Pairing::ById => false,
            Pairing::ByStream => self.unseen.may_be_open(),
        }
    }

    /// When the oldest request that waits was sent.
    pub(crate) fn waits_since_ns(&self) -> Option<u64> {
        let pending = self.pending.front().map(|pending| pending.half.at.ts_ns);
        pending.into_iter().chain(self.unseen.since_ns()).chain(self.repeated.since_ns()).min()
    }

    /// Requests older than `before_ns` are not waited for any longer.
    pub(crate) fn expire(&mut self, before_ns: u64) {
        self.unseen.expire(before_ns);
        self.repeated.expire(before_ns);
        if self.pending.front().is_some_and(|pending| pending.half.at.ts_ns < before_ns) {
            let status = self.unanswered();
            let waiting = self.pending.len();
            self.give_up(|pending| pending.half.at.ts_ns < before_ns, status);
            self.expect_late(waiting - self.pending.len());
        }
    }

    /// The requests that wait cost too much memory.
    pub(crate) fn shed(&mut self) {
        self.expect_late(self.pending.len());
        self.release(false);
        self.request_open = false;
        self.finish_all();
        self.give_up(|_| true, ResponseStatus::Unknown);
    }

    /// Responses to `n` requests that were given up may still come, in order.
    fn expect_late(&mut self, n: usize) {
        if self.pairing == Pairing::InOrder && self.order == Order::Kept {
            self.late += n;
        }
    }

    /// The stream is over.
    pub(crate) fn close(&mut self) {
        self.end(Role::Client);
        self.end(Role::Server);
        self.judge_held();
        self.finish_all();
        let status = self.unanswered();
        self.give_up(|_| true, status);
    }

    /// Whatever waits ends as unknown: what becomes of it will not be seen.
    pub(crate) fn abandon(&mut self) {
        self.end(Role::Client);
        self.end(Role::Server);
        self.judge_held();
        self.finish_all();
        self.give_up(|_| true, ResponseStatus::Unknown);
        (self.order, self.late, self.requests_lost) = (Order::Kept, 0, false);
        self.unseen = Unseen::default();
        self.repeated = Repeated::default();
    }

    /// How a request ends whose response did not come. When responses were lost, it may have come.
    fn unanswered(&mut self) -> ResponseStatus {
        if self.order == Order::Kept {
            return ResponseStatus::Timeout;
        }
        for pending in &mut self.pending {
            pending.half.at.truncated = true;
        }
        ResponseStatus::Unknown
    }

    fn give_up(&mut self, which: impl Fn(&Pending) -> bool, unanswered: ResponseStatus) {
        let mut index = 0;
        while let Some(pending) = self.pending.get(index) {
            if which(pending) {
                let request = self.remove(index);
                self.ready.push(Ready { request, response: None, unanswered });
            } else {
                index += 1;
            }
        }
    }

    /// Tells the sink of messages. Not part of a packet's way, which wants none of it.
    #[cold]
    fn tell(&mut self, client: Side, out: &mut Out<'_>) {
        for heard in self.heard.iter_mut().flat_map(|heard| heard.drain(..)) {
            out.sink.message(out.flow, client, heard);
        }
        let (unseen, newly) = (self.may_have_unseen(), std::mem::take(&mut self.newly_lost));
        if unseen != self.told_unseen || newly && unseen {
            self.told_unseen = unseen;
            out.sink.unseen(out.flow, client, unseen);
        }
    }

    /// Hands on what is ready.
    #[inline]
    pub(crate) fn flush(&mut self, client: Side, protocol: L7Protocol, out: &mut Out<'_>) {
        if self.heard.is_some() {
            self.tell(client, out);
        }
        if !self.ready.is_empty() {
            for ready in self.ready.drain(..) {
                out.emit(client, protocol, ready);
            }
        }
    }
}
