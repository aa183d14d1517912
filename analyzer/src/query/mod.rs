//! The questions that the HTTP API answers, as SQL with parameters, and the shape of the answers.
//!
//! The same exchange may be seen by several agents, at several points, inside several tunnels and by several taps. Sums over
//! requests count each path (client, server, port) once: at the vantage point that saw most of it. Of several that saw as
//! much, it is the one with the lowest agent, point, tunnel and tap, so that answers do not change between them.
//!
//! | module | answers |
//! |---|---|
//! | [`services`] | rate, errors and duration per server port, or UNIX socket, and protocol |
//! | [`map`] | who calls whom |
//! | [`spans`] | single requests, latest first |
//! | [`flows`] | single flows, latest first |
//! | [`taps`] | the taps, and what came from each |
//! | [`traces`] | one trace, and the traces of a time |
//! | [`stored`] | rows of traces, as they are stored |

pub mod flows;
pub mod map;
pub mod services;
pub mod spans;
pub mod stored;
pub mod taps;
pub mod traces;

use serde::Deserialize;
use std::net::IpAddr;
use wirespan_controller::{Names, PortProtocol, port_name};

/// Columns that tell one vantage point from another.
const VANTAGE: &str = "agent_id, observation_point, tunnel_type, tunnel_id, tap_id";

/// The tap of a row of table `l`: its id, or null, and its name, or null when the taps file has none.
const TAP_COLUMNS: &str =
    "nullIf(l.tap_id, 0) AS tap_id, nullIf(dictGet('wirespan.taps', 'name', toUInt64(l.tap_id)), '') AS tap";

/// A row of table `l` is of the tap with this name or id.
const IS_TAP: &str = "(toString(l.tap_id) = {tap:String} \
     OR l.tap_id IN (SELECT toUInt16(id) FROM wirespan.taps WHERE name = {tap:String}))";

/// Up to this range, answers come from the tables by second.
const SECOND_TABLE_MAX_S: u32 = 3 * 3600;

/// An SQL text and the values of its parameters (`{name:Type}`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The text.
    pub sql: String,
    /// Name and value.
    pub params: Vec<(String, String)>,
}

/// A question that cannot be put to the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadQuestion {
    /// A time or range that is not one.
    #[error(
        "{name}={value} is not a time: give seconds since the epoch, or last= with a number and s, m, h or d"
    )]
    Time {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// `from` is not before `to`.
    #[error("the time range is empty: from={from} must be before to={to}")]
    EmptyRange {
        /// Seconds since the epoch.
        from: u32,
        /// Seconds since the epoch.
        to: u32,
    },
    /// A service that is neither an address nor a known name.
    #[error(
        "service={0} is not known: give IP, IP:PORT, NAME or NAME:PORT, with a name from the hosts files, or what a UNIX socket is bound to, such as /run/app.sock"
    )]
    UnknownService(String),
    /// A status that does not exist.
    #[error(
        "status={0} is not known: give ok, client_error, server_error, timeout, unknown or error (any but ok and unknown)"
    )]
    UnknownStatus(String),
    /// A cursor that did not come from an answer.
    #[error(
        "before={0} is not a cursor: pass on `next` of the previous answer, or a time in ns since the epoch"
    )]
    BadCursor(String),
}

/// A range of time in seconds since the epoch; `to_s` is not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First second.
    pub from_s: u32,
    /// Second after the last.
    pub to_s: u32,
}

/// A range as it is asked for: `from` and `to` in seconds since the epoch, or `last=15m`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RangeParams {
    from: Option<String>,
    to: Option<String>,
    last: Option<String>,
}

impl RangeParams {
    /// The range, seen from `now_s`. Without any parameter: the last 15 minutes.
    pub fn range(&self, now_s: u32) -> Result<Range, BadQuestion> {
        let to_s = parse_seconds("to", self.to.as_deref())?.unwrap_or(now_s.saturating_add(1));
        let from_s = match (parse_seconds("from", self.from.as_deref())?, self.last.as_deref()) {
            (Some(from), _) => from,
            (None, last) => to_s.saturating_sub(parse_duration(last.unwrap_or("15m"))?),
        };
        if from_s >= to_s {
            return Err(BadQuestion::EmptyRange { from: from_s, to: to_s });
        }
        Ok(Range { from_s, to_s })
    }
}

