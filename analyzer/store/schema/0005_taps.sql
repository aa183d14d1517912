-- The tap that saw a request, a flow or a path: what two taps see are two observations. 0 is none. Names of taps are in the
-- dictionary `taps`, filled from the taps file: dictGet('wirespan.taps', 'name', tap_id).
CREATE TABLE IF NOT EXISTS tap_list
(
    id UInt16,
    name String,
    kind LowCardinality(String),
    device String,
    port String,
    site String
)
ENGINE = MergeTree
ORDER BY id;

CREATE DICTIONARY IF NOT EXISTS taps
(
    id UInt64,
    name String DEFAULT '',
    kind String DEFAULT '',
    device String DEFAULT '',
    port String DEFAULT '',
    site String DEFAULT ''
)
PRIMARY KEY id
SOURCE(CLICKHOUSE(DB 'wirespan' TABLE 'tap_list'))
LAYOUT(HASHED())
LIFETIME(MIN 0 MAX 0);

ALTER TABLE l7_log ADD COLUMN IF NOT EXISTS tap_id UInt16 CODEC(ZSTD(1)) AFTER tunnel_dst;

ALTER TABLE flow_log ADD COLUMN IF NOT EXISTS tap_id UInt16 CODEC(ZSTD(1)) AFTER tunnel_dst;

ALTER TABLE net_metrics_1s
    ADD COLUMN IF NOT EXISTS tap_id UInt16 CODEC(ZSTD(1)) AFTER tunnel_id,
    MODIFY ORDER BY (server_ip, server_port, time, client_ip, protocol, observation_point, tunnel_type, tunnel_id, agent_id, tap_id);

ALTER TABLE net_metrics_1m
    ADD COLUMN IF NOT EXISTS tap_id UInt16 CODEC(ZSTD(1)) AFTER tunnel_id,
    MODIFY ORDER BY (server_ip, server_port, time, client_ip, protocol, observation_point, tunnel_type, tunnel_id, agent_id, tap_id);

ALTER TABLE app_metrics_1s
    ADD COLUMN IF NOT EXISTS tap_id UInt16 CODEC(ZSTD(1)) AFTER tunnel_id,
    MODIFY ORDER BY (l7_protocol, server_ip, server_port, time, endpoint, client_ip, protocol, observation_point, tunnel_type, tunnel_id, agent_id, tap_id);

ALTER TABLE app_metrics_1m
    ADD COLUMN IF NOT EXISTS tap_id UInt16 CODEC(ZSTD(1)) AFTER tunnel_id,
    MODIFY ORDER BY (l7_protocol, server_ip, server_port, time, endpoint, client_ip, protocol, observation_point, tunnel_type, tunnel_id, agent_id, tap_id);

ALTER TABLE path_metrics_1s
    ADD COLUMN IF NOT EXISTS tap_id UInt16 CODEC(ZSTD(1)) AFTER tunnel_id,
    MODIFY ORDER BY (l7_protocol, server_ip, server_port, time, client_ip, protocol, observation_point, tunnel_type, tunnel_id, agent_id, tap_id);

ALTER TABLE path_metrics_1m
    ADD COLUMN IF NOT EXISTS tap_id UInt16 CODEC(ZSTD(1)) AFTER tunnel_id,
    MODIFY ORDER BY (l7_protocol, server_ip, server_port, time, client_ip, protocol, observation_point, tunnel_type, tunnel_id, agent_id, tap_id);

-- The views anew, with the tap.
DROP VIEW IF EXISTS net_metrics_1m_mv;

