//! Is this HTTP/2: the preface of a client, or frames in the middle of a connection?

use super::PREFACE;
use super::frame::{self, Frame};
use super::hpack::{Decoder, Field, Stop};
use crate::parser::{ProbeInfo, Role, Verdict};
use wirespan_records::L4Protocol;

/// Frames must follow each other exactly. A header block decides who sent them; without one, frames of the connection
/// itself, which are nearly constant, are enough.
pub(super) fn probe(data: &[u8], info: &ProbeInfo) -> Verdict {
    if info.l4 != L4Protocol::Tcp {
        return Verdict::No;
    }
    if data.starts_with(PREFACE) {
        return Verdict::Yes(Role::Client);
    }
    if PREFACE.starts_with(data) {
        return Verdict::Maybe;
    }
    let mut rest = data;
    let mut first_of_connection = None;
    while !rest.is_empty() {
        let Some(frame) = Frame::read(rest) else {
            return if could_begin_frame(rest) { Verdict::Maybe } else { Verdict::No };
        };
        if !frame.is_likely() {
            return Verdict::No;
        }
        match frame.kind {
            frame::HEADERS => return headers(frame, rest, info),
            frame::PUSH_PROMISE | frame::CONTINUATION => return Verdict::No,
            frame::DATA | frame::PRIORITY | frame::RST_STREAM => {}
            _ if rest.len() < frame.total() => return Verdict::Maybe,
            _ if !has_likely_content(frame, rest) => return Verdict::No,
            _ if frame.stream == 0 => first_of_connection = first_of_connection.or(Some(frame)),
            _ => {}
        }
        rest = rest.get(frame.total()..).unwrap_or_default();
    }
    first_of_connection.map_or(Verdict::No, |frame| Verdict::Yes(likely_sender(frame, info)))
}

fn could_begin_frame(data: &[u8]) -> bool {
    let is_known = |kind| kind <= frame::CONTINUATION;
    data.first() == Some(&0) && data.get(3).is_none_or(|&kind| is_known(kind))
}

/// Settings have known names, windows do not grow by nothing.
fn has_likely_content(frame: Frame, data: &[u8]) -> bool {
    let body = data.get(frame::HEADER..frame.total()).unwrap_or_default();
    match frame.kind {
        frame::SETTINGS => body.chunks(6).all(|setting| matches!(setting, [0, 1..=16, ..])),
        frame::WINDOW_UPDATE => body.first().is_some_and(|&first| first < 0x80) && body != [0; 4],
        _ => true,
    }
}

/// Who sends frames that both sides send: a client's first settings come after its preface, and the ports of clients are
/// high. Should that be wrong, the next header block shows it.
fn likely_sender(first: Frame, info: &ProbeInfo) -> Role {
    let is_settings = first.kind == frame::SETTINGS && first.flags & frame::ACK == 0;
    match info.role {
        Some(role) => role,
        None if is_settings || info.src_port < info.dst_port => Role::Server,
        None => Role::Client,
    }
}

/// `data` begins with a frame that begins a header block.
fn headers(frame: Frame, data: &[u8], info: &ProbeInfo) -> Verdict {
    // Only pushed responses have even streams.
    if frame.stream.is_multiple_of(2) || frame.length == 0 {
        return Verdict::No;
    }
    let body = data.get(frame::HEADER..).unwrap_or_default();
    let is_cut = body.len() < frame.length;
    let Some(block) = frame.fragment(body.get(..frame.length).unwrap_or(body)) else {
        return if is_cut { Verdict::Maybe } else { Verdict::No };
    };
    let mut seen = Seen::default();
    let end = Decoder::default().decode(block, |field| seen.field(field));
    let goes_on = is_cut || !frame.ends_headers();
    if seen.invalid || !(end.is_ok() || goes_on && end == Err(Stop::Cut)) {
        return Verdict::No;
    }
    let next = body.get(frame.length..).unwrap_or_default();
    let is_followed = match Frame::read(next) {
        Some(next) => next.is_likely(),
        None => next.is_empty() || could_begin_frame(next),
    };
    match (seen.role, info.role) {
        _ if !is_followed => Verdict::No,
        (Some(_), _) if is_cut && seen.fields < 2 => Verdict::Maybe,
        (Some(role), _) => Verdict::Yes(role),
        (None, _) if is_cut => Verdict::Maybe,
        // Trailers all of whose fields are unknown tell nothing, but can be where frames are known to be.
        (None, Some(role)) => Verdict::Yes(role),
        (None, None) => Verdict::No,
    }
}

/// What the fields of a header block tell.
#[derive(Default)]
struct Seen {
    role: Option<Role>,
    fields: usize,
    /// A field that is no pseudo-header field was seen; there must be none after it.
    regular: bool,
    invalid: bool,
}

impl Seen {
    fn field(&mut self, field: Field<'_>) {
        self.fields += 1;
        let Field::Whole(name, value) = field else { return };
        let tells = match name {
            b":method" | b":path" | b":scheme" | b":authority" | b":protocol" => Some(Role::Client),
            b":status" => Some(Role::Server),
            b"grpc-status" => {
                self.regular = true;
                Some(Role::Server)
            }
            _ => {
                self.regular = true;
                self.invalid |= name.is_empty() || !name.iter().all(is_name_byte);
                None
            }
        };
        self.invalid |= self.regular && name.first() == Some(&b':');
        self.invalid |= value.iter().any(|&b| b < b' ' && b != b'\t' || b == 0x7f);
        if tells.is_some() {
            self.invalid |= self.role.is_some() && self.role != tells;
            self.role = tells;
        }
    }
}

/// Names are in lower case (RFC 9113, section 8.2).
fn is_name_byte(byte: &u8) -> bool {
    byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && *byte != b':'
}
