//! Is this a DNS message? Asked of all UDP traffic, so nothing may be left to chance.
//!
//! Left out by port: multicast DNS (5353), NetBIOS names (137) and LLMNR (5355), which look like DNS but are answered by
//! whoever feels meant, so that requests and responses do not pair.

use super::message::{Flags, HEADER, Header, Question, Record, is_plain_name};
use super::names::{known_rcode, known_type, operation};
use crate::parser::{MAX_PROBE, ProbeInfo, Role, Verdict};
use wirespan_records::L4Protocol;

const OTHER_PORTS: [u16; 3] = [137, 5353, 5355];

pub(super) fn probe(data: &[u8], info: &ProbeInfo) -> Verdict {
    let ports = [info.src_port, info.dst_port];
    if ports.iter().any(|port| OTHER_PORTS.contains(port)) {
        return Verdict::No;
    }
    // On the port of DNS, types, names and classes that are not in use elsewhere are believed too.
    let strict = !ports.contains(&53);
    if info.l4 == L4Protocol::Udp {
        return match check(data, data.len(), strict) {
            Check::Is(role) => Verdict::Yes(role),
            Check::Short | Check::Not => Verdict::No,
        };
    }
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return Verdict::Maybe };
    let length = usize::from(u16::from_be_bytes(*length));
    if length < HEADER {
        return Verdict::No;
    }
    let message = rest.get(..length).unwrap_or(rest);
    match check(message, length, strict) {
        Check::Is(role) => Verdict::Yes(role),
        Check::Short if data.len() < MAX_PROBE && message.len() < length => Verdict::Maybe,
        Check::Short | Check::Not => Verdict::No,
    }
}

enum Check {
    Is(Role),
    /// What is there fits, but too little is there.
    Short,
    Not,
}

/// Looks at the first bytes of a message that is `length` bytes long.
fn check(message: &[u8], length: usize, strict: bool) -> Check {
    if Flags::parse(message).is_some_and(|flags| !flags_fit(flags)) {
        return Check::Not;
    }
    let Some(header) = Header::parse(message) else { return Check::Short };
    if !counts_fit(header, length, strict) {
        return Check::Not;
    }
    let role = if header.flags.is_response() { Role::Server } else { Role::Client };
    let mut end = HEADER;
    if header.questions == 1 {
        let Some(question) = Question::first(message) else { return cut(message, length) };
        let used = known_type(question.kind).is_some() && is_class(question.class);
        if question.end > length || strict && !(used && is_plain_name(message, HEADER)) {
            return Check::Not;
        }
        end = question.end;
    }
    if header.records() == 0 {
        return if end == length || !strict { Check::Is(role) } else { Check::Not };
    }
    match Record::parse(message, end) {
        Some(record) if record.end > length && strict => Check::Not,
        Some(record) if known_type(record.kind).is_none() && strict => Check::Not,
        // The class of OPT is a size (RFC 6891).
        Some(record) if record.kind != 41 && !is_class(record.class) => Check::Not,
        None if strict => cut(message, length),
        _ => Check::Is(role),
    }
}

/// Something did not parse: because of bytes that are not there, or because it is wrong?
fn cut(message: &[u8], length: usize) -> Check {
    if message.len() < length { Check::Short } else { Check::Not }
}

fn flags_fit(flags: Flags) -> bool {
    (flags.opcode() == 0 || operation(flags.opcode()).is_some())
        && !flags.has_reserved_bit()
        && match flags.is_response() {
            true => known_rcode(flags.rcode()).is_some(),
            false => flags.rcode() == 0 && !flags.has_response_bits(),
        }
}

fn counts_fit(header: Header, length: usize, strict: bool) -> bool {
    // A record is at least 11 bytes, a question 5.
    let fits = HEADER + 5 * usize::from(header.questions) + 11 * header.records() <= length;
    let asks_one = header.questions == 1;
    let plain_query = header.answers == 0 && header.authorities <= 1 && header.additionals <= 3;
    match (header.flags.is_response(), header.flags.opcode()) {
        (false, 0) => asks_one && plain_query && fits,
        // Notifications carry the new SOA; updates (RFC 2136) fill every section.
        (false, 4 | 5) => asks_one && fits,
        (false, _) => !strict && header.questions <= 1 && fits,
        (true, _) if strict => asks_one && fits,
        // Errors and the later messages of zone transfers come without the question; short snap lengths cut records.
        (true, _) => header.questions <= 1 && (asks_one || header.flags.rcode() != 0 || header.answers > 0),
    }
}

/// IN, CH, HS, NONE or ANY.
fn is_class(class: u16) -> bool {
    matches!(class, 1 | 3 | 4 | 254 | 255)
}
