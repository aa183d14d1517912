//! Reads `taps.yaml`. Whatever is wrong is told with its line and with what is allowed.

use super::{Conditions, Network, Ranges, Tap, TapKind, Taps};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};
use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use wirespan_records::TunnelKind;

/// Longest file that is read.
const MAX_BYTES: u64 = 4 << 20;
/// Most taps of a file.
const MAX_TAPS: usize = 4096;
/// Most ranges in one list.
const MAX_RANGES: usize = 1024;

/// Copies of a switch port's ingress and egress, or of two VLANs, are at most a full port buffer apart. Far below the
/// 200 ms after which TCP sends again.
const DEFAULT_WINDOW: Duration = Duration::from_millis(10);
/// Beyond this, what TCP sends again would be taken for a duplicate.
const MAX_WINDOW: Duration = Duration::from_millis(100);

/// What the library says, and what it means in a taps file.
const PLAIN: [(&str, &str); 7] = [
    ("unexpected end of input", "the file ends before its taps; give `taps:` and a list of them"),
    ("expected sequence start", "expected a list of taps, each with `- ` before it"),
    ("expected mapping start", "expected fields with values, such as {vlan: 1}"),
    ("expected string scalar", "expected a single value"),
    ("externally tagged enum expected scalar or mapping", "expected a single value"),
    ("cannot deserialize null into string; use Option<String>", "the value is missing"),
    ("unknown variant `~`", "the value is missing"),
];

/// Why there are no taps.
#[derive(Debug, thiserror::Error)]
pub enum TapsError {
    /// The file cannot be read.
    #[error("cannot read the taps file {path}: {source}; check the path and its permissions")]
    Read {
        /// As given by the user.
        path: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file says something that cannot be.
    #[error("taps file {path}: {source}")]
    File {
        /// As given by the user.
        path: String,
        /// What, and where.
        source: Box<Self>,
    },
    /// Something in the text cannot be.
    #[error("line {line}, column {column}: {problem}")]
    Invalid {
        /// From 1.
        line: u64,
        /// From 1.
        column: u64,
        /// What is wrong, and what is allowed.
        problem: String,
    },
}

impl TapsError {
    fn at(location: Location, problem: impl Into<String>) -> Self {
        Self::Invalid { line: location.line(), column: location.column(), problem: problem.into() }
    }
}

impl From<serde_saphyr::Error> for TapsError {
    fn from(error: serde_saphyr::Error) -> Self {
        let location = error.location().unwrap_or(Location::UNKNOWN);
        let text = error.without_snippet().to_string();
        let place = format!(" at line {}, column {}", location.line(), location.column());
        let text = text.replace(&place, "");
        // Some advise on the options of the library.
        let told = text.lines().next().unwrap_or_default().split(", set ").next().unwrap_or_default();
        // Others name types of Rust or parts of YAML's grammar.
        let told = PLAIN.iter().fold(told.to_owned(), |told, (theirs, plain)| told.replace(theirs, plain));
        Self::at(location, told)
    }
}

impl Taps {
    /// Reads and checks the file.
    pub fn read(path: &Path) -> Result<Self, TapsError> {
        let name = || path.display().to_string();
        let failed = |source| TapsError::Read { path: name(), source };
        if std::fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
            let problem =
                format!("the file is longer than {MAX_BYTES} bytes; give ranges instead of single taps");
            return Err(TapsError::Invalid { line: 1, column: 1, problem }.in_file(name()));
        }
        Self::parse(&std::fs::read_to_string(path).map_err(failed)?).map_err(|e| e.in_file(name()))
    }

    /// Checks the text of a file.
    pub fn parse(text: &str) -> Result<Self, TapsError> {
        let file: RawFile = serde_saphyr::from_str(text)?;
        let dedup = file.dedup.as_ref().map(window).transpose()?.flatten();
        if let Some(tap) = file.taps.get(MAX_TAPS) {
            let problem = format!("there are more than {MAX_TAPS} taps; give ranges instead of single taps");
            return Err(TapsError::at(tap.referenced, problem));
        }
        let (mut ids, mut names) = (HashSet::new(), HashSet::new());
        let mut taps = Vec::with_capacity(file.taps.len());
        for (index, raw) in file.taps.iter().enumerate() {
            let tap = raw.value.check(raw.referenced, index, dedup)?;
            if !names.insert(tap.name.clone()) {
                let problem = format!("the name {} is taken by another tap; give each its own", tap.name);
                return Err(TapsError::at(raw.value.name.referenced, problem));
            }
            if !ids.insert(tap.id) {
                let problem = format!(
                    "the id {} is taken by another tap; give each its own `id` (without one, it is the tap's place)",
                    tap.id
                );
                return Err(TapsError::at(
                    raw.value.id.as_ref().map_or(raw.referenced, |id| id.referenced),
                    problem,
                ));
            }
            taps.push(tap);
        }
        Ok(Self { taps, dedup })
    }
}

