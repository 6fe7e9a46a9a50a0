//! Instances that stay, past the product, which never calls one twice: on its engine, with its code.
//!
//! Every import traps: only what needs none is called. The guest runs on a stack of its own as in the product.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bield_function::{Compiled, Host};
use wasmtime::Store;
use wasmtime::component::{
    Component, ComponentType, Func, Instance, InstancePre, Lift, Linker, Lower,
};

use super::cast::Cast;
use super::{Effort, micros};
use crate::bars::{Bar, median};
use crate::runtime::load::percentile;

/// Most microseconds of a call, as issue 7 has it.
const MICROS_MAX: f64 = 1.0;
/// Calls that are timed together, since a clock costs as much as a tenth of one.
const TOGETHER: usize = 50;

/// A component on an engine.
pub(super) struct Ready(InstancePre<()>);

impl Ready {
    pub(super) fn new(host: &Host, compiled: &Compiled) -> Result<Self> {
        let component: Component = compiled.load(host.engine())?;
        let mut linker = Linker::new(host.engine());
        let linked = linker.define_unknown_imports_as_traps(&component);
        linked.map_err(|error| anyhow!("{error:#}"))?;
        let ready = linker.instantiate_pre(&component);
        ready.map(Self).map_err(|error| anyhow!("{error:#}"))
    }

    /// Makes an instance that stays.
    pub(super) fn instantiate(&self, host: &Host) -> Result<Kept> {
        let mut store = Store::new(host.engine(), ());
        store.set_epoch_deadline(u64::MAX / 2);
        let made = finish(self.0.instantiate_async(&mut store));
        let instance = made.map_err(|error| anyhow!("{error:#}"))?;
        let handle = handler(&instance, &mut store).context("it exports no handler")?;
        Ok(Kept { store, handle })
    }
}

fn handler(instance: &Instance, store: &mut Store<()>) -> Option<Func> {
    let interface = instance.get_export_index(&mut *store, None, "bield:function/handler@0.1.0")?;
    let handle = instance.get_export_index(&mut *store, Some(&interface), "handle")?;
    instance.get_func(&mut *store, handle)
}

/// An instance.
pub(super) struct Kept {
    store: Store<()>,
    handle: Func,
}

impl Kept {
    /// Calls it so often; the microseconds of one.
    pub(super) fn call(&mut self, path: &str, body: &[u8], times: usize) -> Result<f64> {
        let request = Request {
            path: path.to_owned(),
            content_type: "text/plain".to_owned(),
            body: body.to_vec(),
            caller: "ab".repeat(32),
        };
        let handle = self
            .handle
            .typed::<(&Request,), (Result<Response, Failure>,)>(&self.store)
            .map_err(|error| anyhow!("{error:#}"))?;
        let begun = Instant::now();
        for _ in 0..times {
            let done = finish(handle.call_async(&mut self.store, (&request,)));
            match done.map_err(|error| anyhow!("{error:#}"))? {
                (Ok(response),) => ensure!(response.body == body, "another answer"),
                (Err(Failure::NotFound(words)),) => {
                    ensure!(words.starts_with("nothing at"), "it refused: {words}");
                }
                (Err(
                    Failure::BadRequest(words)
                    | Failure::Denied(words)
                    | Failure::Conflict(words)
                    | Failure::Failed(words),
                ),) => bail!("it refused: {words}"),
            }
        }
        Ok(micros(begun) / times as f64)
    }
}

/// Calls of instances that stay.
pub(super) fn hot(cast: &Cast, effort: Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let subjects = [
        (&cast.echo, "/echo", Some(MICROS_MAX)),
        (&cast.c, "/echo", Some(MICROS_MAX)),
        (&cast.counter, "/none", None),
    ];
    for (guest, path, most) in subjects {
        let ready = Ready::new(&cast.host, &guest.compiled)?;
        let mut took = Vec::new();
        for _ in 0..effort.rounds() {
            // What a guest takes for each request it never gives back: a new one after a while.
            let mut kept = ready.instantiate(&cast.host)?;
            kept.call(path, b"hello", TOGETHER)?;
            for _ in 0..effort.starts() {
                took.push(kept.call(path, b"hello", TOGETHER)?);
            }
        }
        let name = format!("hot: {}, {path}", guest.name);
        let note = format!(
            "an instance that stays, which the product has none of: wasmtime alone, {TOGETHER} calls at a time; p99 {:.2}",
            percentile(took.clone(), 0.99)
        );
        bars.push(match most {
            Some(most) => Bar::at_most(name, median(took), most, note).of("µs"),
            None => Bar::told(
                name,
                median(took),
                "µs",
                format!("{note}; it refuses the path"),
            ),
        });
    }
    Ok(())
}

/// As `bield-function` drives a guest.
fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::yield_now(),
        }
    }
}

/// `bield:function/types.request`.
#[derive(ComponentType, Lower)]
#[component(record)]
struct Request {
    path: String,
    #[component(name = "content-type")]
    content_type: String,
    body: Vec<u8>,
    caller: String,
}

/// `bield:function/types.response`.
#[derive(ComponentType, Lift)]
#[component(record)]
struct Response {
    #[component(name = "content-type")]
    _content_type: String,
    body: Vec<u8>,
}

/// `bield:function/types.error`.
#[derive(ComponentType, Lift)]
#[component(variant)]
enum Failure {
    #[component(name = "bad-request")]
    BadRequest(String),
    #[component(name = "not-found")]
    NotFound(String),
    #[component(name = "denied")]
    Denied(String),
    #[component(name = "conflict")]
    Conflict(String),
    #[component(name = "failed")]
    Failed(String),
}
