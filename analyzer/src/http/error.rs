//! Errors as JSON: `{"error": "a sentence that says what to do"}`.

use crate::answers::AnswerError;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use wirespan_store::StoreError;

/// A status and a sentence.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    sentence: String,
}

impl ApiError {
    /// An error of this status.
    pub fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(serde_json::json!({ "error": self.sentence }))).into_response()
    }
}

impl From<AnswerError> for ApiError {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::Question(e) => Self::new(StatusCode::BAD_REQUEST, e.to_string()),
            AnswerError::NotFound(sentence) => Self::new(StatusCode::NOT_FOUND, sentence),
            AnswerError::Store(e) => Self::from(e),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::Query { code, .. } => return Self::from_clickhouse(*code, &error.to_string()),
            StoreError::Unreachable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            StoreError::BadAnswer { format: "JSONCompact", .. } => {
                let sentence = "the answer is not JSON: leave FORMAT out of the query, and send one statement that returns rows";
                return Self::new(StatusCode::BAD_REQUEST, sentence);
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let hint = if status == StatusCode::SERVICE_UNAVAILABLE {
            ": try again in a moment, and see the log if it stays"
        } else {
            ""
        };
        Self::new(status, format!("{error}{hint}"))
    }
}

impl ApiError {
    /// ClickHouse's own message, with what to do about the refusals that are ours.
    fn from_clickhouse(code: u32, message: &str) -> Self {
        let (status, hint) = match code {
            // READONLY, ACCESS_DENIED
            164 | 497 => (StatusCode::FORBIDDEN, "; only queries that read the store are allowed here"),
            // TOO_MANY_ROWS_OR_BYTES
            396 => (StatusCode::BAD_REQUEST, "; add a LIMIT or aggregate"),
            // TIMEOUT_EXCEEDED, MEMORY_LIMIT_EXCEEDED
            159 | 241 => (StatusCode::BAD_REQUEST, "; narrow the time range or aggregate"),
            _ => (StatusCode::BAD_REQUEST, ""),
        };
        Self::new(status, format!("{}{hint}", message.trim_end()))
    }
}
