//! TLS handshakes, SSL 3.0 to TLS 1.3 (RFC 6101, 5246, 8446). One span for each: the request is the ClientHello, the
//! response what the server says to it. Once both sides encrypt there is nothing more to read.
//!
//! | module | what |
//! |---|---|
//! | `record` | records, and detection |
//! | `hello` | ClientHello and ServerHello |
//! | `certificate` | the server's certificate |
//! | `ja4` | fingerprint of the client |
//! | `cipher`, `alert` | names of numbers |
//! | `reader` | numbers and vectors |

mod alert;
mod certificate;
mod cipher;
mod hello;
mod ja4;
mod reader;
mod record;
#[cfg(test)]
mod tests;

use crate::parser::{Cx, Length, Message, Pairing, Parser, ProbeInfo, Role, Step, Verdict};
use crate::text::text;
use compact_str::{ToCompactString, format_compact};
use hello::{ClientHello, ServerHello};
use record::Record;
use std::borrow::Cow;
use wirespan_records::{L7Protocol, ResponseStatus, Text};

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const CERTIFICATE: u8 = 11;
/// Bytes of a handshake message's head: type and length.
const MESSAGE_HEAD: usize = 4;
/// Records a ClientHello may be spread over.
const MAX_HELLO_RECORDS: usize = 64;
/// The most that is kept of a message of the server.
const MAX_MESSAGE: usize = 32 << 10;
/// The longest list of protocols that is shown.
const MAX_LIST: usize = 256;

/// Parser of one TLS handshake.
#[derive(Default)]
pub struct Tls {
    /// When the ClientHello came.
    hello_ns: Option<u64>,
    /// The response has begun.
    answered: bool,
    /// Chosen by the server.
    version: Option<u16>,
    /// The side encrypts from here on: client, server.
    sealed: [bool; 2],
    /// A handshake message of the server that goes on in the next record.
    partial: Vec<u8>,
    /// Bytes of a handshake message of the server that nobody needs.
    unwanted: usize,
}

impl Parser for Tls {
    const PROTOCOL: L7Protocol = L7Protocol::Tls;
    const PAIRING: Pairing = Pairing::InOrder;
    const TIMEOUT_MS: u64 = 15_000;

    fn probe(data: &[u8], info: &ProbeInfo) -> Verdict {
        record::probe(data, info)
    }

    fn parse(&mut self, role: Role, data: &[u8], cx: &mut Cx<'_>) -> Step {
        if role == Role::Client
            && self.hello_ns.is_none()
            && let Some((hello, len)) = ClientHello::parse_v2(data)
        {
            self.client_hello(&hello, len, cx);
            return Step::Done(len);
        }
        if data.len() < record::HEAD && !cx.last {
            return Step::More(record::HEAD);
        }
        let Some(record) = Record::parse(data) else { return Step::Desync };
        let is_first_hello = role == Role::Client && self.hello_ns.is_none();
        let is_read = matches!(record.kind, record::HANDSHAKE | record::ALERT) && !self.sealed[role as usize];
        if is_read && !record.is_whole() && !cx.last {
            return Step::More(record.len);
        }
        match record.kind {
            record::HANDSHAKE if is_first_hello && record.payload.first() == Some(&CLIENT_HELLO) => {
                return self.first_hello(data, cx);
            }
            record::HANDSHAKE if is_read && role == Role::Server => self.server_messages(record.payload, cx),
            record::ALERT if is_read => {
                if let &[level, description] = record.payload
                    && !alert::is_harmless(level, description)
                {
                    self.alert(role, description, record.len, cx);
                    return Step::Opaque;
                }
                // An alert that is longer is encrypted.
                self.sealed[role as usize] = record.len > record::HEAD + 2;
            }
            // With TLS 1.3 it means nothing.
            record::CHANGE_CIPHER_SPEC => {
                self.sealed[role as usize] |= self.version.is_some_and(|version| !is_tls13(version));
            }
            record::APPLICATION_DATA => self.sealed[role as usize] = true,
            _ => {}
        }
        let began = self.answered || self.hello_ns.is_some();
        if self.sealed == [true, true] || !began && self.sealed[role as usize] {
            self.finish(role, record.len, cx);
            return Step::Opaque;
        }
        Step::Done(record.len)
    }

