//! The libraries on a thread of their own: to look into a program and to attach to it takes up to seconds, and to remove a probe a
//! tenth of one, in which events must be taken out of the ring.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Instant;

use wirespan_bpf::tracer::Prober;

use super::{Libraries, Unseen};
use crate::priority;
use wirespan_event::ProcessKey;

/// What events say of processes.
#[derive(Debug, Default)]
pub struct Noticed {
    /// Found, before all events.
    pub found: Vec<u32>,
    /// They executed a program.
    pub executed: Vec<u32>,
    /// Processes that were made, and executed no program since, with those that made them.
    pub forked: BTreeMap<u32, u32>,
    /// They have connections that speak TLS.
    pub speak_tls: Vec<ProcessKey>,
    /// They ended.
    pub ended: Vec<u32>,
}

impl Noticed {
    /// A process executed a program: what it had of its parent is gone.
    pub fn executed(&mut self, tgid: u32) {
        self.forked.remove(&tgid);
        self.executed.push(tgid);
    }

    /// A process ended: there is nothing left to look at.
    pub fn ended(&mut self, tgid: u32) {
        self.forked.remove(&tgid);
        if let Some(at) = self.executed.iter().rposition(|executed| *executed == tgid) {
            self.executed.swap_remove(at);
        }
        self.ended.push(tgid);
    }

    fn is_empty(&self) -> bool {
        let tgids = [&self.found, &self.executed, &self.ended];
        tgids.iter().all(|tgids| tgids.is_empty()) && self.forked.is_empty() && self.speak_tls.is_empty()
    }
}

enum Order {
    Look(Noticed),
    /// Tell what is probed, and what is not.
    Report(Sender<Vec<String>>),
}

/// A thread that looks after [`Libraries`]. It ends, and all probes are removed, when this is dropped.
pub struct LibrariesThread {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    /// The report that follows what was found at the start.
    first_report: Receiver<Vec<String>>,
    is_settled: bool,
    refused: Receiver<String>,
    unseen: Receiver<Unseen>,
}

impl LibrariesThread {
    /// Probes the libraries of this host's distribution, and those of the processes that were `found`.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(prober: Prober, found: Vec<u32>) -> io::Result<Self> {
        let (orders, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new().name("probes".to_owned());
        let (refusals, refused) = mpsc::channel();
        let (unseen_ones, unseen) = mpsc::channel();
        let looks = move || look_after(Libraries::new(prober), &receiver, &refusals, &unseen_ones);
        let thread = thread.spawn(looks)?;
        let (report, first_report) = mpsc::channel();
        let this = Self {
            orders: Some(orders),
            thread: Some(thread),
            first_report,
            is_settled: false,
            refused,
            unseen,
        };
        this.order(Order::Look(Noticed { found, ..Noticed::default() }));
        this.order(Order::Report(report));
        Ok(this)
    }

    /// Has the thread look at processes; what is said first is done first.
    pub fn look(&self, noticed: Noticed) {
        if !noticed.is_empty() {
            self.order(Order::Look(noticed));
        }
    }

    /// Whether all that was there at the start is probed.
    pub fn is_settled(&mut self) -> bool {
        self.is_settled = self.is_settled || self.first_report.try_recv().is_ok();
        self.is_settled
    }

    /// Files whose functions the kernel takes no probes on, and why, since the last call.
    pub fn refused(&self) -> impl Iterator<Item = String> {
        self.refused.try_iter()
    }

    /// Processes whose contents of TLS are not seen, or are after all, since the last call.
    pub fn unseen(&self) -> impl Iterator<Item = Unseen> {
        self.unseen.try_iter()
    }

    /// The files that are probed, one line each; then those that could not be, and why. Waits until what was said before is done.
    pub fn report(&self) -> Vec<String> {
        let (sender, report) = mpsc::channel();
        self.order(Order::Report(sender));
        report.recv().unwrap_or_default()
    }

    /// CPU time that the thread took, nanoseconds.
    pub fn cpu_ns(&self) -> Option<u64> {
        let thread = self.thread.as_ref()?.as_pthread_t();
        let mut clock = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the thread was not joined, and both places live as long as the calls.
        let is_told = unsafe {
            libc::pthread_getcpuclockid(thread, &raw mut clock) == 0
                && libc::clock_gettime(clock, &raw mut time) == 0
        };
        is_told.then_some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    /// The thread ends early only by a panic; then nothing more is probed.
    fn order(&self, order: Order) {
        let _ = self.orders.as_ref().map(|orders| orders.send(order));
    }
}

impl Drop for LibrariesThread {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn look_after(
    mut libraries: Libraries,
    orders: &Receiver<Order>,
    refusals: &Sender<String>,
    unseen: &Sender<Unseen>,
) {
    // The thread that reads may have made it, when the tracer began again.
    priority::ordinary();
    let mut due = Instant::now();
    loop {
        match orders.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(Order::Look(noticed)) => libraries.look(&noticed),
            Ok(Order::Report(report)) => {
                // Whoever asked may be gone.
                let _ = report.send(libraries.report());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        due = libraries.advance();
        // Nobody asks for them any more at the end.
        for refusal in libraries.take_refused() {
            let _ = refusals.send(refusal);
        }
        for process in libraries.take_unseen() {
            let _ = unseen.send(process);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_that_neither_executed_nor_ended_since_are_looked_at_as_forked() {
        let mut noticed = Noticed::default();
        noticed.executed(1);
        noticed.forked.extend([(11, 1), (12, 1), (13, 12)]);
        noticed.executed(11);
        noticed.ended(12);
        noticed.ended(1);
        assert_eq!(noticed.forked.into_iter().collect::<Vec<_>>(), [(13, 12)]);
        assert_eq!((noticed.executed, noticed.ended), (vec![11], vec![12, 1]));
    }
}
