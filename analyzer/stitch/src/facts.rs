//! When two spans are one exchange seen at two points.
//!
//! The addresses cannot tell: NAT and load balancers change them. The TCP sequence numbers of the first bytes of request and
//! response do, wherever the same connection is seen. Proxies that end the connection begin a new exchange. The two ends of a
//! UNIX socket are known by their inodes, and count the same bytes.
//!
//! A process knows the network namespace of its socket. What was seen at one end in two namespaces is two exchanges. The two
//! ends may be in different ones, with veth between them, but not those of a connection over loopback addresses, nor those of
//! a UNIX socket, which both have the namespace of who connected.

use crate::row::SpanRow;
use foldhash::quality::FixedState;
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use wirespan_records::{L4Protocol, L7Protocol, ObservationPoint, Session, Span};

/// Both sequence numbers are the same: 64 bits that agree by chance once in 10^19, so hosts' clocks may differ by this much.
pub const BOTH_WINDOW_NS: u64 = 1_000_000_000;
/// One of them is: this far apart on one host,
pub const ONE_WINDOW_NS: u64 = 50_000_000;
/// and this far between two, whose clocks differ.
pub const HOSTS_WINDOW_NS: u64 = 150_000_000;

/// What UNIX sockets have in the place of a protocol over IP.
const NO_IP: L4Protocol = L4Protocol::Other(0);

/// Seed of all hashes, so that they are the same in every process.
const SEED: FixedState = FixedState::with_seed(0x7719_5e5a);

/// A hash that is the same in every run.
pub fn hash_of(value: &impl Hash) -> u64 {
    SEED.hash_one(value)
}

/// A hash of a text, 0 of none.
fn text_hash(text: Option<&str>) -> u32 {
    text.filter(|t| !t.is_empty()).map_or(0, |t| (hash_of(&t) as u32).max(1))
}

/// How an exchange was carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Tcp,
    Datagram,
    /// UNIX sockets.
    Local,
}

impl Carrier {
    fn of(tcp: bool, unix: bool) -> Self {
        match (tcp, unix) {
            (true, _) => Self::Tcp,
            (false, true) => Self::Local,
            (false, false) => Self::Datagram,
        }
    }
}

/// What stands for both ends of a UNIX socket: a hash of the client's inode, whose socket has this one connection.
/// The server's is not known to a client before it is accepted, and not when it was closed already.
fn unix<'a>(attribute: impl Fn(&'static str) -> Option<&'a str>) -> Option<u32> {
    let known = |name| attribute(name).filter(|inode| *inode != "0");
    Some(hash_of(&known("unix.client").or_else(|| known("unix.server"))?) as u32)
}

/// What is needed of a span to tell whether another is the same exchange.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    start_ns: u64,
    request_seq: Option<u32>,
    response_seq: Option<u32>,
    request_id: Option<u32>,
    client: u32,
    server: u32,
    kind: u32,
    resource: u32,
    clock: u32,
    carrier: Carrier,
    /// Hashes of the network namespaces of client and server, as far as they are known; else 0.
    namespaces: [u32; 2],
    /// Both ends are of one namespace: loopback addresses, a UNIX socket.
    within_one: bool,
    point: ObservationPoint,
    protocol: u8,
}

/// The namespace that a process names, of the host with this clock, at its end.
fn namespaces(point: ObservationPoint, netns: Option<&str>, clock: u32) -> [u32; 2] {
    let namespace = netns.map_or(0, |netns| (hash_of(&(clock, netns)) as u32).max(1));
    match point {
        ObservationPoint::ClientProcess => [namespace, 0],
        ObservationPoint::ServerProcess => [0, namespace],
        _ => [0, 0],
    }
}

/// What the two have in common, as a key to find the one by the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// TCP: where the request begins.
    Request(u32),
    /// TCP: where the response begins.
    Response(u32),
    /// UDP: id and a hash of what was asked for.
    Datagram(u32, u32),
    /// UNIX sockets: a hash of the client's inode, and where the request begins.
    Local(u32, u32),
    /// A hash of another key, which an exchange of other namespaces has already, and of those of this one.
    Elsewhere(u64),
}

