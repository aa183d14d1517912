//! Trace context and request ids in headers of any protocol: which headers count, and how their values are read.

use crate::text::utf8;
use compact_str::format_compact;
use wirespan_records::Text;

/// Trace id and span id of a header.
type Ids = (Option<Text>, Option<Text>);

/// Which headers carry trace context and request ids, most wanted first.
#[derive(Clone, Debug)]
pub struct TraceHeaders {
    trace: Vec<(Box<str>, Format)>,
    request_id: Vec<Box<str>>,
    /// Bit n: a name of n bytes is in one of the lists (63 stands for 63 and more).
    lengths: u64,
}

/// How a header's value is read, chosen by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// W3C Trace Context, section 3.2.
    TraceParent,
    /// B3, single header.
    B3,
    /// B3, several headers: the trace id.
    B3TraceId,
    /// B3, several headers: the span id. Ranks with the trace id.
    B3SpanId,
    /// Jaeger client libraries.
    UberTraceId,
    /// SkyWalking cross-process propagation v3.
    Sw8,
    /// The whole value is the trace id.
    Plain,
}

impl Format {
    fn of(name: &str) -> Self {
        match name {
            "traceparent" => Self::TraceParent,
            "b3" => Self::B3,
            "x-b3-traceid" => Self::B3TraceId,
            "x-b3-spanid" => Self::B3SpanId,
            "uber-trace-id" => Self::UberTraceId,
            "sw8" => Self::Sw8,
            _ => Self::Plain,
        }
    }

    /// Trace id and span id, either of which may be missing; `None` when the value, which is not empty, is not in this format.
    fn read(self, value: &str) -> Option<Ids> {
        match self {
            Self::TraceParent => traceparent(value),
            Self::B3 => b3(value),
            Self::B3TraceId => is_hex(value, &[16, 32]).then(|| (Some(value.into()), None)),
            Self::B3SpanId => is_hex(value, &[16]).then(|| (None, Some(value.into()))),
            Self::UberTraceId => uber_trace_id(value),
            Self::Sw8 => sw8(value),
            Self::Plain => Some((Some(value.into()), None)),
        }
    }
}

impl Default for TraceHeaders {
    fn default() -> Self {
        Self::new(&["traceparent", "b3", "x-b3-traceid", "uber-trace-id", "sw8"], &["x-request-id"])
    }
}

impl TraceHeaders {
    /// Headers with trace context and headers with request ids, most wanted first, case aside. `x-b3-traceid` brings
    /// `x-b3-spanid` with it; a name without a known format gives its whole value as the trace id.
    pub fn new(trace: &[&str], request_id: &[&str]) -> Self {
        let trace: Vec<_> = trace
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .map(|name| (name.as_str().into(), Format::of(&name)))
            .collect();
        let request_id: Vec<Box<str>> =
            request_id.iter().map(|name| name.to_ascii_lowercase().into_boxed_str()).collect();
        let mut lengths = 0;
        for name in trace.iter().map(|(name, _)| name).chain(&request_id) {
            lengths |= length_bit(name.len());
        }
        if trace.iter().any(|(_, format)| *format == Format::B3TraceId) {
            lengths |= length_bit(B3_SPAN_ID.len());
        }
        Self { trace, request_id, lengths }
    }

    /// Takes note of one header, when it is one of the lists. Cheap for all others.
    #[inline]
    pub fn read(&self, name: &[u8], value: &[u8], found: &mut TraceContext) {
        if self.lengths & length_bit(name.len()) != 0 {
            self.read_listed(name, value, found);
        }
    }

    /// Takes note of a header whose name is not known, when its value is as only one of the listed headers has it: ids of
    /// fixed lengths in `traceparent` or `b3`.
    pub fn read_unnamed(&self, value: &[u8], found: &mut TraceContext) {
        let Some(value) = utf8(value) else { return };
        for (rank, (_, format)) in self.trace.iter().enumerate() {
            let (Format::TraceParent | Format::B3) = format else { continue };
            if let Some((trace_id, span_id)) = format.read(value) {
                return found.trace(rank, trace_id, span_id);
            }
        }
    }

    fn read_listed(&self, name: &[u8], value: &[u8], found: &mut TraceContext) {
        let value = || {
            let value = utf8(value.get(..MAX_VALUE).unwrap_or(value))?.trim();
            (!value.is_empty()).then_some(value)
        };
        for (rank, (listed, format)) in self.trace.iter().enumerate() {
            let format = match format {
                _ if is(name, listed.as_bytes()) => *format,
                Format::B3TraceId if is(name, B3_SPAN_ID) => Format::B3SpanId,
                _ => continue,
            };
            if let Some((trace_id, span_id)) = value().and_then(|value| format.read(value)) {
                found.trace(rank, trace_id, span_id);
            }
        }
        for (rank, listed) in self.request_id.iter().enumerate() {
            if is(name, listed.as_bytes())
                && let Some(value) = value()
            {
                found.request_id(rank, value);
            }
        }
    }
}

