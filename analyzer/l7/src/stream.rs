//! What is kept of one stream: its parser, its exchanges and where each direction is.

use crate::detect::{Probing, Undecided};
use crate::engine::{Config, FlowContext, Side};
use crate::exchange::{At, Exchanges};
use crate::parser::{Cx, ProbeInfo, Role, Step, Verdict};
use crate::protocols::AnyParser;
use wirespan_records::{L4Protocol, L7Protocol};

/// What a flow keeps about its L7 content; two words while nothing was found.
#[derive(Default)]
pub struct Stream(pub(crate) State);

pub(crate) enum State {
    /// Nothing was found so far.
    Probing(Probing),
    /// Probes want more bytes than the first segments had.
    Undecided(Box<Undecided>),
    Active(Box<Active>),
    /// Not parsed any more.
    Off(Option<Known>),
}

impl Default for State {
    fn default() -> Self {
        Self::Probing(Probing::default())
    }
}

/// What is known of a stream for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub protocol: L7Protocol,
    pub client: Side,
}

impl Stream {
    /// What it speaks, once known.
    pub fn protocol(&self) -> Option<L7Protocol> {
        self.known().map(|known| known.protocol)
    }

    /// The client's side by what is spoken, once known.
    pub fn client(&self) -> Option<Side> {
        self.known().map(|known| known.client)
    }

    /// Nothing of this stream is looked at any more.
    pub fn is_off(&self) -> bool {
        matches!(self.0, State::Off(_))
    }

    /// When the first of the requests that wait will have waited too long and [`Engine::sweep`](crate::Engine::sweep) gives
    /// it up, or hands on pairs that are proven by then, ns since the epoch.
    pub fn deadline_ns(&self) -> Option<u64> {
        let State::Active(active) = &self.0 else { return None };
        let waits_since_ns = active.exchanges.waits_since_ns();
        // What has waited for exactly the time-out is given up a nanosecond later.
        let given_up_ns =
            waits_since_ns.map(|ns| ns.saturating_add(active.parser.timeout_ms() * 1_000_000 + 1));
        given_up_ns.into_iter().chain(active.exchanges.settles_ns()).min()
    }

    pub(crate) fn known(&self) -> Option<Known> {
        match &self.0 {
            State::Active(active) => {
                Some(Known { protocol: active.parser.protocol(), client: active.client })
            }
            State::Probing(probing) => probing.known,
            State::Undecided(undecided) => undecided.probing.known,
            State::Off(known) => *known,
        }
    }
}

/// A stream whose protocol was found.
pub(crate) struct Active {
    pub parser: AnyParser,
    pub exchanges: Exchanges,
    pub client: Side,
    pub directions: [Direction; 2],
    /// An exchange was complete, or the protocol was told: it is no mistake.
    pub proven: bool,
    /// Times the parser lost its place.
    pub desyncs: u8,
    /// What the engine counts for the requests that wait.
    pub pending_bytes: usize,
    /// To go on with when the detection was wrong.
    pub probing: Probing,
}

/// Where one direction is.
#[derive(Default)]
pub(crate) struct Direction {
    /// The begin of a message that is not complete.
    pub buffer: Vec<u8>,
    /// Of the first byte in the buffer.
    pub at: At,
    /// When the newest segment came, and how many bytes before it are in the buffer.
    pub newest: (u64, usize),
    /// The parser does not need to be asked before the buffer holds this many bytes.
    pub wanted: usize,
    /// Bytes of the current message that are passed over as they come.
    skip: u64,
    /// Message boundaries are lost.
    lost: bool,
    /// A message was taken to begin with what is buffered, though that is too little to tell.
    guessed: bool,
}

impl Active {
    pub(crate) fn new(protocol: L7Protocol, client: Side, probing: Probing, config: &Config) -> Option<Self> {
        let parser = AnyParser::new(protocol)?;
        Some(Self {
            exchanges: Exchanges::new(parser.pairing(), config),
            parser,
            client,
            directions: Default::default(),
            proven: false,
            desyncs: 0,
            pending_bytes: 0,
            probing,
        })
    }

    fn role(&self, side: Side) -> Role {
        role_of(self.client, side)
    }

    /// Passes over up to `n` bytes, seen or not, that the parser does not want; gives how many.
    pub(crate) fn pass_over(&mut self, side: Side, n: u64) -> u64 {
        let role = self.role(side);
        let direction = &mut self.directions[side as usize];
        let passed = direction.skip.min(n);
        direction.skip -= passed;
        self.exchanges.consumed(role, passed);
        passed
    }

