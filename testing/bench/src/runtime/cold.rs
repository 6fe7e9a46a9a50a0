//! From a package on the gateway's disk that the runtime has never seen to the first verified answer, against loading
//! the plaintext file and answering once.

use anyhow::{Result, ensure};

use super::Bench;
use super::caller::Caller;
use super::models::EngineKind;
use super::peers::{Library, Peer, missing};
use super::plain;
use crate::bars::{Bar, median, ratio};
use crate::deployment::Deployment;

/// Sealed cold start against onnxruntime's plaintext one.
const COLD_TO_PEER: f64 = 0.35;

/// Measures cold starts.
pub(crate) fn measured(bench: &Bench<'_>, bars: &mut Vec<Bar>) -> Result<()> {
    let (name, inputs) = (bench.name(), &bench.subject.inputs);
    let deployment = Deployment::start(&bench.roomy())?;
    let rounds = bench.effort.rounds();
    let peers = [Library::Onnxruntime, Library::Openvino];
    let lacks = [
        missing(&["onnxruntime", "numpy"]),
        missing(&["openvino", "numpy"]),
    ];
    let (mut sealed, mut plain) = (Vec::new(), Vec::new());
    let mut theirs = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        let (_, own, took) = plain::cold(bench.engine, &bench.file, inputs)?;
        plain.push(took);
        let package = deployment.publish_own(&format!("cold-{round}"), &bench.file)?;
        let caller = Caller::of(&deployment, &package, &deployment.owner)?;
        let (tensors, parts) = caller.call(inputs)?;
        ensure!(parts.start == "cold", "not a cold start: {}", parts.start);
        let answer = plain::numbers(&tensors);
        bench.subject.agree(&answer, &plain::numbers(&own))?;
        sealed.push(parts.total());
        for ((library, lack), times) in peers.iter().zip(&lacks).zip(&mut theirs) {
            if lack.is_none() {
                let peer = Peer::start(*library, bench.subject, bench.threads)?;
                bench.subject.agree(&answer, &peer.output)?;
                times.push(peer.cold.0 + peer.cold.1);
            }
        }
    }

    let note = |theirs: &[f64]| {
        format!(
            "median of {rounds} ratios, {:.0} ms ÷ {:.0} ms; package of {} on disk → first verified answer",
            median(sealed.clone()),
            median(theirs.to_vec()),
            bench.file.format
        )
    };
    bars.push(Bar::told(
        format!("{name}: sealed cold ÷ in process"),
        ratio(&sealed, &plain),
        "ratio",
        note(&plain),
    ));
    for ((library, lack), times) in ["onnxruntime", "OpenVINO"].iter().zip(lacks).zip(&theirs) {
        let name = format!("{name}: sealed cold ÷ plaintext {library} (Python), load and first");
        bars.push(match lack {
            Some(why) => Bar::missing(name, &why),
            None if *library == "onnxruntime" => {
                Bar::at_most(name, ratio(&sealed, times), COLD_TO_PEER, note(times))
            }
            None => Bar::told(name, ratio(&sealed, times), "ratio", note(times)),
        });
    }
    if bench.kind == EngineKind::Rten {
        bars.push(Bar::missing(
            format!("{name}: sealed cold ÷ plaintext LiteRT"),
            "LiteRT reads .tflite files only, and nothing here converts the seeded networks to them",
        ));
    }
    Ok(())
}
