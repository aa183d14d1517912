//! Traces: their rows are found by key, then put together.

use super::{AnswerError, Answers, params};
use crate::query::stored::{self, Stored};
use crate::query::{Query, Range, spans, traces};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use wirespan_stitch::assemble::MAX_SPANS;
use wirespan_stitch::{SpanRow, Trace, TraceSummary, assemble, is_wire_key, wire_key};

/// Keys of one trace at most.
const MAX_KEYS: usize = 4096;
/// Steps along merged keys: with each, the joined part of a trace doubles at least.
const MAX_STEPS: usize = 16;
/// How often a trace is completed with what its rows name and the keys do not lead to.
const MAX_ROUNDS: usize = 4;

/// The traces of a time.
#[derive(Clone, Debug, Serialize)]
pub struct Traces {
    /// Latest first.
    pub traces: Vec<TraceSummary>,
}

/// The rows of a trace, as they are found.
#[derive(Default)]
struct Found {
    keys: BTreeSet<u64>,
    rows: BTreeMap<String, SpanRow>,
    /// Rows of which only the id is known yet.
    lone: BTreeSet<u64>,
    /// Ids whose rows were looked for already.
    sought: BTreeSet<u64>,
    /// Ids of parents whose keys were looked for already.
    followed: BTreeSet<u64>,
    /// What is not among them, if anything.
    left_out: Option<String>,
}

/// Keys with those that they are merged with.
struct Merged {
    keys: BTreeSet<u64>,
    merges: Vec<traces::MergeRow>,
    /// False when there are more than a trace may have.
    whole: bool,
}

impl Answers {
    /// The trace with an id: that of its headers, or its key in hex.
    pub async fn trace(&self, id: &str) -> Result<Trace, AnswerError> {
        let key = u64::from_str_radix(id, 16).ok().filter(|_| id.len() == 16);
        // Some tools show ids in upper case, which are in lower case on the wire (W3C Trace Context, 3.2.2.3).
        let lower = id.to_ascii_lowercase();
        let keys =
            BTreeSet::from_iter([Some(wire_key(id)), Some(wire_key(&lower)), key].into_iter().flatten());
        let mut found = self.find(keys).await?;
        if found.rows.is_empty() {
            found.add(self.stored(&traces::old_rows_query(id)).await?);
        }
        if found.rows.is_empty() {
            let hint = "it is not in the store (any more); /api/spans lists requests with their trace_id and trace_key";
            return Err(AnswerError::NotFound(format!("no request has the trace id {id}: {hint}")));
        }
        Ok(self.put_together(found))
    }

    /// The trace that a row is part of; the row alone when it is part of none.
    pub async fn trace_of_span(&self, id: u64) -> Result<Trace, AnswerError> {
        let alone = BTreeSet::from([id]);
        let rows: Vec<traces::KeyRow> = self.rows(&traces::keys_query(&alone)).await?;
        let Some(row) = rows.first() else {
            return Err(AnswerError::NotFound(format!(
                "no request has the row id {id}: take `id` of a row of /api/spans"
            )));
        };
        let trace_id = Some(row.trace_id.as_str()).filter(|id| !id.is_empty());
        let keys = BTreeSet::from_iter([Some(row.trace_key), trace_id.map(wire_key)].into_iter().flatten());
        let mut found = self.find(keys).await?;
        if found.lacks(id) {
            found.add(self.stored(&traces::lone_rows_query(&alone)).await?);
        }
        if let Some(trace_id) = trace_id.filter(|_| found.rows.len() == 1) {
            found.add(self.stored(&traces::old_rows_query(trace_id)).await?);
        }
        Ok(self.put_together(found))
    }

    /// The latest traces of a time.
    pub async fn traces(&self, params: &traces::TraceParams, range: Range) -> Result<Traces, AnswerError> {
        let names = self.names();
        let latest: Vec<traces::KeyRow> = self.rows(&traces::latest_query(params, range, &names)?).await?;
        let keys: BTreeSet<u64> = latest.iter().map(|row| row.trace_key).collect();
        if keys.is_empty() {
            return Ok(Traces { traces: Vec::new() });
        }
        let Merged { keys, merges, .. } = self.merged(keys).await?;
        let mut rows = traces::summary_rows(self.binary(&traces::summaries_query(&keys)).await?.as_ref())?;
        let roots: BTreeSet<u64> = rows.iter().filter_map(traces::SummaryRow::lone_root).collect();
        if !roots.is_empty() {
            let roots = whole(self.stored(&traces::lone_rows_query(&roots)).await?);
            rows.iter_mut().for_each(|row| row.complete(&roots));
        }
        let least = least_keys(&merges);
        let trace_of = |key| least.get(&key).copied().unwrap_or(key);
        Ok(Traces { traces: traces::summaries(rows, trace_of, &names) })
    }

