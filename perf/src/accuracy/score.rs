//! Spans of processes beside the truth.

use super::truth::{Act, Truth, find_id};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use wirespan_records::{L7Protocol, ObservationPoint, Span};

/// How much of the truth was found, and how much was found that is not true. Counts are of calls that were made for a request, unless
/// they say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Calls that were made.
    pub calls: u64,
    /// Linked with the request for which they were made.
    pub right: u64,
    /// Linked with another request, or with none that is known; also calls that were made for no request.
    pub wrong: u64,
    /// Seen, but linked with nothing, while the process had several requests to answer.
    pub ambiguous: u64,
    /// Seen, but linked with nothing, while it had one or none that was seen.
    pub orphans: u64,
    /// Not seen.
    pub missing: u64,
    /// Of those seen, calls in a protocol that carries trace context.
    pub carriers: u64,
    /// Of these, those linked with the request for which they were made.
    pub carriers_right: u64,
    /// Requests that were served and not seen.
    pub missing_requests: u64,
    /// Exchanges that were seen at both ends.
    pub pairs: u64,
    /// Of these, those with the same sequence numbers at both ends.
    pub equal_pairs: u64,
    /// Right and wrong links of each rule.
    pub rules: BTreeMap<String, (u64, u64)>,
}

impl Score {
    /// Compares spans, of any process of the machine, with what the services say.
    pub fn new(truth: &Truth, spans: &[Span], tag: &str) -> Self {
        let seen: Vec<_> = spans.iter().filter_map(|span| Some((act(span, tag)?, span))).collect();
        let side =
            |point: ObservationPoint| seen.iter().filter(move |(_, span)| span.observation_point == point);
        let servers: HashMap<u64, &Act> =
            side(ObservationPoint::ServerProcess).map(|(act, span)| (span.id, act)).collect();
        let mut open: HashMap<u32, Vec<(u64, u64)>> = HashMap::new();
        for ((pid, _), span) in side(ObservationPoint::ServerProcess) {
            open.entry(*pid).or_default().push((span.start_ns, span.end_ns));
        }
        let candidates = |pid: u32, at_ns: u64| {
            open.get(&pid).into_iter().flatten().filter(|(from, to)| (*from..=*to).contains(&at_ns)).count()
        };
        let mut score = Self::default();
        let mut clients: HashMap<&Act, u64> = HashMap::new();
        for (act, span) in side(ObservationPoint::ClientProcess) {
            let Some(parent) = truth.calls.get(act) else {
                continue;
            };
            *clients.entry(act).or_default() += 1;
            let carries = parent.is_some() && carries_context(span.l7_protocol);
            score.carriers += u64::from(carries);
            let Some(link) = span.parent else {
                // Of what was made for no request, only links are counted.
                if parent.is_some() {
                    *(if candidates(act.0, span.start_ns) > 1 {
                        &mut score.ambiguous
                    } else {
                        &mut score.orphans
                    }) += 1;
                }
                continue;
            };
            let right =
                servers.get(&link.span).is_some_and(|(pid, id)| *pid == act.0 && Some(id) == parent.as_ref());
            let rule = score.rules.entry(link.rule.as_str().to_owned()).or_default();
            if right {
                score.right += 1;
                score.carriers_right += u64::from(carries);
                rule.0 += 1;
            } else {
                score.wrong += 1;
                rule.1 += 1;
            }
        }
        let missing =
            truth.calls.iter().filter(|(act, parent)| parent.is_some() && !clients.contains_key(act));
        score.missing = missing.count() as u64;
        // One call may be several exchanges, as a name's two addresses are.
        score.calls = score.right + score.wrong + score.ambiguous + score.orphans + score.missing;
        let served: HashMap<&Act, &Span> =
            side(ObservationPoint::ServerProcess).map(|(act, span)| (act, *span)).collect();
        score.missing_requests = truth.served.iter().filter(|act| !served.contains_key(act)).count() as u64;
        score.compare_ends(&seen);
        score
    }

    fn compare_ends(&mut self, seen: &[(Act, &Span)]) {
        let ends = |span: &Span| (span.client, span.server, span.req_tcp_seq, span.resp_tcp_seq);
        let mut servers: HashMap<_, Vec<_>> = HashMap::new();
        for ((_, id), span) in
            seen.iter().filter(|(_, s)| s.observation_point == ObservationPoint::ServerProcess)
        {
            servers.entry((id, span.client.port, span.server.port)).or_default().push(ends(span));
        }
        for ((_, id), span) in
            seen.iter().filter(|(_, s)| s.observation_point == ObservationPoint::ClientProcess)
        {
            if span.req_tcp_seq.is_none() {
                continue;
            }
            if let Some(others) = servers.get(&(id, span.client.port, span.server.port)) {
                self.pairs += 1;
                self.equal_pairs += u64::from(others.contains(&ends(span)));
            }
        }
    }

    /// Of the links that were made, those that are right.
    pub fn precision(&self) -> f64 {
        part(self.right, self.right + self.wrong)
    }

    /// Of the calls that were made, those that are linked with the right request.
    pub fn recall(&self) -> f64 {
        part(self.right, self.calls)
    }