    fn lost(&mut self, role: Role) {
        if role == Role::Server {
            self.partial = Vec::new();
            self.unwanted = 0;
        }
    }
}

impl Tls {
    /// A ClientHello, which may be spread over records; all of them are at hand when it is read.
    fn first_hello(&mut self, data: &[u8], cx: &mut Cx<'_>) -> Step {
        let (mut message, mut at) = (Cow::Borrowed(&[][..]), 0);
        for _ in 0..MAX_HELLO_RECORDS {
            let rest = data.get(at..).unwrap_or_default();
            if rest.len() < record::HEAD && !cx.last {
                return Step::More(at + record::HEAD);
            }
            let Some(record) = Record::parse(rest).filter(|record| record.kind == record::HANDSHAKE) else {
                break;
            };
            if !record.is_whole() && !cx.last {
                return Step::More(at + record.len);
            }
            at += record.len;
            if message.is_empty() {
                message = Cow::Borrowed(record.payload);
            } else {
                message.to_mut().extend_from_slice(record.payload);
            }
            if message_len(&message).is_some_and(|len| len <= message.len()) {
                break;
            }
        }
        let end = message_len(&message).unwrap_or(message.len()).min(message.len());
        let body = message.get(MESSAGE_HEAD..end).unwrap_or_default();
        let Some(hello) = ClientHello::parse(body) else { return Step::Desync };
        self.client_hello(&hello, at, cx);
        Step::Done(at)
    }

    fn client_hello(&mut self, hello: &ClientHello<'_>, len: usize, cx: &mut Cx<'_>) {
        self.hello_ns = Some(cx.at.ts_ns);
        let name = hello.server_name.map(|name| text(name, cx.config.max_text));
        let mut attributes = vec![("tls.version_offered", version_name(hello.version()))];
        if !hello.alpn.is_empty() {
            attributes.push(("tls.alpn_offered", text(&hello.alpn.join(&b","[..]), MAX_LIST)));
        }
        if !hello.cut && hello.legacy_version >= 0x0300 {
            attributes.push(("tls.ja4", ja4::ja4(hello)));
        }
        cx.request(Message {
            request_type: Some("ClientHello".into()),
            domain: name.clone(),
            resource: name.clone(),
            endpoint: name,
            attributes,
            length: Length::Known(len as u64),
            ..Message::default()
        });
    }

    /// Handshake messages of the server, the next bytes of them.
    fn server_messages(&mut self, payload: &[u8], cx: &mut Cx<'_>) {
        let mut rest = payload;
        if !self.answered && self.partial.is_empty() && rest.first() == Some(&SERVER_HELLO) {
            self.answered = true;
            cx.response(Message::default());
        }
        while !rest.is_empty() {
            let skipped = self.unwanted.min(rest.len());
            self.unwanted -= skipped;
            rest = &rest[skipped..];
            if self.partial.is_empty() {
                rest = self.message(rest, cx);
                continue;
            }
            // Bytes are added up to the end of the message, or until its length is known.
            let wanted = message_len(&self.partial).unwrap_or(MESSAGE_HEAD).min(MAX_MESSAGE);
            let taken = wanted.saturating_sub(self.partial.len()).min(rest.len());
            self.partial.extend_from_slice(&rest[..taken]);
            rest = &rest[taken..];
            if self.partial.len() >= MESSAGE_HEAD && self.partial.len() >= wanted {
                let message = std::mem::take(&mut self.partial);
                self.message(&message, cx);
            }
        }
    }

