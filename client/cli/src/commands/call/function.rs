//! `bield call` of a function.

use std::fs;
use std::io::{self, Read as _, Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bield_envelope::{SigningKey, Wiped};
use bield_protocol::function::FunctionResponse;
use bield_sdk::{
    CallError, CallOptions, FunctionAnswered, FunctionCall, Home, Kind, Randomness, Target, now,
    write_atomically,
};
use serde_json::{Value, json};

use super::{ATTEMPTS_MAX, Call};
use crate::commands::plain;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress;

impl Call {
    /// What the function is asked, with what was seen of its state.
    pub(super) fn question(&self, home: &Home, target: &Target) -> Result<FunctionCall, Failure> {
        let (body, content_type) = match self.body.as_deref() {
            None => (Vec::new(), ""),
            Some("@-") => {
                let mut body = Vec::new();
                let read = io::stdin().lock().read_to_end(&mut body);
                read.map_err(|error| Failure::local(format_args!("standard input: {error}")))?;
                (body, BYTES)
            }
            Some(text) => match text.strip_prefix('@') {
                Some(path) => {
                    let body = fs::read(path);
                    let body =
                        body.map_err(|error| Failure::local(format_args!("{path}: {error}")))?;
                    (body, BYTES)
                }
                None => (text.as_bytes().to_vec(), TEXT),
            },
        };
        let seen = home.seen_state(&target.owner(), target.name())?;
        Ok(FunctionCall {
            path: self.path.clone().unwrap_or_else(|| "/".to_owned()),
            content_type: self
                .content_type
                .clone()
                .unwrap_or_else(|| content_type.to_owned()),
            body: Wiped::from(body),
            seen: seen.map(|seen| seen.heads),
        })
    }

    pub(super) fn ask(
        target: &Target,
        user: &SigningKey,
        question: &FunctionCall,
        output: Output,
    ) -> Result<FunctionAnswered, CallError> {
        let spinner = progress::spinner("calling");
        let options = CallOptions {
            attempts_max: ATTEMPTS_MAX,
            waiting: &mut |waiting| {
                spinner.suspend(|| super::show_waiting(waiting, output));
            },
            clock: now,
        };
        let answered = target.call_function_with(user, question, options, &mut Randomness);
        spinner.finish_and_clear();
        answered
    }

    pub(super) fn report_function(
        &self,
        home: &Home,
        target: &Target,
        answered: FunctionAnswered,
        output: Output,
    ) -> Result<(), Failure> {
        let receipt = answered.receipt.receipt();
        let kept = home.keep_receipt(receipt.request, &answered.bundle)?;
        if let Some(path) = &self.receipt {
            write_atomically(path, &answered.bundle.encode())?;
        }
        if let Some(state) = &answered.state {
            home.see_state(&target.owner(), target.name(), state)?;
        }
        let checks = crate::show::Checks(answered.receipt.checks()).to_json();
        let mut value = json!({
            "package": target.package().to_string(),
            "name": target.name(),
            "version": target.version(),
            "state": receipt.state.map(|state| json!({
                "capsule": state.capsule.to_string(),
                "before": state.before.to_string(),
                "after": state.after.to_string(),
            })),
            "receipt": super::receipt_json(&answered.receipt, &kept, checks),
            "feedback": answered.feedback,
            "attempts": answered.attempts,
        });
        let words = super::provenance(&answered.receipt, target, &kept);
        match answered.outcome {
            Ok(response) => {
                value["response"] = response_json(&response);
                if output.is_json() {
                    output.show(&value, "");
                } else {
                    show_body(&response.body);
                    output.note(words);
                }
                Ok(())
            }
            Err(failure) => {
                let kind = failure.kind.name();
                value["refused"] = json!({"kind": kind, "message": failure.message});
                let message = format!("the function refused ({kind}): {}", plain(&failure.message));
                if !output.is_json() {
                    output.note(words);
                }
                Err(Failure::new(Kind::Refused, message).with(value))
            }
        }
    }
}

/// The body as it is, and nothing else: what comes next in a pipe reads it.
fn show_body(body: &[u8]) {
    use std::io::IsTerminal as _;

    let mut out = io::stdout().lock();
    // A reader that left early has what it wanted.
    let _ = if out.is_terminal() {
        let text = String::from_utf8_lossy(body);
        let shown = |c: char| !c.is_control() || c == '\n' || c == '\t';
        let text: String = text
            .chars()
            .map(|c| if shown(c) { c } else { '\u{fffd}' })
            .collect();
        writeln!(out, "{text}")
    } else {
        out.write_all(body)
    };
    let _ = out.flush();
}

fn response_json(response: &FunctionResponse) -> Value {
    match std::str::from_utf8(&response.body) {
        Ok(text) => json!({"content_type": response.content_type, "body": text}),
        Err(_) => json!({
            "content_type": response.content_type,
            "body_base64": BASE64.encode(&response.body[..]),
        }),
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";
