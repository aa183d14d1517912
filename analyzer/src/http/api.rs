//! The handlers of `/api`.

use super::AppState;
use super::error::ApiError;
use crate::answers::{SqlAnswer, Traces};
use crate::query::{RangeParams, flows, map, services, spans, taps, traces};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;
use wirespan_stitch::Trace;
use wirespan_store::WriterWatch;

type Answer<T> = Result<Json<T>, ApiError>;
type Params<T> = Result<Query<T>, QueryRejection>;

/// Seconds since the epoch.
fn now_s() -> u32 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs().try_into().unwrap_or(u32::MAX))
}

/// The parameters, or an error that names the one that is wrong.
fn params<T>(params: Params<T>) -> Result<T, ApiError> {
    params.map(|Query(params)| params).map_err(|e| {
        ApiError::new(StatusCode::BAD_REQUEST, format!("the parameters cannot be read: {}", e.body_text()))
    })
}

fn range(asked: Params<RangeParams>) -> Result<crate::query::Range, ApiError> {
    params(asked)?.range(now_s()).map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, e.to_string()))
}

pub async fn health(State(state): State<AppState>) -> (StatusCode, Json<serde_json::Value>) {
    let unavailable = state.answers.ping().await.err().map(|error| error.to_string());
    // A store that answers may yet take no rows: its disk is full.
    let failure = state.writer.as_ref().and_then(WriterWatch::failure);
    let rows = state.writer.as_ref().map(WriterWatch::counters).unwrap_or_default();
    let (code, status) = match (&unavailable, &failure) {
        (Some(_), _) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
        (None, Some(_)) => (StatusCode::OK, "degraded"),
        (None, None) => (StatusCode::OK, "ok"),
    };
    let body = serde_json::json!({
        "status": status,
        "store": unavailable.or(failure).unwrap_or_else(|| "ok".to_owned()),
        "rows_waiting": rows.rows_waiting,
        "rows_dropped": rows.rows_dropped_full + rows.rows_dropped_refused,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": state.started.elapsed().as_secs(),
    });
    (code, Json(body))
}

#[derive(Deserialize)]
struct SqlRequest {
    sql: String,
}

pub async fn sql(State(state): State<AppState>, body: Result<Bytes, BytesRejection>) -> Answer<SqlAnswer> {
    let body = body.map_err(|e| {
        let sentence = format!("the body cannot be read ({}): send at most 1 MiB", e.body_text());
        ApiError::new(e.status(), sentence)
    })?;
    let request: SqlRequest = serde_json::from_slice(&body).map_err(|e| {
        let sentence = format!("the body is not {{\"sql\": \"SELECT ...\"}} in JSON: {e}");
        ApiError::new(StatusCode::BAD_REQUEST, sentence)
    })?;
    Ok(Json(state.answers.sql(&request.sql).await?))
}

pub async fn services(
    State(state): State<AppState>,
    asked: Params<RangeParams>,
) -> Answer<services::Services> {
    Ok(Json(state.answers.services(range(asked)?).await?))
}

pub async fn map(State(state): State<AppState>, asked: Params<RangeParams>) -> Answer<map::Map> {
    Ok(Json(state.answers.map(range(asked)?).await?))
}

pub async fn spans(
    State(state): State<AppState>,
    asked: Params<RangeParams>,
    filter: Params<spans::SpanParams>,
) -> Answer<spans::Spans> {
    Ok(Json(state.answers.spans(&params(filter)?, range(asked)?).await?))
}

pub async fn flows(
    State(state): State<AppState>,
    asked: Params<RangeParams>,
    filter: Params<flows::FlowParams>,
) -> Answer<flows::Flows> {
    Ok(Json(state.answers.flows(&params(filter)?, range(asked)?).await?))
}

pub async fn taps(State(state): State<AppState>, asked: Params<RangeParams>) -> Answer<taps::Taps> {
    Ok(Json(state.answers.taps(range(asked)?).await?))
}

pub async fn trace(State(state): State<AppState>, Path(id): Path<String>) -> Answer<Trace> {
    Ok(Json(state.answers.trace(&id).await?))
}

/// One trace, or a list of them.
#[derive(Serialize)]
#[serde(untagged)]
pub enum TraceOrList {
    One(Box<Trace>),
    List(Traces),
}

pub async fn traces(
    State(state): State<AppState>,
    asked: Params<RangeParams>,
    filter: Params<traces::TraceParams>,
) -> Answer<TraceOrList> {
    let filter = params(filter)?;
    Ok(Json(match filter.span {
        Some(id) => TraceOrList::One(Box::new(state.answers.trace_of_span(id).await?)),
        None => TraceOrList::List(state.answers.traces(&filter, range(asked)?).await?),
    }))
}
