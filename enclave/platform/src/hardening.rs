//! What a process gives up before it holds a secret.
//!
//! Goes in: nothing. Comes out: which protections took hold and which did not, for the status
//! answer. Irreversible, and inherited where the kernel says so.
//!
//! Order matters with the software TEE: a process that is not dumpable cannot be measured through
//! `/proc` by another process of the same user, so connect first, then [`harden`], then take
//! secrets. Later reconnects present the ticket of the first (see [`software`](crate::software)).
//!
//! Not here: system call filters and file rules.

use std::fmt;

use minicbor::{Decode, Encode};
use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// Gives up what an attacker on the same machine could use, as far as the kernel lets us.
pub fn harden() -> Hardening {
    let mut outcome = Hardening::default();
    for protection in Protection::ALL {
        match protection.apply() {
            Ok(()) => outcome.applied.push(protection),
            Err(error) => outcome.failed.push(Failure {
                protection,
                os_error: error.raw_os_error(),
            }),
        }
    }
    outcome
}

/// What [`harden`] achieved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hardening {
    /// In effect from now on.
    #[n(0)]
    pub applied: Vec<Protection>,
    /// Refused by the kernel.
    #[n(1)]
    pub failed: Vec<Failure>,
}

impl Hardening {
    /// Everything that was asked for is in effect.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty()
    }
}

/// One thing a process can give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
#[non_exhaustive]
pub enum Protection {
    /// A crash writes no memory to disk (`RLIMIT_CORE` = 0).
    #[n(0)]
    NoCoreFile,
    /// Other processes of the user can neither trace this one nor read its memory
    /// (`PR_SET_DUMPABLE` = 0).
    #[n(1)]
    NotDumpable,
    /// Programs started from here gain nothing from set-user-ID (`PR_SET_NO_NEW_PRIVS`).
    #[n(2)]
    NoNewPrivileges,
}

impl Protection {
    const ALL: [Self; 3] = [Self::NoCoreFile, Self::NotDumpable, Self::NoNewPrivileges];

    fn apply(self) -> rustix::io::Result<()> {
        match self {
            Self::NoCoreFile => {
                let none = Rlimit {
                    current: Some(0),
                    maximum: Some(0),
                };
                rustix::process::setrlimit(Resource::Core, none)
            }
            Self::NotDumpable => {
                rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            }
            Self::NoNewPrivileges => rustix::thread::set_no_new_privs(true),
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCoreFile => "no core file",
            Self::NotDumpable => "not dumpable",
            Self::NoNewPrivileges => "no new privileges",
        })
    }
}

/// A protection the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Failure {
    /// Which one.
    #[n(0)]
    pub protection: Protection,
    /// The kernel's error number.
    #[n(1)]
    pub os_error: i32,
}
