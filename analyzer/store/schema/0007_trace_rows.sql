-- Rows of traces in one piece: a trace is read with all columns of each row, and then one column is read many times faster
-- than sixty. `row` is what formatRow('RowBinary') makes of a row of l7_log, its columns in the order
-- below; the other columns are for finding it and for lists of traces. All of it comes from l7_log, so it is made anew.
DROP VIEW IF EXISTS trace_log_mv;

DROP TABLE IF EXISTS trace_log;

CREATE TABLE trace_log
(
    ingested Date CODEC(ZSTD(1)),
    trace_key UInt64 CODEC(ZSTD(1)),
    start_time DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    end_time DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    is_error Bool COMMENT 'The exchange failed' CODEC(ZSTD(1)),
    server_ip IPv6 CODEC(ZSTD(1)),
    server_port UInt16 CODEC(ZSTD(1)),
    tap_id UInt16 CODEC(ZSTD(1)),
    trace_id String CODEC(ZSTD(1)),
    row String CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY ingested
ORDER BY (trace_key, start_time)
TTL ingested + INTERVAL 3 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000, index_granularity = 1024;

INSERT INTO trace_log (ingested, trace_key, start_time, end_time, is_error, server_ip, server_port, tap_id, trace_id, row)
SELECT
    ingested,
    trace_key,
    start_time,
    end_time,
    response_status IN ('client_error', 'server_error', 'timeout'),
    server_ip,
    server_port,
    tap_id,
    trace_id,
    formatRow('RowBinary', id, agent_id, trace_key, signal, observation_point, start_time, end_time, duration_us,
        client_ip, client_port, server_ip, server_port, protocol, tunnel_type, tunnel_id, tunnel_src, tunnel_dst, tap_id,
        l7_protocol, version, request_type, request_domain, request_resource, endpoint, request_id, response_status,
        response_code, response_exception, response_result, request_bytes, response_bytes, affected_rows, trace_id, span_id,
        x_request_id, req_tcp_seq, resp_tcp_seq, session, truncated, attributes, pid, process_start, process_name, executable,
        command, container_id, pod_uid, parent_id, parent_rule, parent_confidence)
FROM l7_log
WHERE traced;

CREATE MATERIALIZED VIEW trace_log_mv TO trace_log AS
SELECT
    ingested,
    trace_key,
    start_time,
    end_time,
    response_status IN ('client_error', 'server_error', 'timeout') AS is_error,
    server_ip,
    server_port,
    tap_id,
    trace_id,
    formatRow('RowBinary', id, agent_id, trace_key, signal, observation_point, start_time, end_time, duration_us,
        client_ip, client_port, server_ip, server_port, protocol, tunnel_type, tunnel_id, tunnel_src, tunnel_dst, tap_id,
        l7_protocol, version, request_type, request_domain, request_resource, endpoint, request_id, response_status,
        response_code, response_exception, response_result, request_bytes, response_bytes, affected_rows, trace_id, span_id,
        x_request_id, req_tcp_seq, resp_tcp_seq, session, truncated, attributes, pid, process_start, process_name, executable,
        command, container_id, pod_uid, parent_id, parent_rule, parent_confidence) AS row
FROM l7_log
WHERE traced;
