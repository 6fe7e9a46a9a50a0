//! The guests, compiled once, and how one is asked.
//!
//! Always true: each guest is a component that the tests of `testing/guests` run, or was built from text beside them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use bield_function::{Compiled, Function, Host, Limits, Request, Settings, World};

use super::micros;

/// Instances at once, in the engine of these guests.
const INSTANCES: u32 = 8;

/// A component and its code.
pub(super) struct Guest {
    pub(super) name: &'static str,
    pub(super) wasm: Vec<u8>,
    pub(super) compiled: Compiled,
    pub(super) function: Function,
}

/// All guests.
pub(super) struct Cast {
    pub(super) host: Host,
    /// From text: answers with what it is asked.
    pub(super) echo: Guest,
    /// From text: calls its bucket.
    pub(super) calls: Guest,
    /// In C: several things.
    pub(super) c: Guest,
    /// In C: SHA-256.
    pub(super) kernel: Guest,
    /// In JavaScript, by QuickJS: counters.
    pub(super) counter: Guest,
    /// For what lies on disks.
    pub(super) folder: PathBuf,
}

impl Cast {
    /// Compiles them.
    pub(super) fn gather(folder: &Path) -> Result<Self> {
        let host = Host::new(Settings::Machine, INSTANCES)?;
        let text = |text| bield_guests::component_of_text(text);
        let guest = |name, wasm: Vec<u8>| -> Result<Guest> {
            let compiled = host.compile(&wasm)?;
            let function = host.load(&compiled)?;
            Ok(Guest {
                name,
                wasm,
                compiled,
                function,
            })
        };
        Ok(Self {
            echo: guest("text", text(bield_guests::ECHO)?)?,
            calls: guest("calls", text(bield_guests::CALLS)?)?,
            c: guest("C", bield_guests::C.to_vec())?,
            kernel: guest("kernel", bield_guests::component(bield_guests::KERNEL)?)?,
            counter: guest("QuickJS", bield_guests::javascript("counter")?)?,
            host,
            folder: folder.to_owned(),
        })
    }
}

impl Guest {
    /// One request in an instance of its own; the body of the answer and the microseconds it took.
    pub(super) fn ask(
        &self,
        path: &str,
        body: &[u8],
        world: Box<dyn World>,
    ) -> Result<(Vec<u8>, f64)> {
        let request = Request {
            path: path.to_owned(),
            content_type: "text/plain".to_owned(),
            body: body.to_vec().into(),
            caller: "ab".repeat(32),
        };
        let begun = Instant::now();
        let answer = self.function.call(request, world, &LIMITS);
        let took = micros(begun);
        match answer? {
            Ok(response) => Ok((response.body.to_vec(), took)),
            Err(failure) => Err(anyhow!("{}: {}", self.name, failure.message)),
        }
    }
}

/// Room for what a measurement asks of a guest.
const LIMITS: Limits = Limits {
    deadline: Duration::from_secs(60),
    host_calls: 1_000_000,
    ..Limits::MAX
};
