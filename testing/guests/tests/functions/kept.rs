//! Native code that tests compiled before, kept as a runtime keeps it: sealed, beside what is built.
//!
//! Always true: what is taken from there was sealed for this very component, this processor and these settings of the
//! compiler. The key protects nothing: whoever writes to the target folder writes the tests as well. Tests that run at once
//! compile one component once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use bield_compiled::component_digest;
use bield_envelope::{Secret, Seeded};
use bield_function::{Compiled, Host, Identity, Settings};

/// The code of a component for a host with [`Settings::Machine`].
pub(crate) fn compiled(host: &Host, component: &[u8]) -> Compiled {
    let identity = Identity::here(component_digest(component), Settings::Machine);
    let place = place();
    fs::create_dir_all(&place).unwrap();
    let name = hex::encode(identity.component);
    let path = place.join(&name);
    let lock = File::create(place.join(format!("{name}.lock"))).unwrap();
    // Until this file is closed, or the process ends.
    lock.lock().unwrap();
    if let Some(kept) = open(&path, &identity) {
        return kept;
    }
    let compiled = host.compile(component).unwrap();
    let sealed = compiled.seal(&key(), &identity, &mut Seeded::new(1));
    let unfinished = place.join(format!("{name}.unfinished"));
    fs::write(&unfinished, sealed).unwrap();
    fs::rename(unfinished, path).unwrap();
    compiled
}

fn open(path: &Path, identity: &Identity) -> Option<Compiled> {
    Compiled::open(&key(), identity, &fs::read(path).ok()?).ok()
}

fn key() -> Secret {
    Secret::from_bytes([9; 32])
}

/// `cargo xtask guests` empties it when it builds something anew.
fn place() -> PathBuf {
    bield_guests::place().join("compiled")
}

#[test]
fn code_that_is_kept_is_opened_for_the_component_it_was_made_of() {
    let host = Host::new(Settings::Machine, 1).unwrap();
    let echo = bield_guests::component_of_text(bield_guests::ECHO).unwrap();
    let made = compiled(&host, &echo);
    let identity = Identity::here(component_digest(&echo), Settings::Machine);
    let path = place().join(hex::encode(identity.component));
    assert_eq!(
        open(&path, &identity).unwrap().component(),
        made.component()
    );
    let other = Identity::here(component_digest(bield_guests::C), Settings::Machine);
    assert!(open(&path, &other).is_none());
}