    /// Is it known where messages begin, or does one begin with `data`?
    pub(crate) fn finds_place(&mut self, side: Side, data: &[u8], flow: &FlowContext) -> bool {
        if self.directions[side as usize].lost {
            let begins = self.begins(side, data, flow);
            let direction = &mut self.directions[side as usize];
            // When the first bytes do not tell, the parser waits for more and sees.
            (direction.lost, direction.guessed) = (begins == Some(false), begins.is_none());
        }
        !self.directions[side as usize].lost
    }

    /// Was it a mistake that a message begins with what is buffered, as `data` shows which follows it?
    pub(crate) fn guessed_wrongly(&mut self, side: Side, data: &[u8], flow: &FlowContext) -> bool {
        let direction = &self.directions[side as usize];
        if !direction.guessed || direction.buffer.is_empty() {
            return false;
        }
        let begins = self.begins(side, &[&direction.buffer, data].concat(), flow);
        self.directions[side as usize].guessed = begins.is_none();
        begins == Some(false)
    }

    /// Does a message of this side begin with `data`? `None` when that is too little to tell.
    fn begins(&self, side: Side, data: &[u8], flow: &FlowContext) -> Option<bool> {
        let role = self.role(side);
        let info = ProbeInfo {
            l4: flow.l4,
            src_port: flow.endpoints[side as usize].port,
            dst_port: flow.endpoints[side.other() as usize].port,
            role: Some(role),
            stream_start: false,
        };
        match self.parser.probe(data, &info) {
            Verdict::Yes(found) => Some(found == role),
            Verdict::Maybe => None,
            Verdict::No => Some(false),
        }
    }

    /// Lets the parser look at `data`. `last`: there will be no more; `cut`: though the message goes on.
    pub(crate) fn parse(
        &mut self,
        side: Side,
        data: &[u8],
        last: bool,
        cut: bool,
        l4: L4Protocol,
        config: &Config,
    ) -> Step {
        let role = self.role(side);
        let at = At { truncated: cut, ..self.directions[side as usize].at };
        let mut cx = Cx { config, l4, last, role, exchanges: &mut self.exchanges, at };
        self.parser.parse(role, data, &mut cx)
    }

    /// `n` bytes are dealt with; gives what is left of `data`.
    pub(crate) fn advance<'a>(&mut self, side: Side, data: &'a [u8], n: usize) -> &'a [u8] {
        let role = self.role(side);
        let there = n.min(data.len());
        self.exchanges.consumed(role, there as u64);
        let direction = &mut self.directions[side as usize];
        // One did begin there.
        direction.guessed = false;
        direction.skip = (n - there) as u64;
        direction.at.seq = direction.at.seq.map(|seq| seq.wrapping_add(there as u32));
        if there >= direction.newest.1 {
            direction.at.ts_ns = direction.newest.0;
        }
        direction.newest.1 = direction.newest.1.saturating_sub(there);
        data.get(there..).unwrap_or_default()
    }

    /// Message boundaries are lost at the start of `rest`. Gives the part of it from where one may begin again, with the
    /// newest segment.
    pub(crate) fn lose_before_newest<'a>(
        &mut self,
        side: Side,
        rest: &'a [u8],
        flow: &FlowContext,
    ) -> Option<&'a [u8]> {
        let Direction { newest: (ts_ns, before), at, .. } = self.directions[side as usize];
        self.lose(side);
        let newest = rest.get(before..).filter(|newest| before > 0 && !newest.is_empty())?;
        if !self.finds_place(side, newest, flow) {
            return None;
        }
        let direction = &mut self.directions[side as usize];
        let seq = at.seq.map(|seq| seq.wrapping_add(before as u32));
        (direction.at, direction.newest) = (At { ts_ns, seq, truncated: false }, (ts_ns, 0));
        Some(newest)
    }

    /// Message boundaries of one direction, whose buffer is empty, are lost.
    pub(crate) fn lose(&mut self, side: Side) {
        let role = self.role(side);
        debug_assert!(self.directions[side as usize].buffer.is_empty());
        self.directions[side as usize] = Direction { lost: true, ..Direction::default() };
        self.parser.lost(role);
        self.exchanges.lost(role);
    }
}

pub(crate) fn role_of(client: Side, side: Side) -> Role {
    if side == client { Role::Client } else { Role::Server }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_stream_of_which_nothing_is_known_is_small() {
        assert_eq!(size_of::<super::Stream>(), 16);
    }
}
