//! The whole system over real processes, as an operator starts it and as an attacker on the host sees it.
//!
//! ```text
//!  people (own directory)          host (scanned directory)
//!  owner ─┐                ┌─ tap ─▶ bield-gateway ─door─▶ bield-runtime ─┐
//!  user  ─┼─ bield-sdk ────┤             │ --record                      ├─▶ bield-software-tee
//!  …     ─┘                └─ tap ─▶ keys port ─────door─▶ bield-keys ───┘
//! ```
//!
//! * [`Stack`]: everything started, on free ports of the loopback, in directories that go away with it.
//! * [`Site`]: key services without runtimes, several machines and witnesses, directories to copy, cut and put back.
//! * [`Person`]: an owner or user with a home of the SDK; packs, grants, calls.
//! * [`Letter`]: a request sealed by hand, for what the SDK refuses to send.
//! * [`Terminal`], [`commands`]: what a README shows, typed by a new user.
//! * [`Canary`], [`scan`]: whether a planted secret stands anywhere in the host's files, in any of its forms.
//!
//! Always true: the programs under test are the built ones, unchanged, found beside the tests or in the
//! directory `BIELD_PROGRAMS`; a stack that is dropped has no processes left; every byte between people and host is
//! in a file under [`Stack::host`].
//!
//! Not here: what single crates promise (their own tests), speed (`testing/bench`).

mod command;
mod instance;
mod invoker;
mod letter;
mod npm;
mod person;
mod process;
mod programs;
mod readme;
mod scan;
mod site;
mod stack;
mod tap;
mod terminal;

pub use command::Ran;
pub use instance::Instance;
pub use invoker::Invoker;
pub use letter::{Answer, Letter, post};
pub use npm::{node, npm_client};
pub use person::{Package, Person, noted, numbers, tiny_model};
pub use process::{Process, children};
pub use programs::{SERVERS, gather, program};
pub use readme::{Typed, commands};
pub use scan::{Canary, Finding, files, scan};
pub use site::{Plan, Site, Witness};
pub use stack::{Gateway, Shared, Stack, wait_until};
pub use tap::Tap;
pub use terminal::{Terminal, has_target};
