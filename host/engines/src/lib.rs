//! Where workers run, behind one small trait.
//!
//! ```text
//!            ensure, scale, delete ─▶ ┌────────┐ ─▶ embedded: processes of this machine
//!  driver    endpoints ◀───────────── │ Engine │ ─▶ remote: workers that somebody else runs
//!            invoke(sealed) ────────▶ └────────┘ ─▶ a platform: actions, services, deployments
//! ```
//!
//! A pool has places, numbered from 0; the engine knows each as a [`Group`] of its own and runs no worker or one in it.
//! Two families fit: *addressable* engines, where a group's endpoint is one process (a group is a process, a container, a
//! Deployment), and *opaque* ones, which pick an instance themselves (a group is an action or a service, and its endpoint a
//! virtual address that is there from [`Engine::ensure`] on).
//!
//! Goes in: sealed requests and the place each goes to. Comes out: sealed answers, whole or as they come, with the worker's
//! own word on what it holds.
//!
//! Always true: an engine is untrusted and sees ciphertext; one that lies can delay or refuse, no more; an [`Endpoint`] is
//! one instance as far as the engine can tell, and its number is never given again; a place in a worker is held until the
//! worker is done with the request, or its connection has ended; what cannot be told, as an activation of a
//! platform, holds it until it has ended; every call ends within its time, and so does each wait for a part of an answer,
//! the worker's and the client's.
//!
//! Not here: which worker gets a request, how many there are to be (`host/packer`).

mod embedded;
mod memory;
mod openwhisk;
mod remote;

use std::io;
use std::time::Duration;

pub use bield_face::Refusal;
use bield_protocol::feedback::Feedback;
pub use embedded::{Embedded, Pool};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
pub use hyper::body::Bytes;
pub use memory::MemoryLimit;
pub use openwhisk::{Openwhisk, Platform, PlatformAuth};
pub use remote::Remote;
use tokio::sync::watch;

/// One place of a pool, from 0. Platforms that want a name get one made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(pub u32);

/// An instance that takes requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whose it is.
    pub group: Group,
    /// Its number with this engine; never given again.
    pub id: u64,
    /// How people tell it from others: a process id, an address, the name of an action.
    pub name: String,
}

/// What an engine sees of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Instances that take requests.
    pub endpoints: Vec<Endpoint>,
    /// Why there is none though one is wanted, in a sentence; the engine goes on trying.
    pub trouble: Option<String>,
    /// How often the engine stopped trying. It begins again when the group was scaled to 0 and up.
    pub given_up: u64,
}

/// What a request holds of a worker; dropped as [`Engine::invoke`] says.
pub type Place = Box<dyn Send>;

/// What a worker answered.
pub struct Answer {
    /// Its own word on how warm the start was and what it holds; nothing that came from it is checked.
    pub feedback: Option<Feedback>,
    /// The answer.
    pub body: Body,
}

/// An answer's bytes, sealed for the sender; or a refusal in public.
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// The first of it at once, more as it is made. An error is the last: what came is then not all.
    InParts(BoxStream<'static, io::Result<Bytes>>),
    /// The worker could not open the request.
    Refused(Refusal),
}

/// Why there is no answer. No byte of one has reached anybody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// No instance is there yet.
    #[error("no worker is up there yet; try again shortly, or another one")]
    Cold,
    /// The instance ends and takes nothing new.
    #[error("the worker is ending; try another one")]
    Draining,
    /// The instance has as many requests as it takes.
    #[error("the worker is full; try another one, or the same one shortly")]
    Full,
    /// The instance went away, or the way to it broke; whether it ran the request is not known.
    #[error("the worker went away; send the request again, to another one")]
    Lost,
    /// The platform refuses this request for good.
    #[error("the platform refuses the request: {0}; its operator must look")]
    Denied(String),
    /// What came back is no answer.
    #[error("{0}")]
    Broken(String),
    /// No answer within this long.
    #[error("the worker did not answer within {} ms; try again when it is less busy", .0.as_millis())]
    Timeout(Duration),
}

/// Runs workers and carries requests to them.
pub trait Engine: Send + Sync {
    /// Makes a group known to the engine; does nothing when it is.
    ///
    /// # Errors
    /// [`EngineError::Denied`] when the platform will not have it.
    fn ensure(&self, group: Group) -> BoxFuture<'_, Result<(), EngineError>>;

    /// Says how many instances of a group are wanted, 0 or 1; [`Engine::endpoints`] tells what becomes of it. An instance
    /// that is to go finishes what it has begun. Where the platform decides, nothing happens.
    ///
    /// # Errors
    /// As [`Engine::ensure`].
    fn scale(&self, group: Group, want: u32) -> BoxFuture<'_, Result<(), EngineError>>;

    /// What the engine sees of a group, now and from now on.
    fn endpoints(&self, group: Group) -> watch::Receiver<Seen>;

    /// Hands a sealed request to an instance and waits for the answer or the first of it, at most `within`. The `place` is
    /// dropped when the instance is done with the request, its connection has ended, or the time is over; dropping the future
    /// or what is left of the answer tells it that nobody waits, where there is a way to.
    ///
    /// # Errors
    /// See [`EngineError`].
    fn invoke<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        sealed: Bytes,
        within: Duration,
        place: Place,
    ) -> BoxFuture<'a, Result<Answer, EngineError>>;

    /// Bytes of RAM that a group's instance takes, where the engine can tell. May look it up in the system.
    fn memory(&self, group: Group) -> Option<u64> {
        let _ = group;
        None
    }

    /// Ends a group's instances, each when it has finished what it has begun, and forgets the group.
    ///
    /// # Errors
    /// As [`Engine::ensure`].
    fn delete(&self, group: Group) -> BoxFuture<'_, Result<(), EngineError>>;
}
