-- UNIX sockets have no addresses: what a server's is bound to, and the network namespace of who connected, tell them apart; the
-- server's process says what it is.
ALTER TABLE app_metrics_1s
    ADD COLUMN IF NOT EXISTS unix_name LowCardinality(String) CODEC(ZSTD(1)) AFTER protocol,
    ADD COLUMN IF NOT EXISTS unix_netns UInt32 CODEC(ZSTD(1)) AFTER unix_name,
    ADD COLUMN IF NOT EXISTS server_process SimpleAggregateFunction(max, String) CODEC(ZSTD(1)) AFTER unix_netns,
    MODIFY ORDER BY (l7_protocol, server_ip, server_port, time, endpoint, client_ip, protocol, observation_point, tunnel_type, tunnel_id, agent_id, tap_id, unix_name, unix_netns);

ALTER TABLE app_metrics_1m
    ADD COLUMN IF NOT EXISTS unix_name LowCardinality(String) CODEC(ZSTD(1)) AFTER protocol,
    ADD COLUMN IF NOT EXISTS unix_netns UInt32 CODEC(ZSTD(1)) AFTER unix_name,
    ADD COLUMN IF NOT EXISTS server_process SimpleAggregateFunction(max, String) CODEC(ZSTD(1)) AFTER unix_netns,
    MODIFY ORDER BY (l7_protocol, server_ip, server_port, time, endpoint, client_ip, protocol, observation_point, tunnel_type, tunnel_id, agent_id, tap_id, unix_name, unix_netns);

ALTER TABLE path_metrics_1s
    ADD COLUMN IF NOT EXISTS unix_name LowCardinality(String) CODEC(ZSTD(1)) AFTER protocol,
    ADD COLUMN IF NOT EXISTS unix_netns UInt32 CODEC(ZSTD(1)) AFTER unix_name,
    ADD COLUMN IF NOT EXISTS server_process SimpleAggregateFunction(max, String) CODEC(ZSTD(1)) AFTER unix_netns,
    MODIFY ORDER BY (l7_protocol, server_ip, server_port, time, client_ip, protocol, observation_point, tunnel_type, tunnel_id, agent_id, tap_id, unix_name, unix_netns);

ALTER TABLE path_metrics_1m
    ADD COLUMN IF NOT EXISTS unix_name LowCardinality(String) CODEC(ZSTD(1)) AFTER protocol,
    ADD COLUMN IF NOT EXISTS unix_netns UInt32 CODEC(ZSTD(1)) AFTER unix_name,
    ADD COLUMN IF NOT EXISTS server_process SimpleAggregateFunction(max, String) CODEC(ZSTD(1)) AFTER unix_netns,
    MODIFY ORDER BY (l7_protocol, server_ip, server_port, time, client_ip, protocol, observation_point, tunnel_type, tunnel_id, agent_id, tap_id, unix_name, unix_netns);

-- The views anew, with these.
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
    if(protocol = 'other', attributes['unix.name'], '') AS unix_name,
    if(unix_name = '', 0, toUInt32OrZero(attributes['netns'])) AS unix_netns,
    maxIf(process_name, unix_name != '' AND observation_point = 's-p') AS server_process,
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
GROUP BY time, ingested, agent_id, observation_point, client_ip, server_ip, server_port, protocol, unix_name, unix_netns, tunnel_type, tunnel_id, tap_id, l7_protocol, endpoint;

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
    unix_name,
    unix_netns,
    max(server_process) AS server_process,
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
GROUP BY time, ingested, agent_id, observation_point, client_ip, server_ip, server_port, protocol, unix_name, unix_netns, tunnel_type, tunnel_id, tap_id, l7_protocol, endpoint;

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
    unix_name,
    unix_netns,
    max(server_process) AS server_process,
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
GROUP BY time, ingested, agent_id, observation_point, client_ip, server_ip, server_port, protocol, unix_name, unix_netns, tunnel_type, tunnel_id, tap_id, l7_protocol;

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
    unix_name,
    unix_netns,
    max(server_process) AS server_process,
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
GROUP BY time, ingested, agent_id, observation_point, client_ip, server_ip, server_port, protocol, unix_name, unix_netns, tunnel_type, tunnel_id, tap_id, l7_protocol;