impl TapsError {
    fn in_file(self, path: String) -> Self {
        Self::File { path, source: Box::new(self) }
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default, deserialize_with = "given")]
    dedup: Option<Spanned<Texts>>,
    taps: Vec<Spanned<RawTap>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTap {
    name: Spanned<String>,
    #[serde(default, deserialize_with = "given")]
    id: Option<Spanned<Texts>>,
    kind: TapKind,
    #[serde(default)]
    device: String,
    #[serde(default)]
    port: String,
    #[serde(default)]
    site: String,
    #[serde(default, deserialize_with = "given")]
    dedup: Option<Spanned<Texts>>,
    #[serde(rename = "match")]
    conditions: Spanned<RawConditions>,
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawConditions {
    #[serde(deserialize_with = "given")]
    interface: Option<String>,
    #[serde(deserialize_with = "given")]
    vlan: Option<Spanned<Texts>>,
    #[serde(deserialize_with = "given")]
    vxlan: Option<Spanned<Texts>>,
    #[serde(deserialize_with = "given")]
    geneve: Option<Spanned<Texts>>,
    #[serde(deserialize_with = "given")]
    erspan_session: Option<Spanned<Texts>>,
    #[serde(deserialize_with = "given")]
    gre_key: Option<Spanned<Texts>>,
    #[serde(deserialize_with = "given")]
    outer_source: Option<Spanned<Texts>>,
    #[serde(deserialize_with = "given")]
    source_mac: Option<Spanned<Texts>>,
    #[serde(deserialize_with = "given")]
    destination_mac: Option<Spanned<Texts>>,
}

impl RawTap {
    fn check(&self, at: Location, index: usize, dedup: Option<Duration>) -> Result<Tap, TapsError> {
        if self.name.value.trim().is_empty() {
            return Err(TapsError::at(self.name.referenced, "the name is empty; name the tap"));
        }
        let id = match &self.id {
            None => u16::try_from(index + 1).map_err(|_| TapsError::at(at, "there are too many taps"))?,
            Some(id) => one(id, "id: a number from 1 to 65535", |text| {
                text.parse().ok().filter(|&id| id != wirespan_records::NO_TAP)
            })?,
        };
        Ok(Tap {
            id,
            name: self.name.value.clone(),
            kind: self.kind,
            device: self.device.clone(),
            port: self.port.clone(),
            site: self.site.clone(),
            dedup: match &self.dedup {
                None => dedup,
                Some(own) => window(own)?,
            },
            conditions: self.conditions.value.check(self.conditions.referenced)?,
        })
    }
}

impl RawConditions {
    fn check(&self, at: Location) -> Result<Conditions, TapsError> {
        const MAX_VNI: u64 = 0xff_ffff;
        let tunnels = [
            (TunnelKind::Vxlan, "vxlan", &self.vxlan, MAX_VNI),
            (TunnelKind::Geneve, "geneve", &self.geneve, MAX_VNI),
            (TunnelKind::Erspan, "erspan_session", &self.erspan_session, 1023),
            (TunnelKind::Gre, "gre_key", &self.gre_key, u64::from(u32::MAX)),
        ];
        let mut tunnel = None;
        for (kind, field, texts, max) in tunnels {
            let Some(texts) = texts else { continue };
            if tunnel.is_some() {
                let problem = format!(
                    "{field} beside another tunnel: a frame has one outermost tunnel; give one of vxlan, geneve, erspan_session and gre_key"
                );
                return Err(TapsError::at(texts.referenced, problem));
            }
            tunnel = Some((kind, numbers(texts, field, 0..=max)?));
        }
        let conditions = Conditions {
            interface: self.interface.clone(),
            vlan: self.vlan.as_ref().map(|texts| numbers(texts, "vlan", 1..=4094)).transpose()?,
            tunnel,
            outer_source: self.outer_source.as_ref().map(networks).transpose()?,
            source_mac: self.source_mac.as_ref().map(|texts| macs(texts, "source_mac")).transpose()?,
            destination_mac: self
                .destination_mac
                .as_ref()
                .map(|texts| macs(texts, "destination_mac"))
                .transpose()?,
        };
        let Conditions { interface, vlan, tunnel, outer_source, source_mac, destination_mac } = &conditions;
        let none = interface.is_none()
            && vlan.is_none()
            && tunnel.is_none()
            && outer_source.is_none()
            && source_mac.is_none()
            && destination_mac.is_none();
        if none {
            return Err(TapsError::at(
                at,
                "match is empty; give at least one of interface, vlan, vxlan, geneve, erspan_session, gre_key, \
                 outer_source, source_mac and destination_mac",
            ));
        }
        Ok(conditions)
    }
}

/// A field that may be left out, but not be without a value: a tap would get more than was meant.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A scalar, or a list of them, as text; what it means is decided later, where the field is known.
struct Texts(Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalars;
        impl<'de> Visitor<'de> for Scalars {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a single value or a list of them")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Texts, E> {
                self.visit_str(if value { "true" } else { "false" })
            }

            fn visit_unit<E: de::Error>(self) -> Result<Texts, E> {
                Err(E::custom("the value is missing"))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Texts, E> {
                Ok(Texts(vec![value.to_string()]))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Texts, E> {
                Ok(Texts(vec![value.to_string()]))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Texts, E> {
                Ok(Texts(vec![value.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(item) = items.next_element::<Scalar>()? {
                    if texts.len() == MAX_RANGES {
                        return Err(de::Error::custom(format!(
                            "the list is longer than {MAX_RANGES}; give ranges A-B"
                        )));
                    }
                    texts.push(item.0);
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_any(Scalars)
    }
}

/// An element of a list: text, or a number as text.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// Every element as `read` understands it.
fn each<T>(
    texts: &Spanned<Texts>,
    allowed: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, TapsError> {
    let all = &texts.value.0;
    if all.is_empty() {
        return Err(TapsError::at(texts.referenced, format!("the list is empty; allowed is {allowed}")));
    }
    let wrong = |text: &String| {
        TapsError::at(texts.referenced, format!("{text} is not allowed; allowed is {allowed}"))
    };
    all.iter().map(|text| read(text.trim()).ok_or_else(|| wrong(text))).collect()
}

fn one<T>(texts: &Spanned<Texts>, allowed: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, TapsError> {
    let mut values = each(texts, allowed, read)?;
    match (values.pop(), values.is_empty()) {
        (Some(value), true) => Ok(value),
        _ => Err(TapsError::at(texts.referenced, format!("more than one value; allowed is {allowed}"))),
    }
}

/// `A` or `A-B`.
fn range(text: &str, number: impl Fn(&str) -> Option<u64>) -> Option<std::ops::RangeInclusive<u64>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first.trim())?, number(last.trim())?);
    (first <= last).then_some(first..=last)
}

fn numbers(
    texts: &Spanned<Texts>,
    field: &str,
    allowed: std::ops::RangeInclusive<u64>,
) -> Result<Ranges, TapsError> {
    let (first, last) = (allowed.start(), allowed.end());
    let says = format!("{field}: a number from {first} to {last}, a range A-B, or a list of these");
    let number = |text: &str| text.parse().ok().filter(|number| allowed.contains(number));
    each(texts, &says, |text| range(text, number))
}

fn macs(texts: &Spanned<Texts>, field: &str) -> Result<Ranges, TapsError> {
    let says = format!("{field}: an address such as 02:00:00:00:00:01, a range A-B, or a list of these");
    each(texts, &says, |text| range(text, mac))
}

/// A MAC address as a number.
fn mac(text: &str) -> Option<u64> {
    let byte = |part: &str| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2);
    let bytes: Vec<u8> = text.split(':').map(byte).collect::<Option<_>>()?;
    (bytes.len() == 6).then(|| bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

fn networks(texts: &Spanned<Texts>) -> Result<Vec<Network>, TapsError> {
    let says = "outer_source: an address, a network such as 10.0.0.0/8, or a list of these";
    each(texts, says, |text| {
        let (ip, prefix) = text.split_once('/').unwrap_or((text, ""));
        let ip: IpAddr = ip.parse().ok()?;
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        Network::new(ip, if text.contains('/') { prefix.parse().ok()? } else { whole })
    })
}

/// `true`, `false` or a time.
fn window(texts: &Spanned<Texts>) -> Result<Option<Duration>, TapsError> {
    let says = format!(
        "dedup: true ({} ms), false, or a time such as 500us or 5ms, at most {} ms (beyond it, TCP's retransmissions would be lost)",
        DEFAULT_WINDOW.as_millis(),
        MAX_WINDOW.as_millis()
    );
    one(texts, &says, |text| match text {
        "true" => Some(Some(DEFAULT_WINDOW)),
        "false" => Some(None),
        _ => {
            let (number, unit) = text.split_at_checked(text.len().checked_sub(2)?)?;
            let number: u64 = number.parse().ok()?;
            let window = match unit {
                "us" => Duration::from_micros(number),
                "ms" => Duration::from_millis(number),
                _ => return None,
            };
            (window <= MAX_WINDOW && !window.is_zero()).then_some(Some(window))
        }
    })
}

#[cfg(test)]
mod tests;
