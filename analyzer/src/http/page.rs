//! The web page: what `npm run build` made of `analyzer/web`, embedded in the binary.

use super::error::ApiError;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

macro_rules! asset {
    ($name:literal, $kind:literal) => {
        ($name, $kind, include_bytes!(concat!("../../web/dist/assets/", $name)) as &[u8])
    };
}

/// (name, media type, bytes).
const ASSETS: &[(&str, &str, &[u8])] = &[
    asset!("app.js", "text/javascript; charset=utf-8"),
    asset!("charts.js", "text/javascript; charset=utf-8"),
    asset!("index.css", "text/css; charset=utf-8"),
    asset!("logo.svg", "image/svg+xml"),
];

/// `GET /`.
pub async fn index() -> Response {
    file("text/html; charset=utf-8", include_bytes!("../../web/dist/index.html"))
}

/// `GET /assets/NAME`.
pub async fn asset(Path(name): Path<String>) -> Response {
    match ASSETS.iter().find(|(n, _, _)| *n == name) {
        Some((_, kind, bytes)) => file(kind, bytes),
        None => ApiError::new(StatusCode::NOT_FOUND, format!("there is no file {name}: the page is at /"))
            .into_response(),
    }
}

/// Names stay the same from version to version, so a browser asks again each time.
fn file(kind: &'static str, bytes: &'static [u8]) -> Response {
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], bytes).into_response()
}
