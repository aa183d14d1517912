//! Request targets: their host, what is shown of them, and what requests are grouped by (RFC 9112, section 3.2).

use crate::text::text;
use wirespan_records::Text;

/// Host and path of a request target, in any of its four forms.
pub(super) struct Target<'a> {
    /// Only in absolute and authority form.
    pub authority: Option<&'a [u8]>,
    /// Path and query; the authority for `CONNECT`.
    pub path: &'a [u8],
}

impl<'a> Target<'a> {
    pub(super) fn parse(method: &[u8], target: &'a [u8]) -> Self {
        if method == b"CONNECT" {
            return Self { authority: Some(target), path: target };
        }
        let Some(rest) = strip_scheme(target) else { return Self { authority: None, path: target } };
        let end = rest.iter().position(|b| b"/?#".contains(b)).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        Self { authority: Some(without_userinfo(authority)), path: if path.is_empty() { b"/" } else { path } }
    }
}

fn strip_scheme(target: &[u8]) -> Option<&[u8]> {
    [&b"http://"[..], b"https://"].into_iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

fn without_userinfo(authority: &[u8]) -> &[u8] {
    authority.rsplit(|&b| b == b'@').next().unwrap_or(authority)
}

/// The first `segments` segments of the path, without the query.
pub(in crate::protocols) fn endpoint(path: &[u8], segments: usize, max: usize) -> Option<Text> {
    if segments == 0 {
        return None;
    }
    let path = path.split(|b| b"?#".contains(b)).next().unwrap_or(path);
    let mut slashes = path.iter().enumerate().filter(|&(at, &b)| at > 0 && b == b'/').map(|(at, _)| at);
    let start = slashes.nth(segments - 1).and_then(|end| path.get(..end)).unwrap_or(path);
    let start = match start.strip_suffix(b"/") {
        Some(b"") | None => start,
        Some(trimmed) => trimmed,
    };
    Some(text(start, max))
}

/// A URL or path as text. With `obfuscate`, values of the query become `?` and userinfo is left out.
pub(in crate::protocols) fn url(url: &[u8], obfuscate: bool, max: usize) -> Text {
    if !obfuscate {
        return text(url, max);
    }
    let url = text(url, max);
    let url = url.split_once('#').map_or(url.as_str(), |(url, _)| url);
    let (address, query) = url.split_once('?').map_or((url, None), |(a, q)| (a, Some(q)));
    let mut shown = Text::with_capacity(url.len());
    match address.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            shown.extend([scheme, "://", host, path]);
        }
        None => shown.push_str(address),
    }
    for (index, parameter) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        shown.push(if index == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            Some((name, _)) => shown.extend([name, "=?"]),
            // A lone word may be a value as well as a name.
            None if !parameter.is_empty() => shown.push('?'),
            None => {}
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_the_first_segments() {
        let endpoint = |path: &str| endpoint(path.as_bytes(), 2, 100).unwrap();
        assert_eq!(endpoint("/"), "/");
        assert_eq!(endpoint("/createOrder"), "/createOrder");
        assert_eq!(endpoint("/api/v1/users/5?x=/y"), "/api/v1");
        assert_eq!(endpoint("/api/v1?x=1"), "/api/v1");
        assert_eq!(endpoint("/api/"), "/api");
        assert_eq!(endpoint("*"), "*");
    }

    #[test]
    fn finds_the_authority_in_absolute_and_authority_form() {
        let parts = |method: &str, target: &'static str| {
            let target = Target::parse(method.as_bytes(), target.as_bytes());
            (target.authority.map(|a| text(a, 100)), text(target.path, 100))
        };
        assert_eq!(parts("GET", "HTTP://u:p@h:81/a?b"), (Some("h:81".into()), "/a?b".into()));
        assert_eq!(parts("GET", "http://h"), (Some("h".into()), "/".into()));
        assert_eq!(parts("CONNECT", "h:443"), (Some("h:443".into()), "h:443".into()));
        assert_eq!(parts("OPTIONS", "*"), (None, "*".into()));
    }

    #[test]
    fn obfuscation_keeps_names_only() {
        let shown = |raw: &str| url(raw.as_bytes(), true, 1000);
        assert_eq!(shown("/a?user=bob&x=&token&n=1=2#frag"), "/a?user=?&x=?&?&n=?");
        assert_eq!(shown("https://bob:secret@h/p?q=1"), "https://h/p?q=?");
        assert_eq!(shown("/plain"), "/plain");
        assert_eq!(url(b"/a?b=1", false, 1000), "/a?b=1");
    }
}
