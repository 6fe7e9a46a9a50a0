//! What is checked in was built from what it says.

use std::path::{Path, PathBuf};
use std::process::Command;

/// As zig 0.17.1 builds it (the wheel `ziglang` 0.17.1), and as this crate's `component` wraps it.
const VERSION: &str = "0.17.1";

#[test]
fn the_components_in_c_are_what_their_sources_build() {
    let Some(zig) = zig() else {
        eprintln!(
            "NOT RUN: zig {VERSION} is not here; `pip install ziglang=={VERSION}`, then BIELD_ZIG=PATH/TO/python-zig"
        );
        return;
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A guest for tests is as small as what people build, one for benchmarks as fast as can be.
    let guest = build(&zig, here, "c/guest.c", "-Os");
    let guest = bield_guests::component(&guest).unwrap();
    let kernel = build(&zig, here, "c/kernel.c", "-O3");
    bield_guests::component(&kernel).unwrap();
    for (name, built) in [("guest", guest), ("kernel", kernel)] {
        let file = here.join(format!("c/{name}.wasm"));
        if std::env::var_os("BIELD_FREEZE_GUESTS").is_some_and(|set| set == "1") {
            std::fs::write(&file, &built).unwrap();
        }
        assert!(
            built == std::fs::read(file).unwrap(),
            "c/{name}.wasm is not what the source builds: BIELD_FREEZE_GUESTS=1 writes it"
        );
    }
}

fn build(zig: &Path, here: &Path, source: &str, optimised: &str) -> Vec<u8> {
    let place = tempfile::tempdir().unwrap();
    let core = place.path().join("core.wasm");
    let mut build = Command::new(zig);
    build.current_dir(here).args([
        "cc",
        "-target",
        "wasm32-freestanding",
        optimised,
        "-nostdlib",
    ]);
    build.args([
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wl,--no-entry",
        "-Wl,--strip-all",
        "-I",
        C,
        "-o",
    ]);
    build.arg(&core).args([&format!("{C}/bield.c"), source]);
    assert!(build.status().unwrap().success());
    std::fs::read(core).unwrap()
}

#[test]
fn text_becomes_a_component_only_with_the_functions_own_interfaces() {
    let component = bield_guests::component_of_text(bield_guests::ECHO).unwrap();
    assert_eq!(component[..8], *b"\0asm\x0d\0\x01\0");
    let foreign = r#"(module (import "wasi:sockets/tcp@0.2.0" "connect" (func)) (memory (export "memory") 1))"#;
    assert!(bield_guests::component_of_text(foreign).is_err());
    assert!(bield_guests::component_of_text("(module)").is_err());
}

fn zig() -> Option<PathBuf> {
    let named = std::env::var_os("BIELD_ZIG").map_or_else(|| "zig".into(), PathBuf::from);
    let said = Command::new(&named).arg("version").output().ok()?;
    (said.status.success() && String::from_utf8_lossy(&said.stdout).trim() == VERSION)
        .then_some(named)
}

/// The sources that `bield new --lang c` gives people.
const C: &str = "../../client/cli/templates/c/src";
