//! The server's certificate, visible up to TLS 1.2 (RFC 5246 section 7.4.2, RFC 5280).

use super::reader::Reader;
use crate::text::text;
use compact_str::{ToCompactString, format_compact};
use wirespan_records::Text;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

const SECONDS_PER_DAY: i64 = 86_400;
/// Names of a certificate that are shown.
const MAX_NAMES: usize = 16;
/// The longest name that is shown.
const MAX_NAME: usize = 256;

/// Attributes of the first certificate in the body of a Certificate message, at `now_s` (Unix time).
pub(super) fn attributes(body: &[u8], now_s: i64) -> Vec<(&'static str, Text)> {
    let der = Reader::new(body).vector24().vector24().rest();
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Vec::new() };
    let names: Vec<Text> = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => {
            extension.value.general_names.iter().filter_map(dns_name).take(MAX_NAMES).collect()
        }
        _ => Vec::new(),
    };
    let not_after_s = certificate.validity().not_after.timestamp();
    let mut attributes = Vec::with_capacity(5);
    if let Some(subject) = name(certificate.subject()).or_else(|| names.first().cloned()) {
        attributes.push(("tls.certificate.subject", subject));
    }
    if !names.is_empty() {
        attributes.push(("tls.certificate.alt_names", names.join(",").into()));
    }
    if let Some(issuer) = name(certificate.issuer()) {
        attributes.push(("tls.certificate.issuer", issuer));
    }
    attributes.push(("tls.certificate.not_after", date(not_after_s)));
    let days_left = not_after_s.saturating_sub(now_s).div_euclid(SECONDS_PER_DAY);
    attributes.push(("tls.certificate.days_left", days_left.to_compact_string()));
    attributes
}

/// The common name, else the organization.
fn name(name: &X509Name<'_>) -> Option<Text> {
    let part = name.iter_common_name().next().or_else(|| name.iter_organization().next())?;
    part.as_str().ok().map(|part| text(part.as_bytes(), MAX_NAME))
}

fn dns_name(name: &GeneralName<'_>) -> Option<Text> {
    match name {
        GeneralName::DNSName(name) => Some(text(name.as_bytes(), MAX_NAME)),
        _ => None,
    }
}

/// The day as `2027-01-31` (proleptic Gregorian calendar, from days since 1970-01-01).
fn date(unix_s: i64) -> Text {
    // Eras of 400 years that begin on 1 March, so that the leap day is the last of its year.
    let days = unix_s.div_euclid(SECONDS_PER_DAY) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format_compact!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn knows_the_calendar() {
        for (unix_s, day) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (4_107_542_400, "2100-03-01"),
            (253_402_300_799, "9999-12-31"),
            (-1, "1969-12-31"),
        ] {
            assert_eq!(date(unix_s), day);
        }
    }
}
