//! `bield status`.

use bield_sdk::{Gateway, Home};
use clap::Args;
use serde_json::{Value, json};

use super::{counted, key_service, log_json, plain};
use crate::failure::Failure;
use crate::output::Output;

/// Show how the gateway and the key service are
///
/// The gateway's part is its own word: it is not trusted. The key service's part comes through an
/// attested session, after its log was compared with what this home has seen of it.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Status {}

impl Status {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let trust = home.trust()?;
        let gateway = Gateway::new(trust.gateway())
            .status()
            .map_err(Failure::from);
        let inspected = key_service(home, &trust).and_then(|mut service| {
            let simulated = service.appraised().simulated();
            let measurement = service.appraised().measurement().clone();
            let counts = service.inspect()?;
            let (witnesses, witnesses_needed) = counts.witnesses;
            Ok(json!({
                "serves_at": service.address(),
                "state": counts.state,
                "trouble": counts.trouble,
                "log": log_json(service.fresh()),
                "fresh": service.fresh().to_string(),
                "members": counts.members,
                "witnesses": witnesses,
                "witnesses_needed": witnesses_needed,
                "share_holders": counts.shares.map(|(holders, _)| holders),
                "share_threshold": counts.shares.map(|(_, threshold)| threshold),
                "lease_secs": counts.lease_secs,
                "service": service.principal().to_string(),
                "measurement": measurement,
                "simulated": simulated,
                "principals": counts.principals,
                "packages": counts.packages,
                "grants": counts.grants,
            }))
        });
        let value = json!({
            "gateway": shown(&gateway, trust.gateway()),
            "key_service": shown(&inspected, trust.key_service()),
        });
        let text = format!(
            "{}\n{}",
            gateway_text(&value["gateway"]),
            keys_text(&value["key_service"])
        );
        let failed = inspected.err().or(gateway.err());
        match failed {
            None => {
                output.show(&value, text);
                Ok(())
            }
            Some(failure) => {
                if !output.is_json() {
                    output.show(&value, text);
                }
                Err(failure.with(value))
            }
        }
    }
}

/// What was found, or why nothing was, beside the address.
fn shown(found: &Result<Value, Failure>, address: &str) -> Value {
    let mut value = match found {
        Ok(found) if found.is_object() => found.clone(),
        Ok(_) => json!({}),
        Err(failure) => failure.to_json(),
    };
    value["address"] = address.into();
    value
}

fn gateway_text(gateway: &Value) -> String {
    let address = gateway["address"].as_str().unwrap_or_default();
    if let Some(error) = gateway["error"]["message"].as_str() {
        return about(&format!("gateway {address}"), error);
    }
    let mut text = format!("gateway {address} (its own word)");
    let keys = [&gateway["key_service"]];
    let workers = gateway["workers"].as_array().into_iter().flatten();
    for program in keys
        .into_iter()
        .chain(workers)
        .filter(|program| program.is_object())
    {
        let report = &program["report"];
        let word = |value: &Value| {
            let text = value.as_str().unwrap_or("?");
            text.chars()
                .filter(|c| !c.is_control())
                .take(100)
                .collect::<String>()
        };
        // A program that runs may still not serve: its own report says.
        let state = match (&program["state"], &report["state"]) {
            (runs, said) if runs == "running" && said.is_string() => said,
            (state, _) => state,
        };
        text += &format!(
            "\n  {}: {}, {} served, {} refused, {} resident, {}",
            word(&program["program"]),
            word(state),
            report["served"],
            report["refused"],
            report["resident"],
            word(&report["measurement"]),
        );
        let missing: Vec<String> = report["missing"]
            .as_array()
            .into_iter()
            .flatten()
            .map(word)
            .collect();
        if !missing.is_empty() {
            text += &format!("\n    not in force: {}", missing.join(", "));
        }
    }
    text
}

/// An error under the name of what it is about, unless it begins with that itself.
fn about(name: &str, error: &str) -> String {
    if error.starts_with(name) {
        error.to_owned()
    } else {
        format!("{name}: {error}")
    }
}

fn keys_text(keys: &Value) -> String {
    let address = keys["address"].as_str().unwrap_or_default();
    if let Some(error) = keys["error"]["message"].as_str() {
        return about(&format!("key service {address}"), error);
    }
    let tee = if keys["simulated"] == true {
        "SOFTWARE TEE"
    } else {
        "hardware TEE"
    };
    let address = keys["serves_at"].as_str().unwrap_or(address);
    let state = plain(keys["state"].as_str().unwrap_or_default());
    let trouble = keys["trouble"].as_str().map(plain);
    let trouble = trouble.map_or_else(String::new, |trouble| format!(": {trouble}"));
    let fresh = keys["fresh"].as_str().unwrap_or_default();
    let witnesses = match keys["witnesses_needed"].as_u64() {
        None | Some(0) => "no witnesses".to_owned(),
        Some(needed) => format!("{needed} of {} witnesses cosign", keys["witnesses"]),
    };
    let recovery = match keys["share_threshold"].as_u64() {
        None => "nobody could recover it".to_owned(),
        Some(threshold) => format!("{threshold} of {} can recover it", keys["share_holders"]),
    };
    let count = |key: &str, one: &str| counted(keys[key].as_u64().unwrap_or_default(), one);
    format!(
        "key service {address} (attested, {tee}): {state}{trouble}\n  log: {fresh}\n  members: {}; {witnesses}; \
         {recovery}; a revocation holds within {} s\n  {}, {}, {}\n  {}\n  {}",
        keys["members"],
        keys["lease_secs"],
        count("principals", "principal"),
        count("packages", "package"),
        count("grants", "grant"),
        keys["service"].as_str().unwrap_or_default(),
        keys["measurement"].as_str().unwrap_or_default(),
    )
}

const EXAMPLES: &str = r#"Examples:
  bield status
  bield --json status"#;
