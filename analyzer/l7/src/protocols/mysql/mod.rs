//! MySQL and MariaDB: the client/server protocol, from version 4.1 on.
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>, <https://mariadb.com/kb/en/clientserver-protocol/>
//!
//! A command and all its results are one exchange; so are a login and the authentication that follows it. Packets are
//! numbered within a command, so a command begins with number 0 and its answer with the number behind its last packet.
//!
//! | module | what |
//! |---|---|
//! | `wire` | packet headers, integers, strings |
//! | `probe` | detection, also in the middle of a connection |
//! | `login` | greeting and login |
//! | `command` | the commands by number and name |
//! | `client` | requests |
//! | `values` | bound parameters and query attributes |
//! | `statements` | prepared statements by id |
//! | `server` | responses, packet by packet |
//! | `reply` | what one packet of a response says |
//! | `compress` | frames of the compressed protocol |

mod client;
mod command;
mod compress;
mod login;
mod probe;
mod reply;
mod server;
mod statements;
mod values;
mod wire;

use crate::parser::{Cx, Length, Message, Pairing, Parser, ProbeInfo, Role, Step, Verdict};
use compress::{Frame, Inflater};
use server::Results;
use statements::Statements;
use wire::Header;
use wirespan_records::{L4Protocol, L7Protocol, Text};

/// Bytes of a packet that are kept while it is split over frames.
const MAX_INNER: usize = 16 << 10;

/// How far the connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Commands and their results; also when the beginning was not seen.
    #[default]
    Command,
    /// The server has greeted.
    Greeted,
    /// The client has sent its name; both exchange proofs until the server says OK or not.
    Authenticating,
}

/// Packets of one direction.
#[derive(Debug, Default)]
struct Packets {
    /// The packet before was of the greatest length: the next one continues it.
    continued: bool,
    /// What is there of a packet that is split over frames of the compressed protocol.
    partial: Vec<u8>,
    /// Bytes of a packet that come in later frames and are not looked at.
    skip: usize,
    /// Frames were not read to their end: where a packet begins is not known.
    lost: bool,
}

/// The parser of one connection.
#[derive(Default)]
pub struct MySql {
    phase: Phase,
    /// From the greeting.
    version: Option<Text>,
    server_capabilities: u64,
    client_capabilities: Option<u64>,
    /// Whether frames are around packets; not known when the login was not seen.
    compressed: Option<bool>,
    /// The database in use, and the one asked for.
    database: Option<Text>,
    wanted_database: Option<Text>,
    statements: Statements,
    /// The client asked for TLS.
    tls: bool,
    /// The client sends a file for LOAD DATA LOCAL.
    infile: bool,
    /// Number of the packet that begins the answer to the newest request.
    answer_seq: u8,
    /// Number of the packet behind the newest one of the server.
    next_seq: u8,
    results: Results,
    /// The response ended within the frame that is being read.
    ended: bool,
    client: Packets,
    server: Packets,
    inflater: Option<Box<Inflater>>,
}

impl Parser for MySql {
    const PROTOCOL: L7Protocol = L7Protocol::MySql;
    const PAIRING: Pairing = Pairing::InOrder;

    fn probe(data: &[u8], info: &ProbeInfo) -> Verdict {
        if info.l4 != L4Protocol::Tcp {
            return Verdict::No;
        }
        probe::probe(data)
    }

    fn parse(&mut self, role: Role, data: &[u8], cx: &mut Cx<'_>) -> Step {
        if self.tls && role == Role::Client {
            return Step::Switch;
        }
        if self.compressed.is_none() && self.phase == Phase::Command && data.len() > wire::HEADER {
            self.compressed = Some(probe::is_compressed(data));
        }
        if self.is_compressed() { self.frame(role, data, cx) } else { self.packet(role, data, cx) }
    }

    fn lost(&mut self, role: Role) {
        *self.packets(role) = Packets { lost: self.is_compressed(), ..Packets::default() };
        match role {
            Role::Client => self.infile = false,
            Role::Server => self.results = Results::default(),
        }
        self.phase = Phase::Command;
    }
}

impl MySql {
    fn is_compressed(&self) -> bool {
        self.compressed == Some(true) && self.phase == Phase::Command
    }

