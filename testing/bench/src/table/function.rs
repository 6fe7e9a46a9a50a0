//! A function that reads and writes a bucket: a component in a fresh instance, over the state.
//!
//! ```text
//! steps of a request ─▶ function.call ─▶ guest ─ wasi:keyvalue ─▶ TableWorld ─▶ Request ─▶ table, log
//! ```
//!
//! Always true: one instance and one request of the state for each call, as in a runtime, awaited; the guest does the
//! steps that the body lists, one call out of it each. Left out: the sealed request around it, and wiping of freed
//! memory, which needs the runtime's allocator.

use anyhow::{Context as _, Result, bail, ensure};
use bield_envelope::Wiped;
use bield_function::{Function, Host, Limits, Request, Settings};
use bield_state::{Bucket, State};

use super::draw::KEY_BYTES;
use super::place::things;
use crate::world::TableWorld;

/// A guest of states.
pub(super) struct Guest {
    function: Function,
    _host: Host,
    buckets: [Bucket; 1],
}

impl Guest {
    /// Compiles it.
    pub(super) fn new() -> Result<Self> {
        let host = Host::new(Settings::Machine, INSTANCES)?;
        let component = bield_guests::component_of_text(include_str!("function.wat"))?;
        Ok(Self {
            function: host.load(&host.compile(&component)?)?,
            _host: host,
            buckets: [things()],
        })
    }

    /// Does steps in one request of a state, and waits for its end.
    pub(super) fn call(&self, state: &State, steps: &Steps) -> Result<()> {
        let (world, left) = TableWorld::begin(state, &self.buckets)?;
        let request = Request {
            path: "/".to_owned(),
            content_type: String::new(),
            body: Wiped::from(steps.body.clone()),
            caller: "00".repeat(32),
        };
        let Ok(response) = self.function.call(request, world, &LIMITS)? else {
            bail!("the guest refused");
        };
        let found = response.body.first_chunk().context("four bytes")?;
        let found = u32::from_le_bytes(*found);
        let gets = steps.gets;
        ensure!(found == gets, "{found} of {gets} keys had a value");
        left.finish()
    }
}

/// What one call is to do: the body of its request.
pub(super) struct Steps {
    body: Vec<u8>,
    gets: u32,
}

impl Steps {
    /// None yet, with values of so many bytes.
    pub(super) fn new(value: usize) -> Self {
        let body = (value as u32).to_le_bytes().to_vec();
        Self { body, gets: 0 }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.body.len() == VALUE_LENGTH
    }

    pub(super) fn clear(&mut self) {
        self.body.truncate(VALUE_LENGTH);
        self.gets = 0;
    }

    pub(super) fn get(&mut self, key: &[u8; KEY_BYTES]) {
        self.step(GET, key, &[]);
        self.gets += 1;
    }

    pub(super) fn set(&mut self, key: &[u8; KEY_BYTES], value: &[u8]) {
        self.step(SET, key, value);
    }

    fn step(&mut self, step: u8, key: &[u8; KEY_BYTES], value: &[u8]) {
        self.body.push(step);
        self.body.extend_from_slice(key);
        self.body.extend_from_slice(value);
    }
}

/// As the guest in `function.wat` reads them.
const GET: u8 = 1;
const SET: u8 = 2;
const VALUE_LENGTH: usize = 4;
/// Instances at once: one, and room for those that end.
const INSTANCES: u32 = 4;
/// Room for a call of a thousand steps.
const LIMITS: Limits = Limits {
    host_calls: 1_000_000,
    ..Limits::MAX
};
