//! What the tracer's programs take of the CPUs.
//!
//! The kernel counts the time of programs only while somebody asks it to, because counting costs more than a short program: it
//! is asked for a tenth of the time.

use std::time::{Duration, Instant};
use wirespan_bpf::tracer::{CostCounting, Tracer};

const EVERY: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_millis(100);
/// What an event is taken to cost where the kernel does not count (before Linux 5.8, or without the privilege), ns.
const EVENT_NS: f64 = 1000.0;

/// Measures the programs of one tracer.
pub struct Cost {
    cores: f64,
    due: Instant,
    window: Option<Window>,
}

struct Window {
    began: Instant,
    run_ns: u64,
    events: u64,
    /// `None` where the kernel does not count.
    counting: Option<CostCounting>,
}

impl Cost {
    pub fn new() -> Self {
        Self { cores: 0.0, due: Instant::now(), window: None }
    }

    /// Of the last window, cores.
    pub fn cores(&self) -> f64 {
        self.cores
    }

    /// Opens and closes windows. To be called often; for a window, ten times in a second.
    pub fn look(&mut self, tracer: &Tracer) {
        let now = Instant::now();
        match &self.window {
            None if now >= self.due => {
                self.due = now + EVERY;
                let counting = tracer.count_cost().ok();
                let (run_ns, events) = totals(tracer);
                self.window = Some(Window { began: Instant::now(), run_ns, events, counting });
            }
            Some(window) if now.duration_since(window.began) >= WINDOW => {
                let (run_ns, events) = totals(tracer);
                let wall_ns = window.began.elapsed().as_nanos() as f64;
                let ns = match window.counting {
                    Some(_) => run_ns.saturating_sub(window.run_ns) as f64,
                    None => events.saturating_sub(window.events) as f64 * EVENT_NS,
                };
                self.cores = ns / wall_ns;
                self.window = None;
            }
            _ => {}
        }
    }
}

fn totals(tracer: &Tracer) -> (u64, u64) {
    let stats = tracer.stats().unwrap_or_default();
    (stats.programs.iter().map(|program| program.run_ns).sum(), stats.events)
}