    /// The recall of the calls whose protocol carries trace context, and of those that were not seen.
    pub fn carriers_recall(&self) -> f64 {
        part(self.carriers_right, self.carriers + self.missing)
    }

    /// Of the calls, those that are linked with a wrong request.
    pub fn wrong_rate(&self) -> f64 {
        part(self.wrong, self.calls)
    }

    /// Of the calls, those that were seen and are linked with none of several requests.
    pub fn ambiguous_rate(&self) -> f64 {
        part(self.ambiguous, self.calls)
    }

    /// Of the calls, those that were seen and are linked with nothing, where nothing or one thing only was there.
    pub fn orphan_rate(&self) -> f64 {
        part(self.orphans, self.calls)
    }

    /// Of the calls, those that were not seen.
    pub fn missing_rate(&self) -> f64 {
        part(self.missing, self.calls)
    }

    /// Of the exchanges seen at both ends, those with the same sequence numbers.
    pub fn equal_rate(&self) -> f64 {
        part(self.equal_pairs, self.pairs)
    }
}

/// 1 where there is nothing to be wrong about.
fn part(of: u64, all: u64) -> f64 {
    if all == 0 { 1.0 } else { of as f64 / all as f64 }
}

fn carries_context(protocol: L7Protocol) -> bool {
    matches!(protocol, L7Protocol::Http | L7Protocol::Http2 | L7Protocol::Grpc)
}

/// Whose span it is, when it is of this run.
fn act(span: &Span, tag: &str) -> Option<Act> {
    let texts = [&span.request_resource, &span.request_domain];
    let id = texts.into_iter().flatten().find_map(|text| find_id(text, tag))?;
    Some((span.process.as_ref()?.pid, id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use wirespan_records::{Parent, Process, Rule};

    /// A span of process 7: its own number, its request's id, its parent's number.
    fn span(id: u64, point: ObservationPoint, asked: &str, parent: Option<u64>) -> Span {
        let mut span = crate::requests::Requests::new().next(1_000_000_000_000);
        span.id = id;
        span.observation_point = point;
        span.request_resource = Some(format!("/leaf/{asked}").into());
        span.request_domain = None;
        span.process = Some(Arc::new(Process { pid: 7, ..Process::default() }));
        span.parent = parent.map(|span| Parent { span, rule: Rule::Thread, confidence: 0.8 });
        span
    }

    #[test]
    fn links_are_right_only_with_the_request_that_the_ids_say() {
        let notes = "served t-1 - 7 7 1\nserved t-2 - 7 7 1\nserved t-3 - 7 7 1\ncalled t-1.1 t-1 7 7 1\ncalled t-1.2 t-1 7 7 1\n\
                     called t-2.1 t-2 7 7 1\ncalled t-2.2 t-2 7 7 1\ncalled t-2.3 t-2 7 7 1\ncalled t-2.4 t-2 7 7 1\ncalled t-8 - 7 7 1\ncalled t-9 - 7 7 1";
        let truth = Truth::read(notes, "t").unwrap();
        let server = |id, asked| span(id, ObservationPoint::ServerProcess, asked, None);
        let client = |id, asked, parent| span(id, ObservationPoint::ClientProcess, asked, parent);
        let redis = |span: Span| Span { l7_protocol: L7Protocol::Redis, ..span };
        let late = |span: Span| Span { start_ns: span.end_ns + 1, ..span };
        let spans = [
            server(1, "t-1"),
            server(2, "t-2"),
            client(11, "t-1.1", Some(1)),
            // With another request, with one that is not known, with none; t-2.4 is not seen.
            client(12, "t-1.2", Some(2)),
            redis(client(21, "t-2.1", Some(99))),
            client(22, "t-2.2", None),
            late(client(23, "t-2.3", None)),
            // Made for no request.
            client(30, "t-8", None),
            client(31, "t-9", Some(1)),
        ];
        let score = Score::new(&truth, &spans, "t");
        assert_eq!((score.right, score.wrong), (1, 3));
        assert_eq!((score.ambiguous, score.orphans, score.missing, score.missing_requests), (1, 1, 1, 1));
        assert_eq!((score.precision(), score.recall()), (0.25, 1.0 / 7.0));
        assert_eq!((score.carriers, score.carriers_right, score.carriers_recall()), (4, 1, 1.0 / 5.0));
        assert_eq!(score.rules["thread"], (1, 3));
    }

    #[test]
    fn both_ends_of_an_exchange_are_compared() {
        let truth = Truth::read("called t-1.1 t-1 7 7 1\ncalled t-1.2 t-1 7 7 1", "t").unwrap();
        let at = |point, asked, seq| {
            let mut span = span(1, point, asked, None);
            (span.req_tcp_seq, span.resp_tcp_seq) = (Some(seq), Some(seq));
            span
        };
        let spans = [
            at(ObservationPoint::ClientProcess, "t-1.1", 5),
            at(ObservationPoint::ServerProcess, "t-1.1", 5),
            at(ObservationPoint::ClientProcess, "t-1.2", 6),
            at(ObservationPoint::ServerProcess, "t-1.2", 7),
        ];
        let score = Score::new(&truth, &spans, "t");
        assert_eq!((score.pairs, score.equal_pairs), (2, 1));
    }
}
