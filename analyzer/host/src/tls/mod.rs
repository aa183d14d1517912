//! What applications give to and take from TLS libraries, and the sockets it goes through.
//!
//! A session is bound to a socket because a system call on that socket was made within the library's call (then the event names
//! it), or, where libraries work in memory only, because the same thread moved records of the right lengths at the same time, or
//! the same goroutine received them before. Then its spans have the socket's endpoints, and the sequence numbers of the records
//! that held their first bytes. Without a proof there is no binding.
//!
//! | module | what |
//! |---|---|
//! | `records` | where records begin in a socket's bytes |
//! | `place` | which record the bytes of a session went in |
//! | `session` | one session |

mod place;
pub(crate) mod records;
mod session;

use crate::connection::Connection;
use crate::context::{Happening, Moment, ProcessKey};
use crate::shared::Shared;
use session::Session;
pub(crate) use session::SessionKey;
use std::collections::{BTreeMap, VecDeque};
use wirespan_event::{Header, Source};

type Map<K, V> = hashbrown::HashMap<K, V, foldhash::fast::RandomState>;
type Streams = Map<u64, Box<Connection>>;

/// Events of a session whose socket is not known wait this long for it, ns.
const HOLD_NS: u64 = 5_000_000;
/// Sockets that a thread read from most recently.
const MAX_READS: usize = 8;
/// Sessions that are not bound are forgotten when nothing came for so long, ns.
const IDLE_NS: u64 = 60_000_000_000;
/// Threads, and goroutines, of which reads are remembered.
const MAX_THREADS: usize = 16_384;

#[derive(Default)]
pub(crate) struct Tls {
    /// In order, so that those of one process lie together.
    sessions: BTreeMap<SessionKey, Box<Session>>,
    /// TLS sockets that a thread read from in its last turn.
    reads: Map<u32, (u32, VecDeque<u64>)>,
    /// Those that a goroutine did, on whatever threads it ran: it may have read more for a handshake than that needed.
    goroutine_reads: BTreeMap<(ProcessKey, u64), VecDeque<u64>>,
    /// Sessions with events that wait for the socket, or for bytes of it, by when they waited long enough, and their thread and turn.
    holding: VecDeque<Holding>,
    nicknames: u64,
}

struct Holding {
    until_ns: u64,
    key: SessionKey,
    tid: u32,
    turn: u32,
}

impl Tls {
    /// A call of a TLS library moved bytes.
    pub(crate) fn data(
        &mut self,
        shared: &mut Shared,
        streams: &mut Streams,
        at: &Moment,
        header: &Header,
        payload: &[u8],
        watermark_ns: u64,
    ) {
        let key = (at.process, header.tls);
        let named = Some(header.conn).filter(|conn| *conn != 0);
        let other = self.sessions.get(&key).and_then(|session| session.conn);
        if named.is_some() && other.is_some() && named != other {
            // The end of the session before was not told.
            self.end(shared, streams, key);
        }
        if let Some(before) =
            named.and_then(|conn| streams.get(&conn)?.session).filter(|before| *before != key)
        {
            self.end(shared, streams, before);
        }
        let nicknames = &mut self.nicknames;
        let session = self.sessions.entry(key).or_insert_with(|| {
            shared.stats.tls_sessions += 1;
            *nicknames += 1;
            Box::new(Session::new((1 << 63) | *nicknames))
        });
        session.nested |= named.is_some();
        if session.conn.is_none() {
            if let Some(conn) = named {
                let connection = streams.entry(conn).or_insert_with(|| Box::new(Connection::new(header)));
                bind(session, key, connection);
                shared.stats.tls_bound_by_nesting += 1;
            } else if header.is_ingress() {
                self.look_back(shared, streams, header, key);
            }
        }
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let connection = session.conn.and_then(|conn| streams.get(&conn));
        let held_since_ns = connection.and_then(|connection| connection.held_since_ns());
        if session.conn.is_none() && !header.is_ingress() || held_since_ns.is_some() {
            if session.held.is_empty() {
                let until_ns =
                    held_since_ns.map_or(shared.now_ns + HOLD_NS, |since_ns| since_ns + watermark_ns);
                self.holding.push_back(Holding { until_ns, key, tid: header.tid, turn: header.turn });
            }
            session.held.push((*header, payload.into()));
            return;
        }
        release(shared, session, streams);
        deliver(shared, session, streams, header, payload);
    }

