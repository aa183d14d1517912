//! From the parts of an HTTP request to a query: URL parameters, headers, forms, compressed bodies.

use super::compress::{CompressError, Encoding, decode_blocks};
use super::sql::{Facts, InsertData, inspect};

/// Largest request body, unpacked.
pub const MAX_BODY: usize = 1 << 30;

/// What counts of an HTTP request. Header values are those of the request, `None` when absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts<'a> {
    /// GET or HEAD: nothing may be written.
    pub is_get: bool,
    /// Behind the `?` of the URL.
    pub query_string: &'a str,
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
    /// `Content-Encoding`.
    pub content_encoding: Option<&'a str>,
    /// `Accept-Encoding`.
    pub accept_encoding: Option<&'a str>,
    /// `X-ClickHouse-Database`.
    pub database: Option<&'a str>,
    /// `X-ClickHouse-Format`.
    pub format: Option<&'a str>,
}

/// A query as the engine takes it, and how to send its answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ParsedRequest {
    /// SQL, and behind it the data of an INSERT.
    pub sql: Vec<u8>,
    /// Where that data is.
    pub insert: Option<InsertData>,
    /// Current database.
    pub database: Option<String>,
    /// Output format that was asked for outside the query.
    pub default_format: Option<String>,
    /// The query's own output format.
    pub query_format: Option<String>,
    /// In order of appearance.
    pub settings: Vec<(String, String)>,
    /// Values of `{name:Type}`.
    pub params: Vec<(String, String)>,
    /// The caller's name for this query.
    pub query_id: Option<String>,
    /// Refuse to write.
    pub readonly: bool,
    /// Answer in ClickHouse's compressed blocks.
    pub compress: bool,
    /// Answer in this content encoding.
    pub encoding: Option<Encoding>,
}

impl ParsedRequest {
    /// The statement alone.
    pub fn statement(&self) -> &[u8] {
        self.insert.and_then(|i| self.sql.get(..i.sql_end)).unwrap_or(&self.sql)
    }

    /// The data of an INSERT, and where in the statement a clause that names its source belongs.
    pub fn data(&self) -> Option<(usize, &[u8])> {
        self.insert.map(|i| (i.clause_at, self.sql.get(i.data_at..).unwrap_or_default()))
    }

    /// The format of the answer.
    pub fn format(&self) -> &str {
        self.query_format.as_deref().or(self.default_format.as_deref()).unwrap_or("TabSeparated")
    }
}

/// Why a request was refused before it reached the engine.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RequestError {
    /// Nothing to run.
    #[error(
        "Code: 62. DB::Exception: Empty query: send SQL in the parameter `query` or in the body (SYNTAX_ERROR)"
    )]
    Empty,
    /// The body does not unpack.
    #[error("Code: 271. DB::Exception: {0} (CANNOT_DECOMPRESS)")]
    Compression(#[from] CompressError),
    /// A form without a boundary or a name.
    #[error("Code: 36. DB::Exception: The multipart body is malformed: {0} (BAD_ARGUMENTS)")]
    Form(&'static str),
    /// A setting's name that cannot be one.
    #[error("Code: 115. DB::Exception: Unknown setting '{0}' (UNKNOWN_SETTING)")]
    SettingName(String),
    /// Files, programs and other machines are out of reach over HTTP.
    #[error(
        "Code: 497. DB::Exception: `{0}` reaches outside the store, which the embedded ClickHouse does not do over HTTP (ACCESS_DENIED)"
    )]
    Outside(String),
}

/// URL parameters that are not settings and have no meaning here, or are handled elsewhere.
const IGNORED: &[&str] = &[
    "user",
    "password",
    "quota_key",
    "session_id",
    "session_timeout",
    "session_check",
    "stacktrace",
    "role",
    "buffer_size",
    "wait_end_of_query",
    "client_protocol_version",
    "close_session",
    "http_write_exception_in_output_format",
];

#[derive(Default)]
struct Collected {
    request: ParsedRequest,
    query: Vec<u8>,
    decompress: bool,
    no_http_compression: bool,
}