impl Range {
    /// Length in seconds, at least 1.
    pub fn seconds(&self) -> u32 {
        self.to_s.saturating_sub(self.from_s).max(1)
    }

    /// Short ranges are answered by second, long ones by minute.
    fn table(&self, by_second: &'static str, by_minute: &'static str) -> &'static str {
        if self.seconds() <= SECOND_TABLE_MAX_S { by_second } else { by_minute }
    }

    /// The range as parameters `from` and `to`; for the tables by minute from the start of the first minute.
    fn params(&self) -> Vec<(String, String)> {
        let from = if self.seconds() <= SECOND_TABLE_MAX_S { self.from_s } else { self.from_s / 60 * 60 };
        vec![("from".into(), from.to_string()), ("to".into(), self.to_s.to_string())]
    }
}

fn parse_seconds(name: &'static str, value: Option<&str>) -> Result<Option<u32>, BadQuestion> {
    let Some(value) = value else { return Ok(None) };
    value.parse().map(Some).map_err(|_| BadQuestion::Time { name, value: value.into() })
}

fn parse_duration(text: &str) -> Result<u32, BadQuestion> {
    let bad = || BadQuestion::Time { name: "last", value: text.into() };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..) {
        Some("" | "s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        Some("d") => 86_400,
        _ => return Err(bad()),
    };
    digits.parse::<u32>().ok().and_then(|n| n.checked_mul(unit)).filter(|&s| s > 0).ok_or_else(bad)
}

/// Which servers are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ServerFilter {
    /// At these addresses, and at a port where one is given.
    At { ips: Vec<IpAddr>, port: Option<u16> },
    /// Behind a UNIX socket of this name.
    Unix(String),
}

impl ServerFilter {
    fn parse(text: &str, names: &Names) -> Result<Self, BadQuestion> {
        let unknown = || BadQuestion::UnknownService(text.into());
        if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
            return Ok(Self::At { ips: vec![socket.ip()], port: Some(socket.port()) });
        }
        if let Ok(ip) = text.trim_matches(['[', ']']).parse() {
            return Ok(Self::At { ips: vec![ip], port: None });
        }
        if text.starts_with(['/', '@']) {
            return Ok(Self::Unix(text.to_owned()));
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().map_err(|_| unknown())?)),
            None => (text, None),
        };
        let ips: Vec<_> = names
            .sorted()
            .into_iter()
            .filter(|&(_, n)| n.eq_ignore_ascii_case(name))
            .map(|(ip, _)| ip)
            .collect();
        if ips.is_empty() { Err(unknown()) } else { Ok(Self::At { ips, port }) }
    }

    /// Adds the condition on rows of requests, which table `l` has.
    fn add_to(&self, conditions: &mut Conditions) {
        let (ips, port) = match self {
            Self::At { ips, port } => (ips, port),
            Self::Unix(name) => {
                conditions.add(
                    "l.protocol = 'other' AND l.attributes['unix.name'] = {unix_name:String}",
                    &[("unix_name", name.clone())],
                );
                return;
            }
        };
        let ips: Vec<_> = ips.iter().map(|ip| format!("'{ip}'")).collect();
        conditions.add(
            "server_ip IN (SELECT arrayJoin({server_ips:Array(IPv6)}))",
            &[("server_ips", format!("[{}]", ips.join(",")))],
        );
        if let Some(port) = port {
            conditions.add("server_port = {server_port:UInt16}", &[("server_port", port.to_string())]);
        }
    }
}

/// The conditions of a WHERE and their parameters.
#[derive(Default)]
struct Conditions {
    sql: Vec<&'static str>,
    params: Vec<(String, String)>,
}

impl Conditions {
    fn add(&mut self, sql: &'static str, params: &[(&str, String)]) {
        self.sql.push(sql);
        self.params.extend(params.iter().map(|(name, value)| ((*name).into(), value.clone())));
    }