    fn packets(&mut self, role: Role) -> &mut Packets {
        match role {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        }
    }

    /// The packet that `data` begins with.
    fn packet(&mut self, role: Role, data: &[u8], cx: &mut Cx<'_>) -> Step {
        let Some(header) = Header::read(data) else {
            return if cx.last { Step::Desync } else { Step::More(wire::HEADER) };
        };
        let continued =
            std::mem::replace(&mut self.packets(role).continued, header.length == wire::MAX_PACKET);
        let step = match role {
            Role::Client => self.client_packet(header, continued, data, cx),
            Role::Server => self.server_packet(header, continued, data, cx),
        };
        if !matches!(step, Step::Done(_)) {
            self.packets(role).continued = continued;
        }
        step
    }

    /// The frame that `data` begins with. Its packets are dealt with when the part that is looked at is there.
    fn frame(&mut self, role: Role, data: &[u8], cx: &mut Cx<'_>) -> Step {
        let Some(frame) = Frame::read(data) else {
            return if cx.last { Step::Desync } else { Step::More(compress::HEADER) };
        };
        let looked_at = compress::HEADER + frame.length.min(compress::MAX_COMPRESSED);
        if data.len() < looked_at && !cx.last {
            return Step::More(looked_at);
        }
        let body = &data[compress::HEADER..frame.total().min(data.len())];
        if frame.original == 0 {
            self.content(role, body, frame.content() - body.len(), cx);
        } else {
            let inflater = self.inflater.get_or_insert_default();
            let content = inflater.inflate(body, frame.original);
            self.content(role, &content, frame.content().saturating_sub(content.len()), cx);
        }
        if std::mem::take(&mut self.ended) {
            cx.end_after(frame.total());
        }
        Step::Done(frame.total())
    }

    /// The content of a frame: packets, the first and last of which may be in other frames in part. `missing` bytes behind
    /// it could not be read.
    fn content(&mut self, role: Role, content: &[u8], missing: usize, cx: &mut Cx<'_>) {
        let packets = self.packets(role);
        let skipped = packets.skip.min(content.len());
        packets.skip -= skipped;
        let content = &content[skipped..];
        if std::mem::take(&mut packets.lost) && Header::read(content).is_none_or(|header| header.seq > 1) {
            packets.lost = true;
            return;
        }
        let mut joined = std::mem::take(&mut packets.partial);
        joined.extend_from_slice(content);
        let (mut rest, last) = (&joined[..], cx.last);
        while !rest.is_empty() {
            cx.last = missing > 0 || rest.len() >= MAX_INNER;
            match self.packet(role, rest, cx) {
                Step::Done(n) => {
                    self.packets(role).skip = n.saturating_sub(rest.len());
                    rest = rest.get(n..).unwrap_or_default();
                }
                Step::More(_) if !cx.last => {
                    self.packets(role).partial = rest.to_vec();
                    break;
                }
                _ => {
                    self.lost(role);
                    break;
                }
            }
        }
        cx.last = last;
        if missing > 0 {
            self.unread(role, missing, cx);
        }
    }

    /// Bytes of a frame's content could not be read. A response that was wholly within them counts as seen.
    fn unread(&mut self, role: Role, missing: usize, cx: &mut Cx<'_>) {
        let packets = self.packets(role);
        let skipped = packets.skip.min(missing);
        packets.skip -= skipped;
        if skipped == missing {
            return;
        }
        if role == Role::Server && self.results == Results::None && cx.oldest_request().is_some() {
            cx.response(Message::default());
        }
        self.lost(role);
    }

    /// The length of a message that is one packet. Frames are counted as they pass, a packet with others behind it too.
    fn length(&self, header: Header) -> Length {
        match self.is_compressed() || header.length == wire::MAX_PACKET {
            true => Length::Open,
            false => Length::Known(header.total() as u64),
        }
    }

    /// The response ends with the packet of this header.
    fn end_response(&mut self, header: Header, cx: &mut Cx<'_>) {
        self.results = Results::None;
        match self.is_compressed() {
            true => self.ended = true,
            false => cx.end_after(header.total()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
