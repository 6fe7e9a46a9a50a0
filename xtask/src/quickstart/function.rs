//! The chapter of the function: a component that counts, its state, and the host's copy of its files.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::files::put_in_place;
use super::{Story, chapter, indent, text};
use crate::programs::root;

/// What bield must know of the function.
const MANIFEST: &str = r#"[function]
name = "counter"
version = "1.0.0"
source = "function.wasm"

[[bucket]]
name = "counters"
consistency = "linearizable"
durability = "local-sync"
"#;

/// A function that has counted to two, and what the host kept of one.
pub(super) struct Counter {
    state: PathBuf,
    kept: PathBuf,
}

impl Counter {
    /// How the user asks it to count on.
    pub(super) const fn asks(&self) -> [&'static str; 8] {
        [
            "--home", "user", "call", "counter", "--path", "/add", "--body", "visits",
        ]
    }

    /// The host puts the older files in place of the newer.
    pub(super) fn rolls_back(&self) -> Result<()> {
        put_in_place(&self.kept, &self.state)
    }
}

impl Story {
    pub(super) fn function_counts(&self, code: &str) -> Result<Counter> {
        chapter(
            "5",
            "A function that keeps count, in the same enclave; the host keeps a copy of its files",
        );
        let folder = self.place.join("counter");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("bield.toml"), MANIFEST)?;
        // Written in C; `bield new` makes such a folder, in JavaScript or C, for whoever has their tools.
        let component = root().join("testing/guests/c/guest.wasm");
        fs::copy(&component, folder.join("function.wasm"))
            .with_context(|| format!("copying {}", component.display()))?;
        println!("   counter/bield.toml, beside a WebAssembly component of 15 KB:");
        indent(MANIFEST);

        let user = self.json(&["--home", "user", "--json", "id"])?;
        let user = text(&user, "principal")?;
        let owner =
            |arguments: &[&str]| self.say("bield", &[&["--home", "owner"], arguments].concat());
        owner(&["pack", "counter", "--output", "counter.bield"])?;
        owner(&["push", "counter.bield"])?;
        owner(&[
            "grant",
            "counter.bield",
            "--user",
            &user,
            "--code",
            code,
            "--expires",
            "1d",
        ])?;
        let counter = Counter {
            state: self.place.join("dev/state"),
            kept: self.place.join("dev/state-of-before"),
        };
        self.say("bield", &counter.asks())?;
        put_in_place(&counter.state, &counter.kept)?;
        println!("   The host copies the function's files, all ciphertext. She counts on:");
        self.say("bield", &counter.asks())?;
        Ok(counter)
    }
}
