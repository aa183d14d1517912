//! What is known of the host's sockets: gives each event, in order of time, to its connection.

use crate::connection::{Connection, endpoints, side};
use crate::context::{Happening, Moment};
use crate::facts::{Fact, moment};
use crate::host::HostConfig;
use crate::shared::Shared;
use crate::talk::{Positions, Talk, Unix};
use crate::tls::Tls;
use std::collections::{BTreeMap, VecDeque};
use wirespan_event::header::AF_UNIX;
use wirespan_event::{Event, Flags, Header, Kind};
use wirespan_records::{Endpoint, L4Protocol};

type Map<K, V> = hashbrown::HashMap<K, V, foldhash::fast::RandomState>;
type Datagrams = BTreeMap<(u64, Endpoint), Box<Talk>>;

const IPPROTO_UDP: u8 = 17;
/// The kernel's number for UNIX sockets that carry datagrams.
const UNIX_DATAGRAMS: u8 = 1;
/// Connections are looked through at this interval, ns.
const SWEEP_NS: u64 = 1_000_000_000;
/// Flows of datagrams end when nothing came for so long, ns.
const DATAGRAMS_IDLE_NS: u64 = 60_000_000_000;

pub(crate) struct Tracker {
    pub shared: Shared,
    streams: Map<u64, Box<Connection>>,
    /// By socket and peer; in order, so that those of one socket lie together.
    datagrams: Datagrams,
    tls: Tls,
    /// Sockets with events that wait for one before them, and since when.
    holding: VecDeque<(u64, u64)>,
    swept_ns: u64,
    watermark_ns: u64,
    max_connections: usize,
}

/// Each event of the socket is one datagram.
fn is_datagrams(header: &Header) -> bool {
    let protocol = if header.family == AF_UNIX { UNIX_DATAGRAMS } else { IPPROTO_UDP };
    header.protocol == protocol
}

/// The conversation with the peer that a datagram names.
fn talk_of<'a>(datagrams: &'a mut Datagrams, header: &Header) -> &'a mut Talk {
    let [here, there] = endpoints(header);
    datagrams.entry((header.conn, there)).or_insert_with(|| {
        let mut talk = Talk::new(header.conn, [here, there], L4Protocol::Udp, Positions::Counted);
        talk.flow.netns = header.netns;
        talk.unix = (header.family == AF_UNIX).then(Unix::default);
        Box::new(talk)
    })
}

/// Bytes went through a connection.
fn data<'a>(header: &Header, ahead: bool) -> Happening<'a> {
    Happening::Data { conn: header.conn, ingress: header.is_ingress(), ahead }
}

impl Tracker {
    pub(crate) fn new(config: &HostConfig) -> Self {
        Self {
            shared: Shared::new(config),
            streams: Map::default(),
            datagrams: BTreeMap::new(),
            tls: Tls::default(),
            holding: VecDeque::new(),
            swept_ns: 0,
            watermark_ns: config.watermark_ns,
            max_connections: config.max_connections,
        }
    }

    /// Events of the thread of the next event were lost.
    pub(crate) fn lost_before(&mut self, header: &Header) {
        self.shared.stats.losses += 1;
        self.shared.lost_before(header);
        self.shared.happen(&moment(header), Happening::Lost);
    }