CREATE MATERIALIZED VIEW IF NOT EXISTS net_metrics_1m_mv TO net_metrics_1m AS
SELECT
    toStartOfMinute(time) AS time,
    ingested,
    agent_id,
    observation_point,
    client_ip,
    server_ip,
    server_port,
    protocol,
    tunnel_type,
    tunnel_id,
    tap_id,
    sum(packet_tx) AS packet_tx,
    sum(packet_rx) AS packet_rx,
    sum(byte_tx) AS byte_tx,
    sum(byte_rx) AS byte_rx,
    sum(l3_byte_tx) AS l3_byte_tx,
    sum(l3_byte_rx) AS l3_byte_rx,
    sum(l4_byte_tx) AS l4_byte_tx,
    sum(l4_byte_rx) AS l4_byte_rx,
    sum(new_flow) AS new_flow,
    sum(closed_flow) AS closed_flow,
    sum(syn_count) AS syn_count,
    sum(synack_count) AS synack_count,
    sum(fin_count) AS fin_count,
    sum(retrans_tx) AS retrans_tx,
    sum(retrans_rx) AS retrans_rx,
    sum(retrans_syn) AS retrans_syn,
    sum(retrans_synack) AS retrans_synack,
    sum(ooo_tx) AS ooo_tx,
    sum(ooo_rx) AS ooo_rx,
    sum(zero_win_tx) AS zero_win_tx,
    sum(zero_win_rx) AS zero_win_rx,
    sum(rtt_us_sum) AS rtt_us_sum,
    sum(rtt_count) AS rtt_count,
    sum(rtt_client_us_sum) AS rtt_client_us_sum,
    sum(rtt_client_count) AS rtt_client_count,
    sum(rtt_server_us_sum) AS rtt_server_us_sum,
    sum(rtt_server_count) AS rtt_server_count,
    sum(srt_us_sum) AS srt_us_sum,
    sum(srt_count) AS srt_count,
    sum(art_us_sum) AS art_us_sum,
    sum(art_count) AS art_count,
    sum(cit_us_sum) AS cit_us_sum,
    sum(cit_count) AS cit_count,
    sum(rrt_us_sum) AS rrt_us_sum,
    sum(rrt_count) AS rrt_count,
    sum(close_client_reset) AS close_client_reset,
    sum(close_server_reset) AS close_server_reset,
    sum(close_timeout) AS close_timeout,
    sum(close_client_half_close) AS close_client_half_close,
    sum(close_server_half_close) AS close_server_half_close,
    sum(close_server_syn_missing) AS close_server_syn_missing,
    sum(close_client_ack_missing) AS close_client_ack_missing,
    sum(close_client_port_reuse) AS close_client_port_reuse,
    sum(close_server_refused) AS close_server_refused,
    sum(close_server_queue_overflow) AS close_server_queue_overflow,
    sum(close_client_handshake_reset) AS close_client_handshake_reset,
    sum(close_server_handshake_reset) AS close_server_handshake_reset,
    sum(l7_request) AS l7_request,
    sum(l7_response) AS l7_response,
    sum(l7_client_error) AS l7_client_error,
    sum(l7_server_error) AS l7_server_error,
    sum(l7_timeout) AS l7_timeout,
    max(rtt_us_max) AS rtt_us_max,
    max(rtt_client_us_max) AS rtt_client_us_max,
    max(rtt_server_us_max) AS rtt_server_us_max,
    max(srt_us_max) AS srt_us_max,
    max(art_us_max) AS art_us_max,
    max(cit_us_max) AS cit_us_max,
    max(rrt_us_max) AS rrt_us_max
FROM net_metrics_1s
GROUP BY time, ingested, agent_id, observation_point, client_ip, server_ip, server_port, protocol, tunnel_type, tunnel_id, tap_id;

DROP VIEW IF EXISTS app_metrics_1s_mv;

CREATE MATERIALIZED VIEW IF NOT EXISTS app_metrics_1s_mv TO app_metrics_1s AS
SELECT
    toStartOfSecond(start_time)::DateTime('UTC') AS time,
    ingested,
    agent_id,
    observation_point,
    client_ip,
    server_ip,
    server_port,
    protocol,
    tunnel_type,
    tunnel_id,
    tap_id,
    l7_protocol,
    endpoint,
    countIf(session != 'response_only') AS request,
    countIf(session != 'request_only') AS response,
    countIf(response_status = 'client_error') AS client_error,
    countIf(response_status = 'server_error') AS server_error,
    countIf(response_status = 'timeout') AS timeout,
    sumIf(duration_us, session = 'complete') AS rrt_us_sum,
    countIf(session = 'complete') AS rrt_count,
    sum(l7_log.request_bytes) AS request_bytes,
    sum(l7_log.response_bytes) AS response_bytes,
    maxIf(duration_us, session = 'complete') AS rrt_us_max,
    quantilesBFloat16StateIf(0.5, 0.95, 0.99)(duration_us, session = 'complete') AS rrt_us_quantiles