impl Collected {
    fn take(&mut self, name: &str, value: String) -> Result<(), RequestError> {
        let request = &mut self.request;
        match name {
            "query" => {
                if !self.query.is_empty() && !value.is_empty() {
                    self.query.push(b'\n');
                }
                self.query.extend_from_slice(value.as_bytes());
            }
            "database" => request.database = Some(value).filter(|v| !v.is_empty()),
            "default_format" => request.default_format = Some(value).filter(|v| !v.is_empty()),
            "query_id" => request.query_id = Some(value).filter(|v| !v.is_empty()),
            "compress" => request.compress = is_true(&value),
            "decompress" => self.decompress = is_true(&value),
            "enable_http_compression" => self.no_http_compression = !is_true(&value),
            "readonly" => request.readonly |= value != "0",
            _ if IGNORED.contains(&name) => {}
            _ => match name.strip_prefix("param_") {
                Some(name) => request.params.push((name.to_owned(), value)),
                None if is_setting(name) => request.settings.push((name.to_owned(), value)),
                None => return Err(RequestError::SettingName(name.chars().take(100).collect())),
            },
        }
        Ok(())
    }
}

/// Reads a request. `Content-Encoding` goes first, then ClickHouse's blocks, then a form.
pub fn parse(parts: &Parts<'_>, body: &[u8]) -> Result<ParsedRequest, RequestError> {
    let mut found = Collected::default();
    found.request.readonly = parts.is_get;
    found.request.database = parts.database.filter(|v| !v.is_empty()).map(str::to_owned);
    found.request.default_format = parts.format.filter(|v| !v.is_empty()).map(str::to_owned);
    for (name, value) in form_urlencoded::parse(parts.query_string.as_bytes()) {
        found.take(&name, value.into_owned())?;
    }
    let unpacked = unpack_body(parts, found.decompress, body)?;
    let mut data = unpacked.as_deref().unwrap_or(body);
    if let Some(boundary) = multipart_boundary(parts.content_type)? {
        for (name, value) in form_parts(data, &boundary)? {
            found.take(&name, String::from_utf8_lossy(value).into_owned())?;
        }
        data = &[];
    }
    let Collected { mut request, mut query, no_http_compression, .. } = found;
    if query.is_empty() {
        query.extend_from_slice(data);
    } else if !data.is_empty() {
        query.reserve_exact(data.len() + 1);
        query.push(b'\n');
        query.extend_from_slice(data);
    }
    if query.iter().all(u8::is_ascii_whitespace) {
        return Err(RequestError::Empty);
    }
    let Facts { format, insert, forbidden } = inspect(&query);
    if let Some(name) = forbidden {
        return Err(RequestError::Outside(name));
    }
    request.query_format = format;
    request.insert = insert;
    request.sql = query;
    if !no_http_compression && !request.compress {
        request.encoding = parts.accept_encoding.and_then(Encoding::accepted);
    }
    Ok(request)
}

fn unpack_body(parts: &Parts<'_>, decompress: bool, body: &[u8]) -> Result<Option<Vec<u8>>, RequestError> {
    let decoded = match parts.content_encoding.map(str::trim) {
        None | Some("" | "identity") => None,
        Some(name) => {
            let encoding = Encoding::from_name(name)
                .ok_or_else(|| CompressError::Encoding(name.chars().take(100).collect()))?;
            Some(encoding.decode(body, MAX_BODY)?)
        }
    };
    if !decompress {
        return Ok(decoded);
    }
    let mut plain = Vec::new();
    decode_blocks(decoded.as_deref().unwrap_or(body), &mut plain, MAX_BODY)?;
    Ok(Some(plain))
}

/// The boundary when the body is `multipart/form-data` (RFC 7578).
fn multipart_boundary(content_type: Option<&str>) -> Result<Option<Vec<u8>>, RequestError> {
    let Some(content_type) = content_type else { return Ok(None) };
    let mut items = content_type.split(';').map(str::trim);
    if !items.next().is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/form-data")) {
        return Ok(None);
    }
    let boundary = items.find_map(|item| item.strip_prefix("boundary=")).map(|b| b.trim_matches('"'));
    match boundary {
        Some(boundary) if (1..=70).contains(&boundary.len()) => {
            Ok(Some([b"--", boundary.as_bytes()].concat()))
        }
        _ => Err(RequestError::Form("no boundary")),
    }
}

