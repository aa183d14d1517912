-- Without an address, the source is the host `localhost`, which has none where a network namespace has no IPv4 address but loopback's.
CREATE OR REPLACE DICTIONARY taps
(
    id UInt64,
    name String DEFAULT '',
    kind String DEFAULT '',
    device String DEFAULT '',
    port String DEFAULT '',
    site String DEFAULT ''
)
PRIMARY KEY id
SOURCE(CLICKHOUSE(HOST '127.0.0.1' DB 'wirespan' TABLE 'tap_list'))
LAYOUT(HASHED())
LIFETIME(MIN 0 MAX 0);
