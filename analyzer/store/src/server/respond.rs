//! Answers in the shape ClickHouse gives them: headers, formats, errors.

use super::compress::encode_blocks;
use super::request::ParsedRequest;
use crate::engine::{Answer, Summary};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use std::time::Duration;

/// What every answer names.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) host: String,
    pub(super) timezone: String,
    pub(super) version: String,
}

type Body = Full<Bytes>;

/// Plain text without ClickHouse's headers: `/ping`, `/`, unknown paths.
pub(super) fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    set(&mut response, CONTENT_TYPE, "text/html; charset=UTF-8");
    response
}

/// The answer to a query that ran.
pub(super) fn answer(
    request: &ParsedRequest,
    answer: Answer,
    elapsed: Duration,
    who: &Identity,
    query_id: &str,
) -> std::io::Result<Response<Body>> {
    let summary = summary(&answer.summary, elapsed);
    let (data, encoding) = if request.compress {
        (encode_blocks(&answer.data).into(), None)
    } else if let Some(encoding) = request.encoding.filter(|_| !answer.data.is_empty()) {
        (encoding.encode(&answer.data)?.into(), Some(encoding))
    } else {
        (answer.data, None)
    };
    let mut response = Response::new(Full::new(data));
    common(&mut response, who, query_id);
    set(&mut response, CONTENT_TYPE, content_type(request.format()));
    set(&mut response, HeaderName::from_static("x-clickhouse-format"), request.format());
    set(&mut response, HeaderName::from_static("x-clickhouse-summary"), &summary);
    if let Some(encoding) = encoding {
        set(&mut response, CONTENT_ENCODING, encoding.name());
    }
    Ok(response)
}

/// ClickHouse's error, `Code: N. DB::Exception: ...`.
pub(super) fn error(message: &str, who: &Identity, query_id: &str) -> Response<Body> {
    let code = error_code(message);
    let body = format!("{} (version {})\n", message.trim_end(), who.version);
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = error_status(code);
    common(&mut response, who, query_id);
    set(&mut response, CONTENT_TYPE, "text/plain; charset=UTF-8");
    set(&mut response, HeaderName::from_static("x-clickhouse-exception-code"), &code.to_string());
    response
}

fn common(response: &mut Response<Body>, who: &Identity, query_id: &str) {
    set(response, HeaderName::from_static("x-clickhouse-query-id"), query_id);
    set(response, HeaderName::from_static("x-clickhouse-server-display-name"), &who.host);
    set(response, HeaderName::from_static("x-clickhouse-timezone"), &who.timezone);
}

/// Sets a header; one whose value a header cannot carry is left out.
fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn summary(s: &Summary, elapsed: Duration) -> String {
    format!(
        "{{\"read_rows\":\"{}\",\"read_bytes\":\"{}\",\"written_rows\":\"{}\",\"written_bytes\":\"{}\",\
         \"result_rows\":\"{}\",\"result_bytes\":\"{}\",\"elapsed_ns\":\"{}\"}}",
        s.read_rows,
        s.read_bytes,
        s.written_rows,
        s.written_bytes,
        s.result_rows,
        s.result_bytes,
        elapsed.as_nanos()
    )
}

fn content_type(format: &str) -> &'static str {
    if format.starts_with("JSON") {
        if format.contains("EachRow") {
            "application/x-ndjson; charset=UTF-8"
        } else {
            "application/json; charset=UTF-8"
        }
    } else if format.starts_with("TabSeparated") || format.starts_with("TSV") {
        "text/tab-separated-values; charset=UTF-8"
    } else if format.starts_with("CSV") {
        "text/csv; charset=UTF-8; header=absent"
    } else if format.starts_with("Pretty")
        || matches!(format, "Vertical" | "Markdown" | "Values" | "SQLInsert")
    {
        "text/plain; charset=UTF-8"
    } else {
        "application/octet-stream"
    }
}

/// The number in `Code: N.`, 1002 (UNKNOWN_EXCEPTION) when there is none.
fn error_code(message: &str) -> u32 {
    let digits = message.split_once("Code: ").map_or("", |(_, rest)| rest);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..end).and_then(|d| d.parse().ok()).unwrap_or(1002)
}

/// The HTTP status of an error code, as ClickHouse's HTTP handler chooses it.
fn error_status(code: u32) -> StatusCode {
    match code {
        // REQUIRED_PASSWORD
        194 => StatusCode::UNAUTHORIZED,
        // UNKNOWN_USER, WRONG_PASSWORD, ACCESS_DENIED, AUTHENTICATION_FAILED
        192 | 193 | 497 | 516 => StatusCode::FORBIDDEN,
        // Text, query or argument that does not parse or fit.
        6 | 25 | 26 | 27 | 36 | 38 | 41 | 53 | 62 | 70 | 72 | 117 | 128 | 130 | 131 | 167 | 168 | 271
        | 321 | 441 | 456 | 457 => StatusCode::BAD_REQUEST,
        // Unknown identifier, function, type, storage, table, format, database, setting, ...
        16 | 46 | 47 | 50 | 56 | 60 | 63 | 73 | 81 | 82 | 87 | 111 | 115 | 183 => StatusCode::NOT_FOUND,
        // TIMEOUT_EXCEEDED
        159 => StatusCode::REQUEST_TIMEOUT,
        // QUERY_IS_TOO_LARGE
        307 => StatusCode::PAYLOAD_TOO_LARGE,
        48 => StatusCode::NOT_IMPLEMENTED,
        // CANNOT_SCHEDULE_TASK
        439 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_statuses() {
        assert_eq!(error_code("Code: 60. DB::Exception: Unknown table"), 60);
        assert_eq!(error_code("Something else"), 1002);
        assert_eq!(error_code("Code: 99999999999."), 1002);
        assert_eq!(error_status(62), StatusCode::BAD_REQUEST);
        assert_eq!(error_status(60), StatusCode::NOT_FOUND);
        assert_eq!(error_status(241), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