/// Names and values of a form.
fn form_parts<'a>(body: &'a [u8], delimiter: &[u8]) -> Result<Vec<(String, &'a [u8])>, RequestError> {
    let mut parts = Vec::new();
    let mut rest = match find(body, delimiter) {
        Some(at) => body.get(at + delimiter.len()..).unwrap_or_default(),
        None => return Err(RequestError::Form("its boundary does not appear")),
    };
    let end = [b"\r\n", delimiter].concat();
    while !rest.starts_with(b"--") {
        let length = find(rest, &end).ok_or(RequestError::Form("it is cut off"))?;
        let part = rest.get(..length).unwrap_or_default();
        let head = find(part, b"\r\n\r\n").ok_or(RequestError::Form("a part has no headers"))?;
        let name = part_name(part.get(..head).unwrap_or_default())
            .ok_or(RequestError::Form("a part has no name"))?;
        parts.push((name, part.get(head + 4..).unwrap_or_default()));
        rest = rest.get(length + end.len()..).unwrap_or_default();
    }
    Ok(parts)
}

fn part_name(headers: &[u8]) -> Option<String> {
    let headers = std::str::from_utf8(headers).ok()?;
    let line = headers.lines().find(|l| l.to_ascii_lowercase().starts_with("content-disposition:"))?;
    line.split(';').find_map(|item| Some(item.trim().strip_prefix("name=")?.trim_matches('"').to_owned()))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

fn is_true(value: &str) -> bool {
    matches!(value, "1" | "true")
}

fn is_setting(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn post(query_string: &str, body: &[u8]) -> Result<ParsedRequest, RequestError> {
        parse(&Parts { query_string, ..Parts::default() }, body)
    }

    #[test]
    fn url_and_body_make_one_query() {
        let request =
            post("query=INSERT+INTO+t+FORMAT+TSV&max_threads=1&database=d&param_a=x%26y", b"1\n").unwrap();
        assert_eq!(request.sql, b"INSERT INTO t FORMAT TSV\n1\n");
        assert_eq!(request.settings, [("max_threads".to_owned(), "1".to_owned())]);
        assert_eq!(request.params, [("a".to_owned(), "x&y".to_owned())]);
        assert_eq!(request.database.as_deref(), Some("d"));
        assert_eq!(post("default_format=JSON", b"SELECT 1").unwrap().format(), "JSON");
        assert_eq!(post("default_format=JSON", b"SELECT 1 FORMAT CSV").unwrap().format(), "CSV");
    }

    #[test]
    fn refusals_are_clickhouse_errors() {
        assert_eq!(post("", b" \n"), Err(RequestError::Empty));
        assert!(matches!(post("a%60b=1", b"SELECT 1"), Err(RequestError::SettingName(_))));
        assert!(matches!(post("decompress=1", b"SELECT 1"), Err(RequestError::Compression(_))));
        assert!(matches!(post("", b"SELECT * FROM file('x')"), Err(RequestError::Outside(_))));
    }

    #[test]
    fn a_form_carries_query_and_params() {
        let body = b"--b1\r\nContent-Disposition: form-data; name=\"param_x\"\r\n\r\n7\r\n--b1\r\n\
            content-disposition: form-data; name=\"query\"\r\nContent-Type: text/plain\r\n\r\nSELECT {x:Int32}\r\n--b1--\r\n";
        let parts = Parts { content_type: Some("multipart/form-data; boundary=b1"), ..Parts::default() };
        let request = parse(&parts, body).unwrap();
        assert_eq!(request.sql, b"SELECT {x:Int32}");
        assert_eq!(request.params, [("x".to_owned(), "7".to_owned())]);
        for cut in [10, 60, body.len() - 8] {
            assert!(matches!(parse(&parts, &body[..cut]), Err(RequestError::Form(_))), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn any_request_is_read_or_refused(query in "\\PC{0,60}", content in "(multipart/form-data; boundary=x)?",
            body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let parts = Parts { query_string: &query, content_type: Some(&content), ..Parts::default() };
            let _ = parse(&parts, &body);
        }
    }
}
