//! Rows as they are worked on.

use crate::facts::{Facts, hash_of};
use crate::row::SpanRow;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use wirespan_records::ObservationPoint;

/// A span, with what its row says in text as numbers.
pub(super) struct Node {
    pub row: SpanRow,
    pub id: u64,
    /// Corrected once the clocks are known, ns since the epoch.
    pub start: i64,
    pub end: i64,
    /// It has a request and a response.
    pub complete: bool,
    pub point: ObservationPoint,
    /// Number of the host, or site of a tap, whose clock it has.
    pub clock: usize,
    pub facts: Facts,
    /// How sure it is that it belongs to its path.
    pub certainty: f32,
}

/// Numbers of clocks by agent and site.
#[derive(Default)]
pub(super) struct Clocks(HashMap<(u32, Option<String>), usize, RandomState>);

impl Clocks {
    fn number(&mut self, row: &SpanRow) -> usize {
        let next = self.0.len();
        let site = row.tap_site.clone().filter(|site| !site.is_empty());
        *self.0.entry((row.agent_id, site)).or_insert(next)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Node {
    pub(super) fn new(row: SpanRow, clocks: &mut Clocks) -> Self {
        let clock = clocks.number(&row);
        let time = |ns: u64| i64::try_from(ns).unwrap_or(i64::MAX / 2);
        let (start, end) = (time(row.start_ns), time(row.end_ns));
        Self {
            id: row.id.parse().unwrap_or_else(|_| hash_of(&row.id)),
            start,
            end: end.max(start),
            complete: row.session == "complete",
            point: row.point(),
            facts: Facts::of_row(&row, clock as u32),
            certainty: 1.0,
            clock,
            row,
        }
    }

    pub(super) fn duration(&self) -> i64 {
        self.end - self.start
    }

    pub(super) fn is_process(&self) -> bool {
        matches!(self.point, ObservationPoint::ClientProcess | ObservationPoint::ServerProcess)
    }

    /// Seen by the host itself, not by a mirror's tap.
    pub(super) fn on_host(&self) -> bool {
        self.row.tap_id.is_none()
    }
}

/// Nanoseconds as microseconds, rounded towards zero.
pub(super) fn us(ns: i64) -> i64 {
    ns / 1000
}
