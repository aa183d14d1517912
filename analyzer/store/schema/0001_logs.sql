-- One row per request/response exchange (wirespan_records::Span). Absent text is '', other absent values are NULL.
-- `ingested` is the day the batch was cut: it makes the partition, so that hostile or old capture times neither scatter
-- parts nor expire at once. Addresses are IPv6; IPv4 is mapped (::ffff:a.b.c.d) and compares equal to its plain text.
CREATE TABLE IF NOT EXISTS l7_log
(
    ingested Date CODEC(ZSTD(1)),
    id UInt64 COMMENT 'Row id, unique in this store' CODEC(DoubleDelta, ZSTD(1)),
    agent_id UInt32 CODEC(ZSTD(1)),
    flow_id UInt64 COMMENT 'Joins flow_log.flow_id of the same agent run' CODEC(ZSTD(1)),
    start_time DateTime64(9, 'UTC') COMMENT 'First byte of the request' CODEC(Delta, ZSTD(1)),
    end_time DateTime64(9, 'UTC') COMMENT 'First byte of the response' CODEC(ZSTD(1)),
    duration_us UInt64 CODEC(T64, ZSTD(1)),
    signal Enum8('packet' = 0, 'syscall' = 1, 'tls' = 2) CODEC(ZSTD(1)),
    observation_point LowCardinality(String) CODEC(ZSTD(1)),
    client_ip IPv6 CODEC(ZSTD(1)),
    client_port UInt16 CODEC(ZSTD(1)),
    server_ip IPv6 CODEC(ZSTD(1)),
    server_port UInt16 CODEC(ZSTD(1)),
    client String ALIAS replaceOne(toString(client_ip), '::ffff:', ''),
    server String ALIAS replaceOne(toString(server_ip), '::ffff:', ''),
    protocol Enum8('other' = 0, 'tcp' = 1, 'udp' = 2, 'sctp' = 3, 'icmp' = 4, 'icmpv6' = 5) CODEC(ZSTD(1)),
    tunnel_type Enum8('none' = 0, 'vxlan' = 1, 'geneve' = 2, 'gre' = 3, 'erspan' = 4, 'ipip' = 5, 'gtpu' = 6) CODEC(ZSTD(1)),
    tunnel_id UInt32 CODEC(ZSTD(1)),
    tunnel_src IPv6 CODEC(ZSTD(1)),
    tunnel_dst IPv6 CODEC(ZSTD(1)),
    l7_protocol LowCardinality(String) CODEC(ZSTD(1)),
    version LowCardinality(String) CODEC(ZSTD(1)),
    request_type LowCardinality(String) CODEC(ZSTD(1)),
    request_domain LowCardinality(String) CODEC(ZSTD(1)),
    request_resource String CODEC(ZSTD(1)),
    endpoint LowCardinality(String) CODEC(ZSTD(1)),
    request_id Nullable(UInt64) CODEC(ZSTD(1)),
    response_status Enum8('ok' = 0, 'client_error' = 1, 'server_error' = 2, 'timeout' = 3, 'unknown' = 4) CODEC(ZSTD(1)),
    response_code Nullable(Int32) CODEC(ZSTD(1)),
    response_exception String CODEC(ZSTD(1)),
    response_result String CODEC(ZSTD(1)),
    request_bytes UInt64 CODEC(T64, ZSTD(1)),
    response_bytes UInt64 CODEC(T64, ZSTD(1)),
    affected_rows Nullable(UInt64) CODEC(ZSTD(1)),
    trace_id String CODEC(ZSTD(1)),
    span_id String CODEC(ZSTD(1)),
    x_request_id String CODEC(ZSTD(1)),
    req_tcp_seq Nullable(UInt32) CODEC(ZSTD(1)),
    resp_tcp_seq Nullable(UInt32) CODEC(ZSTD(1)),
    session Enum8('complete' = 0, 'request_only' = 1, 'response_only' = 2) CODEC(ZSTD(1)),
    truncated Bool CODEC(ZSTD(1)),
    attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    INDEX by_id id TYPE minmax GRANULARITY 1,
    INDEX by_trace trace_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_x_request_id x_request_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY ingested
ORDER BY (toStartOfMinute(start_time), l7_protocol, server_ip, server_port, start_time)
TTL ingested + INTERVAL 3 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

-- One row per flow at its end, and one per minute of a long flow (wirespan_records::Flow): counts are since the flow's last row.
CREATE TABLE IF NOT EXISTS flow_log
(
    ingested Date CODEC(ZSTD(1)),
    id UInt64 COMMENT 'Row id, unique in this store' CODEC(DoubleDelta, ZSTD(1)),
    agent_id UInt32 CODEC(ZSTD(1)),
    flow_id UInt64 CODEC(ZSTD(1)),
    start_time DateTime64(9, 'UTC') COMMENT 'First packet' CODEC(Delta, ZSTD(1)),
    end_time DateTime64(9, 'UTC') COMMENT 'Last packet' CODEC(ZSTD(1)),
    duration_us UInt64 CODEC(T64, ZSTD(1)),
    observation_point LowCardinality(String) CODEC(ZSTD(1)),
    client_ip IPv6 CODEC(ZSTD(1)),
    client_port UInt16 CODEC(ZSTD(1)),
    server_ip IPv6 CODEC(ZSTD(1)),
    server_port UInt16 CODEC(ZSTD(1)),
    client String ALIAS replaceOne(toString(client_ip), '::ffff:', ''),
    server String ALIAS replaceOne(toString(server_ip), '::ffff:', ''),
    protocol Enum8('other' = 0, 'tcp' = 1, 'udp' = 2, 'sctp' = 3, 'icmp' = 4, 'icmpv6' = 5) CODEC(ZSTD(1)),
    tunnel_type Enum8('none' = 0, 'vxlan' = 1, 'geneve' = 2, 'gre' = 3, 'erspan' = 4, 'ipip' = 5, 'gtpu' = 6) CODEC(ZSTD(1)),
    tunnel_id UInt32 CODEC(ZSTD(1)),
    tunnel_src IPv6 CODEC(ZSTD(1)),
    tunnel_dst IPv6 CODEC(ZSTD(1)),
    vlan Nullable(UInt16) CODEC(ZSTD(1)),
    tcp_flags_tx UInt8 CODEC(ZSTD(1)),
    tcp_flags_rx UInt8 CODEC(ZSTD(1)),
    packet_tx UInt64 CODEC(T64, ZSTD(1)),
    packet_rx UInt64 CODEC(T64, ZSTD(1)),
    byte_tx UInt64 CODEC(T64, ZSTD(1)),
    byte_rx UInt64 CODEC(T64, ZSTD(1)),
    l3_byte_tx UInt64 CODEC(T64, ZSTD(1)),
    l3_byte_rx UInt64 CODEC(T64, ZSTD(1)),
    l4_byte_tx UInt64 CODEC(T64, ZSTD(1)),
    l4_byte_rx UInt64 CODEC(T64, ZSTD(1)),
    syn_count UInt32 CODEC(T64, ZSTD(1)),
    synack_count UInt32 CODEC(T64, ZSTD(1)),
    fin_count UInt32 CODEC(T64, ZSTD(1)),
    retrans_tx UInt32 CODEC(T64, ZSTD(1)),
    retrans_rx UInt32 CODEC(T64, ZSTD(1)),
    retrans_syn UInt32 CODEC(T64, ZSTD(1)),
    retrans_synack UInt32 CODEC(T64, ZSTD(1)),
    ooo_tx UInt32 CODEC(T64, ZSTD(1)),
    ooo_rx UInt32 CODEC(T64, ZSTD(1)),
    zero_win_tx UInt32 CODEC(T64, ZSTD(1)),
    zero_win_rx UInt32 CODEC(T64, ZSTD(1)),
    rtt_us Nullable(UInt32) COMMENT 'Full handshake; NULL when it was not seen' CODEC(T64, ZSTD(1)),
    rtt_client_us Nullable(UInt32) CODEC(T64, ZSTD(1)),
    rtt_server_us Nullable(UInt32) CODEC(T64, ZSTD(1)),
    srt_us_max UInt32 CODEC(T64, ZSTD(1)),
    srt_us_sum UInt64 CODEC(T64, ZSTD(1)),
    srt_count UInt32 CODEC(T64, ZSTD(1)),
    art_us_max UInt32 CODEC(T64, ZSTD(1)),
    art_us_sum UInt64 CODEC(T64, ZSTD(1)),
    art_count UInt32 CODEC(T64, ZSTD(1)),
    cit_us_max UInt32 CODEC(T64, ZSTD(1)),
    cit_us_sum UInt64 CODEC(T64, ZSTD(1)),
    cit_count UInt32 CODEC(T64, ZSTD(1)),
    close_type Enum8('unknown' = 0, 'finish' = 1, 'server_reset' = 2, 'client_reset' = 3, 'timeout' = 4, 'forced_report' = 5,
        'server_syn_missing' = 6, 'server_half_close' = 7, 'client_half_close' = 8, 'client_ack_missing' = 9,
        'client_port_reuse' = 10, 'server_refused' = 11, 'server_queue_overflow' = 12, 'client_handshake_reset' = 13,
        'server_handshake_reset' = 14, 'client_reset_regular' = 15, 'evicted' = 16) CODEC(ZSTD(1)),
    is_new Bool COMMENT 'First row of this flow' CODEC(ZSTD(1)),
    l7_protocol LowCardinality(String) CODEC(ZSTD(1)),
    l7_request UInt32 CODEC(T64, ZSTD(1)),
    l7_response UInt32 CODEC(T64, ZSTD(1)),
    l7_client_error UInt32 CODEC(T64, ZSTD(1)),
    l7_server_error UInt32 CODEC(T64, ZSTD(1)),
    l7_error UInt32 ALIAS l7_client_error + l7_server_error,
    l7_timeout UInt32 CODEC(T64, ZSTD(1)),
    rrt_us_max UInt32 CODEC(T64, ZSTD(1)),
    rrt_us_sum UInt64 CODEC(T64, ZSTD(1)),
    rrt_count UInt32 CODEC(T64, ZSTD(1)),
    INDEX by_id id TYPE minmax GRANULARITY 1,
    INDEX by_flow flow_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY ingested
ORDER BY (toStartOfMinute(start_time), server_ip, server_port, start_time)
TTL ingested + INTERVAL 3 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

-- Counters of agents and of the server itself, drops by reason among them; each value is the total since the process began.
CREATE TABLE IF NOT EXISTS agent_stats
(
    ingested Date CODEC(ZSTD(1)),
    time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    agent_id UInt32 CODEC(ZSTD(1)),
    name LowCardinality(String) CODEC(ZSTD(1)),
    labels Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    value Float64 CODEC(Gorilla, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY ingested
ORDER BY (name, agent_id, time)
TTL ingested + INTERVAL 7 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;
