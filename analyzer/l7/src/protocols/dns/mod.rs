//! DNS over UDP and TCP (RFC 1035, RFC 7766), with EDNS (RFC 6891). What is left out is told in `probe`.

mod message;
mod names;
mod probe;
mod rdata;

use crate::parser::{Cx, Length, Message, Pairing, Parser, ProbeInfo, Role, Step, Verdict};
use compact_str::{ToCompactString, format_compact};
use message::{HEADER, Header, Question, Record, read_name, u16_at};
use names::{operation, rcode_name, type_name};
use std::net::IpAddr;
use wirespan_records::{L4Protocol, L7Protocol, ResponseStatus, Text};

/// Parser of one DNS flow.
#[derive(Default)]
pub struct Dns {
    /// Id of a zone transfer whose first response was seen: the following ones belong to it.
    transfer: Option<u16>,
}

impl Parser for Dns {
    const PROTOCOL: L7Protocol = L7Protocol::Dns;
    const PAIRING: Pairing = Pairing::ById;
    const TIMEOUT_MS: u64 = 15_000;

    fn probe(data: &[u8], info: &ProbeInfo) -> Verdict {
        probe::probe(data, info)
    }

    fn parse(&mut self, role: Role, data: &[u8], cx: &mut Cx<'_>) -> Step {
        if cx.l4 != L4Protocol::Tcp {
            return match self.message(role, data, data.len(), cx) {
                Some(()) => Step::Done(data.len()),
                None => Step::Desync,
            };
        }
        let Some(length) = u16_at(data, 0).map(|length| 2 + usize::from(length)) else {
            return if cx.last { Step::Desync } else { Step::More(2) };
        };
        if length < 2 + HEADER {
            return Step::Desync;
        }
        if data.len() < length && !cx.last {
            return Step::More(length);
        }
        match data.get(2..length.min(data.len())).and_then(|message| self.message(role, message, length, cx))
        {
            Some(()) => Step::Done(length),
            None => Step::Desync,
        }
    }
}

impl Dns {
    /// One message, which takes `length` bytes of the stream. `None` when it is not one.
    fn message(&mut self, role: Role, data: &[u8], length: usize, cx: &mut Cx<'_>) -> Option<()> {
        let header = Header::parse(data)?;
        let question = match header.questions {
            0 => None,
            _ => Some(Question::first(data)?),
        };
        if header.flags.is_response() != (role == Role::Server) {
            return None;
        }
        let id = Some(u64::from(header.id));
        let is_asked = cx.request_with(id).is_some();
        if header.flags.is_response() && !is_asked && self.transfer == Some(header.id) {
            return Some(());
        }
        let mut message = Message { id, length: Length::Known(length as u64), ..Message::default() };
        if !(header.flags.is_response() && is_asked) {
            read_question(data, header, question, &mut message);
        }
        let max = cx.config.max_text;
        let (edns, whole) = read_records(data, header, question, max, &mut message);
        message.truncated = !whole && !header.flags.is_truncated();
        if let Some(edns) = &edns {
            edns.attributes(data, header.flags.is_response(), &mut message);
        }
        if !header.flags.is_response() {
            cx.request(message);
            return Some(());
        }
        if question.is_some_and(|question| matches!(question.kind, 251 | 252)) {
            self.transfer = Some(header.id);
        }
        let rcode = edns.map_or(0, |edns| edns.extended_rcode) << 4 | header.flags.rcode();
        message.code = Some(rcode.into());
        message.status = Some(match rcode {
            0 => ResponseStatus::Ok,
            1 | 3 => ResponseStatus::ClientError,
            _ => ResponseStatus::ServerError,
        });
        message.exception = (rcode != 0).then(|| rcode_name(rcode).into());
        if header.flags.is_truncated() {
            message.attributes.push(("dns.truncated", "true".into()));
        }
        cx.response(message);
        Some(())
    }
}

fn read_question(data: &[u8], header: Header, question: Option<Question>, message: &mut Message) {
    let Some(question) = question else { return };
    let mut name = Text::default();
    if read_name(data, HEADER, &mut name).is_none() {
        return;
    }
    message.request_type = Some(match operation(header.flags.opcode()) {
        Some(operation) => operation.into(),
        None => type_name(question.kind).into(),
    });
    message.domain = matches!(question.kind, 1 | 28).then(|| name.clone());
    message.endpoint = Some(name.clone());
    message.resource = Some(name);
}

/// Goes through all records: answers become the result, OPT is given back; false when records are missing.
fn read_records(
    data: &[u8],
    header: Header,
    question: Option<Question>,
    max: usize,
    message: &mut Message,
) -> (Option<Edns>, bool) {
    let mut at = question.map_or(HEADER, |question| question.end);
    let (mut result, mut edns) = (Text::default(), None);
    let mut whole = true;
    for index in 0..header.records() {
        let Some(record) = Record::parse(data, at) else {
            whole = false;
            break;
        };
        whole = record.end <= data.len();
        if index < usize::from(header.answers) && header.flags.is_response() && result.len() < max {
            if index > 0 {
                result.push_str("; ");
            }
            rdata::push_record(data, &record, &mut result);
        } else if record.kind == 41 {
            edns = Some(Edns::parse(record));
        }
        at = record.end;
    }
    if !result.is_empty() {
        result.truncate(result.floor_char_boundary(max));
        message.result = Some(result);
    }
    (edns, whole)
}

/// The OPT record (RFC 6891, section 6.1).
struct Edns {
    record: Record,
    extended_rcode: u16,
    version: u8,
}

impl Edns {
    fn parse(record: Record) -> Self {
        let [extended_rcode, version, ..] = record.ttl.to_be_bytes();
        Self { record, extended_rcode: extended_rcode.into(), version }
    }

    /// A response repeats little of interest: only what the request does not tell.
    fn attributes(&self, data: &[u8], is_response: bool, message: &mut Message) {
        if is_response {
            return;
        }
        message.attributes.push(("dns.edns_version", self.version.to_compact_string()));
        message.attributes.push(("dns.edns_udp_size", self.record.class.to_compact_string()));
        if let Some(subnet) = self.client_subnet(data) {
            message.attributes.push(("dns.client_subnet", subnet));
        }
    }

    /// RFC 7871, section 6.
    fn client_subnet(&self, data: &[u8]) -> Option<Text> {
        let mut at = self.record.data;
        while at < self.record.end {
            let (code, length) = (u16_at(data, at)?, usize::from(u16_at(data, at + 2)?));
            let option = data.get(at + 4..at + 4 + length)?;
            if code == 8 {
                let (family, prefix) = (u16_at(option, 0)?, option.get(2)?);
                let address = option.get(4..)?;
                let ip: IpAddr = match family {
                    1 => padded::<4>(address)?.into(),
                    2 => padded::<16>(address)?.into(),
                    _ => return None,
                };
                return Some(format_compact!("{ip}/{prefix}"));
            }
            at += 4 + length;
        }
        None
    }
}

/// Addresses leave out the zeros at their end.
fn padded<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let mut address = [0; N];
    address.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(address)
}

#[cfg(test)]
mod tests;
