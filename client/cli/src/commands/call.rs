//! `bield call`.

use std::path::PathBuf;

use bield_envelope::SigningKey;
use bield_grant::CodeSelector;
use bield_sdk::{
    Answered, CallError, CallOptions, EarlyOutput, Home, KeyService, PackageReference, Randomness,
    Reference, ServiceError, Target, Tensor, now, write_atomically,
};
use clap::Args;
use serde_json::json;

use super::{key_service, principal};
use crate::failure::Failure;
use crate::output::Output;
use crate::show::Tensors;
use crate::{progress, tensors};

/// Call a sealed model and verify the answer's receipt
///
/// Verifies the key service's evidence, asks it for the key of exactly this package inside code you
/// trust, seals the request to it, and sends it through the gateway. The answer is shown only after its
/// receipt was verified: it says which code ran which package under which grant on your request. The
/// receipt is kept in the home directory (receipts/) and can be checked later, or by others.
///
/// With --stream, outputs are also shown as they come, before that, and marked as unproven: each was sealed
/// by whoever opened your request, in this order, but no receipt says yet which code that was, or that more
/// will come. What is shown at the end, after the receipt was verified over all of them, is the answer; if
/// the command fails, what it showed before is none.
///
/// REFERENCE is a digest, a name, or name@version. A name means its owner's package of that name: give
/// --owner, or set `owner` in trust.toml.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Call {
    /// The package: a digest, a name, or name@version
    reference: Reference,

    /// Whose package a name means: a principal, or `me` [default: `owner` of trust.toml]
    #[arg(long, value_name = "PRINCIPAL")]
    owner: Option<String>,

    /// File with the inputs, or - for standard input
    #[arg(long, value_name = "INPUTS.json")]
    input: PathBuf,

    /// Output wanted; repeat for more [default: all]
    #[arg(long = "output", value_name = "NAME")]
    outputs: Vec<String>,

    /// The runtime code to seal to; it must be on the `code` or `signers` list of trust.toml [default: each
    /// of them]
    #[arg(long, value_name = "CODE")]
    code: Option<CodeSelector>,

    /// Also show outputs as they come, unproven; with --json, one line {"unproven": {...}} each before the
    /// result
    #[arg(long)]
    stream: bool,

    /// Also write the receipt here
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
}

impl Call {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let user = home.identity()?;
        let trust = home.trust()?;
        let owner = self
            .owner
            .as_ref()
            .map(|owner| principal(home, owner))
            .transpose()?;
        let package = self.reference.of(owner.or(trust.owner()))?;
        let inputs = tensors::read_inputs(&self.input)?;

