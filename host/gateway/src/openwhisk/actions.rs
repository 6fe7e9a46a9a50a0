//! Actions: a name, the image that somebody asked for, limits.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bield_face::json_response;
use serde_json::{Value, json};

use super::error::WhiskError;
use super::query::Query;
use super::{Limits, Namespace, Openwhisk, Shared, now_ms};

/// Actions of one namespace; of [`DEFINITION_BYTES_MAX`] each.
pub(super) const ACTIONS_MAX: usize = 256;
/// Longest definition in bytes: code has no place in it.
const DEFINITION_BYTES_MAX: usize = 64 << 10;
/// Longest name in characters, as OpenWhisk has it.
const NAME_MAX: usize = 256;
pub(super) const TIMEOUT_MS_MIN: u64 = 100;
const TIMEOUT_MS: u64 = 60_000;
/// What may stand as an action's memory: it is shown and takes nothing, workers have their own limit.
pub(super) const MEMORY_MIB: RangeInclusive<u64> = 128..=65_536;
const MEMORY_MIB_USUAL: u64 = 256;
const LOGS_MIB: u64 = 10;

/// A namespace's actions.
#[derive(Default)]
pub(super) struct Actions(BTreeMap<String, Action>);

/// One action.
#[derive(Clone)]
pub(super) struct Action {
    image: String,
    annotations: Value,
    version: u64,
    updated: u64,
    timeout_ms: u64,
    memory: u64,
    logs: u64,
    concurrency: u64,
}

impl Actions {
    pub(super) fn get(&self, name: &str) -> Option<&Action> {
        self.0.get(name)
    }

    /// Makes or replaces an action.
    fn put(
        &mut self,
        name: &str,
        overwrite: bool,
        definition: &Value,
        limits: &Limits,
    ) -> Result<&Action, WhiskError> {
        let known = self.0.get(name);
        if known.is_some() && !overwrite {
            return Err(WhiskError::new(
                StatusCode::CONFLICT,
                "resource already exists",
            ));
        }
        if known.is_none() && self.0.len() >= ACTIONS_MAX {
            let message = format!("The namespace has {ACTIONS_MAX} actions already; delete some.");
            return Err(WhiskError::new(StatusCode::BAD_REQUEST, message));
        }
        let mut action = Action::read(known, definition, limits)?;
        action.updated = now_ms();
        action.version = known.map_or(1, |known| known.version + 1);
        self.0.insert(name.to_owned(), action);
        Ok(&self.0[name])
    }
}

impl Action {
    /// How long one activation of it may take.
    pub(super) const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    pub(super) fn version(&self) -> String {
        format!("0.0.{}", self.version)
    }

    pub(super) fn limits(&self) -> Value {
        json!({
            "timeout": self.timeout_ms,
            "memory": self.memory,
            "logs": self.logs,
            "concurrency": self.concurrency,
        })
    }

