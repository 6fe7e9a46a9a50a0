//! `cargo xtask fetch-onnxruntime`: the shared library of onnxruntime, from the wheel that PyPI has; prints its path and
//! digest for a configuration.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::wheels::Wheel;

/// Its version; the wheel's Python does not matter to the library in it.
const VERSION: &str = "1.31.1";

/// Machine, digest of its wheel, digest of the library.
const PINNED: [(&str, &str, &str); 2] = [
    (
        "x86_64",
        "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f",
        "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
    ),
    (
        "aarch64",
        "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3",
        "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
    ),
];

/// Fetches the library unless the cache has it, and prints where it is and what a configuration says of it.
pub(crate) fn run() -> Result<()> {
    let wheel = wheel()?;
    println!("{}", wheel.get()?.display());
    println!(
        "engines = [\"onnxruntime\", \"rten\"]\n[onnxruntime]\nlibrary = \"sha256:{}\"",
        wheel.file_sha256
    );
    Ok(())
}

/// The library, if it was fetched.
pub(crate) fn library() -> Option<PathBuf> {
    wheel().ok()?.find()
}

fn wheel() -> Result<Wheel> {
    let machine = std::env::consts::ARCH;
    let pinned = PINNED.into_iter().find(|pinned| pinned.0 == machine);
    let (machine, wheel_sha256, file_sha256) =
        pinned.with_context(|| format!("no onnxruntime is pinned for {machine}"))?;
    let platform = format!("manylinux_2_28_{machine}");
    let select = ["--platform", &platform, "--implementation", "cp"];
    let python = ["--python-version", "3.11", "--abi", "cp311"];
    Ok(Wheel {
        package: "onnxruntime",
        version: VERSION,
        select: select
            .into_iter()
            .chain(python)
            .map(str::to_owned)
            .collect(),
        wheel: format!("onnxruntime-{VERSION}-cp311-cp311-{platform}.whl"),
        wheel_sha256,
        file: format!("onnxruntime/capi/libonnxruntime.so.{VERSION}"),
        file_sha256,
        kept_as: [
            format!("onnxruntime-{VERSION}-{machine}"),
            "libonnxruntime.so".to_owned(),
        ],
    })
}
