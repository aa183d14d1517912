//! What is tried: which services call which, how they are asked, and whether the tracer is there first.

use super::service::{Program, Service};
use std::fmt;

/// One arrangement of services. Each may call those that stand before it, by their names; the last one is asked.
pub struct Scenario {
    /// How it is named in tables and on the command line.
    pub name: &'static str,
    /// In the order in which they start.
    pub services: Vec<Service>,
    /// What the last service is asked to do; the request's id comes behind it.
    pub path: &'static str,
    /// Who asks, and how.
    pub load: Load,
    /// Connections are there before the tracer.
    pub attached_late: bool,
    /// The least recall that is aimed at, without the help of ids.
    pub aim: f64,
}

/// How requests are made. As many connections as requests at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// One request after the other on a connection that stays.
    KeepAlive,
    /// A connection for each request.
    Close,
    /// Five requests at once on a connection that stays, then their answers.
    Pipelined,
    /// curl, with this option.
    Curl(&'static str),
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeepAlive => f.write_str("connections that stay"),
            Self::Close => f.write_str("a connection for each request"),
            Self::Pipelined => f.write_str("connections that stay, five requests at once"),
            Self::Curl(option) => write!(f, "`curl --parallel --{option}`"),
        }
    }
}

impl Scenario {
    fn new<const N: usize>(name: &'static str, path: &'static str, services: [Service; N]) -> Self {
        Self {
            name,
            services: services.into(),
            path,
            load: Load::KeepAlive,
            attached_late: false,
            aim: SYNCHRONOUS,
        }
    }

    fn load(self, load: Load) -> Self {
        Self { load, ..self }
    }

    fn late(self) -> Self {
        Self { attached_late: true, ..self }
    }

    fn aim(self, aim: f64) -> Self {
        Self { aim, ..self }
    }
}

/// The least precision that is aimed at.
pub const PRECISION: f64 = 0.99;
/// What is aimed at where a thread, a coroutine or a socket tells whose call it is.
const SYNCHRONOUS: f64 = 0.99;
/// What is aimed at where threads hand work to each other.
const POOLS: f64 = 0.8;
/// What is aimed at of calls that carry ids.
pub const WITH_IDS: f64 = 0.999;
/// Nothing tells: no wrong link is all that is asked for.
const NONE: f64 = 0.0;

