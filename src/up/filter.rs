//! `--filter FILE`: which packets are wanted. The file is read again on SIGHUP.
//!
//! ```yaml
//! allow:                      # of each kind that is given, a packet must meet one
//!   networks: [10.0.0.0/8, fd00::/8]
//!   ports: [80, 443, 8000-8100]
//!   protocols: [tcp, udp, icmp, 47]
//! deny:                       # a packet must meet none
//!   vlans: [100-199]          # 0 is a packet without a tag
//!   tunnel_ids: [42]          # VNI, GRE key, ERSPAN session, TEID
//! ```

use anyhow::{Context, bail};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use wirespan_capture::{Filter, Network, Rules};

/// The rules as they are now, for workers that look at them while they run.
#[derive(Clone)]
pub struct LiveFilter(Arc<Shared>);

struct Shared {
    path: Option<PathBuf>,
    filter: Mutex<Arc<Filter>>,
    version: AtomicU64,
}

impl LiveFilter {
    /// Reads the file; without one, everything is wanted.
    pub fn load(path: Option<&Path>) -> anyhow::Result<Self> {
        let filter = path.map(read).transpose()?.unwrap_or_default();
        Ok(Self(Arc::new(Shared {
            path: path.map(Path::to_owned),
            version: AtomicU64::new(u64::from(path.is_some())),
            filter: Mutex::new(Arc::new(filter)),
        })))
    }

    /// Reads the file again; when it cannot be understood the rules stay as they are. Gives whether there is one.
    pub fn reload(&self) -> anyhow::Result<bool> {
        let Some(path) = &self.0.path else { return Ok(false) };
        let filter = Arc::new(read(path)?);
        *self.0.filter.lock().unwrap_or_else(PoisonError::into_inner) = filter;
        self.0.version.fetch_add(1, Ordering::Release);
        Ok(true)
    }

    /// The rules.
    pub fn now(&self) -> Filter {
        Filter::clone(&self.0.filter.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The rules, when they are others than at `version`, which begins at 0.
    pub fn changed(&self, version: &mut u64) -> Option<Arc<Filter>> {
        let now = self.0.version.load(Ordering::Acquire);
        if now == *version {
            return None;
        }
        *version = now;
        Some(Arc::clone(&self.0.filter.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn read(path: &Path) -> anyhow::Result<Filter> {
    let name = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| {
        format!("cannot read the filter file {}; check the path and its permissions", name())
    })?;
    parse(&text).with_context(|| format!("filter file {}", name()))
}

fn parse(text: &str) -> anyhow::Result<Filter> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet().to_string();
        let told = error.lines().next().unwrap_or_default();
        anyhow::Error::msg(
            told.replace("mapping start", "rules, such as {ports: [22]}")
                .replace("sequence start", "a list, such as [22]"),
        )
    })?;
    let filter = Filter { allow: file.allow.into(), deny: file.deny.into() };
    if let Some((what, entries)) = filter.excess() {
        bail!(
            "it has {entries} {what}; at most {} are possible, so sum them up in fewer",
            Filter::ENTRIES_MAX
        );
    }
    Ok(filter)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    allow: List,
    deny: List,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct List {
    networks: Vec<Text<Network>>,
    ports: Vec<Text<Range<65535>>>,
    protocols: Vec<Text<Protocol>>,
    vlans: Vec<Text<Range<4094>>>,
    tunnel_ids: Vec<Text<TunnelId>>,
}

impl From<List> for Rules {
    fn from(list: List) -> Self {
        fn flat<const N: u16>(ranges: Vec<Text<Range<N>>>) -> BTreeSet<u16> {
            ranges.into_iter().flat_map(|range| range.0.0).collect()
        }
        Self {
            networks: list.networks.into_iter().map(|network| network.0).collect(),
            ports: flat(list.ports),
            protocols: list.protocols.into_iter().map(|protocol| protocol.0.0).collect(),
            vlans: flat(list.vlans),
            tunnel_ids: list.tunnel_ids.into_iter().map(|id| id.0.0).collect(),
        }
    }
}

/// Numbers up to `N`: `80` or `8000-8100`.
struct Range<const N: u16>(RangeInclusive<u16>);

impl<const N: u16> FromStr for Range<N> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.trim().parse::<u16>().ok().filter(|&number| number <= N);
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first..=last)),
            _ => Err(format!("`{text}` is neither a number up to {N} nor a range of them, such as 100-199")),
        }
    }
}