    /// Which of the sockets that the thread has just read from held these bytes?
    fn look_back(&mut self, shared: &mut Shared, streams: &mut Streams, header: &Header, key: SessionKey) {
        // What held these bytes may be what was lost.
        if shared.is_unsure(header.tid, header.turn) {
            return;
        }
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let of_thread = || self.reads.get(&header.tid).filter(|(turn, _)| *turn == header.turn);
        let conns = match header.source() {
            Some(Source::GoTls) if header.coroutine != 0 => {
                self.goroutine_reads.get(&(key.0, header.coroutine))
            }
            _ => of_thread().map(|(_, conns)| conns),
        };
        let Some(conns) = conns else { return };
        let mut fitting: Vec<u64> =
            conns.iter().copied().filter(|conn| fits(streams, session, *conn, header)).collect();
        if !session.candidates.is_empty() {
            fitting.retain(|conn| session.candidates.contains(conn));
        }
        match fitting[..] {
            [] => {}
            [conn] => {
                if let Some(connection) = streams.get_mut(&conn) {
                    bind(session, key, connection);
                    shared.stats.tls_bound_by_records += 1;
                }
            }
            _ => {
                shared.stats.tls_ambiguous += 1;
                session.candidates = fitting;
            }
        }
    }

    /// Bytes went through a socket that carries TLS.
    pub(crate) fn socket(
        &mut self,
        shared: &mut Shared,
        streams: &mut Streams,
        at: &Moment,
        header: &Header,
    ) {
        let Some(connection) = streams.get_mut(&header.conn) else { return };
        if let Some(key) = connection.session {
            let is_held = connection.held_since_ns().is_some();
            if let (Some(session), Some(records)) = (self.sessions.get_mut(&key), &mut connection.records)
                && !is_held
            {
                if !header.is_ingress() {
                    session.was_sent(shared, records);
                }
                release(shared, session, streams);
            }
            return;
        }
        if header.is_ingress() {
            if self.reads.len() >= MAX_THREADS {
                self.reads.clear();
            }
            let (turn, conns) = self.reads.entry(at.tid).or_default();
            if *turn != at.turn {
                (*turn, _) = (at.turn, conns.clear());
            }
            remember(conns, header.conn);
            if at.coroutine != 0 {
                if self.goroutine_reads.len() >= MAX_THREADS {
                    self.goroutine_reads.clear();
                }
                remember(self.goroutine_reads.entry((at.process, at.coroutine)).or_default(), header.conn);
            }
            return;
        }
        // They may be of a session that was lost.
        if shared.is_unsure(at.tid, at.turn) {
            return;
        }
        // Of the sessions that this thread gave bytes to in this turn, the only one that fits.
        let mut found = None;
        for holding in self.holding.iter().filter(|holding| (holding.tid, holding.turn) == (at.tid, at.turn))
        {
            let Some(session) = self.sessions.get(&holding.key).filter(|session| session.conn.is_none())
            else {
                continue;
            };
            let Some((first, _)) = session.held.first() else { continue };
            if fits(streams, session, header.conn, first) {
                if found.is_some() {
                    shared.stats.tls_ambiguous += 1;
                    return;
                }
                found = Some(holding.key);
            }
        }
        let Some(key) = found else { return };
        if let (Some(session), Some(connection)) =
            (self.sessions.get_mut(&key), streams.get_mut(&header.conn))
        {
            bind(session, key, connection);
            shared.stats.tls_bound_by_records += 1;
            release(shared, session, streams);
        }
    }

    /// A session is over.
    pub(crate) fn end(&mut self, shared: &mut Shared, streams: &mut Streams, key: SessionKey) {
        if let Some(session) = self.sessions.remove(&key) {
            end(shared, streams, *session);
        }
    }