/// All of them.
pub fn all() -> Vec<Scenario> {
    use Program::{Dnsmasq, Go, Haproxy, Java, Nginx, Node, Python, Redis};
    let redis = || Service::new("redis", Redis);
    let python = |name, style| Service::new(name, Python(style));
    let node = |name| Service::new(name, Node("http1"));
    let java = || Service::new("java", Java);
    let go = |name| Service::new(name, Go("net/http"));
    let grpc = |name| Service::new(name, Go("grpc"));
    let go2 = |name| Service::new(name, Go("http2")).tls("1.3");
    let nginx = |name, keep_alive| Service::new(name, Nginx { keep_alive, http2: false });
    let nginx2 = |name| Service::new(name, Nginx { keep_alive: true, http2: true });
    // Answers after up to 20 ms, so that requests overtake each other.
    let slow = || python("slow", "asyncio");
    vec![
        Scenario::new(
            "nginx-python-redis",
            "/seq.2.redis",
            [redis(), python("app", "threads"), nginx("edge", true)],
        ),
        Scenario::new(
            "nginx-no-keepalive",
            "/seq.2.redis",
            [redis(), python("app", "threads"), nginx("edge", false)],
        ),
        Scenario::new(
            "nginx-nginx-python",
            "/seq.1.redis",
            [redis(), python("app", "threads"), nginx("inner", true), nginx("edge", true)],
        ),
        Scenario::new(
            "haproxy-python-redis",
            "/seq.2.redis",
            [redis(), python("app", "threads"), Service::new("edge", Haproxy)],
        )
        .aim(POOLS),
        Scenario::new("node-await", "/seq.3.redis", [redis(), node("app")]),
        Scenario::new("node-await-http", "/seq.3.back/leaf", [python("back", "threads"), node("app")]),
        Scenario::new("node-all", "/all.5.back/leaf", [python("back", "threads"), node("app")]),
        Scenario::new("node-all-redis", "/all.5.redis", [redis(), node("app")]),
        Scenario::new("node-interleaved", "/seq.3.slow/nap.20", [slow(), node("app")]),
        Scenario::new("node-timer", "/later.2.redis", [redis(), node("app")]).aim(NONE),
        Scenario::new("node-ticker", "/beside.3.redis", [redis(), node("app")]),
        Scenario::new("asyncio-ticker", "/beside.3.redis", [redis(), python("app", "asyncio")]),
        Scenario::new("asyncio-await", "/seq.3.redis", [redis(), python("app", "asyncio")]),
        Scenario::new("asyncio-gather", "/gather.5.back/leaf", [node("back"), python("app", "asyncio")]),
        Scenario::new("asyncio-interleaved", "/seq.3.slow/nap.20", [slow(), python("app", "asyncio")]),
        Scenario::new("asyncio-to-thread", "/tothread.2.back/leaf", [node("back"), python("app", "asyncio")])
            .aim(POOLS),
        Scenario::new("python-pool", "/pool.2.redis", [redis(), python("app", "threads")]).aim(POOLS),
        Scenario::new("java-pool", "/seq.2.back/leaf", [node("back"), java()]).aim(POOLS),
        Scenario::new("java-redis", "/seq.2.redis", [redis(), java()]),
        Scenario::new("java-async", "/async.2.back/leaf", [node("back"), java()]).aim(POOLS),
        Scenario::new("go", "/seq.2.back/seq.1.redis", [redis(), go("back"), go("app")]),
        Scenario::new("go-all", "/all.5.back/leaf", [go("back"), go("app")]),
        Scenario::new("go-tls", "/seq.2.back/seq.1.redis", [redis(), go("back").tls("1.3"), go("app")]),
        Scenario::new("go-http2", "/seq.2.redis", [redis(), go2("app")]).load(Load::Curl("http2")),
        Scenario::new("go-http2-all", "/all.3.back/leaf", [go("back"), go2("app")]).load(Load::Curl("http2")),
        Scenario::new("go-http2-client", "/all.3.back/leaf", [go2("back"), go("app")]),
        Scenario::new("go-grpc", "/seq.2.back/seq.1.redis", [redis(), grpc("back"), go("app")]),
        Scenario::new("go-grpc-all", "/all.3.back/leaf", [grpc("back"), go("app")]),
        Scenario::new("go-grpc-tls", "/all.3.back/leaf", [grpc("back").tls("1.3"), go("app")]),
        Scenario::new(
            "go-grpc-chain",
            "/seq.1.middle/all.2.back/seq.1.redis",
            [redis(), grpc("back"), grpc("middle"), go("app")],
        ),
        Scenario::new(
            "go-grpc-late",
            "/seq.1.middle/all.2.back/seq.1.redis",
            [redis(), grpc("back"), grpc("middle"), go("app")],
        )
        .late(),
        Scenario::new(
            "go-grpc-workers",
            "/seq.1.middle/all.2.back/leaf",
            [grpc("back"), Service::new("middle", Go("grpc-workers")), go("app")],
        ),
        Scenario::new("go-pool", "/pool.2.back/pool.1.redis", [redis(), go("back"), go("app")]).aim(NONE),
        Scenario::new("go-pool-grows", "/grow.2.back/grow.2.redis", [redis(), go("back"), go("app")])
            .aim(NONE),
        Scenario::new("pipelined-http-python", "/seq.2.redis", [redis(), python("app", "threads")])
            .load(Load::Pipelined),
        Scenario::new("pipelined-http-node", "/seq.2.redis", [redis(), node("app")]).load(Load::Pipelined),
        Scenario::new("pipelined-redis", "/pipe.5.redis", [redis(), python("app", "threads")]),
        Scenario::new(
            "http2-curl-nginx",
            "/seq.1.redis",
            [redis(), python("app", "threads"), nginx2("edge").tls("1.3")],
        )
        .load(Load::Curl("http2")),
        Scenario::new(
            "http2-node-nginx",
            "/all.3.edge/seq.1.redis",
            [redis(), python("app", "threads"), nginx2("edge"), node("front")],
        ),
        Scenario::new(
            "http2-node-nginx-late",
            "/all.3.edge/seq.1.redis",
            [redis(), python("app", "threads"), nginx2("edge"), node("front")],
        )
        .late(),
        Scenario::new(
            "http2-node",
            "/all.3.back/seq.1.redis",
            [redis(), Service::new("back", Node("http2")), node("app")],
        ),
        Scenario::new(
            "http2-node-await",
            "/seq.3.back/leaf",
            [Service::new("back", Node("http2")), node("app")],
        ),
        Scenario::new(
            "http2-node-uneven",
            "/some.3.back/leaf",
            [Service::new("back", Node("http2")), node("app")],
        ),
        Scenario::new(
            "http2-node-timer",
            "/later.2.back/leaf",
            [Service::new("back", Node("http2")), node("app")],
        )
        .aim(NONE),
        Scenario::new(
            "http2-node-late",
            "/all.3.back/seq.1.redis",
            [redis(), Service::new("back", Node("http2")), node("app")],
        )
        .late(),
        Scenario::new(
            "nginx-python-redis-late",
            "/seq.2.redis",
            [redis(), python("app", "threads"), nginx("edge", true)],
        )
        .late(),
        Scenario::new("fork-per-request", "/seq.2.redis", [redis(), python("app", "forks")])
            .load(Load::Close),
        Scenario::new("fd-passed", "/seq.2.redis", [redis(), python("app", "passed")]),
        Scenario::new("dup2", "/seq.2.redis", [redis(), python("app", "dups")]),
        Scenario::new("dns", "/seq.1.dns", [Service::new("dns", Dnsmasq), python("app", "threads")]),
        Scenario::new(
            "tls1.2-curl-nginx",
            "/seq.1.redis",
            [redis(), python("app", "threads"), nginx("edge", true).tls("1.2")],
        )
        .load(Load::Curl("http1.1")),
        Scenario::new(
            "tls1.3-curl-nginx",
            "/seq.1.redis",
            [redis(), python("app", "threads"), nginx("edge", true).tls("1.3")],
        )
        .load(Load::Curl("http1.1")),
        Scenario::new(
            "tls1.2-python",
            "/seq.2.back/leaf",
            [python("back", "threads").tls("1.2"), python("app", "threads")],
        ),
        Scenario::new(
            "tls1.3-python",
            "/seq.2.back/leaf",
            [python("back", "threads").tls("1.3"), python("app", "threads")],
        ),
        Scenario::new(
            "tls1.3-asyncio",
            "/gather.3.back/leaf",
            [python("back", "asyncio").tls("1.3"), python("app", "asyncio")],
        ),
        Scenario::new(
            "tls1.2-node",
            "/seq.2.back/seq.1.redis",
            [redis(), Service::new("back", Node("https")).tls("1.2"), node("app")],
        ),
        Scenario::new(
            "tls1.3-node",
            "/seq.2.back/seq.1.redis",
            [redis(), Service::new("back", Node("https")).tls("1.3"), node("app")],
        ),
        Scenario::new(
            "sendfile",
            "/seq.2.back/seq.1.redis",
            [redis(), python("back", "files"), python("app", "threads")],
        ),
        Scenario::new(
            "writev-64",
            "/seq.2.back/seq.1.redis",
            [redis(), python("back", "vectors"), python("app", "threads")],
        ),
        Scenario::new(
            "cork",
            "/seq.2.back/seq.1.redis",
            [redis(), python("back", "corked"), python("app", "threads")],
        ),
        Scenario::new("one-byte-reads", "/seq.2.redis", [redis(), python("app", "bytes")]),
        Scenario::new("msg-peek", "/seq.2.redis", [redis(), python("app", "peeks")]),
    ]
}