/// The same name, case aside. Most are written as they are listed, which takes less time to tell.
fn is(name: &[u8], listed: &[u8]) -> bool {
    name == listed || name.eq_ignore_ascii_case(listed)
}

const B3_SPAN_ID: &[u8] = b"x-b3-spanid";

/// Longer values are cut: ids are short, and what a peer sends is not to be trusted.
const MAX_VALUE: usize = 1024;

fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

/// What the headers of one message told, the most wanted header winning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// Trace id.
    pub trace_id: Option<Text>,
    /// Span id of the sender, from the same header (family) as the trace id.
    pub span_id: Option<Text>,
    /// Request id.
    pub x_request_id: Option<Text>,
    trace_rank: Option<usize>,
    request_id_rank: Option<usize>,
}

impl TraceContext {
    fn trace(&mut self, rank: usize, trace_id: Option<Text>, span_id: Option<Text>) {
        match self.trace_rank {
            Some(best) if best < rank => {}
            Some(best) if best == rank => {
                self.trace_id = self.trace_id.take().or(trace_id);
                self.span_id = self.span_id.take().or(span_id);
            }
            _ => (self.trace_rank, self.trace_id, self.span_id) = (Some(rank), trace_id, span_id),
        }
    }

    fn request_id(&mut self, rank: usize, value: &str) {
        if self.request_id_rank.is_none_or(|best| rank < best) {
            (self.request_id_rank, self.x_request_id) = (Some(rank), Some(value.into()));
        }
    }
}

fn is_hex(text: &str, lengths: &[usize]) -> bool {
    // All bytes are looked at, so that they are several at a time.
    lengths.contains(&text.len()) && text.bytes().fold(true, |so_far, b| so_far & b.is_ascii_hexdigit())
}

fn is_zero(hex: &str) -> bool {
    hex.bytes().all(|b| b == b'0')
}

/// `version-traceid-spanid-flags`; later versions may append fields.
fn traceparent(value: &str) -> Option<Ids> {
    let (version, rest) = value.split_at_checked(2)?;
    let (trace, rest) = rest.strip_prefix('-')?.split_at_checked(32)?;
    let (span, rest) = rest.strip_prefix('-')?.split_at_checked(16)?;
    let (flags, further) = rest.strip_prefix('-')?.split_at_checked(2)?;
    let well_formed = is_hex(version, &[2])
        && !version.eq_ignore_ascii_case("ff")
        && is_hex(trace, &[32])
        && !is_zero(trace)
        && is_hex(span, &[16])
        && !is_zero(span)
        && is_hex(flags, &[2])
        && (further.is_empty() || version != "00" && further.starts_with('-'));
    well_formed.then(|| (Some(trace.into()), Some(span.into())))
}

/// `traceid-spanid[-sampled[-parent]]`; a lone sampling decision carries no ids.
fn b3(value: &str) -> Option<Ids> {
    let mut fields = value.split('-');
    let (trace, span) = (fields.next()?, fields.next()?);
    (is_hex(trace, &[16, 32]) && is_hex(span, &[16])).then(|| (Some(trace.into()), Some(span.into())))
}

/// `traceid:spanid:parent:flags`, the colons possibly percent-encoded; ids may lack leading zeros.
fn uber_trace_id(value: &str) -> Option<Ids> {
    let value = value.replace("%3A", ":").replace("%3a", ":");
    let mut fields = value.split(':');
    let (trace, span) = (fields.next()?, fields.next()?);
    let plausible = |id: &str, max| (1..=max).any(|n| is_hex(id, &[n]));
    (fields.count() == 2 && plausible(trace, 32) && plausible(span, 16))
        .then(|| (Some(trace.into()), Some(span.into())))
}

/// `sampled-base64(traceid)-base64(segment)-span-...`; the sender's span is `segment-span`.
fn sw8(value: &str) -> Option<Ids> {
    let mut fields = value.split('-').skip(1);
    let (trace, segment, span) = (fields.next()?, fields.next()?, fields.next()?);
    let trace = base64(trace)?;
    Some((Some(trace), base64(segment).map(|segment| format_compact!("{segment}-{span}"))))
}