    /// What a definition says, over what is `known` of the action.
    fn read(
        known: Option<&Action>,
        definition: &Value,
        limits: &Limits,
    ) -> Result<Action, WhiskError> {
        let refuse = |why: &str| Err(WhiskError::malformed(why));
        if !definition.is_object() {
            return refuse("an action is an object");
        }
        let exec = &definition["exec"];
        let image = match (exec, known) {
            (Value::Null, Some(known)) => known.image.clone(),
            _ => {
                let kind = exec["kind"].as_str().unwrap_or_default();
                if kind != "blackbox" {
                    return refuse(&format!(
                        "kind '{kind}' not in Set(blackbox): what runs here is the measured runtime"
                    ));
                }
                match exec["image"].as_str() {
                    Some(image) if !image.is_empty() => image.to_owned(),
                    _ => return refuse("'image' must be a string defined in 'exec'"),
                }
            }
        };
        if definition["parameters"]
            .as_array()
            .is_some_and(|some| !some.is_empty())
        {
            return refuse(
                "actions have no default parameters here: an invocation takes one sealed request",
            );
        }
        let usual = Action {
            image: String::new(),
            annotations: json!([]),
            version: 0,
            updated: 0,
            timeout_ms: TIMEOUT_MS.min(timeout_ms_max(limits)),
            memory: MEMORY_MIB_USUAL,
            logs: LOGS_MIB,
            concurrency: 1,
        };
        let before = known.unwrap_or(&usual);
        let asked = &definition["limits"];
        let limit = |name: &str, before: u64, allowed: RangeInclusive<u64>| match &asked[name] {
            Value::Null => Ok(before),
            number => match number.as_u64() {
                Some(number) if allowed.contains(&number) => Ok(number),
                Some(number) if number > *allowed.end() => Err(WhiskError::malformed(&format!(
                    "requirement failed: {name} {number} exceeds allowed threshold of {}",
                    allowed.end()
                ))),
                _ => Err(WhiskError::malformed(&format!(
                    "requirement failed: {name} {number} below allowed threshold of {}",
                    allowed.start()
                ))),
            },
        };
        let annotations = match &definition["annotations"] {
            Value::Null => before.annotations.clone(),
            list if list.is_array() => list.clone(),
            _ => return refuse("annotations are a list"),
        };
        Ok(Action {
            image,
            annotations,
            version: 0,
            updated: 0,
            timeout_ms: limit(
                "timeout",
                before.timeout_ms,
                TIMEOUT_MS_MIN..=timeout_ms_max(limits),
            )?,
            memory: limit("memory", before.memory, MEMORY_MIB)?,
            logs: limit("logs", before.logs, 0..=LOGS_MIB)?,
            concurrency: limit(
                "concurrency",
                before.concurrency,
                1..=limits.concurrency_max,
            )?,
        })
    }

    fn shown(&self, namespace: &str, name: &str, whole: bool) -> Value {
        let mut shown = json!({
            "namespace": namespace,
            "name": name,
            "version": self.version(),
            "publish": false,
            "annotations": self.annotations,
            "limits": self.limits(),
            "updated": self.updated,
            "exec": { "binary": false },
        });
        if whole {
            shown["exec"] = json!({ "kind": "blackbox", "image": self.image, "binary": false });
            shown["parameters"] = json!([]);
        }
        shown
    }
}

/// Longest time of an activation in milliseconds.
pub(super) fn timeout_ms_max(limits: &Limits) -> u64 {
    u64::try_from(limits.timeout_max.as_millis()).unwrap_or(u64::MAX)
}

