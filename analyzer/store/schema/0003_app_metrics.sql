-- RED metrics per path, protocol and endpoint, computed from l7_log as it is written; a query always aggregates:
-- sum(request), max(rrt_us_max), quantilesBFloat16Merge(0.5, 0.95, 0.99)(rrt_us_quantiles). rrt is the response time of complete
-- exchanges. The sketch counts values rounded to bfloat16: it merges without further loss, relative error below 1/128.
CREATE TABLE IF NOT EXISTS app_metrics_1s
(
    ingested Date CODEC(ZSTD(1)),
    time DateTime('UTC') COMMENT 'Start of the second' CODEC(DoubleDelta, ZSTD(1)),
    agent_id UInt32 CODEC(ZSTD(1)),
    observation_point LowCardinality(String) CODEC(ZSTD(1)),
    client_ip IPv6 CODEC(ZSTD(1)),
    server_ip IPv6 CODEC(ZSTD(1)),
    server_port UInt16 CODEC(ZSTD(1)),
    client String ALIAS replaceOne(toString(client_ip), '::ffff:', ''),
    server String ALIAS replaceOne(toString(server_ip), '::ffff:', ''),
    protocol Enum8('other' = 0, 'tcp' = 1, 'udp' = 2, 'sctp' = 3, 'icmp' = 4, 'icmpv6' = 5) CODEC(ZSTD(1)),
    tunnel_type Enum8('none' = 0, 'vxlan' = 1, 'geneve' = 2, 'gre' = 3, 'erspan' = 4, 'ipip' = 5, 'gtpu' = 6) CODEC(ZSTD(1)),
    tunnel_id UInt32 CODEC(ZSTD(1)),
    l7_protocol LowCardinality(String) CODEC(ZSTD(1)),
    endpoint LowCardinality(String) CODEC(ZSTD(1)),
    request SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    response SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    client_error SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    server_error SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    timeout SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    rrt_us_sum SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    rrt_count SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    request_bytes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    response_bytes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    error UInt64 ALIAS client_error + server_error,
    rrt_us_max SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    rrt_us_quantiles AggregateFunction(quantilesBFloat16(0.5, 0.95, 0.99), UInt64) CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY ingested
PRIMARY KEY (l7_protocol, server_ip, server_port, time)
ORDER BY (l7_protocol, server_ip, server_port, time, endpoint, client_ip, protocol, observation_point, tunnel_type, tunnel_id, agent_id)
TTL ingested + INTERVAL 1 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS app_metrics_1m
(
    ingested Date CODEC(ZSTD(1)),
    time DateTime('UTC') COMMENT 'Start of the minute' CODEC(DoubleDelta, ZSTD(1)),
    agent_id UInt32 CODEC(ZSTD(1)),
    observation_point LowCardinality(String) CODEC(ZSTD(1)),
    client_ip IPv6 CODEC(ZSTD(1)),
    server_ip IPv6 CODEC(ZSTD(1)),
    server_port UInt16 CODEC(ZSTD(1)),
    client String ALIAS replaceOne(toString(client_ip), '::ffff:', ''),
    server String ALIAS replaceOne(toString(server_ip), '::ffff:', ''),
    protocol Enum8('other' = 0, 'tcp' = 1, 'udp' = 2, 'sctp' = 3, 'icmp' = 4, 'icmpv6' = 5) CODEC(ZSTD(1)),
    tunnel_type Enum8('none' = 0, 'vxlan' = 1, 'geneve' = 2, 'gre' = 3, 'erspan' = 4, 'ipip' = 5, 'gtpu' = 6) CODEC(ZSTD(1)),
    tunnel_id UInt32 CODEC(ZSTD(1)),
    l7_protocol LowCardinality(String) CODEC(ZSTD(1)),
    endpoint LowCardinality(String) CODEC(ZSTD(1)),
    request SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    response SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    client_error SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    server_error SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    timeout SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    rrt_us_sum SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    rrt_count SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    request_bytes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    response_bytes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    error UInt64 ALIAS client_error + server_error,
    rrt_us_max SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    rrt_us_quantiles AggregateFunction(quantilesBFloat16(0.5, 0.95, 0.99), UInt64) CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY ingested
PRIMARY KEY (l7_protocol, server_ip, server_port, time)
ORDER BY (l7_protocol, server_ip, server_port, time, endpoint, client_ip, protocol, observation_point, tunnel_type, tunnel_id, agent_id)
TTL ingested + INTERVAL 7 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

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
GROUP BY time, ingested, agent_id, observation_point, client_ip, server_ip, server_port, protocol, tunnel_type, tunnel_id, l7_protocol, endpoint;

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
GROUP BY time, ingested, agent_id, observation_point, client_ip, server_ip, server_port, protocol, tunnel_type, tunnel_id, l7_protocol, endpoint;
