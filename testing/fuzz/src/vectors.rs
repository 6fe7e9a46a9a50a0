//! The frozen bytes of `spec/vectors`, as seeds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};

use serde_json::Value;

/// The byte string at `pointer` (RFC 6901) of `spec/vectors/<file>.json`; `None` when the file or
/// the entry is absent.
pub(crate) fn bytes(file: &str, pointer: &str) -> Option<Vec<u8>> {
    let text = vector(file)?;
    hex::decode(text.pointer(pointer)?.as_str()?).ok()
}

/// Every string called `name` anywhere in the file, as bytes.
pub(crate) fn all(file: &str, name: &str) -> Vec<Vec<u8>> {
    fn collect(value: &Value, name: &str, found: &mut Vec<Vec<u8>>) {
        match value {
            Value::Object(entries) => entries.iter().for_each(|(key, value)| match value {
                Value::String(text) if key == name => found.extend(hex::decode(text).ok()),
                other => collect(other, name, found),
            }),
            Value::Array(entries) => entries.iter().for_each(|entry| collect(entry, name, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Some(value) = vector(file) {
        collect(&value, name, &mut found);
    }
    found
}

fn vector(file: &str) -> Option<Value> {
    static READ: LazyLock<Mutex<BTreeMap<String, Option<Value>>>> = LazyLock::new(Mutex::default);
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = read.entry(file.to_owned()).or_insert_with(|| {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../spec/vectors");
        let text = std::fs::read(folder.join(format!("{file}.json"))).ok()?;
        serde_json::from_slice(&text).ok()
    });
    entry.clone()
}
