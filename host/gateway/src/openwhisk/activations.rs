//! Activations that have ended: what became of an invocation, for a while.

use std::collections::VecDeque;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bield_face::json_response;
use serde_json::{Value, json};

use super::error::WhiskError;
use super::query::Query;
use super::{Shared, now_ms};

/// Records of one namespace, …
pub(super) const RECORDS_MAX: usize = 1000;
/// … bytes of them, or of one where that may be longer, …
pub(super) const RECORDS_BYTES_MAX: usize = 32 << 20;
/// … and how long they are kept.
const AGE_MS_MAX: u64 = 3_600_000;

/// How an activation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Success,
    /// The request's own fault, or its sender's.
    Application,
    /// It took longer than its action may.
    Developer,
    /// The gateway's or a worker's.
    Internal,
}

/// One activation that has ended.
#[derive(Clone)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) limits: Value,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) ended: Ended,
    pub(super) result: Value,
    /// Length of the result as JSON.
    pub(super) bytes: usize,
}

/// A namespace's records, oldest first.
pub(super) struct Activations {
    records: VecDeque<Record>,
    bytes: usize,
    bytes_max: usize,
}

impl Activations {
    /// None yet, of results of at most so many bytes.
    pub(super) fn of(result_bytes_max: usize) -> Activations {
        Activations {
            records: VecDeque::new(),
            bytes: 0,
            bytes_max: RECORDS_BYTES_MAX.max(result_bytes_max),
        }
    }

    /// Keeps a record, and lets go of the oldest beyond the bounds.
    pub(super) fn keep(&mut self, record: Record) {
        self.bytes += record.bytes;
        self.records.push_back(record);
        let horizon = now_ms().saturating_sub(AGE_MS_MAX);
        while self.records.len() > RECORDS_MAX
            || self.bytes > self.bytes_max
            || self.records.front().is_some_and(|one| one.end < horizon)
        {
            let Some(oldest) = self.records.pop_front() else {
                return;
            };
            self.bytes -= oldest.bytes;
        }
    }

    fn get(&self, id: &str) -> Option<&Record> {
        let horizon = now_ms().saturating_sub(AGE_MS_MAX);
        let found = self.records.iter().find(|record| record.id == id);
        found.filter(|record| record.end >= horizon)
    }
}

impl Ended {
    const fn words(self) -> (u8, &'static str) {
        match self {
            Ended::Success => (0, "success"),
            Ended::Application => (1, "application error"),
            Ended::Developer => (2, "action developer error"),
            Ended::Internal => (3, "whisk internal error"),
        }
    }
}

impl Record {
    /// The record as OpenWhisk shows it.
    pub(super) fn shown(&self, namespace: &str) -> Value {
        let mut shown = self.summary(namespace);
        shown["subject"] = namespace.into();
        shown["response"] = self.response();
        shown["logs"] = json!([]);
        shown
    }

    fn response(&self) -> Value {
        json!({
            "status": self.ended.words().1,
            "success": self.ended == Ended::Success,
            "size": self.bytes,
            "result": self.result,
        })
    }

    fn summary(&self, namespace: &str) -> Value {
        json!({
            "activationId": self.id,
            "namespace": namespace,
            "name": self.name,
            "version": self.version,
            "start": self.start,
            "end": self.end,
            "duration": self.end.saturating_sub(self.start),
            "statusCode": self.ended.words().0,
            "publish": false,
            "annotations": [
                { "key": "path", "value": format!("{namespace}/{}", self.name) },
                { "key": "kind", "value": "blackbox" },
                { "key": "limits", "value": self.limits },
            ],
        })
    }
}

pub(super) async fn show(
    State(openwhisk): Shared,
    Path((namespace, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, WhiskError> {
    let own = openwhisk.namespace(&headers, &namespace)?;
    let activations = own.activations();
    let record = activations.get(&id).ok_or_else(WhiskError::not_found)?;
    let shown = record.shown(own.account.namespace());
    Ok(json_response(StatusCode::OK, &shown))
}

pub(super) async fn show_part(
    State(openwhisk): Shared,
    Path((namespace, id, part)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, WhiskError> {
    let own = openwhisk.namespace(&headers, &namespace)?;
    let activations = own.activations();
    let record = activations.get(&id).ok_or_else(WhiskError::not_found)?;
    let shown = match part.as_str() {
        "result" => record.response(),
        "logs" => json!({ "logs": [] }),
        _ => return Err(WhiskError::not_found()),
    };
    Ok(json_response(StatusCode::OK, &shown))
}

pub(super) async fn list(
    State(openwhisk): Shared,
    Path(namespace): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, WhiskError> {
    let own = openwhisk.namespace(&headers, &namespace)?;
    let query = Query::of(query.as_deref());
    let (skip, limit) = query.page()?;
    let (since, upto) = (query.number("since")?, query.number("upto")?);
    let activations = own.activations();
    // Newest first.
    let horizon = now_ms().saturating_sub(AGE_MS_MAX);
    let wanted = activations.records.iter().rev().filter(|record| {
        record.end >= horizon
            && query.get("name").is_none_or(|name| record.name == name)
            && since.is_none_or(|since| record.start >= since)
            && upto.is_none_or(|upto| record.start <= upto)
    });
    if query.says("count") {
        let count = json!({ "activations": wanted.count() });
        return Ok(json_response(StatusCode::OK, &count));
    }
    let namespace = own.account.namespace();
    let shown = wanted.skip(skip).take(limit);
    let shown: Vec<Value> = match query.says("docs") {
        true => shown.map(|record| record.shown(namespace)).collect(),
        false => shown.map(|record| record.summary(namespace)).collect(),
    };
    Ok(json_response(StatusCode::OK, &shown.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: usize, bytes: usize, end: u64) -> Record {
        Record {
            id: number.to_string(),
            name: "a".to_owned(),
            version: "0.0.1".to_owned(),
            limits: json!({}),
            start: end,
            end,
            ended: Ended::Success,
            result: json!({}),
            bytes,
        }
    }

    #[test]
    fn the_oldest_go_beyond_number_bytes_and_age() {
        let now = now_ms();
        let mut kept = Activations::of(1);
        for number in 0..RECORDS_MAX + 5 {
            kept.keep(record(number, 1, now));
        }
        assert_eq!((kept.records.len(), kept.bytes), (RECORDS_MAX, RECORDS_MAX));
        assert!(kept.get("4").is_none() && kept.get("5").is_some());

        kept.keep(record(9999, RECORDS_BYTES_MAX, now));
        assert_eq!((kept.records.len(), kept.bytes), (1, RECORDS_BYTES_MAX));
        let mut long = Activations::of(RECORDS_BYTES_MAX + 1);
        long.keep(record(1, RECORDS_BYTES_MAX + 1, now));
        assert!(long.get("1").is_some(), "the longest result has room");

        let old = now - AGE_MS_MAX - 1;
        kept.keep(record(1, 1, old));
        assert!(kept.get("1").is_none());
        kept.keep(record(2, 1, now));
        assert_eq!(kept.records.len(), 1);
    }
}
