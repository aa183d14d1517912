//! A connection of the process.

use super::batch::Batch;
use super::{Pieces, ProcessState};
use crate::context::ContextConfig;
use crate::context::evidence::{Node, Nodes};
use crate::context::happening::Moment;
use smallvec::SmallVec;
use std::collections::VecDeque;

/// What is known of a connection.
#[derive(Debug, Default)]
pub(super) struct Conn {
    /// What it was opened for, until its first request.
    pub opened: Pieces,
    /// The coroutine that opened it; 0 for none.
    pub opener: u64,
    pub fresh: bool,
    /// What spoke for the last sends, by thread and its event: a request may take several.
    pub sends: SmallVec<[((u32, u32), Pieces); 2]>,
    /// The event that sent its last request.
    pub requested: Option<(u32, u32)>,
    /// When it sent that, and the event with requests before that, ns.
    pub requested_ns: [u64; 2],
    pub batch: Option<Box<Batch>>,
    /// The event that sent its last response.
    pub responded: Option<(u32, u32)>,
    /// Requests without a response, oldest first.
    pub asked: VecDeque<u64>,
    /// Responses come beside each other: bytes may be of any.
    pub beside: bool,
    /// The last request that has a response.
    pub answered: Option<u64>,
    /// Requests to answer.
    pub open: SmallVec<[u64; 2]>,
}

impl Conn {
    /// What more bytes from the other end belong to, as far as that is certain.
    pub fn bytes_of(&self) -> Nodes {
        match (self.open.as_slice(), self.asked.front(), self.answered) {
            ([], _, _) if self.beside => Nodes::new(),
            ([], None, None) => match self.opened.first() {
                Some(piece) => piece.nodes.clone(),
                None => Nodes::new(),
            },
            ([open], _, _) => Nodes::from_iter([Node::Server(*open)]),
            ([], Some(asked), None) => Nodes::from_iter([Node::Client(*asked)]),
            ([], None, Some(answered)) => Nodes::from_iter([Node::Client(answered)]),
            ([], Some(asked), Some(answered)) => {
                Nodes::from_iter([Node::Client(answered), Node::Client(*asked)])
            }
            _ => Nodes::new(),
        }
    }
}

impl ProcessState {
    /// Events of a connection were lost.
    pub(super) fn gap(&mut self, id: u64) {
        let Some(conn) = self.conns.remove(&id) else { return };
        for span in conn.open {
            let Some(server) = self.servers.get(&span) else { continue };
            if let Some(actor) = self.actors.get_mut(&server.actor) {
                // What it does next may still be for this one, and nobody will tell when that ends.
                actor.unsure = true;
            }
        }
        for actor in self.actors.values_mut() {
            actor.forgets();
        }
        self.conns.insert(id, Conn::default());
    }

    /// A connection is over.
    pub(super) fn close(&mut self, config: &ContextConfig, at: &Moment, id: u64) {
        let Some(conn) = self.conns.remove(&id) else { return };
        for span in conn.open {
            self.close_server(config, at, span);
        }
    }
}
