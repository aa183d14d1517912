//! Verb and table of a statement: what its requests are grouped by.

use super::tokens::{Kind, Token, Tokens};
use wirespan_records::Text;

/// Where the name of the table is found, by verb.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Find {
    /// Nothing to find.
    Nothing,
    /// Behind `FROM`.
    From,
    /// Behind the verb, its modifiers and `INTO`.
    Next,
    /// Behind the kind of object (`TABLE`, `VIEW`), or as [`Find::Next`] when none is named.
    Object,
}

const VERBS: &[(&str, Find)] = &[
    ("SELECT", Find::From),
    ("INSERT", Find::Next),
    ("UPDATE", Find::Next),
    ("DELETE", Find::From),
    ("REPLACE", Find::Next),
    ("WITH", Find::From),
    ("MERGE", Find::Next),
    ("SET", Find::Nothing),
    ("SHOW", Find::From),
    ("DESC", Find::Next),
    ("DESCRIBE", Find::Next),
    ("EXPLAIN", Find::From),
    ("CALL", Find::Next),
    ("CREATE", Find::Object),
    ("DROP", Find::Object),
    ("ALTER", Find::Object),
    ("TRUNCATE", Find::Object),
    ("RENAME", Find::Object),
    ("LOCK", Find::Object),
    ("OPTIMIZE", Find::Object),
    ("ANALYZE", Find::Object),
    ("CHECK", Find::Object),
    ("REPAIR", Find::Object),
    ("CHECKSUM", Find::Object),
    ("LOAD", Find::Object),
    ("COPY", Find::Next),
    ("VACUUM", Find::Next),
    ("HANDLER", Find::Next),
    ("USE", Find::Nothing),
    ("BEGIN", Find::Nothing),
    ("START", Find::Nothing),
    ("COMMIT", Find::Nothing),
    ("ROLLBACK", Find::Nothing),
    ("SAVEPOINT", Find::Nothing),
    ("RELEASE", Find::Nothing),
    ("UNLOCK", Find::Nothing),
    ("XA", Find::Nothing),
    ("GRANT", Find::Nothing),
    ("REVOKE", Find::Nothing),
    ("FLUSH", Find::Nothing),
    ("RESET", Find::Nothing),
    ("KILL", Find::Nothing),
    ("PREPARE", Find::Nothing),
    ("EXECUTE", Find::Nothing),
    ("DEALLOCATE", Find::Nothing),
    ("DO", Find::Nothing),
    ("VALUES", Find::Nothing),
    ("TABLE", Find::Next),
    ("HELP", Find::Nothing),
    ("PURGE", Find::Nothing),
    ("CHANGE", Find::Nothing),
    ("STOP", Find::Nothing),
    ("INSTALL", Find::Nothing),
    ("UNINSTALL", Find::Nothing),
    ("BINLOG", Find::Nothing),
    ("SIGNAL", Find::Nothing),
    ("DECLARE", Find::Nothing),
    ("FETCH", Find::Nothing),
    ("CLOSE", Find::Nothing),
];

/// Words that may stand before a table name.
const MODIFIERS: &[&str] = &[
    "INTO",
    "IGNORE",
    "LOW_PRIORITY",
    "HIGH_PRIORITY",
    "DELAYED",
    "OVERWRITE",
    "ONLY",
    "QUICK",
    "IF",
    "NOT",
    "EXISTS",
    "OR",
    "CONCURRENTLY",
    "FULL",
    "VERBOSE",
];

/// Kinds of objects that have a name worth grouping by.
const OBJECTS: &[&str] = &[
    "TABLE",
    "TABLES",
    "VIEW",
    "DATABASE",
    "SCHEMA",
    "PROCEDURE",
    "FUNCTION",
    "TRIGGER",
    "EVENT",
    "SEQUENCE",
    "USER",
    "ROLE",
    "TYPE",
];

