//! HTTP/2 streams, where the process tells which of them a thread is at: one read brings frames of several, which are handed over
//! one after the other; and what is asked for at each is sent when all are done.

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
    /// Requests that were begun and not sent yet: their streams, and what spoke for them.
    begun: Vec<(u32, Pieces)>,
}

impl Session {
    /// Where the request of this stream is, if it was begun. Another session may have been at the same address before.
    fn place(&self, stream: u32) -> Option<usize> {
        self.begun.iter().rposition(|(begun, _)| *begun == stream)
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
        begun.push((stream, pieces));
    }

    /// Requests of a session whose connection is not known are sent now.
    pub(super) fn sends(&mut self, at: &Moment, session: u64) {
        let actor = self.actor(at);
        actor.acts(at);
        actor.sends = Some(session);
    }

    /// What spoke for the request of this stream when it was begun, if that was told.
    pub(super) fn begun(&mut self, began: &Moment, id: u64, stream: u32) -> Option<Pieces> {
        let conn = self.conns.get(&id)?;
        let session = conn.session.or_else(|| conn.sent_by(began)?.session)?;
        let known =
            self.sessions.get_mut(&session).filter(|known| known.conn.is_none_or(|conn| conn == id))?;
        let (_, pieces) = known.begun.remove(known.place(stream)?);
        self.bind(session, id);
        Some(pieces)
    }

    /// The session's requests go out on this connection.
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
