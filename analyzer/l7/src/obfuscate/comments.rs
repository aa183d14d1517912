//! Trace context that applications write into comments of their statements, as sqlcommenter does.

use super::tokens::{Kind, Tokens};
use crate::trace::{TraceContext, TraceHeaders};

/// What the comments of `sql` say: `key:value`, `key=value` or `key='value'`, the keys being those of `headers`, or plainly
/// a trace id or span id.
pub fn trace_context(sql: &str, headers: &TraceHeaders) -> TraceContext {
    let mut found = TraceContext::default();
    if memchr::memchr3(b'-', b'#', b'/', sql.as_bytes()).is_none() {
        // No comment begins.
        return found;
    }
    for token in Tokens::new(sql).filter(|t| t.kind == Kind::Comment) {
        for (key, value) in pairs(token.text) {
            headers.read(key.as_bytes(), value.as_bytes(), &mut found);
            read_plain(key, value, &mut found);
        }
    }
    found
}

/// Separators in the key do not matter: `trace-id`, `TraceID` and `trace_id` are one.
fn read_plain(key: &str, value: &str, found: &mut TraceContext) {
    let is = |name: &str| {
        key.bytes().filter(u8::is_ascii_alphanumeric).map(|b| b.to_ascii_lowercase()).eq(name.bytes())
    };
    let id = if is("traceid") {
        &mut found.trace_id
    } else if is("spanid") {
        &mut found.span_id
    } else {
        return;
    };
    id.get_or_insert_with(|| value.into());
}

/// The pairs of a comment.
fn pairs(comment: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = comment;
    std::iter::from_fn(move || {
        loop {
            let at = rest.find([':', '='])?;
            let (before, after) = (&rest[..at], &rest[at + 1..]);
            let before = before.trim_end();
            let key = before.rfind(|c: char| !is_key(c)).map_or(before, |p| {
                // Skips the whole character at `p`, which may be wider than a byte.
                before[p..].char_indices().nth(1).map_or("", |(next, _)| &before[p + next..])
            });
            let after = after.trim_start();
            let (value, tail) = match after.chars().next() {
                Some(quote @ ('\'' | '"')) => {
                    let inner = &after[1..];
                    inner.split_once(quote).unwrap_or((inner, ""))
                }
                _ => after.split_at(after.find(|c: char| !is_value(c)).unwrap_or(after.len())),
            };
            rest = tail;
            if !key.is_empty() && !value.is_empty() {
                return Some((key, value));
            }
        }
    })
}

fn is_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

fn is_value(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '%' | '+' | '/' | '=')
}
