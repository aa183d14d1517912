//! The record layer (RFC 8446 section 5.1) and detection by it.

use super::hello::ClientHello;
use crate::parser::{ProbeInfo, Role, Verdict};
use wirespan_records::L4Protocol;

pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;
const HEARTBEAT: u8 = 24;

/// Bytes of a record's head.
pub(super) const HEAD: usize = 5;
/// The longest payload: 2^14, and 2048 for what encryption adds (TLS 1.2).
const MAX_PAYLOAD: usize = (1 << 14) + 2048;

/// A record, as far as it is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Record<'a> {
    pub kind: u8,
    /// What is there of the payload.
    pub payload: &'a [u8],
    /// Bytes of all of it, head included.
    pub len: usize,
}

impl<'a> Record<'a> {
    /// From its first [`HEAD`] bytes on. `None` when it is no record of SSL 3.0 to TLS 1.3.
    pub(super) fn parse(data: &'a [u8]) -> Option<Self> {
        let [kind, 3, minor, high, low, rest @ ..] = data else { return None };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let sane = (CHANGE_CIPHER_SPEC..=HEARTBEAT).contains(kind) && *minor <= 4 && len <= MAX_PAYLOAD;
        sane.then(|| Self { kind: *kind, payload: &rest[..len.min(rest.len())], len: HEAD + len })
    }

    /// All of it is there.
    pub(super) fn is_whole(&self) -> bool {
        HEAD + self.payload.len() == self.len
    }
}

pub(super) fn probe(data: &[u8], info: &ProbeInfo) -> Verdict {
    if info.l4 != L4Protocol::Tcp {
        return Verdict::No;
    }
    if data[0] & 0x80 != 0 {
        return probe_v2(data);
    }
    let head = [CHANGE_CIPHER_SPEC..=HEARTBEAT, 3..=3, 0..=4, 0..=(MAX_PAYLOAD >> 8) as u8];
    if !data.iter().zip(&head).all(|(byte, range)| range.contains(byte)) {
        return Verdict::No;
    }
    if data.len() < HEAD {
        return Verdict::Maybe;
    }
    let Some(record) = Record::parse(data) else { return Verdict::No };
    let next = data.get(record.len..).unwrap_or_default();
    if !next.iter().zip(&head).all(|(byte, range)| range.contains(byte)) {
        return Verdict::No;
    }
    match (record.kind, record.payload) {
        (HANDSHAKE, []) => Verdict::Maybe,
        (HANDSHAKE, [1, rest @ ..]) => hello(rest, Role::Client),
        (HANDSHAKE, [2, rest @ ..]) => hello(rest, Role::Server),
        // The middle of a connection.
        (HANDSHAKE, [0 | 4 | 11..=16 | 20 | 22, 0, ..]) => Verdict::Yes(guess(info)),
        (CHANGE_CIPHER_SPEC, [1]) | (ALERT, [1 | 2, _]) => Verdict::Yes(guess(info)),
        (APPLICATION_DATA, _) if record.len > HEAD && data[2] > 0 => Verdict::Yes(guess(info)),
        _ => Verdict::No,
    }
}

/// What follows the type of a hello: its length and the version.
fn hello(rest: &[u8], role: Role) -> Verdict {
    match rest {
        [0..=1, _, _, 3, minor, ..] if *minor <= 4 => Verdict::Yes(role),
        [0..=1, _, _, 0x7f, _, ..] => Verdict::Yes(role),
        [0..=1, _, _, 3] | [0..=1] | [0..=1, _] | [0..=1, _, _] | [] => Verdict::Maybe,
        _ => Verdict::No,
    }
}

fn probe_v2(data: &[u8]) -> Verdict {
    match data {
        [_, _, 1, 0 | 3, _, _, _, _, _, _, _, ..] => match ClientHello::parse_v2(data) {
            Some((_, len)) if data.len() <= len => Verdict::Yes(Role::Client),
            _ => Verdict::No,
        },
        _ => Verdict::No,
    }
}

/// Records of both sides look alike: the server has the lower port.
fn guess(info: &ProbeInfo) -> Role {
    info.role.unwrap_or(if info.dst_port < info.src_port { Role::Client } else { Role::Server })
}
