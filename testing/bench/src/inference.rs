//! Sealed inference against the same engine in process, and against a peer people use today.
//!
//! On paper, a hot sealed call adds to the run: one HPKE seal and open (0.7 ms), 600 KB of image
//! through AES-GCM twice, BLAKE3 twice and four copies (1 ms), two HTTP hops on loopback, and three
//! signatures. A cold one adds an attested session (5 ms) and one pass of AES-GCM over the model.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use bield_fixtures::{IMAGE_SHAPE, Network, input_image};
use bield_sdk::{PackageReference, Tensor, now};

use crate::bars::{Bar, least, median, report};
use crate::sealed::Sealed;
use crate::{memory, peer, plain};

/// What hot calls may cost over the engine alone: the smaller the model, the more the envelope shows.
const HOT: [(Network, f64); 3] = [
    (Network::MobilenetV1, 1.15),
    (Network::Densenet121, 1.15),
    (Network::Resnet101V2, 1.05),
];
/// Sealed cold start against the peer's plaintext one.
const COLD_TO_PEER: f64 = 0.35;
/// Peak memory while opening, in models.
const OPENING: f64 = 1.05;

/// Measures everything and reports.
pub(crate) fn run(programs: &Path, calls: usize, rounds: usize, threads: usize) -> Result<()> {
    let system = Sealed::start(programs, threads)?;
    let mut bars = Vec::new();
    for (network, hot_target) in HOT {
        println!("{} …", network.name());
        let file = model_file(programs, network)?;
        bars.extend(measure(
            &system,
            network,
            &file,
            hot_target,
            (calls, rounds, threads),
        )?);
    }
    report("inference", programs, &bars)
}

fn measure(
    system: &Sealed,
    network: Network,
    file: &Path,
    hot_target: f64,
    (calls, rounds, threads): (usize, usize, usize),
) -> Result<Vec<Bar>> {
    let input = Tensor::from_f32("input", &IMAGE_SHAPE, &input_image(7))?;
    let name = network.name();
    let (mut plain_cold, mut sealed_cold, mut peer_cold) = (Vec::new(), Vec::new(), Vec::new());
    let mut kept = None;
    for round in 0..rounds {
        let (model, took) = plain::cold(file, threads, &input)?;
        plain_cold.push(took);
        peer_cold.extend(peer::cold(file, threads));

        let package = system.publish(&format!("{name}-{round}"), file)?;
        let reference = PackageReference::Digest(package.digest);
        let code = system
            .person
            .trust
            .code()
            .first()
            .context("no code is trusted")?;
        let target = system.person.service()?.target(&reference, code, now())?;
        let (answered, took) = system.call(&target, &input)?;
        let start = answered
            .feedback
            .as_ref()
            .and_then(|feedback| feedback["start"].as_str());
        ensure!(start == Some("cold"), "not a cold start: {start:?}");
        sealed_cold.push(took);
        kept = Some((model, target, package));
    }
    let (model, target, package) = kept.context("at least one round")?;

    let (mut plain_hot, mut sealed_hot) = (Vec::new(), Vec::new());
    let (mut outside, mut inside) = (Vec::new(), Vec::new());
    for call in 0..calls + WARM_UP {
        let plain = plain::hot(&*model, &input)?;
        let (answered, sealed) = system.call(&target, &input)?;
        if call >= WARM_UP {
            plain_hot.push(plain);
            sealed_hot.push(sealed);
            let phase = |name: &str| {
                let feedback = answered.feedback.as_ref();
                feedback
                    .and_then(|feedback| feedback[name].as_f64())
                    .unwrap_or(f64::NAN)
                    / 1e3
            };
            outside.push(sealed - phase("total_us"));
            inside.push(phase("total_us") - phase("run_us"));
        }
    }
    let (plain_hot, sealed_hot) = (median(plain_hot), median(sealed_hot));
    let (plain_cold, sealed_cold) = (least(&plain_cold), least(&sealed_cold));
    let opening = memory::opening(&package.file, system.person.home.path())?;

    let mut bars = vec![
        Bar::at_most(
            format!("{name}: sealed hot ÷ in process"),
            sealed_hot / plain_hot,
            hot_target,
            format!(
                "medians of {calls}: {sealed_hot:.1} ms ÷ {plain_hot:.1} ms, {threads} threads each"
            ),
        ),
        Bar::told(
            format!("{name}: sealed cold ÷ in process"),
            sealed_cold / plain_cold,
            "ratio",
            format!(
                "package on disk → first answer, least of {rounds}: {sealed_cold:.0} ms ÷ {plain_cold:.0} ms"
            ),
        ),
        Bar::told(
            format!("{name}: hot, outside the runtime"),
            median(outside),
            "ms",
            "seal, HTTP, gateway, door, open, verify the receipt; median".into(),
        ),
        Bar::told(
            format!("{name}: hot, in the runtime beside the run"),
            median(inside),
            "ms",
            "parse, open, admit, commit, sign, seal; median".into(),
        ),
        Bar::at_most(
            format!("{name}: peak memory opening, less one chunk ÷ model"),
            opening,
            OPENING,
            "resident memory of a process that only opens the package".into(),
        ),
    ];
    if peer_cold.is_empty() {
        println!("  onnxruntime is not installed: not compared (pip install onnxruntime numpy)");
    } else {
        let peer = least(&peer_cold);
        bars.push(Bar::at_most(
            format!("{name}: sealed cold ÷ plaintext onnxruntime (Python)"),
            sealed_cold / peer,
            COLD_TO_PEER,
            format!("least of {rounds}: {sealed_cold:.0} ms ÷ {peer:.0} ms, load and first answer"),
        ));
    }
    Ok(bars)
}

/// The network's file, written once.
fn model_file(programs: &Path, network: Network) -> Result<PathBuf> {
    let folder = programs.parent().unwrap_or(programs).join("bench-models");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{}.onnx", network.name()));
    let whole = std::fs::metadata(&file).is_ok_and(|meta| meta.len() == network.file_bytes());
    if !whole {
        network.write(&mut BufWriter::new(File::create(&file)?), &mut |_, _| ())?;
    }
    Ok(file)
}

/// Calls before the measured ones.
const WARM_UP: usize = 5;
