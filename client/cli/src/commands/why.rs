//! `bield why`.

use bield_sdk::{Gateway, Home};
use clap::Args;
use serde_json::Value;

use super::plain;
use crate::failure::Failure;
use crate::output::Output;

/// Show why the gateway sent a request where it did
///
/// Every answer has a number: `request` in the feedback of bield --json call, the header bield-request on the wire. The
/// gateway remembers its last few thousand decisions: which workers there were, what each would have cost as predicted, and
/// which was chosen. It is the gateway's own word, and as little trusted as the gateway.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Why {
    /// The request's number
    request: u64,
}

impl Why {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let trust = home.trust()?;
        let why = Gateway::new(trust.gateway()).why(self.request)?;
        let text = text(&why);
        output.show(&why, text);
        Ok(())
    }
}

fn text(why: &Value) -> String {
    let word = |value: &Value| match value {
        Value::String(text) => plain(text),
        Value::Object(map) => {
            let mut words = map
                .iter()
                .map(|(name, value)| format!("{} {}", plain(name), plain(&value.to_string())));
            words.next().unwrap_or_default()
        }
        other => plain(&other.to_string()),
    };
    let mut text = format!(
        "request {} for package {} (policy {}, the gateway's own word)\n  {}: {}\n  waited {}, sent to workers {}",
        word(&why["request"]),
        word(&why["package"])
            .chars()
            .take(SHORT)
            .collect::<String>(),
        word(&why["policy"]),
        word(&why["outcome"]),
        word(&why["reason"]),
        duration(&why["waited_us"]),
        match why["dispatches"].as_u64() {
            Some(1) => "once".to_owned(),
            _ => format!("{} times", word(&why["dispatches"])),
        },
    );
    let candidates = why["candidates"].as_array().map_or(&[][..], Vec::as_slice);
    if !candidates.is_empty() {
        text += "\n  candidates       holds     in flight      queue     switch     finish";
    }
    for candidate in candidates {
        let name = match (&candidate["worker"], &candidate["slot"]) {
            (Value::Null, _) => "a new worker".to_owned(),
            (worker, slot) => format!("worker {} @{}", word(worker), word(slot)),
        };
        text += &format!(
            "\n    {name:14} {:9} {:9} {:>10} {:>10} {:>10}",
            word(&candidate["holds"]),
            word(&candidate["in_flight"]),
            duration(&candidate["queue_us"]),
            duration(&candidate["switch_us"]),
            duration(&candidate["finish_us"]),
        );
    }
    text
}

/// Microseconds as people read them.
fn duration(us: &Value) -> String {
    match us.as_u64() {
        None => "?".to_owned(),
        Some(us) if us < 1000 => format!("{us} us"),
        Some(us) if us < 1_000_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        Some(us) => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

/// Digits of a digest that are shown.
const SHORT: usize = 12;

const EXAMPLES: &str = "Examples:
  bield why 17
  bield --json why 17";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_decision_is_told_with_what_there_was_to_choose_from() {
        let why = json!({
            "request": 17, "at_us": 5, "policy": "bield", "package": "ab".repeat(32),
            "outcome": { "dispatched": 3 }, "reason": "it holds the model and has room", "dispatches": 1, "waited_us": 0,
            "candidates": [
                { "worker": 3, "slot": 0, "group": "one", "holds": "hot", "in_flight": 1,
                  "queue_us": 0, "switch_us": 0, "finish_us": 2500 },
                { "worker": null, "slot": null, "group": "one", "holds": "nothing", "in_flight": 0,
                  "queue_us": 1_200_000, "switch_us": 900, "finish_us": 1_300_000 },
            ],
        });
        let text = text(&why);
        assert!(
            text.contains("request 17 for package abababababab (policy bield"),
            "{text}"
        );
        assert!(
            text.contains("dispatched 3: it holds the model and has room"),
            "{text}"
        );
        assert!(text.contains("sent to workers once"), "{text}");
        assert!(
            text.contains("worker 3 @0") && text.contains("2.5 ms"),
            "{text}"
        );
        assert!(
            text.contains("a new worker") && text.contains("1.3 s"),
            "{text}"
        );
        // A gateway cannot drive the terminal, whatever it says.
        let evil = super::text(&json!({ "reason": "\u{1b}[31m", "candidates": 7 }));
        assert!(!evil.contains('\u{1b}'), "{evil}");
    }
}