/// Standard alphabet, padding optional; `None` when that is not text.
fn base64(encoded: &str) -> Option<Text> {
    let mut bytes = Vec::with_capacity(encoded.len() / 4 * 3 + 3);
    let (mut bits, mut count) = (0u32, 0);
    for byte in encoded.trim_end_matches('=').bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Text::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const W3C: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(headers: &[(&str, &str)]) -> TraceContext {
        let mut found = TraceContext::default();
        for (name, value) in headers {
            TraceHeaders::default().read(name.as_bytes(), value.as_bytes(), &mut found);
        }
        found
    }

    fn ids(headers: &[(&str, &str)]) -> Ids {
        let found = read(headers);
        (found.trace_id, found.span_id)
    }

    fn some(trace: &str, span: &str) -> Ids {
        (Some(trace.into()), Some(span.into()))
    }

    #[test]
    fn reads_every_format() {
        let w3c = some("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        assert_eq!(ids(&[("TraceParent", W3C)]), w3c);
        assert_eq!(ids(&[("traceparent", &W3C.replacen("00", "cc", 1)), ("accept", "x")]), w3c);
        let b3 = some("80f198ee56343ba864fe8b2a57d3eff7", "e457b5a2e4d86bd1");
        assert_eq!(ids(&[("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1")]), b3);
        let (trace, span) =
            (("X-B3-TraceId", "80f198ee56343ba864fe8b2a57d3eff7"), ("X-B3-SpanId", "e457b5a2e4d86bd1"));
        assert_eq!(ids(&[trace, span]), b3);
        assert_eq!(ids(&[span, trace]), b3);
        assert_eq!(ids(&[("uber-trace-id", "4f3c2a:9b1:0:1")]), some("4f3c2a", "9b1"));
        assert_eq!(ids(&[("uber-trace-id", "4f3c2a%3A9b1%3A0%3A1")]), some("4f3c2a", "9b1"));
        let sw8 = "1-MzkxMi42My4xNg==-MzkxMi42My4xNQ==-4-c2hvcA==-aQ==-L3Nob3A=-MTA=";
        assert_eq!(ids(&[("sw8", sw8)]), some("3912.63.16", "3912.63.15-4"));
    }

    #[test]
    fn refuses_malformed_values() {
        for value in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert_eq!(ids(&[("traceparent", value)]), (None, None), "{value}");
        }
        for (name, value) in
            [("b3", "0"), ("b3", "xyz-1"), ("uber-trace-id", "1:2:3"), ("sw8", "1-**-x-3"), ("sw8", "")]
        {
            assert_eq!(ids(&[(name, value)]), (None, None), "{name}: {value}");
        }
    }

    #[test]
    fn the_most_wanted_header_wins_in_any_order() {
        let b3 = ("b3", "80f198ee56343ba8-e457b5a2e4d86bd1");
        let w3c = some("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        assert_eq!(ids(&[b3, ("traceparent", W3C)]), w3c);
        assert_eq!(ids(&[("traceparent", W3C), b3]), w3c);
        assert_eq!(ids(&[("traceparent", "garbage"), b3]), some("80f198ee56343ba8", "e457b5a2e4d86bd1"));
    }

    #[test]
    fn a_value_without_a_name_counts_where_no_other_header_has_such_values() {
        let unnamed = |headers: TraceHeaders, value: &str| {
            let mut found = TraceContext::default();
            headers.read_unnamed(value.as_bytes(), &mut found);
            (found.trace_id, found.span_id)
        };
        let w3c = some("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        assert_eq!(unnamed(TraceHeaders::default(), W3C), w3c);
        let b3 = some("80f198ee56343ba8", "e457b5a2e4d86bd1");
        assert_eq!(unnamed(TraceHeaders::default(), "80f198ee56343ba8-e457b5a2e4d86bd1"), b3);
        for other in ["4f3c2a:9b1:0:1", "80f198ee56343ba8", "text", "1-MzkxMg==-MzkxMg==-4", ""] {
            assert_eq!(unnamed(TraceHeaders::default(), other), (None, None), "{other}");
        }
        assert_eq!(unnamed(TraceHeaders::new(&["sw8"], &[]), W3C), (None, None), "not asked for");
    }

    #[test]
    fn the_lists_are_configurable() {
        let headers = TraceHeaders::new(&["X-My-Trace"], &["X-Correlation-Id", "X-Request-Id"]);
        let mut found = TraceContext::default();
        for (name, value) in [
            ("x-request-id", "second"),
            ("x-my-trace", " abc "),
            ("X-Correlation-ID", "first"),
            ("traceparent", W3C),
        ] {
            headers.read(name.as_bytes(), value.as_bytes(), &mut found);
        }
        assert_eq!(found.trace_id.as_deref(), Some("abc"));
        assert_eq!(found.x_request_id.as_deref(), Some("first"));
    }
}
