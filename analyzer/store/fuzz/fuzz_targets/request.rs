//! A request's URL, content type and body: the first line is the query string, the second the content type.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wirespan_store::server::request::{Parts, parse};

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(3, |&b| b == b'\n');
    let mut text = || std::str::from_utf8(lines.next().unwrap_or_default()).unwrap_or_default();
    let (query_string, content_type) = (text(), text());
    let body = lines.next().unwrap_or_default();
    let parts = Parts { query_string, content_type: Some(content_type), ..Parts::default() };
    if let Ok(request) = parse(&parts, body) {
        assert!(request.statement().len() <= request.sql.len());
        if let Some((at, data)) = request.data() {
            assert!(at <= request.statement().len());
            assert!(data.len() <= request.sql.len());
        }
    }
});
