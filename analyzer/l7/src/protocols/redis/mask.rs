//! Which arguments of a command are secrets (never shown) and which are values (hidden when that is configured).

/// The arguments of a command that hold data rather than say what is asked. Argument 0 is the command's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// Keys, fields, ranges and options only.
    Nowhere,
    /// This argument.
    Only(usize),
    /// This argument and all after it.
    From(usize),
    /// This argument and every second one after it.
    EverySecond(usize),
}

impl Values {
    pub(super) fn contain(self, index: usize) -> bool {
        match self {
            Self::Nowhere => false,
            Self::Only(only) => index == only,
            Self::From(first) => index >= first,
            Self::EverySecond(first) => index >= first && (index - first).is_multiple_of(2),
        }
    }
}

/// Where a command, in upper case, has its values. `None` for one that is not known.
pub(super) fn values(name: &str) -> Option<Values> {
    Some(match name {
        "ACL" | "ASKING" | "AUTH" | "BGREWRITEAOF" | "BGSAVE" | "BITCOUNT" | "BITFIELD_RO" | "BITOP"
        | "BITPOS" | "BLMOVE" | "BLMPOP" | "BLPOP" | "BRPOP" | "BRPOPLPUSH" | "BZMPOP" | "BZPOPMAX"
        | "BZPOPMIN" | "CLIENT" | "CLUSTER" | "COMMAND" | "COPY" | "DBSIZE" | "DEBUG" | "DECR" | "DEL"
        | "DISCARD" | "DUMP" | "EXEC" | "EXISTS" | "EXPIRE" | "EXPIREAT" | "EXPIRETIME" | "FAILOVER"
        | "FLUSHALL" | "FLUSHDB" | "GET" | "GETBIT" | "GETDEL" | "GETEX" | "GETRANGE" | "HDEL" | "HELLO"
        | "HEXISTS" | "HEXPIRE" | "HEXPIREAT" | "HEXPIRETIME" | "HGET" | "HGETALL" | "HGETDEL" | "HGETEX"
        | "HKEYS" | "HLEN" | "HMGET" | "HPERSIST" | "HPEXPIRE" | "HPEXPIREAT" | "HPEXPIRETIME" | "HPTTL"
        | "HRANDFIELD" | "HSCAN" | "HSTRLEN" | "HTTL" | "HVALS" | "INCR" | "INFO" | "KEYS" | "LASTSAVE"
        | "LATENCY" | "LCS" | "LINDEX" | "LLEN" | "LMOVE" | "LMPOP" | "LOLWUT" | "LPOP" | "LRANGE"
        | "LTRIM" | "MEMORY" | "MGET" | "MIGRATE" | "MODULE" | "MONITOR" | "MOVE" | "MULTI" | "OBJECT"
        | "PERSIST" | "PEXPIRE" | "PEXPIREAT" | "PEXPIRETIME" | "PFCOUNT" | "PFMERGE" | "PSUBSCRIBE"
        | "PSYNC" | "PTTL" | "PUBSUB" | "PUNSUBSCRIBE" | "QUIT" | "RANDOMKEY" | "READONLY" | "READWRITE"
        | "RENAME" | "RENAMENX" | "REPLCONF" | "REPLICAOF" | "RESET" | "ROLE" | "RPOP" | "RPOPLPUSH"
        | "SAVE" | "SCAN" | "SCARD" | "SDIFF" | "SDIFFSTORE" | "SELECT" | "SENTINEL" | "SHUTDOWN"
        | "SINTER" | "SINTERCARD" | "SINTERSTORE" | "SLAVEOF" | "SLOWLOG" | "SMEMBERS" | "SORT"
        | "SORT_RO" | "SPOP" | "SRANDMEMBER" | "SSCAN" | "SSUBSCRIBE" | "STRLEN" | "SUBSCRIBE" | "SUBSTR"
        | "SUNION" | "SUNIONSTORE" | "SUNSUBSCRIBE" | "SWAPDB" | "SYNC" | "TIME" | "TOUCH" | "TTL"
        | "TYPE" | "UNLINK" | "UNSUBSCRIBE" | "UNWATCH" | "WAIT" | "WAITAOF" | "WATCH" | "XACK"
        | "XAUTOCLAIM" | "XCLAIM" | "XDEL" | "XGROUP" | "XINFO" | "XLEN" | "XPENDING" | "XRANGE"
        | "XREAD" | "XREADGROUP" | "XREVRANGE" | "XSETID" | "XTRIM" | "ZCARD" | "ZCOUNT" | "ZDIFF"
        | "ZDIFFSTORE" | "ZINTER" | "ZINTERCARD" | "ZINTERSTORE" | "ZLEXCOUNT" | "ZMPOP" | "ZPOPMAX"
        | "ZPOPMIN" | "ZRANDMEMBER" | "ZRANGE" | "ZRANGEBYLEX" | "ZRANGEBYSCORE" | "ZRANGESTORE"
        | "ZREMRANGEBYLEX" | "ZREMRANGEBYRANK" | "ZREMRANGEBYSCORE" | "ZREVRANGE" | "ZREVRANGEBYLEX"
        | "ZREVRANGEBYSCORE" | "ZSCAN" | "ZUNION" | "ZUNIONSTORE" | "JSON.GET" | "JSON.DEL" | "JSON.MGET" => {
            Values::Nowhere
        }
        "SET" => Values::Only(2),
        "ECHO" | "EVAL" | "EVAL_RO" | "PING" => Values::From(1),
        "APPEND"
        | "BITFIELD"
        | "DECRBY"
        | "FUNCTION"
        | "GEOADD"
        | "GEODIST"
        | "GEOHASH"
        | "GEOPOS"
        | "GEORADIUS"
        | "GEORADIUSBYMEMBER"
        | "GEORADIUSBYMEMBER_RO"
        | "GEORADIUS_RO"
        | "GEOSEARCH"
        | "GETSET"
        | "INCRBY"
        | "INCRBYFLOAT"
        | "LPOS"
        | "LPUSH"
        | "LPUSHX"
        | "PFADD"
        | "PUBLISH"
        | "RPUSH"
        | "RPUSHX"
        | "SADD"
        | "SCRIPT"
        | "SETNX"
        | "SISMEMBER"
        | "SMISMEMBER"
        | "SPUBLISH"
        | "SREM"
        | "XADD"
        | "ZADD"
        | "ZINCRBY"
        | "ZMSCORE"
        | "ZRANK"
        | "ZREM"
        | "ZREVRANK"
        | "ZSCORE" => Values::From(2),
        "EVALSHA" | "EVALSHA_RO" | "FCALL" | "FCALL_RO" | "GEOSEARCHSTORE" | "HINCRBY" | "HINCRBYFLOAT"
        | "HSETEX" | "HSETNX" | "LINSERT" | "LREM" | "LSET" | "PSETEX" | "RESTORE" | "SETBIT" | "SETEX"
        | "SETRANGE" | "SMOVE" | "JSON.SET" => Values::From(3),
        "MSET" | "MSETNX" => Values::EverySecond(2),
        "CONFIG" | "HMSET" | "HSET" => Values::EverySecond(3),
        _ => return None,
    })
}

