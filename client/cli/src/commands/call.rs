//! `bield call`.

mod function;

use std::path::{Path, PathBuf};

use bield_envelope::SigningKey;
use bield_grant::CodeSelector;
use bield_receipt::VerifiedReceipt;
use bield_sdk::{
    Answered, CallError, CallOptions, EarlyOutput, Home, KeyService, PackageReference, Randomness,
    Reference, ServiceError, Target, Tensor, Trust, Waiting, now, write_atomically,
};
use clap::Args;
use serde_json::{Value, json};

use super::{key_service, principal};
use crate::failure::Failure;
use crate::output::Output;
use crate::show::Tensors;
use crate::{progress, tensors};

/// Call a sealed model or function and verify the answer's receipt
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
/// A model takes tensors (--input); a function takes a path and a body, and its answer's body is all that goes to standard
/// output. A function's receipt also names the state that the answer came from. This home keeps the newest it has seen
/// of each function (states/) and shows it with every call: a state that was set back is refused, by the runtime and
/// again here.
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

    /// A model: file with the inputs, or - for standard input
    #[arg(long, value_name = "INPUTS.json", conflicts_with_all = ["path", "body", "content_type"])]
    input: Option<PathBuf>,

    /// A model: output wanted; repeat for more [default: all]
    #[arg(long = "output", value_name = "NAME", requires = "input")]
    outputs: Vec<String>,

    /// A function: which of the things that it does [default: /]
    #[arg(long, value_name = "/PATH")]
    path: Option<String>,

    /// A function: what it is given, as text, from a file (@FILE) or from standard input (@-) [default: nothing]
    #[arg(long, value_name = "TEXT|@FILE")]
    body: Option<String>,

    /// A function: what the body is [default: text/plain; charset=utf-8, or application/octet-stream of a file]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,

    /// The runtime code to seal to; it must be on the `code` or `signers` list of trust.toml [default: each
    /// of them]
    #[arg(long, value_name = "CODE")]
    code: Option<CodeSelector>,

    /// A model: also show outputs as they come, unproven; with --json, one line {"unproven": {...}} each before the
    /// result
    #[arg(long, requires = "input")]
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
        let inputs = self
            .input
            .as_deref()
            .map(tensors::read_inputs)
            .transpose()?;

        let mut service = key_service(home, &trust)?;
        let codes = match &self.code {
            Some(code) => vec![code.clone()],
            None => trusted(&trust),
        };
        let (target, code) = target(&mut service, &package, &codes)?;
        let inputs = match (inputs, target.is_function()) {
            (None, true) => {
                let question = self.question(home, &target)?;
                let answered = match Self::ask(&target, &user, &question, output) {
                    Err(error) if error.wants_fresh_target() => {
                        let target = service.target_in(&package, code, now())?;
                        Self::ask(&target, &user, &question, output)
                    }
                    asked => asked,
                };
                let seen = home.seen_state_path(&target.owner(), target.name());
                let answered = answered.map_err(|error| set_back(error, &seen))?;
                return self.report_function(home, &target, answered, output);
            }
            (Some(inputs), false) => inputs,
            (None, false) => {
                return Err(Failure::local(format_args!(
                    "{}@{} is a model: give its inputs with --input",
                    target.name(),
                    target.version()
                )));
            }
            (Some(_), true) => {
                return Err(Failure::local(format_args!(
                    "{}@{} is a function: give it --path and --body, not --input",
                    target.name(),
                    target.version()
                )));
            }
        };
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
                spinner.suspend(|| show_waiting(waiting, output));
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
                "receipt": receipt_json(&answered.receipt, &kept, checks),
                "feedback": answered.feedback,
                "attempts": answered.attempts,
            }),
            format_args!(
                "{}\n\n{}",
                Tensors(&answered.tensors),
                provenance(&answered.receipt, target, &kept)
            ),
        );
        Ok(())
    }
}

/// What an answer came from, for people.
fn provenance(verified: &VerifiedReceipt, target: &Target, kept: &Path) -> String {
    let receipt = verified.receipt();
    format!(
        "{verified}\n  package  {} ({}@{})\n  code     {}\n  grant    {}\n  request  {}\n  kept     {}",
        target.package(),
        target.name(),
        target.version(),
        receipt.code,
        receipt.grant,
        receipt.request,
        kept.display(),
    )
}

/// What programs are shown of a verified receipt.
fn receipt_json(verified: &VerifiedReceipt, kept: &Path, checks: Value) -> Value {
    let receipt = verified.receipt();
    json!({
        "verified": true,
        "verdict": verified.to_string(),
        "simulated": verified.simulated(),
        "request": receipt.request.to_string(),
        "code": receipt.code,
        "grant": receipt.grant.to_string(),
        "output": receipt.output.to_string(),
        "at": receipt.at.to_string(),
        "service": verified.certificate().signer().to_string(),
        "file": kept.display().to_string(),
        "report": checks,
    })
}

/// Says what to do about a state that is behind what was seen, when that is what was refused.
fn set_back(error: CallError, seen: &Path) -> Failure {
    let behind = match &error {
        CallError::Refused(refusal) => refusal.code == STATE_BEHIND,
        CallError::ReceiptInvalid(error) => error.failed().any(|check| check.name == "state-seen"),
        _ => false,
    };
    let failure = Failure::from(error);
    if !behind {
        return failure;
    }
    failure.and(&format!(
        "this home has seen a later state: whoever keeps the function's files brings them back, newest first. Only if its \
         owner says that later state is gone for good, remove {}",
        seen.display()
    ))
}

fn show_waiting(waiting: &Waiting, output: Output) {
    output.note(format_args!(
        "attempt {} of {}: {}; waiting {} ms",
        waiting.attempts,
        waiting.attempts_max,
        waiting.reason,
        waiting.wait.as_millis()
    ));
}

/// Shows an output whose receipt has not come.
fn show_early(early: &EarlyOutput<'_>, output: Output) {
    let tensor = std::slice::from_ref(early.unproven());
    output.show(
        &json!({"unproven": tensors::to_json(tensor)}),
        format_args!("unproven so far:\n{}\n", Tensors(tensor)),
    );
}

/// All code that a trust file trusts.
pub(super) fn trusted(trust: &Trust) -> Vec<CodeSelector> {
    let measured = trust.code().iter().cloned().map(CodeSelector::Measurement);
    measured.chain(trust.signers().iter().cloned()).collect()
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

/// A runtime's refusal of a session token that is ahead of its state.
const STATE_BEHIND: &str = "state-behind";

/// Times a request is sent at most: a restarted runtime is back within the first two pauses.
const ATTEMPTS_MAX: u32 = 5;

const EXAMPLES: &str = r#"Tensors are JSON: name, element type (f16, f32, f64, i8 to i64, u8 to u64,
bool, string), shape, and all values in one flat list, last dimension fastest:

  {"inputs": {"bytes": {"element": "i32", "shape": [1, 4], "data": [35, 33, 47, 98]}}}

Examples:
  bield call magika --owner ed25519:... --input inputs.json
  make-inputs | bield --json call magika@3.3 --input - --output scores
  bield call magika --input inputs.json --stream
  bield call cart --path /add --body '{"item": "pen"}' --content-type application/json
  bield call classifier --path /classify --body @photo.jpg > kind.txt"#;