/// The verb, in capitals, and the first table (or other object) of a statement, without quotes; `None` when it does not
/// begin like a statement. A name with a schema keeps it.
pub fn verb_and_table(sql: &str) -> Option<(&'static str, Option<Text>)> {
    let mut tokens = Tokens::new(sql).filter(|t| !t.is_blank());
    let first = tokens.by_ref().find(|t| !t.is_mark("("))?;
    let &(verb, find) = VERBS.iter().find(|(verb, _)| first.is_word(verb))?;
    let table = match find {
        Find::Nothing => None,
        Find::From => behind_from(tokens, verb),
        Find::Next => next_name(&mut tokens, verb == "DESC" || verb == "DESCRIBE"),
        Find::Object => object_name(tokens),
    };
    Some((verb, table))
}

/// "SELECT users", or the verb alone.
pub fn sql_endpoint(sql: &str) -> Option<Text> {
    let (verb, table) = verb_and_table(sql)?;
    let mut endpoint = Text::from(verb);
    if let Some(table) = table {
        endpoint.push(' ');
        endpoint.push_str(&table);
    }
    Some(endpoint)
}

/// The table behind the `FROM` of the outermost query; when that reads from a query in parentheses, that one's table.
fn behind_from<'a>(tokens: impl Iterator<Item = Token<'a>>, verb: &str) -> Option<Text> {
    let mut tokens = tokens.peekable();
    let mut inner = None;
    // One bit per open parenthesis: it holds a query. `EXTRACT(YEAR FROM x)` has none.
    let (mut depth, mut queries, mut outer_seen) = (0u32, 0u64, false);
    while let Some(token) = tokens.next() {
        if token.is_mark("(") {
            let query =
                tokens.peek().is_some_and(|t| t.is_word("select") || t.is_word("with") || t.is_mark("("));
            depth = depth.saturating_add(1);
            queries = queries << 1 | u64::from(query);
        } else if token.is_mark(")") {
            depth = depth.saturating_sub(1);
            queries >>= 1;
        } else if token.is_word("from") || (token.is_word("join") && outer_seen) {
            if depth > 0 && queries & 1 == 0 {
                continue;
            }
            let name = tokens.peek().copied().filter(is_name).and_then(|_| name(&mut tokens));
            if name.is_some() && (depth == 0 || outer_seen || verb == "WITH") {
                return name;
            }
            outer_seen |= depth == 0;
            inner = inner.or(name);
        } else if depth == 0 && (verb == "EXPLAIN" && (token.is_word("into") || token.is_word("update"))) {
            return next_name(&mut tokens, false);
        }
    }
    inner
}

fn next_name<'a>(tokens: &mut impl Iterator<Item = Token<'a>>, only_one: bool) -> Option<Text> {
    let mut tokens = tokens.peekable();
    while let Some(token) = tokens.peek() {
        if !is_name(token) || only_one && token.is_word("select") {
            return None;
        }
        if !MODIFIERS.iter().any(|word| token.is_word(word)) && !token.is_word("table") {
            return name(&mut tokens);
        }
        tokens.next();
    }
    None
}

fn object_name<'a>(tokens: impl Iterator<Item = Token<'a>>) -> Option<Text> {
    let mut tokens = tokens.peekable();
    let first = tokens.peek().copied()?;
    for token in tokens.by_ref().take(24) {
        if OBJECTS.iter().any(|word| token.is_word(word)) {
            return next_name(&mut tokens, false);
        }
        if token.is_word("index") {
            let mut behind = tokens.skip_while(|t| !t.is_word("on"));
            behind.next();
            return next_name(&mut behind, false);
        }
    }
    is_name(&first).then(|| unquoted(first.text).into())
}

fn is_name(token: &Token<'_>) -> bool {
    matches!(token.kind, Kind::Word | Kind::Name) || token.kind == Kind::Text && token.text.starts_with('"')
}

/// A name with the schemas before it: parts joined by dots.
fn name<'a>(tokens: &mut std::iter::Peekable<impl Iterator<Item = Token<'a>>>) -> Option<Text> {
    let mut name = Text::from(unquoted(tokens.next()?.text));
    while tokens.peek().is_some_and(|t| t.is_mark(".")) {
        tokens.next();
        let Some(part) = tokens.peek().copied().filter(is_name) else { break };
        tokens.next();
        name.push('.');
        name.push_str(unquoted(part.text));
    }
    Some(name)
}

fn unquoted(text: &str) -> &str {
    text.trim_matches(['`', '"'])
}
