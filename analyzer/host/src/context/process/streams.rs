//! HTTP/2 streams, where the process tells which of them a thread is at: one read brings frames of several, which are handed over
//! one after the other; and what is asked for at each is sent when all are done. Or which goroutine asked for each that another
//! writes, and which answers each that another read.

use super::{Pieces, ProcessState};
use crate::context::ContextConfig;
use crate::context::actor::ActorId;
use crate::context::evidence::{Class, Evidence, Node, Nodes};
use crate::context::happening::Moment;
use wirespan_records::Rule;

/// Requests of a session that are begun and not sent: more are never sent.
const MAX_BEGUN: usize = 1024;

/// An HTTP/2 session.
#[derive(Debug, Default)]
pub(super) struct Session {
    conn: Option<u64>,
    /// The goroutine that reads what comes on it.
    reader: Option<u64>,
    /// Requests that were begun and not sent yet.
    begun: Vec<Begun>,
}

/// A request that was begun.
#[derive(Debug)]
pub(super) struct Begun {
    stream: u32,
    /// The coroutine that began it; 0 for none.
    pub coroutine: u64,
    /// What spoke for it.
    pub pieces: Pieces,
}

impl Session {
    /// Where the request of this stream is, if it was begun. Another session may have been at the same address before.
    fn place(&self, stream: u32) -> Option<usize> {
        self.begun.iter().rposition(|begun| begun.stream == stream)
    }
}

impl ProcessState {
    pub(super) fn put_stream(&mut self, conn: u64, stream: u32, node: Node) {
        if stream != 0 {
            self.streams.insert((conn, stream), node);
        }
    }

    /// A request is begun that goes out later.
    pub(super) fn begins(
        &mut self,
        config: &ContextConfig,
        at: &Moment,
        session: u64,
        conn: Option<u64>,
        stream: u32,
    ) {
        self.lives(at);
        let mut pieces = self.pieces(at);
        self.allow(config, &mut pieces);
        let actor = self.actor(at);
        actor.acts(at);
        actor.made_one();
        if let Some(conn) = conn {
            self.bind(session, conn);
        }
        let begun = &mut self.sessions.entry(session).or_default().begun;
        if begun.len() >= MAX_BEGUN {
            begun.remove(0);
        }
        begun.push(Begun { stream, coroutine: at.coroutine, pieces });
    }

    /// Requests of a session whose connection is not known are sent now.
    pub(super) fn sends(&mut self, at: &Moment, session: u64) {
        let actor = self.actor(at);
        actor.acts(at);
        actor.sends = Some(session);
    }

    /// How the request of this stream was begun, if that was told. A goroutine that writes for others is a session.
    pub(super) fn begun(&mut self, began: &Moment, id: u64, stream: u32) -> Option<Begun> {
        let conn = self.conns.get(&id)?;
        let writer = Some(began.coroutine).filter(|writer| self.sessions.contains_key(writer));
        let session = writer.or(conn.session).or_else(|| conn.sent_by(began)?.session)?;
        let known =
            self.sessions.get_mut(&session).filter(|known| known.conn.is_none_or(|conn| conn == id))?;
        let begun = known.begun.remove(known.place(stream)?);
        self.bind(session, id);
        Some(begun)
    }

    /// A session begins, and this goroutine reads it.
    pub(super) fn reads_session(&mut self, at: &Moment, session: u64) {
        self.sessions.insert(session, Session { reader: Some(at.coroutine), ..Session::default() });
    }

    /// A goroutine begins to answer a request, and is done with what it did before. Where the beginning of the session was not
    /// seen, whoever made the goroutine for that reads it.
    pub(super) fn answers_stream(&mut self, at: &Moment, session: u64, stream: u32) {
        let known = self.sessions.get(&session);
        let maker = self.actors.get(&ActorId::of(at)).map(|actor| actor.maker.0);
        let reader = known.and_then(|known| known.reader).or(maker);
        let conn = known.and_then(|known| known.conn).or_else(|| self.read_by(reader?));
        if let Some(conn) = conn {
            self.bind(session, conn);
        }
        let node = conn.and_then(|conn| self.streams.get(&(conn, stream))).copied();
        let is_open = |node: &Node| match node {
            Node::Server(span) => self.servers.get(span).is_some_and(|server| server.closed_ns.is_none()),
            Node::Client(_) => false,
        };
        let nodes = node.filter(is_open).into_iter().collect();
        self.actor(at).answers(nodes);
    }

    /// The connection that a goroutine reads requests of. The first ones may have come with the beginning of the connection, which
    /// whoever made it reads.
    fn read_by(&self, coroutine: u64) -> Option<u64> {
        let reader = self.actors.get(&ActorId::Coroutine(coroutine))?;
        let maker = || self.actors.get(&ActorId::Coroutine(reader.maker.0))?.streams.conn;
        reader.streams.conn.or_else(maker)
    }

    /// The session's requests go out, or come, on this connection.
    pub(super) fn bind(&mut self, session: u64, conn: u64) {
        self.sessions.entry(session).or_default().conn = Some(conn);
        self.conn(conn).session = Some(session);
    }

    /// The connection is over, and its session with it.
    pub(super) fn unbind(&mut self, session: u64, conn: u64) {
        if self.sessions.get(&session).is_some_and(|known| known.conn == Some(conn)) {
            self.sessions.remove(&session);
        }
    }

    /// What speaks for whatever a thread does now, best first.
    pub(super) fn pieces(&mut self, at: &Moment) -> Pieces {
        let mut pieces = self.actor(at).pieces(at);
        if let Some(piece) = self.at_stream(at) {
            pieces.retain(|piece| !matches!(piece.class, Class::LoneTurn | Class::Turn | Class::LateTurn));
            pieces.insert(0, piece);
        }
        pieces
    }

    fn at_stream(&self, at: &Moment) -> Option<Evidence> {
        let current = self.actors.get(&ActorId::of(at))?.current(at)?;
        let node = *self.streams.get(&(current.conn, at.stream))?;
        let rule = if matches!(node, Node::Client(_)) { Rule::Socket } else { Rule::Turn };
        let (nodes, position, group) = (Nodes::from_iter([node]), current.made, current.group);
        Some(Evidence { position, group, ..Evidence::new(nodes, Class::Stream, rule) })
    }
}