pub(super) async fn put(
    State(openwhisk): Shared,
    Path((namespace, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, WhiskError> {
    let own = match may_make(&openwhisk, &headers, &namespace, &name) {
        Ok(own) => own,
        Err(error) => {
            // A client hears it once it has sent its request.
            openwhisk.bodies.discard(body).await;
            return Err(error);
        }
    };
    let max = DEFINITION_BYTES_MAX.min(openwhisk.limits.payload_bytes_max);
    let (bytes, _memory) = openwhisk.bodies.up_to(max).read(body).await?;
    let definition: Value = serde_json::from_slice(&bytes)
        .map_err(|_| WhiskError::malformed("the body is not JSON"))?;
    let overwrite = Query::of(query.as_deref()).says("overwrite");
    let mut actions = own.actions();
    let action = actions.put(&name, overwrite, &definition, &openwhisk.limits)?;
    let shown = action.shown(own.account.namespace(), &name, true);
    Ok(json_response(StatusCode::OK, &shown))
}

/// Who makes an action of this name.
fn may_make<'a>(
    openwhisk: &'a Openwhisk,
    headers: &HeaderMap,
    namespace: &str,
    name: &str,
) -> Result<&'a Namespace, WhiskError> {
    let own = openwhisk.namespace(headers, namespace)?;
    let plain = |c: char| c.is_alphanumeric() || "_@ .-".contains(c);
    if name.chars().count() > NAME_MAX || !name.chars().all(plain) || name.trim() != name {
        return Err(WhiskError::new(
            StatusCode::BAD_REQUEST,
            "The name of the entity contains illegal characters.",
        ));
    }
    Ok(own)
}

pub(super) async fn show(
    State(openwhisk): Shared,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, WhiskError> {
    let own = openwhisk.namespace(&headers, &namespace)?;
    let actions = own.actions();
    let action = actions.get(&name).ok_or_else(WhiskError::not_found)?;
    let shown = action.shown(own.account.namespace(), &name, true);
    Ok(json_response(StatusCode::OK, &shown))
}

pub(super) async fn delete(
    State(openwhisk): Shared,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, WhiskError> {
    let own = openwhisk.namespace(&headers, &namespace)?;
    let action = own.actions().0.remove(&name);
    let action = action.ok_or_else(WhiskError::not_found)?;
    let shown = action.shown(own.account.namespace(), &name, true);
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
    let actions = own.actions();
    if query.says("count") {
        let count = json!({ "actions": actions.0.len() });
        return Ok(json_response(StatusCode::OK, &count));
    }
    let shown = actions.0.iter().skip(skip).take(limit);
    let shown: Vec<Value> = shown
        .map(|(name, action)| action.shown(own.account.namespace(), name, false))
        .collect();
    Ok(json_response(StatusCode::OK, &shown.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        payload_bytes_max: 1 << 20,
        timeout_max: Duration::from_secs(120),
        blocking_max: Duration::from_secs(60),
        concurrency_max: 4,
    };

    fn blackbox(limits: &Value) -> Value {
        json!({ "exec": { "kind": "blackbox", "image": "bield/worker:1" }, "limits": limits })
    }

    #[test]
    fn an_update_keeps_what_it_does_not_name_and_counts_versions() {
        let mut actions = Actions::default();
        let first = blackbox(&json!({ "timeout": 5000, "concurrency": 4 }));
        let made = actions.put("a", false, &first, &LIMITS).unwrap();
        assert_eq!(
            (made.version(), made.timeout()),
            ("0.0.1".to_owned(), Duration::from_secs(5))
        );
        let again = actions.put("a", false, &first, &LIMITS).err().unwrap();
        assert!(format!("{again:?}").contains("resource already exists"));
        let update = json!({ "limits": { "memory": 512 } });
        let made = actions.put("a", true, &update, &LIMITS).unwrap();
        let limits = json!({ "timeout": 5000, "memory": 512, "logs": 10, "concurrency": 4 });
        assert_eq!(
            (made.version(), made.limits()),
            ("0.0.2".to_owned(), limits)
        );
        assert_eq!(made.image, "bield/worker:1");
    }

    #[test]
    fn what_is_beyond_a_limit_or_no_blackbox_is_refused() {
        for definition in [
            json!([]),
            json!({}),
            json!({ "exec": { "kind": "nodejs:default", "code": "x" } }),
            json!({ "exec": { "kind": "blackbox" } }),
            blackbox(&json!({ "concurrency": 5 })),
            blackbox(&json!({ "timeout": 99 })),
            blackbox(&json!({ "timeout": 120_001 })),
            blackbox(&json!({ "memory": "much" })),
            json!({ "exec": { "kind": "blackbox", "image": "i" }, "parameters": [{ "key": "a", "value": 1 }] }),
        ] {
            let mut actions = Actions::default();
            assert!(
                actions.put("a", false, &definition, &LIMITS).is_err(),
                "{definition}"
            );
        }
    }

    #[test]
    fn a_namespace_has_so_many_actions_and_no_more() {
        let mut actions = Actions::default();
        let definition = blackbox(&json!({}));
        for number in 0..ACTIONS_MAX {
            let name = number.to_string();
            assert!(actions.put(&name, false, &definition, &LIMITS).is_ok());
        }
        assert!(actions.put("more", false, &definition, &LIMITS).is_err());
        assert!(actions.put("0", true, &definition, &LIMITS).is_ok());
    }
}
