//! Requests that may have been made and were not seen, where a client counts its requests, as those of HTTP/2 do.

use std::collections::VecDeque;

/// From one request of a client to the next.
const STEP: u64 = 2;
/// Requests that are remembered. Of more, as of clients that leave out ids, nothing is known.
const MAX_OPEN: u64 = 1024;

#[derive(Default)]
pub(super) struct Unseen {
    /// Of the newest request that was seen or must have been made; 0 for none.
    newest: u64,
    /// The first id is not known.
    began_before: bool,
    /// Bytes of the client were lost since.
    lost: bool,
    /// Were made, have no response as far as that was seen, and since when that is known.
    open: VecDeque<(u64, u64)>,
}

impl Unseen {
    /// What came before the first request that will be seen is not known.
    pub(super) fn begins_in_the_middle(&mut self) {
        self.began_before = true;
    }

    /// Bytes of the client were lost.
    pub(super) fn lost(&mut self) {
        self.lost = true;
    }

    /// A request is seen, or something else that tells that it was made.
    pub(super) fn reaches(&mut self, id: u64, ts_ns: u64) {
        if id <= self.newest || id.is_multiple_of(STEP) {
            return;
        }
        let first = if self.newest == 0 { 1 } else { self.newest + STEP };
        let missing = id.saturating_sub(first) / STEP;
        if self.lost && missing <= MAX_OPEN && !(self.newest == 0 && self.began_before) {
            self.open.extend((first..id).step_by(STEP as usize).map(|id| (id, ts_ns)));
            let over = self.open.len().saturating_sub(MAX_OPEN as usize);
            self.open.drain(..over);
        }
        self.newest = id;
    }

    /// A request is seen, and with it all that were made before.
    pub(super) fn request(&mut self, id: u64, ts_ns: u64) {
        self.reaches(id, ts_ns);
        self.lost &= id < self.newest;
    }

    /// A request is seen of which nothing is known; says whether that is new.
    pub(super) fn unread(&mut self, id: u64, ts_ns: u64) -> bool {
        let is_new = id > self.newest;
        if is_new {
            self.request(id, ts_ns);
            self.open.push_back((id, ts_ns));
        }
        is_new
    }

    /// A request has its response, or will have none.
    pub(super) fn closes(&mut self, id: u64, ts_ns: u64) {
        self.reaches(id, ts_ns);
        self.open.retain(|(open, _)| *open != id);
    }

    /// Since when the oldest waits for its response.
    pub(super) fn since_ns(&self) -> Option<u64> {
        self.open.front().map(|(_, ts_ns)| *ts_ns)
    }

    /// What waits since before then is not waited for any longer.
    pub(super) fn expire(&mut self, before_ns: u64) {
        while self.open.pop_front_if(|(_, ts_ns)| *ts_ns < before_ns).is_some() {}
    }

    /// There may be one that is worked on.
    pub(super) fn may_be_open(&self) -> bool {
        self.lost || !self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_which_requests_were_not_seen() {
        let mut unseen = Unseen::default();
        unseen.request(1, 1);
        assert!(!unseen.may_be_open());
        unseen.lost();
        assert!(unseen.may_be_open());
        // 3 and 5 were lost.
        unseen.request(7, 2);
        unseen.closes(3, 3);
        unseen.closes(7, 3);
        assert!(unseen.may_be_open());
        unseen.closes(5, 4);
        assert!(!unseen.may_be_open());
        // What was lost was no request.
        unseen.lost();
        unseen.request(9, 5);
        assert!(!unseen.may_be_open());
    }

    #[test]
    fn a_response_tells_of_its_request_and_those_before() {
        let mut unseen = Unseen::default();
        unseen.lost();
        unseen.closes(5, 1);
        unseen.request(7, 2);
        unseen.closes(1, 3);
        assert!(unseen.may_be_open());
        unseen.expire(2);
        assert!(!unseen.may_be_open());
    }

    #[test]
    fn a_request_of_which_nothing_is_known_is_open_until_its_response() {
        let mut unseen = Unseen::default();
        unseen.request(1, 1);
        assert!(unseen.unread(3, 2) && !unseen.unread(3, 3), "the second is its trailers");
        assert!(unseen.may_be_open());
        unseen.closes(3, 4);
        assert!(!unseen.may_be_open());
    }

    #[test]
    fn what_came_before_is_not_counted() {
        let mut unseen = Unseen::default();
        unseen.begins_in_the_middle();
        unseen.lost();
        unseen.request(1001, 1);
        assert!(!unseen.may_be_open());
    }
}