FROM l7_log
GROUP BY time, ingested, agent_id, observation_point, client_ip, server_ip, server_port, protocol, tunnel_type, tunnel_id, tap_id, l7_protocol, endpoint;

DROP VIEW IF EXISTS app_metrics_1m_mv;

CREATE MATERIALIZED VIEW IF NOT EXISTS app_metrics_1m_mv TO app_metrics_1m AS
SELECT
    toStartOfMinute(time) AS time,
    ingested,
    agent_id,
    observation_point,
    client_ip,
    server_ip,
    server_port,
    protocol,
    tunnel_type,
    tunnel_id,
    tap_id,
    l7_protocol,
    endpoint,
    sum(request) AS request,
    sum(response) AS response,
    sum(client_error) AS client_error,
    sum(server_error) AS server_error,
    sum(timeout) AS timeout,
    sum(rrt_us_sum) AS rrt_us_sum,
    sum(rrt_count) AS rrt_count,
    sum(request_bytes) AS request_bytes,
    sum(response_bytes) AS response_bytes,
    max(rrt_us_max) AS rrt_us_max,
    quantilesBFloat16MergeState(0.5, 0.95, 0.99)(rrt_us_quantiles) AS rrt_us_quantiles
FROM app_metrics_1s
GROUP BY time, ingested, agent_id, observation_point, client_ip, server_ip, server_port, protocol, tunnel_type, tunnel_id, tap_id, l7_protocol, endpoint;

DROP VIEW IF EXISTS path_metrics_1s_mv;

CREATE MATERIALIZED VIEW IF NOT EXISTS path_metrics_1s_mv TO path_metrics_1s AS
SELECT
    time,
    ingested,
    agent_id,
    observation_point,
    client_ip,
    server_ip,
    server_port,
    protocol,
    tunnel_type,
    tunnel_id,
    tap_id,
    l7_protocol,
    sum(request) AS request,
    sum(response) AS response,
    sum(client_error) AS client_error,
    sum(server_error) AS server_error,
    sum(timeout) AS timeout,
    sum(rrt_us_sum) AS rrt_us_sum,
    sum(rrt_count) AS rrt_count,
    sum(request_bytes) AS request_bytes,
    sum(response_bytes) AS response_bytes,
    max(rrt_us_max) AS rrt_us_max,
    quantilesBFloat16MergeState(0.5, 0.95, 0.99)(rrt_us_quantiles) AS rrt_us_quantiles
FROM app_metrics_1s
GROUP BY time, ingested, agent_id, observation_point, client_ip, server_ip, server_port, protocol, tunnel_type, tunnel_id, tap_id, l7_protocol;

DROP VIEW IF EXISTS path_metrics_1m_mv;

CREATE MATERIALIZED VIEW IF NOT EXISTS path_metrics_1m_mv TO path_metrics_1m AS
SELECT
    toStartOfMinute(time) AS time,
    ingested,
    agent_id,
    observation_point,
    client_ip,
    server_ip,
    server_port,
    protocol,
    tunnel_type,
    tunnel_id,
    tap_id,
    l7_protocol,
    sum(request) AS request,
    sum(response) AS response,
    sum(client_error) AS client_error,
    sum(server_error) AS server_error,
    sum(timeout) AS timeout,
    sum(rrt_us_sum) AS rrt_us_sum,
    sum(rrt_count) AS rrt_count,
    sum(request_bytes) AS request_bytes,
    sum(response_bytes) AS response_bytes,
    max(rrt_us_max) AS rrt_us_max,
    quantilesBFloat16MergeState(0.5, 0.95, 0.99)(rrt_us_quantiles) AS rrt_us_quantiles
FROM path_metrics_1s
GROUP BY time, ingested, agent_id, observation_point, client_ip, server_ip, server_port, protocol, tunnel_type, tunnel_id, tap_id, l7_protocol;
