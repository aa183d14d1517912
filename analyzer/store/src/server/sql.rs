//! What the server must know about a query before it runs: the format it asks for, and whether it reaches outside the store.
//!
//! The embedded engine is ClickHouse's local tool: it may read and write any file and open any connection. Over HTTP a
//! query may not, as little as on a ClickHouse server with default grants; so it is split into tokens and checked here.

/// A lexical element; quoted identifiers count as words.
#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    /// Identifier or keyword, without quotes.
    Word(&'a [u8]),
    /// String, number or any other sign.
    Other(u8),
}

struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    fn skip(&mut self, n: usize) {
        self.rest = self.rest.get(n..).unwrap_or_default();
    }

    /// Skips past the first `end`, or everything.
    fn skip_past(&mut self, end: &[u8]) {
        let found = self.rest.windows(end.len()).position(|w| w == end);
        self.skip(found.map_or(self.rest.len(), |at| at + end.len()));
    }

    /// The text between quotes (escapes unresolved); leaves the rest behind the closing one.
    fn quoted(&mut self, quote: u8) -> &'a [u8] {
        let text = self.rest.get(1..).unwrap_or_default();
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            match byte {
                b'\\' => at += 2,
                b if b == quote && text.get(at + 1) == Some(&quote) => at += 2,
                b if b == quote => break,
                _ => at += 1,
            }
        }
        self.skip(at.saturating_add(2));
        text.get(..at).unwrap_or(text)
    }

    /// `$tag$ ... $tag$`; a lone `$` is skipped.
    fn heredoc(&mut self) {
        let tag = self.rest.iter().skip(1).position(|&b| !is_word(b) || b == b'$').map_or(0, |n| n + 1);
        if tag > 0 && self.rest.get(tag) == Some(&b'$') {
            let mark = self.rest.get(..=tag).unwrap_or_default();
            self.skip(mark.len());
            self.skip_past(mark);
        } else {
            self.skip(1);
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let first = *self.rest.first()?;
            match (first, self.rest.get(1)) {
                (b'-', Some(b'-')) | (b'#', Some(b' ' | b'!')) => self.skip_past(b"\n"),
                (b'/', Some(b'*')) => self.skip_past(b"*/"),
                (b'\'', _) => {
                    self.quoted(b'\'');
                    return Some(Token::Other(b'\''));
                }
                (b'"' | b'`', _) => return Some(Token::Word(self.quoted(first))),
                (b'$', _) => {
                    self.heredoc();
                    return Some(Token::Other(b'$'));
                }
                _ if is_word(first) => {
                    let n = self.rest.iter().position(|&b| !is_word(b)).unwrap_or(self.rest.len());
                    let word = self.rest.get(..n).unwrap_or_default();
                    self.skip(n);
                    return Some(Token::Word(word));
                }
                _ if first.is_ascii_whitespace() => self.skip(1),
                _ => {
                    self.skip(1);
                    return Some(Token::Other(first));
                }
            }
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Functions, table functions and engines that reach files, programs or other machines, without suffixes such as `Cluster`.
const OUTSIDE: &[&str] = &[
    "arrowflight",
    "arrowstream",
    "azureblobstorage",
    "azurequeue",
    "backup",
    "catboostevaluate",
    "cluster",
    "clusterallreplicas",
    "cosn",
    "datalakecatalog",
    "deltalake",
    "disk",
    "embeddedrocksdb",
    "executable",
    "executablepool",
    "file",
    "filecluster",
    "filelog",
    "filesystem",
    "gcs",
    "hdfs",
    "http",
    "hudi",
    "iceberg",
    "jdbc",
    "kafka",
    "library",
    "materializedpostgresql",
    "mongodb",
    "mysql",
    "nats",
    "odbc",
    "oss",
    "overlay",
    "paimon",
    "postgresql",
    "python",
    "rabbitmq",
    "redis",
    "remote",
    "remotesecure",
    "s3",
    "s3queue",
    "sqlite",
    "url",
    "urlcluster",
    "ytsaurus",
];

fn reaches_outside(word: &[u8]) -> bool {
    let Ok(word) = std::str::from_utf8(word) else { return false };
    let word = word.to_ascii_lowercase();
    let stem = ["cluster", "s3", "azure", "hdfs", "local"].iter().fold(word.as_str(), |stem, suffix| {
        stem.strip_suffix(suffix).filter(|s| !s.is_empty()).unwrap_or(stem)
    });
    OUTSIDE.contains(&word.as_str()) || OUTSIDE.contains(&stem)
}

/// Offsets in the text of `INSERT INTO t [SETTINGS ...] FORMAT f <data>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsertData {
    /// Where `FROM INFILE` would stand: before `SETTINGS` or `FORMAT`.
    pub clause_at: usize,
    /// Behind the format's name.
    pub sql_end: usize,
    /// The first byte of the data.
    pub data_at: usize,
}

/// What was found in a query.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The query's own `FORMAT`, when it is not an INSERT.
    pub format: Option<String>,
    /// An INSERT with a `FORMAT`: where its data is.
    pub insert: Option<InsertData>,
    /// What it may not use.
    pub forbidden: Option<String>,
}

