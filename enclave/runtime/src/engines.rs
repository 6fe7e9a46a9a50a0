//! The engines that the configuration names, with what the host gives for them.
//!
//! ```text
//! engines = ["onnxruntime", "rten"] ─┬─▶ rten: part of this program
//! [onnxruntime] library = "sha256:…" ┴─▶ onnxruntime: the file at --onnxruntime, if it is that very library
//! ```
//!
//! Always true: which engines there are and which bytes they consist of is measured; where the host keeps such a
//! file is not. An engine that cannot be had is a sentence at start, never a refusal later.

use std::path::Path;

#[cfg(feature = "engine-ort")]
use anyhow::Context as _;
use anyhow::{bail, ensure};
use bield_engine::{Engine, Engines, Rten};
use bield_protocol::configuration::{EngineName, RuntimeConfiguration};

/// Opens the engines in their order, before the program gives up opening files and starting threads.
///
/// # Errors
/// None is named, one is named twice or is not part of this program, or its library is missing or another.
pub(crate) fn open(
    configuration: &RuntimeConfiguration,
    onnxruntime: Option<&Path>,
) -> anyhow::Result<Box<dyn Engine>> {
    let names = &configuration.engines;
    ensure!(
        !names.is_empty(),
        "engines is empty; name rten or onnxruntime"
    );
    for (at, name) in names.iter().enumerate() {
        ensure!(!names[..at].contains(name), "engines names {name} twice");
    }
    ensure!(
        configuration.onnxruntime.is_none() || names.contains(&EngineName::Onnxruntime),
        "[onnxruntime] is there, but engines does not name it; name it or take the section out"
    );
    ensure!(
        !configuration.tiered || names.len() > 1,
        "tiered is set, but engines names one engine only; name onnxruntime and rten, or take it out"
    );
    let mut engines: Vec<Box<dyn Engine>> = Vec::new();
    for name in names {
        engines.push(match name {
            EngineName::Rten => {
                let (threads, concurrency) = (configuration.threads, configuration.concurrency);
                Box::new(Rten::for_runs(threads, concurrency))
            }
            EngineName::Onnxruntime => open_onnxruntime(configuration, onnxruntime)?,
        });
    }
    match engines.pop() {
        Some(only) if engines.is_empty() => Ok(only),
        Some(last) => {
            engines.push(last);
            let engines = Engines::new(engines);
            Ok(Box::new(match configuration.tiered {
                true => engines.tiered(),
                false => engines,
            }))
        }
        None => bail!("there is no engine"),
    }
}

#[cfg(feature = "engine-ort")]
fn open_onnxruntime(
    configuration: &RuntimeConfiguration,
    path: Option<&Path>,
) -> anyhow::Result<Box<dyn Engine>> {
    let named = configuration.onnxruntime.as_ref().context(
        "engines names onnxruntime; say which: [onnxruntime] library = \"sha256:…\" of its libonnxruntime.so",
    )?;
    let path = path.context(
        "engines names onnxruntime; start this program with --onnxruntime and the path of libonnxruntime.so",
    )?;
    let library = bield_platform::Library::open(path, &named.library)?;
    let (threads, concurrency) = (configuration.threads, configuration.concurrency);
    let engine = bield_engine::OnnxRuntime::open(&library.path(), threads, concurrency)?;
    Ok(Box::new(engine))
}

#[cfg(not(feature = "engine-ort"))]
fn open_onnxruntime(_: &RuntimeConfiguration, _: Option<&Path>) -> anyhow::Result<Box<dyn Engine>> {
    bail!(
        "engines names onnxruntime, which this build of bield-runtime does not have; \
         build it with --features engine-ort, or take it out"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(text: &str) -> Result<&'static str, String> {
        let text =
            format!("{text}\n[key_service]\nprofile = \"dev\"\nmeasurements = [\"sgx:00\"]\n");
        let configuration = RuntimeConfiguration::parse(&text).map_err(|e| e.to_string())?;
        let engine = open(&configuration, None).map_err(|error| format!("{error:#}"))?;
        Ok(engine.name())
    }

    #[test]
    fn rten_is_there_unless_others_are_named() {
        assert_eq!(opened(""), Ok("rten 0.27"));
        assert_eq!(opened("engines = [\"rten\"]"), Ok("rten 0.27"));
    }

    #[test]
    fn engines_that_cannot_be_had_are_refused_with_a_sentence() {
        for (text, part) in [
            ("engines = []", "engines is empty"),
            ("tiered = true", "names one engine only"),
            ("engines = [\"rten\", \"rten\"]", "names rten twice"),
            ("engines = [\"tract\"]", "does not parse"),
            ("engines = [\"onnxruntime\"]", "engines names onnxruntime"),
            ("[onnxruntime]\nlibrary = \"sha256:00\"", "does not name it"),
            (
                "engines = [\"onnxruntime\"]\n[onnxruntime]\n",
                "does not parse",
            ),
        ] {
            let refused = opened(text).unwrap_err();
            assert!(refused.contains(part), "{text}: {refused}");
        }
    }
}