    fn add_text(&mut self, sql: &'static str, name: &str, value: Option<&String>) {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            self.add(sql, &[(name, value.clone())]);
        }
    }

    fn range_of(column_condition: &'static str, range: Range) -> Self {
        let mut conditions = Self::default();
        let times = [("from", range.from_s.to_string()), ("to", range.to_s.to_string())];
        conditions.add(column_condition, &times);
        conditions
    }
}

/// A time and row id, for the next page of a list that shows the latest first.
fn parse_cursor(text: &str) -> Result<(u64, u64), BadQuestion> {
    let bad = |_| BadQuestion::BadCursor(text.into());
    let (time, id) = text.split_once('.').unwrap_or((text, "0"));
    Ok((time.parse().map_err(bad)?, id.parse().map_err(bad)?))
}

/// Rows of a list: 100 unless told, 1000 at most.
fn row_limit(limit: Option<u32>) -> u32 {
    limit.unwrap_or(100).clamp(1, 1000)
}

/// The name of an address in text.
fn name_of(names: &Names, ip: &str) -> Option<String> {
    names.lookup(ip.parse().ok()?).map(Into::into)
}

/// What a port is usually for.
fn port_name_of(protocol: &str, port: u16) -> Option<&'static str> {
    match protocol {
        "tcp" => port_name(PortProtocol::Tcp, port),
        "udp" => port_name(PortProtocol::Udp, port),
        _ => None,
    }
}

/// `part` of `whole`, 0 of nothing.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(from: Option<&str>, to: Option<&str>, last: Option<&str>) -> RangeParams {
        RangeParams { from: from.map(Into::into), to: to.map(Into::into), last: last.map(Into::into) }
    }

    #[test]
    fn ranges_are_read_in_all_their_forms() {
        let range = |from, to, last| params(from, to, last).range(10_000).map(|r| (r.from_s, r.to_s));
        assert_eq!(range(None, None, None), Ok((9_101, 10_001)));
        assert_eq!(range(None, None, Some("2h")), Ok((2_801, 10_001)));
        assert_eq!(range(None, Some("500"), Some("90")), Ok((410, 500)));
        assert_eq!(range(Some("5"), Some("9"), None), Ok((5, 9)));
        assert_eq!(range(Some("9"), Some("9"), None), Err(BadQuestion::EmptyRange { from: 9, to: 9 }));
        for bad in ["", "m", "-5m", "5w", "0s", "99999999999d", "1.5h"] {
            assert!(
                matches!(range(None, None, Some(bad)), Err(BadQuestion::Time { name: "last", .. })),
                "{bad}"
            );
        }
        assert!(matches!(range(Some("now"), None, None), Err(BadQuestion::Time { name: "from", .. })));
    }

    #[test]
    fn services_are_found_by_address_and_name() {
        let mut names = Names::default();
        names.add_text("10.0.0.1 web\n10.0.0.2 web\n");
        let parse = |text| {
            ServerFilter::parse(text, &names).map(|filter| match filter {
                ServerFilter::At { ips, port } => (ips.len(), port),
                ServerFilter::Unix(_) => (0, None),
            })
        };
        assert_eq!(parse("10.0.0.9:80"), Ok((1, Some(80))));
        assert_eq!(parse("10.0.0.9"), Ok((1, None)));
        assert_eq!(parse("[2001:db8::1]:443"), Ok((1, Some(443))));
        assert_eq!(parse("2001:db8::1"), Ok((1, None)));
        assert_eq!(parse("WEB"), Ok((2, None)));
        assert_eq!(parse("web:8080"), Ok((2, Some(8080))));
        for name in ["/run/app.sock", "@app:1"] {
            assert_eq!(ServerFilter::parse(name, &names), Ok(ServerFilter::Unix(name.into())));
        }
        for bad in ["nobody", "web:http", "web:99999", ""] {
            assert_eq!(parse(bad), Err(BadQuestion::UnknownService(bad.into())));
        }
    }

    #[test]
    fn cursors_are_read() {
        assert_eq!(parse_cursor("17.4"), Ok((17, 4)));
        assert_eq!(parse_cursor("17"), Ok((17, 0)));
        assert!(parse_cursor("17.x").is_err());
    }
}
