//! What the isolation that a grant asks for costs, over `shared`.

use anyhow::Result;
use bield_grant::Isolation;

use super::Bench;
use super::caller::Caller;
use super::models::EngineKind;
use crate::bars::{Bar, median};
use crate::deployment::Deployment;

/// Measures `wiped` and `dedicated`.
pub(crate) fn measured(bench: &Bench<'_>, bars: &mut Vec<Bar>) -> Result<()> {
    let (name, inputs) = (bench.name(), &bench.subject.inputs);
    let row = |isolation: &str| format!("{name}: {isolation} ÷ shared, hot");
    if bench.kind == EngineKind::Onnxruntime {
        for isolation in ["wiped", "dedicated"] {
            let why = "refused: what a run leaves in onnxruntime's own memory is not wiped";
            bars.push(Bar::missing(row(isolation), why));
        }
        return Ok(());
    }
    // A process that served one user alone serves nobody else: two deployments.
    let (open, closed) = (
        Deployment::start(&bench.roomy())?,
        Deployment::start(&bench.roomy())?,
    );
    let (wiped, alone) = (open.person("wiped")?, closed.person("alone")?);
    let packages = [
        open.publish_own("shared", &bench.file)?,
        open.publish("wiped", &bench.file)?,
        closed.publish("dedicated", &bench.file)?,
    ];
    open.grant(&packages[1], &wiped, Isolation::Wiped)?;
    closed.grant(&packages[2], &alone, Isolation::Dedicated)?;
    let callers = [
        Caller::of(&open, &packages[0], &open.owner)?,
        Caller::of(&open, &packages[1], &wiped)?,
        Caller::of(&closed, &packages[2], &alone)?,
    ];
    let mut took: [Vec<f64>; 3] = Default::default();
    for call in 0..=bench.effort.calls() / 2 {
        for (caller, took) in callers.iter().zip(&mut took) {
            let (_, parts) = caller.call(inputs)?;
            if call > 0 {
                took.push(parts.total());
            }
        }
    }
    let told = [
        (
            1,
            "wiped",
            "threads that end with the run, all freed memory zeroed",
        ),
        (
            2,
            "dedicated",
            "lease fetched, package opened and model loaded for each request, all wiped, answer padded",
        ),
    ];
    for (at, isolation, what) in told {
        let ratios = took[at].iter().zip(&took[0]).map(|(a, b)| a / b);
        let note = format!(
            "{:.2} ms ÷ {:.2} ms; {what}",
            median(took[at].clone()),
            median(took[0].clone())
        );
        bars.push(Bar::told(
            row(isolation),
            median(ratios.collect()),
            "ratio",
            note,
        ));
    }
    Ok(())
}