        let mut service = key_service(home, &trust)?;
        let codes = match &self.code {
            Some(code) => vec![code.clone()],
            None => {
                let measured = trust.code().iter().cloned().map(CodeSelector::Measurement);
                measured.chain(trust.signers().iter().cloned()).collect()
            }
        };
        let (target, code) = target(&mut service, &package, &codes)?;
        let mut shown = 0;
        let answered = match self.send(&target, &user, inputs.clone(), output, &mut shown) {
            // The key or the clock moved on between the two messages: once more with the new one.
            Err(error) if error.wants_fresh_target() && shown == 0 => {
                let target = service.target_in(&package, code, now())?;
                self.send(&target, &user, inputs, output, &mut shown)
            }
            sent => sent,
        };
        if answered.is_err() && shown > 0 {
            output.note("what was shown so far is no answer");
        }
        let answered = answered?;
        self.report(home, &target, &answered, output)
    }

    fn send(
        &self,
        target: &Target,
        user: &SigningKey,
        inputs: Vec<Tensor>,
        output: Output,
        shown: &mut usize,
    ) -> Result<Answered, CallError> {
        let spinner = progress::spinner("calling");
        let options = CallOptions {
            attempts_max: ATTEMPTS_MAX,
            waiting: &mut |waiting| {
                spinner.suspend(|| {
                    output.note(format_args!(
                        "attempt {} of {}: {}; waiting {} ms",
                        waiting.attempts,
                        waiting.attempts_max,
                        waiting.reason,
                        waiting.wait.as_millis()
                    ));
                });
            },
            clock: now,
        };
        let outputs = self.outputs.clone();
        let answered = match self.stream {
            true => {
                let mut each = |early: EarlyOutput<'_>| {
                    *shown += 1;
                    spinner.suspend(|| show_early(&early, output));
                };
                let entropy = &mut Randomness;
                target.call_in_parts(user, inputs, outputs, options, &mut each, entropy)
            }
            false => target.call_with(user, inputs, outputs, options, &mut Randomness),
        };
        spinner.finish_and_clear();
        answered
    }

    fn report(
        &self,
        home: &Home,
        target: &Target,
        answered: &Answered,
        output: Output,
    ) -> Result<(), Failure> {
        let receipt = answered.receipt.receipt();
        let kept = home.keep_receipt(receipt.request, &answered.bundle)?;
        if let Some(path) = &self.receipt {
            write_atomically(path, &answered.bundle.encode())?;
        }
        let checks = crate::show::Checks(answered.receipt.checks()).to_json();
        output.show(
            &json!({
                "outputs": tensors::to_json(&answered.tensors),
                "package": target.package().to_string(),
                "name": target.name(),
                "version": target.version(),
                "receipt": {
                    "verified": true,
                    "verdict": answered.receipt.to_string(),
                    "simulated": answered.receipt.simulated(),
                    "request": receipt.request.to_string(),
                    "code": receipt.code,
                    "grant": receipt.grant.to_string(),
                    "output": receipt.output.to_string(),
                    "at": receipt.at.to_string(),
                    "service": answered.receipt.certificate().signer().to_string(),
                    "file": kept.display().to_string(),
                    "report": checks,
                },
                "feedback": answered.feedback,
                "attempts": answered.attempts,
            }),
            format_args!(
                "{}\n\n{}\n  package  {} ({}@{})\n  code     {}\n  grant    {}\n  request  {}\n  kept     {}",
                Tensors(&answered.tensors),
                answered.receipt,
                target.package(),
                target.name(),
                target.version(),
                receipt.code,
                receipt.grant,
                receipt.request,
                kept.display(),
            ),
        );
        Ok(())
    }
}

/// Shows an output whose receipt has not come.
fn show_early(early: &EarlyOutput<'_>, output: Output) {
    let tensor = std::slice::from_ref(early.unproven());
    output.show(
        &json!({"unproven": tensors::to_json(tensor)}),
        format_args!("unproven so far:\n{}\n", Tensors(tensor)),
    );
}

/// The first of the codes that the package is granted to.
pub(super) fn target<'c>(
    service: &mut KeyService<'_>,
    package: &PackageReference,
    codes: &'c [CodeSelector],
) -> Result<(Target, &'c CodeSelector), Failure> {
    let mut last =
        Failure::local("the `code` list of trust.toml is empty: no code may open requests");
    for code in codes {
        match service.target_in(package, code, now()) {
            Ok(target) => return Ok((target, code)),
            // Not granted to this code; perhaps to the next.
            Err(error @ ServiceError::Refused(_)) => last = error.into(),
            Err(error) => return Err(error.into()),
        }
    }
    Err(last)
}

/// Times a request is sent at most: a restarted runtime is back within the first two pauses.
const ATTEMPTS_MAX: u32 = 5;

const EXAMPLES: &str = r#"Tensors are JSON: name, element type (f16, f32, f64, i8 to i64, u8 to u64,
bool, string), shape, and all values in one flat list, last dimension fastest:

  {"inputs": {"bytes": {"element": "i32", "shape": [1, 4], "data": [35, 33, 47, 98]}}}

Examples:
  bield call magika --owner ed25519:... --input inputs.json
  make-inputs | bield --json call magika@3.3 --input - --output scores
  bield call magika --input inputs.json --stream"#;