impl Facts {
    /// Of a span on its way to the store. `clock` tells hosts apart whose clocks may differ.
    pub fn of(span: &Span, clock: u32) -> Self {
        let tcp = span.protocol == L4Protocol::Tcp;
        let attribute = |name| span.attributes.iter().find(|(n, _)| *n == name).map(|(_, value)| &**value);
        let unix = if span.protocol == NO_IP { unix(attribute) } else { None };
        let stream = tcp || unix.is_some();
        let resource = span.request_resource.as_deref().or(span.request_domain.as_deref());
        Self {
            start_ns: span.start_ns,
            request_seq: span.req_tcp_seq.filter(|_| stream && span.session != Session::ResponseOnly),
            response_seq: span.resp_tcp_seq.filter(|_| stream && span.session != Session::RequestOnly),
            request_id: span.request_id.map(|id| hash_of(&id) as u32),
            client: unix.unwrap_or_else(|| hash_of(&span.client) as u32),
            server: unix.unwrap_or_else(|| hash_of(&span.server) as u32),
            kind: text_hash(span.request_type.as_deref()),
            resource: if span.truncated { 0 } else { text_hash(resource) },
            clock,
            carrier: Carrier::of(tcp, unix.is_some()),
            namespaces: namespaces(span.observation_point, attribute("netns"), clock),
            within_one: unix.is_some() || span.client.ip.is_loopback() && span.server.ip.is_loopback(),
            point: span.observation_point,
            protocol: protocol_number(span.l7_protocol.as_str()),
        }
    }

    /// Of a span from the store.
    pub fn of_row(row: &SpanRow, clock: u32) -> Self {
        let tcp = row.protocol == L4Protocol::Tcp.as_str();
        let attribute = |name: &str| row.attributes.get(name).map(String::as_str);
        let unix = if row.protocol == NO_IP.as_str() { unix(attribute) } else { None };
        let stream = tcp || unix.is_some();
        let resource = row.request_resource.as_deref().or(row.request_domain.as_deref());
        let is_loopback = |ip: &str| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let endpoint = |ip: &str, port: u16| match ip.parse::<IpAddr>() {
            Ok(ip) => hash_of(&(ip, port)) as u32,
            Err(_) => hash_of(&(ip, port)) as u32,
        };
        Self {
            start_ns: row.start_ns,
            request_seq: row.req_tcp_seq.filter(|_| stream && row.session != "response_only"),
            response_seq: row.resp_tcp_seq.filter(|_| stream && row.session != "request_only"),
            request_id: row.request_id.map(|id| hash_of(&id) as u32),
            client: unix.unwrap_or_else(|| endpoint(&row.client_ip, row.client_port)),
            server: unix.unwrap_or_else(|| endpoint(&row.server_ip, row.server_port)),
            kind: text_hash(row.request_type.as_deref()),
            resource: if row.truncated { 0 } else { text_hash(resource) },
            clock,
            carrier: Carrier::of(tcp, unix.is_some()),
            namespaces: namespaces(row.point(), attribute("netns"), clock),
            within_one: unix.is_some() || is_loopback(&row.client_ip) && is_loopback(&row.server_ip),
            point: row.point(),
            protocol: protocol_number(&row.l7_protocol),
        }
    }

    /// The keys by which another point's span can find this one.
    pub fn keys(&self) -> impl Iterator<Item = Key> + use<> {
        let datagram = (self.carrier == Carrier::Datagram)
            .then_some(self.request_id)
            .flatten()
            .map(|id| Key::Datagram(id, self.resource));
        let tcp = |seq: Option<u32>| seq.filter(|_| self.carrier == Carrier::Tcp);
        let local = self.request_seq.filter(|_| self.carrier == Carrier::Local);
        let request = tcp(self.request_seq).map(Key::Request);
        let response = tcp(self.response_seq).map(Key::Response);
        let local = local.map(|seq| Key::Local(hash_of(&self.tuple()) as u32, seq));
        [request, response, datagram, local].into_iter().flatten()
    }

    /// The key under which it is found where an exchange of other namespaces has `key`.
    pub fn elsewhere(&self, key: Key) -> Key {
        let [client, server] = self.namespaces;
        let ends = if self.within_one { [client.max(server), 0] } else { self.namespaces };
        Key::Elsewhere(hash_of(&(key, ends)))
    }

