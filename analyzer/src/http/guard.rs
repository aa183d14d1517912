//! What every request passes: who may ask, and the headers that every answer has.

use super::error::ApiError;
use axum::extract::{Request, State};
use axum::http::header::{
    CONTENT_SECURITY_POLICY, HOST, HeaderName, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;

/// The page loads nothing from elsewhere and talks to nobody else.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Names, besides addresses and `localhost`, under which the server may be asked.
pub type AllowedHosts = Arc<[String]>;

/// Refuses requests under foreign names (DNS rebinding) and from pages of other origins, and sets the headers.
pub async fn guard(State(allowed): State<AllowedHosts>, request: Request, next: Next) -> Response {
    let refusal = refusal(request.headers(), &allowed);
    let mut response = match refusal {
        Some(sentence) => ApiError::new(StatusCode::FORBIDDEN, sentence).into_response(),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Why a request is not answered.
fn refusal(headers: &HeaderMap, allowed: &[String]) -> Option<String> {
    let host = headers.get(HOST).map(|h| h.to_str().unwrap_or_default()).unwrap_or_default();
    if !is_allowed(host_name(host), allowed) {
        return Some(format!(
            "the host name {host:?} is not allowed: use an IP address or localhost, or allow the name with --allow-host"
        ));
    }
    let origin = headers.get(ORIGIN)?.to_str().unwrap_or_default();
    let same = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
    (!same)
        .then(|| "requests from pages of other origins are not answered: open the page of this server".into())
}

/// The host without its port.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// Addresses cannot be rebound; names can, save those that the user vouches for.
fn is_allowed(name: &str, allowed: &[String]) -> bool {
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || allowed.iter().any(|a| a.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        refusal(&headers, &["wirespan.example".into()]).is_some()
    }

    #[test]
    fn addresses_localhost_and_allowed_names_are_answered() {
        for host in ["127.0.0.1:7700", "[::1]:7700", "10.0.0.1", "localhost:7700", "WIRESPAN.example:7700"] {
            assert!(!refused(host, None), "{host}");
        }
        for host in ["evil.example:7700", "", "localhost.evil.example", "[::1"] {
            assert!(refused(host, None), "{host}");
        }
    }

    #[test]
    fn pages_of_other_origins_are_not_answered() {
        assert!(!refused("127.0.0.1:7700", Some("http://127.0.0.1:7700")));
        assert!(refused("127.0.0.1:7700", Some("http://127.0.0.1:3000")));
        assert!(refused("127.0.0.1:7700", Some("https://evil.example")));
        assert!(refused("127.0.0.1:7700", Some("null")));
    }
}
