//! Settings of the analysis that the commands have in common.

use clap::ValueEnum;
use std::path::PathBuf;
use wirespan_dataplane::flow::KeyScope;
use wirespan_dataplane::{FlowConfig, Taps, TapsError, WorkerConfig};
use wirespan_l7::trace::TraceHeaders;

/// How packets are made into flows and requests.
#[derive(clap::Args)]
pub struct AnalysisArgs {
    /// Flows kept at the same time by one thread; when there are more, the one that would be missed least leaves
    #[arg(long, default_value_t = 1 << 20, value_name = "N")]
    max_flows: usize,

    /// What tells flows apart beside addresses, ports and protocol: where tenants use the same addresses
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART")]
    flow_key: Vec<KeyPart>,

    /// File that names the taps of mirrored traffic, and says which packets they deliver twice
    #[arg(long, value_name = "FILE")]
    taps: Option<PathBuf>,

    /// Headers that carry trace context, most wanted first
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME",
        default_value = "traceparent,b3,x-b3-traceid,uber-trace-id,sw8"
    )]
    trace_headers: Vec<String>,

    /// Headers that carry a request id, most wanted first
    #[arg(long, value_delimiter = ',', value_name = "NAME", default_value = "x-request-id")]
    request_id_headers: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KeyPart {
    /// The VLAN id
    Vlan,
    /// The type and id of the innermost tunnel
    Tunnel,
}

impl AnalysisArgs {
    /// The taps of the taps file; none without a file.
    pub fn taps(&self) -> Result<Taps, TapsError> {
        self.taps.as_deref().map_or_else(|| Ok(Taps::default()), Taps::read)
    }

    /// The settings of worker `index`.
    pub fn worker_config(&self, index: u16) -> WorkerConfig {
        let has = |part| self.flow_key.contains(&part);
        WorkerConfig {
            flow: FlowConfig {
                worker: index,
                max_flows: self.max_flows.max(1),
                scope: KeyScope { vlan: has(KeyPart::Vlan), tunnel: has(KeyPart::Tunnel) },
                ..FlowConfig::default()
            },
            l7: wirespan_l7::Config {
                trace: TraceHeaders::new(&names(&self.trace_headers), &names(&self.request_id_headers)),
                ..wirespan_l7::Config::default()
            },
            ..WorkerConfig::default()
        }
    }
}

fn names(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}
