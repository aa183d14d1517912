//! Bytes of a peer as text of bounded length.

use std::borrow::Cow;

/// At most `max` bytes of `bytes` as text; what is not UTF-8 becomes U+FFFD.
pub fn text(bytes: &[u8], max: usize) -> String {
    match String::from_utf8_lossy(bytes.get(..max).unwrap_or(bytes)) {
        Cow::Borrowed(text) => text.to_owned(),
        // A replacement is longer than what it stands for.
        Cow::Owned(mut text) => {
            text.truncate(text.floor_char_boundary(max));
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn stays_within_the_limit_whatever_the_bytes_are() {
        assert_eq!(text(b"abcdef", 4), "abcd");
        assert_eq!(text("né".as_bytes(), 9), "né");
        assert_eq!(text(b"a\xffb", 9), "a\u{fffd}b");
        assert!(text(&[0xff; 100], 10).len() <= 10);
    }
}