    /// All rows that a trace's keys lead to, and what those rows name.
    async fn find(&self, keys: BTreeSet<u64>) -> Result<Found, AnswerError> {
        let mut found = Found::default();
        let mut new = keys;
        for _ in 0..MAX_ROUNDS {
            // Most keys are merged with none, so their rows are asked for at the same time.
            let asked = traces::rows_query(&new);
            let (merged, rows) = tokio::try_join!(self.merged(new.clone()), self.stored(&asked))?;
            found.add(rows);
            found.keys.extend(&new);
            if !merged.whole {
                found.leave_out(format!("spans of more than {MAX_KEYS} traces that are joined in this one"));
            }
            let more: BTreeSet<u64> = merged.keys.difference(&found.keys).copied().collect();
            if !more.is_empty() && found.is_whole() {
                found.add(self.stored(&traces::rows_query(&more)).await?);
                found.keys.extend(&more);
                new.extend(more);
            }
            // The row that gave a key its number may have been written when it was alone.
            let mut lone = std::mem::take(&mut found.lone);
            lone.extend(&new);
            lone.retain(|&id| found.lacks(id));
            if !lone.is_empty() {
                found.sought.extend(&lone);
                found.add(self.stored(&traces::lone_rows_query(&lone)).await?);
            }
            new = found.wire_keys();
            let mut parents = found.missing_parents();
            if parents.len() > MAX_KEYS {
                parents = parents.into_iter().take(MAX_KEYS).collect();
                found.leave_out(format!(
                    "callers beyond the first {MAX_KEYS} that are not in the trace itself"
                ));
            }
            if !parents.is_empty() {
                found.followed.extend(&parents);
                let rows: Vec<traces::KeyRow> = self.rows(&traces::keys_query(&parents)).await?;
                new.extend(rows.iter().map(|row| row.trace_key));
            }
            new.retain(|key| !found.keys.contains(key));
            if new.is_empty() || !found.is_whole() {
                return Ok(found);
            }
        }
        found.leave_out(format!(
            "spans that more than {MAX_ROUNDS} other traces lead to, one after the other"
        ));
        Ok(found)
    }

    /// The keys and those that they are merged with, and how.
    async fn merged(&self, keys: BTreeSet<u64>) -> Result<Merged, AnswerError> {
        let (mut all, mut step, mut merges) = (keys.clone(), keys, Vec::new());
        for _ in 0..MAX_STEPS {
            if step.is_empty() || all.len() > MAX_KEYS {
                break;
            }
            let rows: Vec<traces::MergeRow> = self.rows(&traces::merges_query(&step)).await?;
            step = rows.iter().map(|row| row.other).filter(|other| all.insert(*other)).collect();
            merges.extend(rows);
        }
        Ok(Merged { keys: all, merges, whole: step.is_empty() })
    }

    async fn binary(&self, query: &Query) -> Result<impl AsRef<[u8]>, AnswerError> {
        Ok(self.client.query_binary(&query.sql, &params(query)).await?)
    }

    async fn stored(&self, query: &Query) -> Result<Vec<Stored>, AnswerError> {
        Ok(stored::rows(self.binary(query).await?.as_ref())?)
    }

    fn put_together(&self, found: Found) -> Trace {
        // A trace has one name whichever of its keys it was asked for by: a trace id's goes first.
        let keys = || found.rows.values().filter_map(|row| u64::from_str_radix(&row.trace_key, 16).ok());
        let key = keys().filter(|key| is_wire_key(*key)).min().or_else(|| keys().min()).unwrap_or_default();
        let rows = spans::named(found.rows.into_values().collect(), &self.names());
        assemble(rows, key, found.left_out)
    }
}

impl Found {
    fn add(&mut self, rows: Vec<Stored>) {
        if rows.len() > MAX_SPANS {
            self.leave_out(format!("spans beyond the first {MAX_SPANS}"));
        }
        for row in rows {
            match row {
                Stored::Row(row) => drop(self.rows.insert(row.id.clone(), *row)),
                Stored::Id(id) => drop(self.lone.insert(id)),
            }
        }
    }

    /// Something is left out, which the trace will say.
    fn leave_out(&mut self, what: String) {
        self.left_out.get_or_insert(what);
    }

    fn is_whole(&self) -> bool {
        self.left_out.is_none()
    }

    /// This id is not among the rows, and was not looked for.
    fn lacks(&self, id: u64) -> bool {
        !is_wire_key(id) && !self.sought.contains(&id) && !self.rows.contains_key(&id.to_string())
    }

    fn wire_keys(&self) -> BTreeSet<u64> {
        self.rows.values().filter_map(|row| row.trace_id.as_deref()).map(wire_key).collect()
    }

    fn missing_parents(&self) -> BTreeSet<u64> {
        let parents = self.rows.values().filter_map(|row| row.parent.as_ref()?.span.parse().ok());
        parents.filter(|&id| self.lacks(id) && !self.followed.contains(&id)).collect()
    }
}

/// The rows that are there as such.
fn whole(stored: Vec<Stored>) -> Vec<SpanRow> {
    let row = |stored| match stored {
        Stored::Row(row) => Some(*row),
        Stored::Id(_) => None,
    };
    stored.into_iter().filter_map(row).collect()
}

/// For each key that is merged with others, the one that stands for all of them: the least.
fn least_keys(merges: &[traces::MergeRow]) -> BTreeMap<u64, u64> {
    let mut least: BTreeMap<u64, u64> = merges.iter().map(|m| (m.trace_key, m.trace_key)).collect();
    loop {
        let mut changed = false;
        for merge in merges {
            let key = |of| least.get(&of).copied().unwrap_or(of);
            let both = key(merge.trace_key).min(key(merge.other));
            for of in [merge.trace_key, merge.other] {
                changed |= least.insert(of, both) != Some(both);
            }
        }
        if !changed {
            return least;
        }
    }
}
