//! Is this the beginning of an HTTP/1 message?

use crate::parser::{MAX_PROBE, Role, Verdict};
use memchr::memchr;
use wirespan_records::L4Protocol;

/// Methods of RFC 9110, PATCH (RFC 5789), WebDAV and its extensions (RFC 3253, 3648, 3744, 4437, 4791, 4918, 5323, 5842), QUERY,
/// UPnP eventing, caches and MS-RPCH, by first letter.
const METHODS: &[&[u8]] = &[
    b"ACL",
    b"BASELINE-CONTROL",
    b"BIND",
    b"CHECKIN",
    b"CHECKOUT",
    b"CONNECT",
    b"COPY",
    b"DELETE",
    b"GET",
    b"HEAD",
    b"LABEL",
    b"LINK",
    b"LOCK",
    b"MERGE",
    b"MKACTIVITY",
    b"MKCALENDAR",
    b"MKCOL",
    b"MKREDIRECTREF",
    b"MKWORKSPACE",
    b"MOVE",
    b"NOTIFY",
    b"OPTIONS",
    b"ORDERPATCH",
    b"PATCH",
    b"POST",
    b"PROPFIND",
    b"PROPPATCH",
    b"PURGE",
    b"PUT",
    b"QUERY",
    b"REBIND",
    b"REPORT",
    b"RPC_IN_DATA",
    b"RPC_OUT_DATA",
    b"SEARCH",
    b"SUBSCRIBE",
    b"TRACE",
    b"UNBIND",
    b"UNCHECKOUT",
    b"UNLINK",
    b"UNLOCK",
    b"UNSUBSCRIBE",
    b"UPDATE",
    b"UPDATEREDIRECTREF",
    b"VERSION-CONTROL",
];

const MAX_METHOD: usize = 17;

/// First lines of requests must end in the version when they are there to the end; that tells RTSP, SIP, ICAP and the
/// preface of HTTP/2 apart.
pub(super) fn probe(data: &[u8], l4: L4Protocol) -> Verdict {
    match data.first() {
        // SSDP speaks HTTP over UDP, without being a request and its response.
        _ if l4 != L4Protocol::Tcp => Verdict::No,
        Some(b'H') if data.starts_with(b"HT") || data.len() == 1 => response(data),
        Some(b'A'..=b'Z') => request(data),
        _ => Verdict::No,
    }
}

fn response(data: &[u8]) -> Verdict {
    const PATTERN: &[u8] = b"HTTP/1.d ddd";
    let fits = data.iter().zip(PATTERN).all(|(byte, wanted)| match wanted {
        b'd' => byte.is_ascii_digit(),
        wanted => byte == wanted,
    });
    match fits {
        true if data.len() >= PATTERN.len() => Verdict::Yes(Role::Server),
        true => Verdict::Maybe,
        false => Verdict::No,
    }
}

fn request(data: &[u8]) -> Verdict {
    let start = data.get(..MAX_METHOD + 1).unwrap_or(data);
    let Some(space) = memchr(b' ', start) else {
        let could_be = METHODS.iter().any(|method| method.starts_with(data));
        return if could_be { Verdict::Maybe } else { Verdict::No };
    };
    let (method, rest) = data.split_at(space);
    if !METHODS.contains(&method) {
        return Verdict::No;
    }
    let rest = rest.get(1..).unwrap_or_default();
    let plausible = match rest.first() {
        None => return Verdict::Maybe,
        Some(b'/' | b'*') => true,
        Some(first) if method == b"CONNECT" => first.is_ascii_alphanumeric() || *first == b'[',
        Some(_) => rest.iter().zip(b"http").all(|(byte, wanted)| byte.eq_ignore_ascii_case(wanted)),
    };
    match memchr(b'\n', rest) {
        _ if !plausible => Verdict::No,
        Some(end) => {
            let line = rest.get(..end).unwrap_or_default().trim_ascii_end();
            match line.last_chunk::<9>() {
                Some([b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9']) => {
                    Verdict::Yes(Role::Client)
                }
                _ => Verdict::No,
            }
        }
        None if rest.iter().any(u8::is_ascii_control) && !rest.ends_with(b"\r") => Verdict::No,
        None if data.len() < MAX_PROBE => Verdict::Maybe,
        None => Verdict::Yes(Role::Client),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(data: &[u8]) -> Verdict {
        probe(data, L4Protocol::Tcp)
    }

    #[test]
    fn knows_requests_and_responses() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "POST http://h/ HTTP/1.0\n",
            "CONNECT [::1]:443 HTTP/1.1\r\n",
            "OPTIONS * HTTP/1.1\r\n",
            "VERSION-CONTROL /a HTTP/1.1\r\n",
        ] {
            assert_eq!(tcp(line.as_bytes()), Verdict::Yes(Role::Client), "{line}");
        }
        assert_eq!(tcp(b"HTTP/1.1 200 OK\r\n"), Verdict::Yes(Role::Server));
        let long = format!("GET /{} ", "a".repeat(MAX_PROBE));
        assert_eq!(tcp(long.as_bytes()), Verdict::Yes(Role::Client));
    }

    #[test]
    fn waits_for_the_bytes_that_tell() {
        let lines = [&b"DELETE /a HTTP/1.1\r\n"[..], b"HEAD / HTTP/1.1\r\n", b"HTTP/1.0 404"];
        for line in lines {
            for length in 1..line.len() {
                assert_eq!(
                    tcp(&line[..length]),
                    Verdict::Maybe,
                    "{:?}",
                    String::from_utf8_lossy(&line[..length])
                );
            }
        }
    }

    #[test]
    fn refuses_its_relatives() {
        for line in [
            "PRI * HTTP/2.0\r\n",
            "OPTIONS rtsp://h/ RTSP/1.0\r\n",
            "OPTIONS sip:a@b SIP/2.0\r\n",
            "OPTIONS icap://h/ ICAP/1.0\r\n",
            "GET key\r\n",
            "GET httpkey\r\n",
            "HTTP/2 200\r\n",
            "hello",
            "HELO",
        ] {
            assert_eq!(tcp(line.as_bytes()), Verdict::No, "{line}");
        }
        assert_eq!(probe(b"NOTIFY * HTTP/1.1\r\n", L4Protocol::Udp), Verdict::No);
    }
}
