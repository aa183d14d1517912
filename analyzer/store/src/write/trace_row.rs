//! A row of a trace in one piece: what `formatRow('RowBinary', ...)` makes of the row of `l7_log`, its columns in the order that
//! the migrations have. A span that is alone in its trace, as far as is known, is its id only: `l7_log` has the rest.

use super::native::{Column, Fixed, Ip, Nanos, write_length, write_text};
use super::rows::{SpanRow, outer, process, protocol, response_status, session, signal, text, tunnel_type};

/// Rows one after another, as ClickHouse's strings.
#[derive(Default)]
pub(super) struct TraceRows {
    rows: Vec<u8>,
    row: Vec<u8>,
}

impl Column for TraceRows {
    /// With the id of the agent.
    type Value<'a> = (SpanRow<'a>, u32);

    fn push(&mut self, (row, agent_id): Self::Value<'_>) {
        self.row.clear();
        if row.trace.traced {
            write_row(&mut self.row, row, agent_id);
        } else {
            row.id.write(&mut self.row);
        }
        write_length(&mut self.rows, self.row.len());
        self.rows.extend_from_slice(&self.row);
    }

    fn size(&self) -> usize {
        self.rows.len()
    }

    fn type_name() -> String {
        "String".into()
    }

    fn drain(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.rows);
    }
}

fn write_row(out: &mut Vec<u8>, SpanRow { span, id, trace }: SpanRow<'_>, agent_id: u32) {
    let process = process(span);
    id.write(out);
    agent_id.write(out);
    trace.key.write(out);
    signal(span.signal).write(out);
    write_text(out, span.observation_point.as_str());
    Nanos::from(span.start_ns).write(out);
    Nanos::from(span.end_ns).write(out);
    span.duration_us().write(out);
    Ip::from(span.client.ip).write(out);
    span.client.port.write(out);
    Ip::from(span.server.ip).write(out);
    span.server.port.write(out);
    protocol(span.protocol).write(out);
    tunnel_type(&span.tunnel).write(out);
    span.tunnel.map_or(0, |t| t.id).write(out);
    outer(span.tunnel.map(|t| t.outer_src)).write(out);
    outer(span.tunnel.map(|t| t.outer_dst)).write(out);
    span.tap.write(out);
    write_text(out, span.l7_protocol.as_str());
    write_text(out, text(&span.version));
    write_text(out, text(&span.request_type));
    write_text(out, text(&span.request_domain));
    write_text(out, text(&span.request_resource));
    write_text(out, text(&span.endpoint));
    write_nullable(out, span.request_id);
    response_status(span.response_status).write(out);
    write_nullable(out, span.response_code);
    write_text(out, text(&span.response_exception));
    write_text(out, text(&span.response_result));
    span.request_bytes.write(out);
    span.response_bytes.write(out);
    write_nullable(out, span.affected_rows);
    write_text(out, text(&span.trace_id));
    write_text(out, text(&span.span_id));
    write_text(out, text(&span.x_request_id));
    write_nullable(out, span.req_tcp_seq);
    write_nullable(out, span.resp_tcp_seq);
    session(span.session).write(out);
    span.truncated.write(out);
    write_length(out, span.attributes.len());
    for (name, value) in &span.attributes {
        write_text(out, name);
        write_text(out, value);
    }
    process.pid.write(out);
    Nanos::from(process.start_ns).write(out);
    write_text(out, &process.name);
    write_text(out, &process.executable);
    write_text(out, &process.command);
    write_text(out, process.container_id.as_deref().unwrap_or_default());
    write_text(out, process.pod_uid.as_deref().unwrap_or_default());
    span.parent.map_or(0, |p| p.span).write(out);
    write_text(out, span.parent.map_or("", |p| p.rule.as_str()));
    span.parent.map_or(0.0, |p| p.confidence).write(out);
}

fn write_nullable<T: Fixed>(out: &mut Vec<u8>, value: Option<T>) {
    value.is_none().write(out);
    if let Some(value) = value {
        value.write(out);
    }
}