    /// Time passed.
    pub(crate) fn advance(&mut self, shared: &mut Shared, streams: &mut Streams) {
        while let Some(Holding { key, .. }) =
            self.holding.pop_front_if(|holding| holding.until_ns <= shared.now_ns)
        {
            if let Some(session) = self.sessions.get_mut(&key) {
                release(shared, session, streams);
            }
        }
    }

    /// Gives up on what does not come.
    pub(crate) fn sweep(&mut self, shared: &mut Shared, streams: &mut Streams) {
        let now_ns = shared.now_ns;
        self.sessions.values_mut().for_each(|session| session.sweep(shared));
        let is_idle = |_: &SessionKey, session: &mut Box<Session>| {
            session.conn.is_none() && session.talk.last.time_ns + IDLE_NS <= now_ns
        };
        self.sessions.extract_if(.., is_idle).for_each(|(_, session)| end(shared, streams, *session));
    }

    /// Nothing will follow.
    pub(crate) fn finish(&mut self, shared: &mut Shared, streams: &mut Streams) {
        std::mem::take(&mut self.sessions).into_values().for_each(|session| end(shared, streams, *session));
    }

    /// If there are too many, those without a socket go, whose end is not told by one. Of the others there are no more than sockets.
    pub(crate) fn limit(&mut self, shared: &mut Shared, streams: &mut Streams, max: usize) {
        if self.sessions.len() <= max {
            return;
        }
        for (_, session) in self.sessions.extract_if(.., |_, session| session.conn.is_none()) {
            end(shared, streams, *session);
            shared.stats.evicted_connections += 1;
        }
    }

    /// A thread is no more.
    pub(crate) fn exit(&mut self, tid: u32) {
        self.reads.remove(&tid);
    }

    /// A process is another program: what it had in memory is gone, its sockets may be there yet.
    pub(crate) fn exec(&mut self, shared: &mut Shared, streams: &mut Streams, at: &Moment) {
        let all = (at.process, 0)..=(at.process, u64::MAX);
        self.sessions
            .extract_if(all.clone(), |_, _| true)
            .for_each(|(_, session)| end(shared, streams, *session));
        self.goroutine_reads.extract_if(all, |_, _| true).for_each(drop);
        self.reads.remove(&at.tid);
    }
}

/// A socket was read from.
fn remember(conns: &mut VecDeque<u64>, conn: u64) {
    if !conns.contains(&conn) {
        if conns.len() >= MAX_READS {
            conns.pop_front();
        }
        conns.push_back(conn);
    }
}

fn end(shared: &mut Shared, streams: &mut Streams, mut session: Session) {
    release(shared, &mut session, streams);
    session.close(shared);
    match session.conn {
        Some(conn) => {
            if let Some(connection) = streams.get_mut(&conn) {
                connection.session = None;
            }
        }
        None => {
            let conn = session.talk.flow.flow_id;
            shared.happen(&session.talk.last, Happening::Close { conn });
        }
    }
}

fn fits(streams: &Streams, session: &Session, conn: u64, header: &Header) -> bool {
    streams.get(&conn).is_some_and(|connection| {
        let records = connection.records.as_deref().filter(|_| connection.session.is_none());
        records.is_some_and(|records| session.fits(header, records))
    })
}

fn bind(session: &mut Session, key: SessionKey, connection: &mut Connection) {
    connection.session = Some(key);
    connection.records.get_or_insert_default();
    session.bind(connection);
}

/// Goes on with the events that waited for the socket.
fn release(shared: &mut Shared, session: &mut Session, streams: &mut Streams) {
    for (header, payload) in std::mem::take(&mut session.held) {
        deliver(shared, session, streams, &header, &payload);
    }
}

fn deliver(
    shared: &mut Shared,
    session: &mut Session,
    streams: &mut Streams,
    header: &Header,
    payload: &[u8],
) {
    let connection = session.conn.and_then(|conn| streams.get_mut(&conn));
    session.counted = connection.as_ref().is_some_and(|connection| connection.talk.is_counted());
    // While bytes are missing, the newest records are not known.
    let whole = connection.filter(|connection| connection.held_since_ns().is_none());
    let records = whole.and_then(|connection| connection.records.as_deref_mut());
    session.data(shared, header, payload, records);
}
