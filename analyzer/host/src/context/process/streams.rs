//! HTTP/2 streams, where the process tells which of them a thread is at: one read brings frames of several, which are handed over
//! one after the other; and what is asked for at each is sent when all are done.

use super::conn::Conn;
use super::{Pieces, ProcessState};
use crate::context::ContextConfig;
use crate::context::actor::ActorId;
use crate::context::evidence::{Class, Evidence, Node, Nodes};
use crate::context::happening::Moment;
use wirespan_records::Rule;

/// Requests of a connection that are begun and not sent: more are never sent.
const MAX_BEGUN: usize = 1024;

impl Conn {
    /// What spoke for the request of this stream when it was begun, if that was told.
    pub fn begun(&mut self, stream: u32) -> Option<Pieces> {
        let place = self.begun.iter().position(|(begun, _)| *begun == stream)?;
        Some(self.begun.remove(place).1)
    }
}

impl ProcessState {
    pub(super) fn put_stream(&mut self, conn: u64, stream: u32, node: Node) {
        if stream != 0 {
            self.streams.insert((conn, stream), node);
        }
    }

    /// A request is begun that goes out later.
    pub(super) fn begins(&mut self, config: &ContextConfig, at: &Moment, conn: u64, stream: u32) {
        let mut pieces = self.pieces(at);
        self.allow(config, &mut pieces);
        let actor = self.actor(at);
        actor.acts(at);
        actor.made_one();
        let begun = &mut self.conns.entry(conn).or_default().begun;
        if begun.len() >= MAX_BEGUN {
            begun.remove(0);
        }
        begun.push((stream, pieces));
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
