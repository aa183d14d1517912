//! Bytes of a peer as text of bounded length.

use wirespan_records::Text;

/// At most `max` bytes of `bytes` as text; what is not UTF-8 becomes U+FFFD.
pub fn text(bytes: &[u8], max: usize) -> Text {
    let bytes = bytes.get(..max).unwrap_or(bytes);
    match utf8(bytes) {
        Some(text) => text.into(),
        None => lossy(bytes, max),
    }
}

/// `bytes`, when they are UTF-8. Short ones are mostly ASCII, which takes a third of the time to tell.
pub fn utf8(bytes: &[u8]) -> Option<&str> {
    if bytes.is_ascii() {
        // SAFETY: ASCII is UTF-8.
        return Some(unsafe { std::str::from_utf8_unchecked(bytes) });
    }
    std::str::from_utf8(bytes).ok()
}

#[cold]
fn lossy(bytes: &[u8], max: usize) -> Text {
    let mut text = Text::from_utf8_lossy(bytes);
    // A replacement is longer than what it stands for.
    text.truncate(text.floor_char_boundary(max));
    text
}

#[cfg(test)]
mod tests {
    use super::{text, utf8};

    #[test]
    fn only_utf8_is_text() {
        assert_eq!(utf8(b""), Some(""));
        assert_eq!(utf8(b"plain"), Some("plain"));
        assert_eq!(utf8("n\u{e9}".as_bytes()), Some("n\u{e9}"));
        assert_eq!(utf8(b"a\xff"), None);
    }

    #[test]
    fn stays_within_the_limit_whatever_the_bytes_are() {
        assert_eq!(text(b"abcdef", 4), "abcd");
        assert_eq!(text("né".as_bytes(), 9), "né");
        assert_eq!(text(b"a\xffb", 9), "a\u{fffd}b");
        assert!(text(&[0xff; 100], 10).len() <= 10);
    }
}
