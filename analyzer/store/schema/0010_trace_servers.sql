-- UNIX sockets have no addresses: what a server's is bound to tells which it is. Rows that are stored already have it in `row` alone.
ALTER TABLE trace_log ADD COLUMN IF NOT EXISTS unix_name LowCardinality(String) CODEC(ZSTD(1)) AFTER server_port;
