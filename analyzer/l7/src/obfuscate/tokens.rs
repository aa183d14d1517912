//! One tolerant tokenizer for all SQL dialects: linear, never fails, reads truncated text to its end.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Space,
    /// `-- x`, `# x`, `/* x */`; the text between the marks is code when it begins with `!` (MySQL, MariaDB).
    Comment,
    /// Keywords, names, variables.
    Word,
    /// A name in back quotes.
    Name,
    /// A string in single or double quotes or dollar quotes, with its prefix (`x'00'`, `N''`).
    Text,
    /// Numbers, hexadecimal and binary ones too.
    Number,
    /// `?`, `$1`.
    Placeholder,
    /// One character of anything else.
    Mark,
}

/// A piece of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
}

impl Token<'_> {
    pub(crate) fn is_blank(&self) -> bool {
        matches!(self.kind, Kind::Space | Kind::Comment)
    }

    pub(crate) fn is_mark(&self, mark: &str) -> bool {
        self.kind == Kind::Mark && self.text == mark
    }

    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }
}

/// Cuts `sql` into tokens; together they are `sql`.
#[derive(Clone)]
pub(crate) struct Tokens<'a> {
    rest: &'a str,
    /// Inside `/*! ... */`, whose content is code.
    in_code_comment: bool,
}

impl<'a> Tokens<'a> {
    pub(crate) fn new(sql: &'a str) -> Self {
        Self { rest: sql, in_code_comment: false }
    }

    /// The kind and length of the next token; `bytes` is not empty.
    fn measure(&mut self, bytes: &[u8]) -> (Kind, usize) {
        let second = bytes.get(1).copied().unwrap_or(0);
        match bytes[0] {
            b if b.is_ascii_whitespace() => (Kind::Space, run(bytes, |b| b.is_ascii_whitespace())),
            b'-' if second == b'-' && bytes.get(2).is_none_or(u8::is_ascii_whitespace) => {
                (Kind::Comment, line(bytes))
            }
            b'#' if !matches!(second, b'>' | b'-') => (Kind::Comment, line(bytes)),
            b'/' if bytes.starts_with(b"/*!") || bytes.starts_with(b"/*M!") => {
                self.in_code_comment = true;
                let mark = 3 + usize::from(second == b'*' && bytes[2] == b'M');
                (Kind::Comment, mark + run(&bytes[mark..], |b| b.is_ascii_digit()))
            }
            b'/' if second == b'*' => (Kind::Comment, until(bytes, b"*/", 2)),
            b'*' if second == b'/' && self.in_code_comment => {
                self.in_code_comment = false;
                (Kind::Comment, 2)
            }
            quote @ (b'\'' | b'"') => (Kind::Text, quoted(bytes, quote, true)),
            b'`' => (Kind::Name, quoted(bytes, b'`', false)),
            b'x' | b'X' | b'b' | b'B' | b'n' | b'N' | b'e' | b'E' if second == b'\'' => {
                (Kind::Text, 1 + quoted(&bytes[1..], b'\'', true))
            }
            b'?' => (Kind::Placeholder, 1),
            b'$' if second.is_ascii_digit() => {
                (Kind::Placeholder, 1 + run(&bytes[1..], |b| b.is_ascii_digit()))
            }
            b'$' => dollar(bytes),
            b'.' if second.is_ascii_digit() => (Kind::Number, number(bytes)),
            b if b.is_ascii_digit() => (Kind::Number, number(bytes)),
            b if starts_word(b) => (Kind::Word, run(bytes, |b| IN_WORD[usize::from(b)])),
            _ => (Kind::Mark, 1),
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let rest = self.rest;
        if rest.is_empty() {
            return None;
        }
        let (kind, length) = self.measure(rest.as_bytes());
        // All marks are ASCII and runs take whole characters, so this is a character boundary.
        let (text, rest) = rest.split_at_checked(length).unwrap_or((rest, ""));
        self.rest = rest;
        Some(Token { kind, text })
    }
}

const fn starts_word(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b == b'@' || !b.is_ascii()
}

/// What words consist of, by byte.
static IN_WORD: [bool; 256] = {
    let mut bytes = [false; 256];
    let mut b = 0;
    while b < bytes.len() {
        bytes[b] = starts_word(b as u8) || (b as u8).is_ascii_digit() || b as u8 == b'$';
        b += 1;
    }
    bytes
};

fn run(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|&b| !belongs(b)).unwrap_or(bytes.len())
}

fn line(bytes: &[u8]) -> usize {
    memchr::memchr(b'\n', bytes).unwrap_or(bytes.len())
}

/// The length up to and with `end`, looked for after `from`.
fn until(bytes: &[u8], end: &[u8], from: usize) -> usize {
    bytes
        .get(from..)
        .and_then(|rest| memchr::memmem::find(rest, end))
        .map_or(bytes.len(), |at| from + at + end.len())
}

/// The length of what begins with a quote, doubled quotes inside and, with `escapes`, backslashes.
fn quoted(bytes: &[u8], quote: u8, escapes: bool) -> usize {
    let mut at = 1;
    while let Some(&b) = bytes.get(at) {
        at += 1;
        if b == b'\\' && escapes {
            // The escaped character may be wider than a byte: its further bytes are none of ours.
            at += 1;
        } else if b == quote {
            if bytes.get(at) != Some(&quote) {
                return at;
            }
            at += 1;
        }
    }
    bytes.len()
}

/// `$tag$ ... $tag$` of PostgreSQL.
fn dollar(bytes: &[u8]) -> (Kind, usize) {
    let tag = 1 + run(&bytes[1..], |b| b.is_ascii_alphanumeric() || b == b'_');
    match bytes.get(tag) {
        Some(b'$') => (Kind::Text, until(bytes, &bytes[..=tag], tag + 1)),
        _ => (Kind::Mark, 1),
    }
}

/// Digits, letters (hexadecimal, exponents, suffixes), dots, and the sign of an exponent.
fn number(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&b) = bytes.get(at) {
        let sign_of_exponent = (b == b'-' || b == b'+')
            && at > 0
            && matches!(bytes[at - 1], b'e' | b'E')
            && !bytes.starts_with(b"0x")
            && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
        if !(b.is_ascii_alphanumeric() || b == b'.' || b == b'_' || sign_of_exponent) {
            break;
        }
        at += 1;
    }
    at
}