    /// The two cannot be one exchange, because their ends are in different network namespaces.
    pub fn is_apart(&self, other: &Self) -> bool {
        let differ = |a: u32, b: u32| a != 0 && b != 0 && a != b;
        let ([client, server], [other_client, other_server]) = (self.namespaces, other.namespaces);
        let within_one = self.within_one && other.within_one;
        differ(client, other_client)
            || differ(server, other_server)
            || within_one && (differ(client, other_server) || differ(server, other_client))
    }

    /// How sure it is that the two are one exchange, 0 to 1; `None` when they are two.
    pub fn same(&self, other: &Self) -> Option<f32> {
        self.alike(other).filter(|_| !self.is_apart(other))
    }

    /// The same, by all but the namespaces.
    pub fn alike(&self, other: &Self) -> Option<f32> {
        if self.carrier != other.carrier || self.protocol != other.protocol {
            return None;
        }
        let apart = self.start_ns.abs_diff(other.start_ns);
        let window = if self.clock == other.clock { ONE_WINDOW_NS } else { HOSTS_WINDOW_NS };
        if self.carrier == Carrier::Datagram {
            let one = self.request_id.is_some() && self.request_id == other.request_id;
            return (one && apart <= window && self.shares_endpoint(other) && self.agrees(other))
                .then_some(1.0);
        }
        if self.carrier == Carrier::Local {
            return self.is_other_end(other).then_some(1.0);
        }
        let equal = |a: Option<u32>, b: Option<u32>| a.is_some() && a == b;
        let request = equal(self.request_seq, other.request_seq);
        let response = equal(self.response_seq, other.response_seq);
        match (request, response) {
            (true, true) => (apart <= BOTH_WINDOW_NS).then_some(1.0),
            (false, false) => None,
            _ => (apart <= window && self.shares_endpoint(other) && self.agrees(other)).then_some(0.9),
        }
    }

    /// Both ends of one UNIX socket, on one host. One that was traced from the middle of an exchange counts from another byte,
    /// which shows when a request arrives before it is sent.
    fn is_other_end(&self, other: &Self) -> bool {
        let (client, server) = match (self.point, other.point) {
            (ObservationPoint::ClientProcess, ObservationPoint::ServerProcess) => (self, other),
            (ObservationPoint::ServerProcess, ObservationPoint::ClientProcess) => (other, self),
            _ => return false,
        };
        let one = self.request_seq.is_some() && self.request_seq == other.request_seq;
        let waited = server.start_ns.checked_sub(client.start_ns);
        one && self.clock == other.clock
            && self.tuple() == other.tuple()
            && self.agrees(other)
            && waited.is_some_and(|waited| waited <= BOTH_WINDOW_NS)
    }

    /// NAT changes one end; where it changed both, only both sequence numbers tell.
    fn shares_endpoint(&self, other: &Self) -> bool {
        self.client == other.client || self.server == other.server
    }

    /// What was asked for does not differ, as far as both know it.
    fn agrees(&self, other: &Self) -> bool {
        let agree = |a: u32, b: u32| a == 0 || b == 0 || a == b;
        agree(self.kind, other.kind) && agree(self.resource, other.resource)
    }

    /// Both ends as they were addressed here.
    pub fn tuple(&self) -> (u32, u32) {
        (self.client, self.server)
    }

    /// Takes over what the other point knows of the same exchange.
    pub fn complete_with(&mut self, other: &Self) {
        self.request_seq = self.request_seq.or(other.request_seq);
        self.response_seq = self.response_seq.or(other.response_seq);
        if self.resource == 0 {
            self.resource = other.resource;
        }
        for (own, others) in self.namespaces.iter_mut().zip(other.namespaces) {
            *own = if *own == 0 { others } else { *own };
        }
    }
}

/// A number per protocol. HTTP/2 and gRPC are one: whether it is gRPC is in headers that not every point reads.
fn protocol_number(name: &str) -> u8 {
    let name = if name == L7Protocol::Grpc.as_str() { L7Protocol::Http2.as_str() } else { name };
    L7Protocol::ALL.iter().position(|p| p.as_str() == name).map_or(u8::MAX, |n| n as u8)
}

/// A trace or request id that can be unique: not a counter's first values, not zeros.
pub fn usable_id(id: Option<&str>) -> Option<&str> {
    id.filter(|id| id.len() >= 8 && id.bytes().any(|b| Some(b) != id.bytes().next()))
}
