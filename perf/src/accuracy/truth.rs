//! What the services say that they did: which request each call was made for.

use anyhow::{Context, bail};
use std::collections::HashMap;

/// An exchange, as one of its two processes knows it: the process and the id that both ends have.
pub type Act = (u32, String);

/// The truth of a run.
#[derive(Debug, Default)]
pub struct Truth {
    /// Requests that were served.
    pub served: Vec<Act>,
    /// Calls, and the id of the request that each was made for, if any; that was served by the same process.
    pub calls: HashMap<Act, Option<String>>,
}

impl Truth {
    /// Reads what the services noted of requests whose ids begin with `tag`.
    ///
    /// ```text
    /// served ID - PID TID NS
    /// called ID PARENT PID TID NS (- when it was made for no request)
    /// proxied /.../ID PID
    /// ```
    pub fn read(notes: &str, tag: &str) -> anyhow::Result<Self> {
        let mut truth = Self::default();
        for line in notes.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let (id, parent, pid) = match words[..] {
                ["served", id, "-", pid, ..] => (id, None, pid),
                ["called", id, parent, pid, ..] => (id, Some(parent), pid),
                ["proxied", path, pid, ..] => {
                    let id = path.rsplit('/').next().unwrap_or(path);
                    (id, Some(id), pid)
                }
                _ => bail!("a service noted {line:?}"),
            };
            if find_id(id, tag) != Some(id) {
                continue;
            }
            let act = (pid.parse().with_context(|| format!("a service noted {line:?}"))?, id.to_owned());
            let Some(parent) = parent else {
                truth.served.push(act);
                continue;
            };
            // The ids must say the same: a call has its request's id and a number, a proxy changes nothing.
            if parent == id {
                truth.served.push(act.clone());
            } else if parent == "-" {
                truth.calls.insert(act, None);
                continue;
            } else if id.rsplit_once('.').is_none_or(|(of, _)| of != parent) {
                bail!("a service called {id} for {parent}");
            }
            truth.calls.insert(act, Some(parent.to_owned()));
        }
        Ok(truth)
    }
}

/// The id in a text, such as `TAG-17.2` in `/leaf/TAG-17.2`, `GET k:TAG-17.2` and `TAG-17.2.oracle`.
pub fn find_id<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    let from = text.find(tag)?;
    let id = text.get(from..)?;
    let numbers = id.strip_prefix(tag)?.strip_prefix('-')?;
    let end = numbers.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(numbers.len());
    let id = id.get(..tag.len() + 1 + end)?;
    Some(id.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_what_requests_ask_for() {
        for text in ["/leaf/ab-17.2", "GET k:ab-17.2", "ab-17.2.oracle", "ab-17.2?x=1"] {
            assert_eq!(find_id(text, "ab"), Some("ab-17.2"), "{text}");
        }
        assert_eq!(find_id("GET k:cd-17", "ab"), None);
    }

    #[test]
    fn notes_and_ids_must_agree() {
        let truth = Truth::read(
            "served t-1 - 7 8 99\ncalled t-1.2 t-1 7 9 99\nproxied /a/t-1 5 0.01\nserved w-0 - 1 1 1\ncalled t-9 - 7 8 9",
            "t",
        );
        let truth = truth.unwrap();
        assert_eq!(truth.served, [(7, "t-1".to_owned()), (5, "t-1".to_owned())]);
        assert_eq!(truth.calls[&(7, "t-1.2".to_owned())].as_deref(), Some("t-1"));
        assert_eq!(truth.calls[&(7, "t-9".to_owned())], None);
        assert_eq!(truth.calls[&(5, "t-1".to_owned())].as_deref(), Some("t-1"));
        assert!(Truth::read("called t-1.2 t-3 7 9 99", "t").is_err());
        assert!(Truth::read("called t-1.2", "t").is_err());
    }
}
