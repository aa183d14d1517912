//! What is in statements: literals to take out, the endpoint they belong to, trace context in comments.
//!
//! Takes in SQL text of any dialect, whole or cut off; every function is one pass over one tokenizer.

mod comments;
mod endpoint;
mod tokens;

pub use comments::trace_context;
pub use endpoint::{sql_endpoint, verb_and_table};

use std::borrow::Cow;
use tokens::{Kind, Token, Tokens};

/// `text` with every literal replaced by `?`, the list of an `IN` by one `?`, and without comments, so that statements
/// that differ only in values become equal. Booleans and `NULL` stay.
pub fn sql(text: &str) -> Cow<'_, str> {
    if Tokens::new(text).all(|t| !matches!(t.kind, Kind::Text | Kind::Number | Kind::Comment)) {
        return Cow::Borrowed(text);
    }
    let mut out = Masked { text: String::with_capacity(text.len()), list: List::None, after_comment: false };
    Tokens::new(text).for_each(|token| out.push(token));
    Cow::Owned(out.text.trim_end().to_owned())
}

/// Where in the list of an `IN` the output is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum List {
    None,
    /// Behind `IN`.
    Wanted,
    /// Behind its `(`.
    Open,
    /// One `?` is written; values that follow are left out.
    Filled,
    /// A comma behind that was left out, too.
    Comma,
}

struct Masked {
    text: String,
    list: List,
    after_comment: bool,
}

impl Masked {
    fn push(&mut self, token: Token<'_>) {
        match token.kind {
            Kind::Comment => {
                self.after_comment = true;
                return;
            }
            Kind::Space => {
                let doubled = self.text.is_empty() || (self.after_comment && self.text.ends_with(' '));
                if self.list < List::Filled && !doubled {
                    self.text.push_str(token.text);
                }
                return;
            }
            _ => {}
        }
        if std::mem::take(&mut self.after_comment)
            && self.list < List::Filled
            && !self.text.is_empty()
            && !self.text.ends_with(|c: char| c.is_ascii_whitespace())
        {
            // A comment parts words as a space does.
            self.text.push(' ');
        }
        let value = matches!(token.kind, Kind::Text | Kind::Number | Kind::Placeholder);
        self.list = match self.list {
            _ if token.is_word("in") => List::Wanted,
            List::Wanted if token.is_mark("(") => List::Open,
            List::Open if value => List::Filled,
            List::Open if token.is_mark("-") || token.is_mark("+") => List::Open,
            List::Filled if token.is_mark(",") => {
                self.list = List::Comma;
                return;
            }
            List::Comma if value || token.is_mark("-") || token.is_mark("+") => {
                self.list = if value { List::Filled } else { List::Comma };
                return;
            }
            List::Comma => {
                self.text.push_str(", ");
                List::None
            }
            _ => List::None,
        };
        match token.kind {
            Kind::Text | Kind::Number => self.text.push('?'),
            _ => self.text.push_str(token.text),
        }
    }
}

#[cfg(test)]
mod tests;