    /// The next event by time.
    pub(crate) fn take(&mut self, event: &Event<'_>) {
        let header = event.header;
        let at = moment(header);
        self.shared.now_ns = self.shared.now_ns.max(at.time_ns);
        let (Some(kind), Some(source)) = (header.kind(), header.source()) else {
            self.shared.stats.unknown_events += 1;
            return;
        };
        match kind {
            Kind::Data if source.is_tls() => self.tls_data(&at, event),
            Kind::Data | Kind::Socket => self.data(&at, event),
            Kind::Open => self.open(&at, header),
            Kind::Look => self.shared.happen(&at, Happening::Look { conn: header.conn }),
            Kind::Close => self.close(header.conn),
            Kind::Name => self.name(event),
            Kind::TlsFree => self.tls.end(&mut self.shared, &mut self.streams, (at.process, header.tls)),
            Kind::Stream if let Some(writer) = header.other_coroutine() => {
                self.shared.happen(&at, Happening::Queues { writer, stream: header.length });
            }
            Kind::Stream if header.is_ingress() => {
                let (session, stream) = (header.tls, header.length);
                let what = match stream {
                    0 => Happening::Reads { session },
                    _ => Happening::Answers { session, stream },
                };
                self.shared.happen(&at, what);
            }
            Kind::Stream => {
                let conn = Some(header.conn).filter(|conn| *conn != 0);
                let (session, stream) = (header.tls, header.length);
                let what = match (stream, conn) {
                    (0, Some(conn)) => Happening::Carries { session, conn },
                    (0, None) => Happening::Sends { session },
                    _ => Happening::Begins { session, conn, stream },
                };
                self.shared.happen(&at, what);
            }
            Kind::Wake if let Some(item) = header.item() => self.shared.happen(&at, Happening::Take { item }),
            Kind::Fork if let Some(item) = header.item() => self.shared.happen(&at, Happening::Put { item }),
            Kind::Wake => {
                let coroutine = header.other_coroutine().unwrap_or_default();
                let (tid, timed) = (header.other_tid, header.length != 0);
                let futex = if coroutine == 0 { header.tls } else { 0 };
                self.shared.happen(&at, Happening::Wake { tid, coroutine, futex, timed });
            }
            Kind::Fork if header.other_tgid == header.tgid => {
                let coroutine = header.other_coroutine().unwrap_or_default();
                let (tid, place) = (header.other_tid, header.length);
                self.shared.happen(&at, Happening::Fork { tid, coroutine, place });
            }
            Kind::Fork => {}
            Kind::Exec => {
                self.tls.exec(&mut self.shared, &mut self.streams, &at);
                self.shared.happen(&at, Happening::Exec);
            }
            Kind::Exit => self.exit(&at),
        }
    }

    fn data(&mut self, at: &Moment, event: &Event<'_>) {
        let header = event.header;
        if header.conn == 0 {
            return;
        }
        self.shared.stats.bytes += u64::from(header.length);
        let payload = if header.flags.has(Flags::NO_DATA) { &[] } else { event.payload };
        if is_datagrams(header) {
            self.shared.happen(at, data(header, false));
            self.datagram(header, payload);
            return;
        }
        let Self { shared, streams, holding, tls, .. } = self;
        let connection = streams.entry(header.conn).or_insert_with(|| Box::new(Connection::new(header)));
        shared.happen(at, data(header, connection.is_ahead(header)));
        let was_holding = connection.held_since_ns().is_some();
        connection.data(shared, header, payload);
        let holds = connection.held_since_ns().is_some();
        if !was_holding && holds {
            holding.push_back((shared.now_ns, header.conn));
        }
        if was_holding != holds {
            connection.tell_held(shared, at);
        }
        if connection.records.is_some() {
            tls.socket(shared, streams, at, header);
        }
        self.limit();
    }

    fn tls_data(&mut self, at: &Moment, event: &Event<'_>) {
        let header = event.header;
        if header.tls == 0 {
            return;
        }
        self.shared.stats.bytes += u64::from(header.length);
        let payload = if header.flags.has(Flags::NO_DATA) { &[] } else { event.payload };
        self.tls.data(&mut self.shared, &mut self.streams, at, header, payload, self.watermark_ns);
        self.limit();
    }

    /// Each event is one datagram, and each peer of a socket a conversation of its own.
    fn datagram(&mut self, header: &Header, payload: &[u8]) {
        let Self { shared, datagrams, .. } = self;
        let talk = talk_of(datagrams, header);
        let side = side(header);
        let fact = Fact::new(header, talk.next(side).unwrap_or_default(), header.length);
        talk.data(shared, &fact, side, payload);
        self.limit();
    }

    fn open(&mut self, at: &Moment, header: &Header) {
        let conn = header.conn;
        if conn == 0 {
            return;
        }
        let is_server = header.flags.has(Flags::SERVER);
        self.shared
            .happen(at, if is_server { Happening::Accept { conn } } else { Happening::Connect { conn } });
        if is_datagrams(header) {
            return;
        }
        let connection = self.streams.entry(conn).or_insert_with(|| Box::new(Connection::new(header)));
        connection.opened(header);
        self.limit();
    }

    fn name(&mut self, event: &Event<'_>) {
        let header = event.header;
        if header.conn == 0 || event.payload.is_empty() {
            return;
        }
        let talk = if is_datagrams(header) {
            talk_of(&mut self.datagrams, header)
        } else {
            let connection = self.streams.entry(header.conn);
            &mut connection.or_insert_with(|| Box::new(Connection::new(header))).talk
        };
        talk.named(side(header), event.payload);
        self.limit();
    }