/// Looks through `sql`. The data behind an INSERT's `FORMAT` is not looked at.
pub fn inspect(sql: &[u8]) -> Facts {
    let mut facts = Facts::default();
    let mut previous: &[u8] = b"";
    let (mut first, mut is_insert, mut after_format) = (true, false, false);
    let mut clause_at = None;
    let mut depth = 0u32;
    let mut tokens = Tokens { rest: sql };
    while let Some(token) = tokens.next() {
        let end = sql.len() - tokens.rest.len();
        let word = match token {
            Token::Word(word) => word,
            Token::Other(sign) => {
                if sign == b'(' && reaches_outside(previous) {
                    facts.forbidden = Some(String::from_utf8_lossy(previous).into_owned());
                }
                depth = match sign {
                    b'(' => depth.saturating_add(1),
                    b')' => depth.saturating_sub(1),
                    _ => depth,
                };
                (previous, after_format) = (b"", false);
                continue;
            }
        };
        let is = |text: &[u8], name: &str| text.eq_ignore_ascii_case(name.as_bytes());
        if std::mem::take(&mut first) {
            is_insert = is(word, "insert");
        }
        if after_format && is_insert {
            let clause_at = clause_at.unwrap_or(end);
            facts.insert = Some(InsertData { clause_at, sql_end: end, data_at: end + data_gap(tokens.rest) });
            return facts;
        }
        if after_format {
            facts.format = std::str::from_utf8(word).ok().map(str::to_owned);
        }
        // A table may be called like a keyword.
        let is_name = ["into", "table", "from", "join"].iter().any(|k| is(previous, k));
        after_format = is(word, "format") && depth == 0 && !is_name;
        if clause_at.is_none() && (after_format || (is(word, "settings") && depth == 0 && !is_name)) {
            clause_at = end.checked_sub(word.len());
        }
        if (is(previous, "into") && is(word, "outfile")) || (is(previous, "from") && is(word, "infile")) {
            facts.forbidden = Some(String::from_utf8_lossy(word).into_owned());
        }
        previous = word;
    }
    facts
}

/// Bytes between a format's name and the data: blanks and one line break.
fn data_gap(rest: &[u8]) -> usize {
    let blanks = rest.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    let behind = rest.get(blanks..).unwrap_or_default();
    blanks + if behind.starts_with(b"\r\n") { 2 } else { usize::from(behind.starts_with(b"\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn format(sql: &str) -> Option<String> {
        inspect(sql.as_bytes()).format
    }

    fn forbidden(sql: &str) -> Option<String> {
        inspect(sql.as_bytes()).forbidden
    }

    #[test]
    fn finds_the_format_outside_strings_and_comments() {
        assert_eq!(format("SELECT 1 FORMAT JSON"), Some("JSON".into()));
        assert_eq!(format("select 1 format CSV settings max_threads = 1"), Some("CSV".into()));
        assert_eq!(format("SELECT 'FORMAT JSON' -- FORMAT CSV"), None);
        assert_eq!(format("SELECT $x$ FORMAT CSV $x$, \"a\"\"FORMAT\" /* FORMAT TSV */"), None);
        assert_eq!(format("SELECT format('{}', 1)"), None);
    }

    #[test]
    fn insert_data_is_not_looked_at() {
        let sql = b"INSERT INTO format (settings) SETTINGS a = 1 FORMAT TSV \n\nfile('x') FORMAT Y";
        let facts = inspect(sql);
        let insert = facts.insert.unwrap();
        assert!(sql[insert.clause_at..].starts_with(b"SETTINGS a"));
        assert!(sql[..insert.sql_end].ends_with(b"FORMAT TSV"));
        assert!(sql[insert.data_at..].starts_with(b"\nfile"));
        assert_eq!((facts.forbidden, facts.format), (None, None));
        assert_eq!(inspect(b"INSERT INTO t VALUES (1)").insert, None);
    }

    #[test]
    fn refuses_what_reaches_outside() {
        for sql in [
            "SELECT * FROM file('/etc/passwd')",
            "SELECT file /* */ ('/etc/passwd')",
            "SELECT * FROM `File`('/etc/passwd')",
            "INSERT INTO t SELECT * FROM url('x')",
            "INSERT INTO FUNCTION s3Cluster('x') SELECT 1",
            "INSERT INTO t VALUES (file('/etc/passwd'))",
            "CREATE DATABASE d ENGINE = Filesystem('/')",
            "SELECT 1 INTO OUTFILE '/tmp/x'",
            "INSERT INTO t FROM INFILE '/etc/passwd' FORMAT CSV",
            "SELECT * FROM icebergLocal('/')",
            "BACKUP DATABASE wirespan TO File('/x')",
        ] {
            assert!(forbidden(sql).is_some(), "{sql}");
        }
        for sql in [
            "SELECT file, url FROM t WHERE url = 'file(x)'",
            "SELECT * FROM remote_calls WHERE s3 > (1)",
            "SELECT domain(url), cutToFirstSignificantSubdomain(url) FROM t",
            "SELECT count() FROM t WHERE mysql IN (1, 2)",
        ] {
            assert_eq!(forbidden(sql), None, "{sql}");
        }
    }

    proptest! {
        #[test]
        fn ends_on_any_bytes(sql in proptest::collection::vec(any::<u8>(), 0..200)) {
            inspect(&sql);
        }

        #[test]
        fn ends_on_sql_like_text(sql in "[-a'\"`$ (*/#\\\\\n]{0,80}") {
            inspect(sql.as_bytes());
        }
    }
}