/// Argument `index` is a password or the hash of one.
pub(super) fn is_secret(name: &str, args: &[&[u8]], index: usize) -> bool {
    let word = |n: usize, word: &str| {
        args.get(n).is_some_and(|arg| unquoted(arg).eq_ignore_ascii_case(word.as_bytes()))
    };
    match name {
        // AUTH password, AUTH user password.
        "AUTH" => index == args.len().max(2) - 1 || index > 2,
        // HELLO version AUTH user password.
        "HELLO" => index >= 4 && word(index - 2, "AUTH"),
        "CONFIG" => {
            word(1, "SET")
                && index >= 3
                && ["requirepass", "masterauth", "tls-key-file-pass", "tls-client-key-file-pass"]
                    .iter()
                    .any(|parameter| word(index - 1, parameter))
        }
        "ACL" => {
            word(1, "SETUSER")
                && args.get(index).is_some_and(|arg| matches!(unquoted(arg), [b'>' | b'<' | b'#' | b'!', ..]))
        }
        "MIGRATE" => index > 5 && (word(index - 1, "AUTH") || index > 6 && word(index - 2, "AUTH2")),
        "SENTINEL" => word(1, "SET") && index >= 4 && word(index - 1, "auth-pass"),
        _ => false,
    }
}

fn unquoted(arg: &[u8]) -> &[u8] {
    match arg {
        [b'"' | b'\'', inner @ .., b'"' | b'\''] => inner,
        [b'"' | b'\'', inner @ ..] => inner,
        _ => arg,
    }
}