    /// One message, at the start of `data`; gives what follows it. One that is not complete is kept.
    fn message<'a>(&mut self, data: &'a [u8], cx: &mut Cx<'_>) -> &'a [u8] {
        let Some(len) = message_len(data) else {
            self.partial.extend_from_slice(data);
            return &[];
        };
        let kind = data[0];
        let is_wanted = matches!(kind, SERVER_HELLO | CERTIFICATE);
        if len > data.len() && is_wanted && data.len() < MAX_MESSAGE {
            self.partial.extend_from_slice(data);
            return &[];
        }
        let (message, rest) = data.split_at(len.min(data.len()));
        self.unwanted = len - message.len();
        let body = &message[MESSAGE_HEAD..];
        match kind {
            SERVER_HELLO => self.server_hello(body, cx),
            CERTIFICATE => {
                let now_s = (cx.at.ts_ns / 1_000_000_000) as i64;
                cx.amend_response(|response| {
                    response.attributes.extend(certificate::attributes(body, now_s))
                });
            }
            _ => {}
        }
        rest
    }

    fn server_hello(&mut self, body: &[u8], cx: &mut Cx<'_>) {
        let Some(hello) = ServerHello::parse(body) else { return };
        self.version = Some(hello.version);
        if hello.retry {
            cx.amend_response(|response| {
                response.version = Some(version_name(hello.version));
                response.attributes.push(("tls.hello_retry", "true".into()));
            });
            return;
        }
        let cipher = cipher::name(hello.cipher);
        let alpn = hello.alpn.map(|alpn| text(alpn, MAX_LIST));
        cx.amend_response(|response| {
            response.status = Some(ResponseStatus::Ok);
            response.version = Some(version_name(hello.version));
            response.result = Some(match &alpn {
                Some(alpn) => format_compact!("{cipher} {alpn}"),
                None => cipher.clone(),
            });
            response.attributes.push(("tls.cipher", cipher));
            response.attributes.extend(alpn.map(|alpn| ("tls.alpn", alpn)));
        });
    }

    /// The handshake, or the connection, ends with an alert.
    fn alert(&mut self, role: Role, description: u8, len: usize, cx: &mut Cx<'_>) {
        let status = match (description, role) {
            (alert::CLOSE_NOTIFY, _) => ResponseStatus::Ok,
            (_, Role::Client) => ResponseStatus::ClientError,
            (_, Role::Server) => ResponseStatus::ServerError,
        };
        if role == Role::Server && !self.answered {
            self.answered = true;
            cx.response(Message::default());
        }
        cx.amend_response(|response| {
            response.status = Some(status);
            response.code = Some(i32::from(description));
            response.exception = Some(alert::name(description).into());
        });
        if role == Role::Server {
            cx.end_after(len);
        }
    }

    /// Both sides encrypt.
    fn finish(&mut self, role: Role, len: usize, cx: &mut Cx<'_>) {
        if let Some(hello_ns) = self.hello_ns {
            let took_us = cx.at.ts_ns.saturating_sub(hello_ns) / 1000;
            cx.amend_response(|response| {
                response.attributes.push(("tls.handshake_us", took_us.to_compact_string()))
            });
        }
        if role == Role::Server {
            cx.end_after(len);
        }
    }
}

/// Bytes of the handshake message at the start of `data`, head included.
fn message_len(data: &[u8]) -> Option<usize> {
    let &[_, a, b, c, ..] = data else { return None };
    Some(MESSAGE_HEAD + (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)))
}

fn is_tls13(version: u16) -> bool {
    version == 0x0304 || matches!(version >> 8, 0x7f | 0xfb)
}

fn version_name(version: u16) -> Text {
    match version {
        0x0002 => "SSL 2.0".into(),
        0x0300 => "SSL 3.0".into(),
        0x0301..=0x0304 => format_compact!("TLS 1.{}", version - 0x0301),
        // Drafts of TLS 1.3 had numbers of their own, and those of Facebook's Fizz too.
        0x7f00..=0x7fff | 0xfb00..=0xfbff => format_compact!("TLS 1.3 draft {}", version & 0xff),
        _ => format_compact!("0x{version:04x}"),
    }
}
