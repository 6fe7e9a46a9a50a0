//! From a package on the gateway's disk that the runtime has never seen to the first verified answer, against loading
//! the plaintext file and answering once.

use anyhow::{Result, ensure};

use super::Bench;
use super::caller::Caller;
use super::models::{EngineKind, Which, agree};
use super::peers::{Library, Peer, missing};
use super::plain;
use crate::bars::{Bar, median};
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
    let mut answer = Vec::new();
    for round in 0..rounds {
        plain.push(plain::cold(bench.engine, &bench.file, inputs)?.2);
        let package = deployment.publish_own(&format!("cold-{round}"), &bench.file)?;
        let caller = Caller::of(&deployment, &package, &deployment.owner)?;
        let (tensors, parts) = caller.call(inputs)?;
        ensure!(parts.start == "cold", "not a cold start: {}", parts.start);
        answer = tensors[0].to_f32().unwrap_or_default();
        sealed.push(parts.total());
        for ((library, lack), times) in peers.iter().zip(&lacks).zip(&mut theirs) {
            if lack.is_none() {
                let peer = Peer::start(*library, bench.subject, bench.threads)?;
                agree(&answer, &peer.output, tolerance(bench.subject.which))?;
                times.push(peer.cold.0 + peer.cold.1);
            }
        }
    }
    ensure!(!answer.is_empty(), "the model gives no floats");

    let ratio = |theirs: &[f64]| median(sealed.iter().zip(theirs).map(|(a, b)| a / b).collect());
    let note = |theirs: &[f64]| {
        format!(
            "median of {rounds} ratios, {:.0} ms ÷ {:.0} ms; package on disk → first verified answer",
            median(sealed.clone()),
            median(theirs.to_vec())
        )
    };
    bars.push(Bar::told(
        format!("{name}: sealed cold ÷ in process"),
        ratio(&plain),
        "ratio",
        note(&plain),
    ));
    for ((library, lack), times) in ["onnxruntime", "OpenVINO"].iter().zip(lacks).zip(&theirs) {
        let name = format!("{name}: sealed cold ÷ plaintext {library} (Python), load and first");
        bars.push(match lack {
            Some(why) => Bar::missing(name, &why),
            None if *library == "onnxruntime" => {
                Bar::at_most(name, ratio(times), COLD_TO_PEER, note(times))
            }
            None => Bar::told(name, ratio(times), "ratio", note(times)),
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

/// How far answers of different engines may be apart: the encoder quantises its activations as it goes.
pub(crate) const fn tolerance(which: Which) -> f32 {
    match which {
        Which::Minilm => 0.15,
        _ => 2e-3,
    }
}
