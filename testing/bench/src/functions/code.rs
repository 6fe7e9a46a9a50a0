//! Code of a function: compiling it, and opening and loading what was compiled and sealed.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bield_envelope::Secret;
use bield_function::{Compiled, Host, Identity, Settings};
use bield_sdk::Randomness;

use super::Effort;
use super::cast::{Cast, Guest};
use crate::bars::{Bar, median};
use crate::runtime::load::percentile;

/// Most milliseconds until sealed code of 1.6 MB of WebAssembly is ready, as issue 7 has it.
const LOAD_MS_MAX: f64 = 25.0;
/// Most seconds of a core to compile a megabyte.
const COMPILE_MAX: f64 = 3.0;

pub(super) fn measured(cast: &Cast, effort: Effort, bars: &mut Vec<Bar>) -> Result<()> {
    for (guest, is_promised) in [(&cast.c, false), (&cast.counter, true)] {
        let megabytes = guest.wasm.len() as f64 / 1e6;
        let (compiled, seconds) = compile(&cast.host, guest, effort)?;
        let rate = seconds / megabytes;
        let name = format!("code: {}, compiling", guest.name);
        let note = format!("{megabytes:.3} MB of WebAssembly in {seconds:.2} s of a core");
        bars.push(match is_promised {
            true => Bar::at_most(name, rate, COMPILE_MAX, note).of("s/MB"),
            false => Bar::told(name, rate, "s/MB", note),
        });

        let key = Secret::generate(&mut Randomness);
        let identity = Identity::here(compiled.component(), Settings::Machine);
        let sealed = compiled.seal(&key, &identity, &mut Randomness);
        let (mut opens, mut wholes) = (Vec::new(), Vec::new());
        for _ in 0..effort.rounds() {
            let begun = Instant::now();
            let opened = Compiled::open(&key, &identity, &sealed)?;
            opens.push(begun.elapsed().as_secs_f64() * 1e3);
            let function = cast.host.load(&opened)?;
            wholes.push(begun.elapsed().as_secs_f64() * 1e3);
            drop((opened, function));
        }
        let (open, whole) = (median(opens), median(wholes.clone()));
        let name = format!("code: {}, sealed code opened and loaded", guest.name);
        let note = format!(
            "{:.1} MB of sealed code: authenticated and opened in {open:.2} ms, the rest loading and linking; p99 {:.1} ms",
            sealed.len() as f64 / 1e6,
            percentile(wholes, 0.99)
        );
        bars.push(match is_promised {
            true => Bar::at_most(name, whole, LOAD_MS_MAX, note).of("ms"),
            false => Bar::told(name, whole, "ms", note),
        });
        bars.push(Bar::told(
            format!("code: {}, loading ÷ compiling", guest.name),
            whole / (seconds * 1e3),
            "ratio",
            "what keeping sealed code saves at a start".to_owned(),
        ));
    }
    Ok(())
}

/// The code, and the seconds of a core it took: the median.
fn compile(host: &Host, guest: &Guest, effort: Effort) -> Result<(Compiled, f64)> {
    let mut last = None;
    let mut took = Vec::new();
    for _ in 0..effort.compilations() {
        let begun = processor()?;
        let compiled = host.compile(&guest.wasm)?;
        took.push(processor()? - begun);
        last = Some(compiled);
    }
    let compiled = last.context("it compiles at least once")?;
    ensure!(
        compiled.component() == guest.compiled.component(),
        "another component"
    );
    Ok((compiled, median(took)))
}

/// Seconds that this thread computed; the compiler has no other.
fn processor() -> Result<f64> {
    let told = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = told.split(' ').next().context("an empty schedstat")?;
    Ok(nanos.parse::<f64>()? / 1e9)
}
