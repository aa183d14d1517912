-- Processes, what requests were made for, and traces.
--
-- Rows of one trace have the same trace_key, or keys that trace_merges joins: spans that came late showed that two traces are
-- one. Rows that are not alone in their trace (traced) are once more in trace_log, where those of one trace lie together. The
-- key of a trace is a hash of its trace id, with the highest bit set, or the id of one of its rows. A row that was alone when it
-- was written has key 0; its id is its key.
ALTER TABLE l7_log
    ADD COLUMN IF NOT EXISTS pid UInt32 COMMENT 'Of the process that asked (at c-p) or answered (at s-p); 0 for packets' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS process_start DateTime64(9, 'UTC') COMMENT 'Tells processes apart that had the same pid' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS process_name LowCardinality(String) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS executable LowCardinality(String) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS command LowCardinality(String) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS container_id LowCardinality(String) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS pod_uid LowCardinality(String) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS parent_id UInt64 COMMENT 'Row id of the request that this one was made for, found out on the host; 0 when not known' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS parent_rule LowCardinality(String) COMMENT 'How it was found out' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS parent_confidence Float32 COMMENT 'From 0 to 1' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS trace_key UInt64 COMMENT 'The trace; 0: this row alone' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS traced Bool COMMENT 'The row is in trace_log too' CODEC(ZSTD(1));

CREATE TABLE IF NOT EXISTS trace_log AS l7_log
ENGINE = MergeTree
PARTITION BY ingested
ORDER BY (trace_key, start_time)
TTL ingested + INTERVAL 3 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000, index_granularity = 1024;

ALTER TABLE trace_log DROP INDEX IF EXISTS by_id, DROP INDEX IF EXISTS by_trace, DROP INDEX IF EXISTS by_x_request_id;

CREATE MATERIALIZED VIEW IF NOT EXISTS trace_log_mv TO trace_log AS SELECT * FROM l7_log WHERE traced;

-- Keys of one trace: each pair both ways.
CREATE TABLE IF NOT EXISTS trace_merges
(
    ingested Date CODEC(ZSTD(1)),
    trace_key UInt64 CODEC(ZSTD(1)),
    other UInt64 CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY ingested
ORDER BY trace_key
TTL ingested + INTERVAL 3 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000, index_granularity = 1024;
