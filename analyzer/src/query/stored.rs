//! Rows as `trace_log` stores them: each in one piece, in ClickHouse's RowBinary format.

use std::net::IpAddr;
use wirespan_records::{Process, Rule};
use wirespan_stitch::{ParentRow, SpanRow, TunnelRow};
use wirespan_store::{RowReader, StoreError};

/// What a row consists of, in order: the same in the store's writer, and in its migrations for what was written before.
const COLUMNS: &str = "id, agent_id, trace_key, signal, observation_point, start_time, end_time, duration_us, \
     client_ip, client_port, server_ip, server_port, protocol, tunnel_type, tunnel_id, tunnel_src, tunnel_dst, tap_id, \
     l7_protocol, version, request_type, request_domain, request_resource, endpoint, request_id, response_status, \
     response_code, response_exception, response_result, request_bytes, response_bytes, affected_rows, trace_id, span_id, \
     x_request_id, req_tcp_seq, resp_tcp_seq, session, truncated, attributes, pid, process_start, process_name, executable, \
     command, container_id, pod_uid, parent_id, parent_rule, parent_confidence";

/// What the taps file says of the row's tap: no part of the row, because it may change.
const TAP: &str = "dictGet('wirespan.taps', ('name', 'kind', 'site'), toUInt64(tap_id)) AS tap";

/// What [`rows`] reads, of `trace_log`.
pub(super) fn of_trace_log() -> String {
    format!("row, {TAP}")
}

/// The same of `l7_log`.
pub(super) fn of_l7_log() -> String {
    format!("formatRow('RowBinary', {COLUMNS}) AS row, {TAP}")
}

/// The numbers of the Enum8 columns.
const SIGNALS: &[&str] = &["packet", "syscall", "tls"];
const PROTOCOLS: &[&str] = &["other", "tcp", "udp", "sctp", "icmp", "icmpv6"];
const TUNNELS: &[&str] = &["none", "vxlan", "geneve", "gre", "erspan", "ipip", "gtpu"];
const STATUSES: &[&str] = &["ok", "client_error", "server_error", "timeout", "unknown"];
const SESSIONS: &[&str] = &["complete", "request_only", "response_only"];

fn bad(reason: String) -> StoreError {
    StoreError::BadAnswer { format: "a row of trace_log", reason }
}

fn name_of(names: &[&str], row: &mut RowReader<'_>) -> Result<String, StoreError> {
    let number = row.u8()?;
    names
        .get(usize::from(number))
        .map(|name| (*name).into())
        .ok_or_else(|| bad(format!("no name has the number {number}")))
}

/// What `trace_log` has of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// All of it.
    Row(Box<SpanRow>),
    /// Its id: it was alone when it was written, so only `l7_log` has it.
    Id(u64),
}

/// The rows of an answer in RowBinary, with their taps.
pub fn rows(answer: &[u8]) -> Result<Vec<Stored>, StoreError> {
    let mut answer = RowReader::new(answer);
    let mut rows = Vec::new();
    while !answer.is_empty() {
        let mut row = row(answer.bytes()?)?;
        let (tap, kind, site) = (answer.some_text()?, answer.some_text()?, answer.some_text()?);
        if let Stored::Row(row) = &mut row {
            (row.tap, row.tap_kind, row.tap_site) = (tap, kind, site);
        }
        rows.push(row);
    }
    Ok(rows)
}

