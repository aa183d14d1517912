-- app_metrics_1s and app_metrics_1m without the endpoint: a row per path and protocol. Where no endpoint is asked for, this is many times
-- fewer quantile sketches to merge.
CREATE TABLE IF NOT EXISTS path_metrics_1s
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
ORDER BY (l7_protocol, server_ip, server_port, time, client_ip, protocol, observation_point, tunnel_type, tunnel_id, agent_id)
TTL ingested + INTERVAL 1 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS path_metrics_1m
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
ORDER BY (l7_protocol, server_ip, server_port, time, client_ip, protocol, observation_point, tunnel_type, tunnel_id, agent_id)
TTL ingested + INTERVAL 7 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

-- What is stored already; emptied first in case this migration ended early before.
TRUNCATE TABLE path_metrics_1s;

INSERT INTO path_metrics_1s (time, ingested, agent_id, observation_point, client_ip, server_ip, server_port, protocol, tunnel_type, tunnel_id, l7_protocol, request, response, client_error, server_error, timeout, rrt_us_sum, rrt_count, request_bytes, response_bytes, rrt_us_max, rrt_us_quantiles)
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
GROUP BY time, ingested, agent_id, observation_point, client_ip, server_ip, server_port, protocol, tunnel_type, tunnel_id, l7_protocol;

TRUNCATE TABLE path_metrics_1m;

INSERT INTO path_metrics_1m (time, ingested, agent_id, observation_point, client_ip, server_ip, server_port, protocol, tunnel_type, tunnel_id, l7_protocol, request, response, client_error, server_error, timeout, rrt_us_sum, rrt_count, request_bytes, response_bytes, rrt_us_max, rrt_us_quantiles)
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
FROM app_metrics_1m
GROUP BY time, ingested, agent_id, observation_point, client_ip, server_ip, server_port, protocol, tunnel_type, tunnel_id, l7_protocol;

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
GROUP BY time, ingested, agent_id, observation_point, client_ip, server_ip, server_port, protocol, tunnel_type, tunnel_id, l7_protocol;

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
GROUP BY time, ingested, agent_id, observation_point, client_ip, server_ip, server_port, protocol, tunnel_type, tunnel_id, l7_protocol;