struct TunnelId(u32);

impl FromStr for TunnelId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let id = text
            .parse()
            .map_err(|_| format!("`{text}` is no tunnel id; give a number up to {}", u32::MAX))?;
        Ok(Self(id))
    }
}

struct Protocol(u8);

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = match text.to_ascii_lowercase().as_str() {
            "icmp" => 1,
            "tcp" => 6,
            "udp" => 17,
            "icmpv6" => 58,
            "sctp" => 132,
            other => other.parse().map_err(|_| {
                format!("`{text}` is no IP protocol; give icmp, tcp, udp, icmpv6, sctp or a number up to 255")
            })?,
        };
        Ok(Self(number))
    }
}

/// A scalar, number or text, that is parsed as text.
struct Text<T>(T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar<T>(std::marker::PhantomData<T>);

        impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Scalar<T> {
            type Value = Text<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<T>, E> {
                text.parse().map(Text).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Text<T>, E> {
                self.visit_str(&number.to_string())
            }
        }

        deserializer.deserialize_any(Scalar(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_is_allowed_and_what_is_denied() {
        let filter = parse(
            "allow:\n  networks: [10.0.0.0/8, 'fd00::/8']\n  ports: [80, 8000-8002]\n  protocols: [tcp, 47]\n\
             deny:\n  vlans: [0, 100-101]\n  tunnel_ids: [42]\n",
        )
        .unwrap();
        let numbers = |set: &BTreeSet<u16>| set.iter().copied().collect::<Vec<_>>();
        assert_eq!(filter.allow.networks.len(), 2);
        assert_eq!(numbers(&filter.allow.ports), [80, 8000, 8001, 8002]);
        assert_eq!(filter.allow.protocols, BTreeSet::from([6, 47]));
        assert_eq!(numbers(&filter.deny.vlans), [0, 100, 101]);
        assert_eq!(filter.deny.tunnel_ids, BTreeSet::from([42]));
        assert_eq!(parse("{}").unwrap(), Filter::default());
    }

    #[test]
    fn what_is_wrong_is_told_with_what_is_allowed() {
        let says = |text: &str| parse(text).unwrap_err().to_string();
        assert!(says("deny: {ports: [8100-8000]}").contains("`8100-8000` is neither a number up to 65535"));
        assert!(says("deny: {vlans: [4095]}").contains("up to 4094"));
        assert!(says("allow: {protocols: [http]}").contains("give icmp, tcp"));
        assert!(says("allow: {port: [80]}").contains("port"));
        assert!(says("allow: {networks: [10.0.0.0/33]}").contains("10.0.0.0/33"));
        assert!(says("deny: {tunnel_ids: [1-5]}").contains("`1-5` is no tunnel id"));
        assert!(says("deny: {ports: 80}").contains("expected a list, such as [22] at line 1, column 15"));
        let ids = (0..=Filter::ENTRIES_MAX).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
        assert!(says(&format!("deny: {{tunnel_ids: [{ids}]}}")).contains("65537 tunnel ids; at most 65536"));
    }

    #[test]
    fn a_file_that_is_wrong_leaves_the_rules_as_they_are() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "deny: {ports: [22]}").unwrap();
        let live = LiveFilter::load(Some(file.path())).unwrap();
        let mut version = 0;
        assert_eq!(live.changed(&mut version).unwrap().deny.ports, BTreeSet::from([22]));
        assert!(live.changed(&mut version).is_none());
        std::fs::write(&file, "deny: {ports: [oops]}").unwrap();
        assert!(live.reload().is_err() && live.changed(&mut version).is_none());
        std::fs::write(&file, "deny: {ports: [23]}").unwrap();
        assert!(live.reload().unwrap());
        assert_eq!(live.changed(&mut version).unwrap().deny.ports, BTreeSet::from([23]));
        assert!(!LiveFilter::load(None).unwrap().reload().unwrap());
    }
}
