//! What a function in Rust has of bield: requests, answers, refusals, the owner's log, buckets.
//!
//! All else of the interfaces in `wit/`, such as sealed models, is in `bindings` as wit-bindgen makes it.

#![allow(dead_code, reason = "a function uses a part of it")]

/// The interfaces of `wit/`.
pub mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "function",
        generate_all,
        pub_export_macro: true,
    });
}

pub use bindings::bield::function::log::{self, Level};
pub use bindings::bield::function::types::{Error, Request, Response};
pub use bindings::export;
pub use bindings::exports::bield::function::handler::Guest as Function;

use bindings::wasi::keyvalue::{atomics, store};

/// An answer in plain text.
pub fn text(text: impl Into<String>) -> Response {
    Response {
        content_type: "text/plain; charset=utf-8".into(),
        body: text.into().into_bytes(),
    }
}

/// What goes to the owner's log in words, and to the caller without any.
pub fn failed(words: &str) -> Error {
    log::write(Level::Error, words);
    Error::Failed("the function failed; its owner's log says how".into())
}

/// What outlives a request; `bield.toml` declares each and how consistent it is.
pub struct Bucket {
    name: String,
    opened: store::Bucket,
}

impl Bucket {
    /// Opens a bucket that `bield.toml` declares.
    pub fn open(name: &str) -> Result<Self, Error> {
        let opened = store::open(name).map_err(|error| said(name, &error))?;
        let name = name.to_owned();
        Ok(Self { name, opened })
    }

    /// The value of a key, if it has one.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.done(self.opened.get(key))
    }

    /// Gives a key a value, whatever it had.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.done(self.opened.set(key, value))
    }

    /// Removes a key, if there.
    pub fn delete(&self, key: &str) -> Result<(), Error> {
        self.done(self.opened.delete(key))
    }

    /// Every key, in order. Goes through the whole bucket.
    pub fn keys(&self) -> Result<Vec<String>, Error> {
        let (mut keys, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.done(self.opened.list_keys(cursor.as_deref()))?;
            keys.extend(page.keys);
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(keys);
            }
        }
    }

    /// Adds to the integer under a key, with nothing between; returns the sum. A key with no value counts as 0.
    pub fn increment(&self, key: &str, by: i64) -> Result<i64, Error> {
        self.done(atomics::increment(&self.opened, key, by))
    }

    /// Replaces a value by what `change` makes of it, with nothing between: if somebody else wrote meanwhile, it is asked again.
    pub fn update(
        &self,
        key: &str,
        mut change: impl FnMut(Option<Vec<u8>>) -> Result<Vec<u8>, Error>,
    ) -> Result<(), Error> {
        let mut cas = self.done(atomics::Cas::new(&self.opened, key))?;
        for _ in 0..TRIES_MAX {
            let value = change(self.done(cas.current())?)?;
            match atomics::swap(cas, &value) {
                Ok(()) => return Ok(()),
                Err(atomics::CasError::CasFailed(newer)) => cas = newer,
                Err(atomics::CasError::StoreError(error)) => return self.done(Err(error)),
            }
        }
        Err(Error::Conflict(format!(
            "{key} is written by too many at once; try again"
        )))
    }

    fn done<T>(&self, result: Result<T, store::Error>) -> Result<T, Error> {
        result.map_err(|error| said(&self.name, &error))
    }
}

fn said(bucket: &str, error: &store::Error) -> Error {
    let words = match error {
        store::Error::NoSuchStore => "bield.toml declares none of that name",
        store::Error::AccessDenied => "this function may not open it",
        store::Error::Other(words) => words,
    };
    failed(&format!("bucket {bucket}: {words}"))
}

/// Each failed try means that somebody else succeeded, so this is met only where very many write one key.
const TRIES_MAX: usize = 100;
