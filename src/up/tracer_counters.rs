//! What the tracer's thread counts, in the registry.

use wirespan_analyzer::{Counter, Registry};
use wirespan_host::Stats;
use wirespan_syscalls::Live;
use wirespan_syscalls::guard::Cause;

pub struct TracerCounters {
    made: Counter,
    events: Counter,
    bytes: Counter,
    own: Counter,
    sockets_met: Counter,
    lost: Vec<Counter>,
    left_out: Vec<Counter>,
    processes: Counter,
    process_reads: Counter,
    from_events: Counter,
    nameless: Counter,
    unprobed_files: Counter,
    agent_millicores: Counter,
    program_millicores: Counter,
    level: Counter,
    downs: Vec<Counter>,
    ups: Counter,
    host: Vec<Counter>,
}

/// A counter of the host: its name, what it is, and where it comes from.
type HostCounter = (&'static str, &'static str, fn(&Stats) -> u64);

const HOST: [HostCounter; 12] = [
    ("wirespan_host_events_total", "Events that were looked at, or wait for others before them.", |s| {
        s.events
    }),
    ("wirespan_host_late_events_total", "Events that came too late to be put in order.", |s| s.late_events),
    ("wirespan_host_early_events_total", "Events looked at early, as too many waited.", |s| s.early_events),
    ("wirespan_host_bytes_total", "Bytes that events tell of.", |s| s.bytes),
    ("wirespan_host_unseen_bytes_total", "Of them, without content.", |s| s.unseen_bytes),
    (
        "wirespan_host_unpaired_total",
        "Requests and responses told apart, because others may have been open when their connection was seen first.",
        |s| s.unpaired,
    ),
    ("wirespan_host_lost_bytes_total", "Bytes on TCP connections that no event told of.", |s| s.lost_bytes),
    ("wirespan_host_evicted_connections_total", "Connections forgotten: too many, or quiet.", |s| {
        s.evicted_connections
    }),
    ("wirespan_host_messages_total", "Requests and responses that were understood.", |s| s.messages),
    ("wirespan_host_spans_total", "Spans of processes.", |s| s.spans),
    ("wirespan_host_spans_undecided_total", "Spans handed on before their parent was known.", |s| {
        s.spans_undecided
    }),
    ("wirespan_host_tls_unbound_total", "TLS sessions without a socket.", |s| s.tls_unbound),
];

impl TracerCounters {
    pub fn new(registry: &Registry, source: &Live) -> Self {
        let counter = |name, help| registry.counter(name, help, &[]);
        let gauge = |name, help| registry.gauge(name, help, &[]);
        for feature in source.features() {
            let help = "1 where it is traced.";
            let on = registry.gauge("wirespan_tracer_feature", help, &[("feature", feature.name)]);
            on.set(u64::from(feature.off.is_none()));
        }
        let counts = source.counts();
        let lost = |(reason, _)| {
            let help = "Events that should have been and are not, by reason.";
            registry.counter("wirespan_tracer_lost_total", help, &[("reason", reason)])
        };
        let left_out = |(reason, _)| {
            let help =
                "Calls without an event or without payload, as asked for or as could not be, by reason.";
            registry.counter("wirespan_tracer_left_out_total", help, &[("reason", reason)])
        };
        let down = |cause: Cause| {
            let help = "Times that the overhead guard let the tracer do less, by cause.";
            registry.counter("wirespan_tracer_guard_down_total", help, &[("cause", cause.as_str())])
        };
        Self {
            made: counter(
                "wirespan_tracer_made_total",
                "Events that the programs in the kernel made, with those that wait there or are lost as ring_full or malformed.",
            ),
            events: counter("wirespan_tracer_events_total", "Events out of the kernel."),
            bytes: counter("wirespan_tracer_bytes_total", "Bytes of these events."),
            own: counter("wirespan_tracer_own_total", "Events of wirespan's own connections, left out."),
            sockets_met: counter(
                "wirespan_tracer_sockets_met_total",
                "TCP connections met open: older than the tracer, or forgotten as too many are in use.",
            ),
            lost: counts.lost().map(lost).collect(),
            left_out: counts.left_out().map(left_out).collect(),
            processes: gauge("wirespan_tracer_processes", "Processes that are remembered."),
            process_reads: counter("wirespan_tracer_process_reads_total", "Processes read from /proc."),
            from_events: counter(
                "wirespan_tracer_processes_ended_total",
                "Processes that had ended before they were read, and are known by their exec or parent.",
            ),
            nameless: counter("wirespan_tracer_processes_unknown_total", "Processes known by pid alone."),
            unprobed_files: counter(
                "wirespan_tracer_unprobed_files_total",
                "Files of TLS libraries and programs that the kernel took no probes on.",
            ),
            agent_millicores: gauge(
                "wirespan_tracer_agent_millicores",
                "CPU of the thread that reads events.",
            ),
            program_millicores: gauge(
                "wirespan_tracer_program_millicores",
                "CPU of the programs in the kernel.",
            ),
            level: gauge(
                "wirespan_tracer_guard_level",
                "0 everything is traced, 1 payload is left out, 2 most connections too, 3 the tracer is off.",
            ),
            downs: Cause::ALL.into_iter().map(down).collect(),
            ups: counter("wirespan_tracer_guard_up_total", "Times that the tracer was let do more again."),
            host: HOST.into_iter().map(|(name, help, _)| counter(name, help)).collect(),
        }
    }

    pub fn set(&self, source: &Live, host: &Stats) {
        let counts = source.counts();
        self.made.set(counts.made);
        self.events.set(counts.events);
        self.bytes.set(counts.bytes);
        self.own.set(counts.own);
        self.sockets_met.set(counts.sockets_met);
        self.lost.iter().zip(counts.lost()).for_each(|(counter, (_, count))| counter.set(count));
        self.left_out.iter().zip(counts.left_out()).for_each(|(counter, (_, count))| counter.set(count));
        let processes = source.processes();
        self.processes.set(processes.known);
        self.process_reads.set(processes.reads);
        self.from_events.set(processes.from_events);
        self.nameless.set(processes.unknown);
        self.unprobed_files.set(source.unprobed_files());
        let load = source.load();
        self.agent_millicores.set((load.agent_cores * 1000.0) as u64);
        self.program_millicores.set((load.program_cores * 1000.0) as u64);
        if let Some(guard) = source.guard() {
            self.level.set(guard.level() as u64);
            self.downs.iter().zip(guard.downs()).for_each(|(counter, (_, count))| counter.set(count));
            self.ups.set(guard.ups());
        }
        for (counter, (_, _, of)) in self.host.iter().zip(HOST) {
            counter.set(of(host));
        }
    }
}
