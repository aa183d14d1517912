//! Responses to requests that were made more than once: the server may answer each time, and the first answer makes the exchange.

use std::collections::VecDeque;

/// Requests that are remembered.
const REQUESTS_MAX: usize = 64;

#[derive(Default)]
pub(super) struct Repeated {
    /// Oldest first.
    answered: VecDeque<Answered>,
}

struct Answered {
    id: Option<u64>,
    /// When the request was made first.
    ts_ns: u64,
    /// Responses that may still come.
    responses: u32,
}

impl Repeated {
    /// A request that was made again so many times, first at `ts_ns`, has its response.
    pub(super) fn answered(&mut self, id: Option<u64>, repetitions: u32, ts_ns: u64) {
        if repetitions == 0 {
            return;
        }
        if self.answered.len() >= REQUESTS_MAX {
            self.answered.pop_front();
        }
        self.answered.push_back(Answered { id, ts_ns, responses: repetitions });
    }

    /// Whether a response with this id is one more to such a request.
    pub(super) fn answers_again(&mut self, id: Option<u64>) -> bool {
        let Some(answered) = self.answered.iter_mut().find(|answered| answered.id == id) else {
            return false;
        };
        answered.responses -= 1;
        if answered.responses == 0 {
            self.forget(id);
        }
        true
    }

    /// The id is another request's from now on.
    pub(super) fn forget(&mut self, id: Option<u64>) {
        self.answered.retain(|answered| answered.id != id);
    }

    /// When the oldest request was made first.
    pub(super) fn since_ns(&self) -> Option<u64> {
        self.answered.front().map(|answered| answered.ts_ns)
    }

    /// Responses to requests from before then are not waited for any longer.
    pub(super) fn expire(&mut self, before_ns: u64) {
        while self.answered.pop_front_if(|answered| answered.ts_ns < before_ns).is_some() {}
    }
}
