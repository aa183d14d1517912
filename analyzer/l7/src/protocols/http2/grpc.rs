//! gRPC over HTTP/2: how calls are told from other requests, and how they end.

use crate::text::text;
use wirespan_records::{ResponseStatus, Text};

/// Names of the status codes from 0 on (the Status codes document of gRPC).
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Is this the content type of calls, whatever their encoding?
pub(super) fn is_content_type(content_type: &str) -> bool {
    content_type.starts_with("application/grpc")
}

pub(super) fn name(status: i32) -> Option<&'static str> {
    NAMES.get(usize::try_from(status).ok()?).copied()
}

/// How a call with this status code ended.
pub(super) fn status(status: i32) -> ResponseStatus {
    match status {
        0 => ResponseStatus::Ok,
        1 | 3 | 5 | 6 | 7 | 9 | 11 | 16 => ResponseStatus::ClientError,
        _ => ResponseStatus::ServerError,
    }
}

/// A status message: UTF-8, percent-encoded where it is not printable ASCII.
pub(super) fn message(encoded: &[u8], max: usize) -> Text {
    let mut decoded = Vec::with_capacity(encoded.len().min(max));
    let mut rest = encoded;
    while let Some((&byte, after)) = rest.split_first()
        && decoded.len() < max
    {
        let escaped = match rest {
            [b'%', high, low, ..] => hex(*high).zip(hex(*low)),
            _ => None,
        };
        decoded.push(escaped.map_or(byte, |(high, low)| high << 4 | low));
        rest = if escaped.is_some() { rest.get(3..).unwrap_or_default() } else { after };
    }
    text(&decoded, max)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_decoded_where_they_are_encoded() {
        assert_eq!(message(b"caf%C3%A9 100% %zz %4", 100), "café 100% %zz %4");
        assert_eq!(message(b"%61%62%63", 2), "ab");
    }

    #[test]
    fn statuses_have_names_and_someone_at_fault() {
        assert_eq!((name(5), status(5)), (Some("NOT_FOUND"), ResponseStatus::ClientError));
        assert_eq!((name(14), status(14)), (Some("UNAVAILABLE"), ResponseStatus::ServerError));
        assert_eq!((name(-1), name(17)), (None, None));
    }
}