/// One row, in the order of its columns.
pub(super) fn row(bytes: &[u8]) -> Result<Stored, StoreError> {
    let mut from = RowReader::new(bytes);
    let id = from.u64()?;
    if from.is_empty() {
        return Ok(Stored::Id(id));
    }
    let row = SpanRow {
        id: id.to_string(),
        agent_id: from.u32()?,
        trace_key: match from.u64()? {
            0 => format!("{id:016x}"),
            key => format!("{key:016x}"),
        },
        signal: name_of(SIGNALS, &mut from)?,
        observation_point: from.text()?,
        start_ns: from.nanos()?,
        end_ns: from.nanos()?,
        duration_us: from.u64()?,
        client_ip: from.ip()?.to_string(),
        client_port: from.u16()?,
        server_ip: from.ip()?.to_string(),
        server_port: from.u16()?,
        protocol: name_of(PROTOCOLS, &mut from)?,
        tunnel: tunnel(&mut from)?,
        tap_id: Some(from.u16()?).filter(|&tap| tap != 0),
        l7_protocol: from.text()?,
        version: from.some_text()?,
        request_type: from.some_text()?,
        request_domain: from.some_text()?,
        request_resource: from.some_text()?,
        endpoint: from.some_text()?,
        request_id: from.nullable(RowReader::u64)?,
        response_status: name_of(STATUSES, &mut from)?,
        response_code: from.nullable(RowReader::i32)?,
        response_exception: from.some_text()?,
        response_result: from.some_text()?,
        request_bytes: from.u64()?,
        response_bytes: from.u64()?,
        affected_rows: from.nullable(RowReader::u64)?,
        trace_id: from.some_text()?,
        span_id: from.some_text()?,
        x_request_id: from.some_text()?,
        req_tcp_seq: from.nullable(RowReader::u32)?,
        resp_tcp_seq: from.nullable(RowReader::u32)?,
        session: name_of(SESSIONS, &mut from)?,
        truncated: from.u8()? != 0,
        attributes: (0..from.count()?)
            .map(|_| Ok((from.text()?, from.text()?)))
            .collect::<Result<_, StoreError>>()?,
        process: process(&mut from)?,
        parent: parent(&mut from)?,
        client_name: None,
        server_name: None,
        tap: None,
        tap_kind: None,
        tap_site: None,
    };
    if from.is_empty() {
        Ok(Stored::Row(Box::new(row)))
    } else {
        Err(bad("it has more than its columns".into()))
    }
}

fn tunnel(from: &mut RowReader<'_>) -> Result<Option<TunnelRow>, StoreError> {
    let (kind, id) = (name_of(TUNNELS, from)?, from.u32()?);
    let mut outer = || from.ip().map(|ip: IpAddr| ip.to_string());
    let (outer_src, outer_dst) = (outer()?, outer()?);
    Ok((kind != "none").then_some(TunnelRow { kind, id, outer_src, outer_dst }))
}

fn process(from: &mut RowReader<'_>) -> Result<Option<Process>, StoreError> {
    let process = Process {
        pid: from.u32()?,
        start_ns: from.nanos()?,
        name: from.text()?,
        executable: from.text()?,
        command: from.text()?,
        container_id: from.some_text()?.map(Into::into),
        pod_uid: from.some_text()?.map(Into::into),
    };
    Ok((process.pid != 0).then_some(process))
}

fn parent(from: &mut RowReader<'_>) -> Result<Option<ParentRow>, StoreError> {
    let (span, rule, confidence) = (from.u64()?, from.text()?, from.f32()?);
    if span == 0 {
        return Ok(None);
    }
    let known = Rule::ALL.into_iter().find(|known| known.as_str() == rule);
    let rule = known.ok_or_else(|| bad(format!("there is no rule {rule}")))?;
    Ok(Some(ParentRow { span: span.to_string(), rule, confidence }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Those that are in the migration, without line breaks.
    fn migrated() -> Vec<String> {
        let sql = include_str!("../../store/schema/0007_trace_rows.sql");
        let lists = sql.split("formatRow('RowBinary', ").skip(1).filter_map(|rest| rest.split(')').next());
        lists.map(|list| list.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn rows_are_read_as_the_migration_writes_them() {
        assert_eq!(migrated(), [COLUMNS, COLUMNS]);
    }

    proptest! {
        /// Bytes that are no rows are an error or rows, never a trap, and never a length that is believed.
        #[test]
        fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..600), zeros: bool) {
            if zeros {
                bytes.iter_mut().for_each(|byte| *byte &= 1);
            }
            if let Ok(rows) = rows(&bytes) {
                prop_assert!(rows.len() <= bytes.len());
            }
            prop_assert!(row(&bytes).is_err() || bytes.len() == 8 || bytes.len() > 150);
        }
    }
}