    fn close(&mut self, conn: u64) {
        let mut last = None;
        let session = self.streams.get_mut(&conn).and_then(|connection| {
            connection.give_up(&mut self.shared);
            connection.session
        });
        if let Some(session) = session {
            self.tls.end(&mut self.shared, &mut self.streams, session);
        }
        if let Some(mut connection) = self.streams.remove(&conn) {
            connection.close(&mut self.shared);
            last = Some(connection.talk.last);
        }
        let flows = (conn, Endpoint::default())..(conn.saturating_add(1), Endpoint::default());
        for (_, mut talk) in self.datagrams.extract_if(flows, |_, _| true) {
            talk.close(&mut self.shared);
            last = Some(talk.last);
        }
        if let Some(last) = last {
            self.shared.happen(&last, Happening::Close { conn });
        }
    }

    fn exit(&mut self, at: &Moment) {
        self.shared.happen(at, Happening::Exit);
        self.tls.exit(at.tid);
        self.shared.exit(at.tid);
        if at.tid == at.process.tgid {
            self.shared.desk.ended(at.process, self.shared.now_ns);
        }
    }

    /// It is `now_ns`, and all that happened before was taken.
    pub(crate) fn advance(&mut self, now_ns: u64) {
        self.shared.advance(now_ns);
        while let Some((_, conn)) =
            self.holding.pop_front_if(|(since_ns, _)| *since_ns + self.watermark_ns <= self.shared.now_ns)
        {
            let Some(connection) = self.streams.get_mut(&conn) else { continue };
            if connection.held_since_ns().is_some_and(|since| since + self.watermark_ns <= self.shared.now_ns)
            {
                connection.give_up(&mut self.shared);
                let last = connection.talk.last;
                connection.tell_held(&mut self.shared, &last);
            }
            if let Some(since_ns) = connection.held_since_ns() {
                self.holding.push_back((since_ns, conn));
            }
        }
        self.tls.advance(&mut self.shared, &mut self.streams);
        if now_ns >= self.swept_ns + SWEEP_NS {
            self.swept_ns = now_ns;
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        let Self { shared, streams, datagrams, tls, .. } = self;
        streams.values_mut().for_each(|connection| connection.talk.sweep(shared));
        tls.sweep(shared, streams);
        let now_ns = shared.now_ns;
        datagrams.retain(|_, talk| {
            talk.sweep(shared);
            // A name is told once for as long as there is the socket.
            let is_named = talk.unix.as_ref().is_some_and(|unix| unix.name.is_some());
            let is_alive = is_named || talk.last.time_ns + DATAGRAMS_IDLE_NS > now_ns;
            if !is_alive {
                talk.close(shared);
                shared.stats.evicted_connections += 1;
            }
            is_alive
        });
    }

    /// Keeps to the bounds.
    fn limit(&mut self) {
        self.tls.limit(&mut self.shared, &mut self.streams, self.max_connections);
        if self.streams.len() + self.datagrams.len() > self.max_connections {
            self.forget_oldest();
        }
    }

    /// Forgets the sixteenth of all connections that was silent for the longest time.
    fn forget_oldest(&mut self) {
        let Self { shared, streams, datagrams, tls, .. } = self;
        let times = streams.values().map(|connection| connection.talk.last.time_ns);
        let mut times: Vec<u64> = times.chain(datagrams.values().map(|talk| talk.last.time_ns)).collect();
        if times.is_empty() {
            return;
        }
        let rank = times.len() / 16;
        let (_, &mut oldest_ns, _) = times.select_nth_unstable(rank);
        let old = streams.extract_if(|_, connection| connection.talk.last.time_ns <= oldest_ns);
        let old: Vec<_> = old.map(|(_, connection)| connection).collect();
        for mut connection in old {
            if let Some(session) = connection.session {
                tls.end(shared, streams, session);
            }
            connection.close(shared);
            shared.stats.evicted_connections += 1;
        }
        for (_, mut talk) in datagrams.extract_if(.., |_, talk| talk.last.time_ns <= oldest_ns) {
            talk.close(shared);
            shared.stats.evicted_connections += 1;
        }
    }

    /// Nothing will follow.
    pub(crate) fn finish(&mut self) {
        self.streams.values_mut().for_each(|connection| connection.give_up(&mut self.shared));
        self.tls.finish(&mut self.shared, &mut self.streams);
        for (_, mut connection) in self.streams.drain() {
            connection.close(&mut self.shared);
        }
        for mut talk in std::mem::take(&mut self.datagrams).into_values() {
            talk.close(&mut self.shared);
        }
        self.shared.finish();
    }
}
