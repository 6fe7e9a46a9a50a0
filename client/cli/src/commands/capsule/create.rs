//! `bield capsule create`.

use std::fmt::Write as _;

use bield_capsule::Suite;
use bield_envelope::Principal;
use bield_sdk::Home;
use bield_sdk::capsule::{CreateOptions, Log};
use clap::Args;
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;
use crate::progress;

/// Make a capsule at these replicas
///
/// Draws its keys into the home directory (owner.key configures it, writer.key writes, keys opens bodies),
/// asks every replica who it is, and stores the configuration. Done means that a quorum of replicas has
/// synced it.
///
/// The replicas' principals come from themselves over plain HTTP: compare them with what their operators
/// say. From then on only those principals' acknowledgements count.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Create {
    /// What people call it: public, at most 64 bytes
    label: Option<String>,

    /// A replica's URL; repeat for each
    #[arg(long, value_name = "URL", required = true)]
    replica: Vec<String>,

    /// How many replicas make a record durable [default: a majority]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    quorum: Option<u8>,

    /// Cipher suite, for the capsule's whole life: ed25519 (1), p256 (2) or ml-dsa-44 (3)
    #[arg(long, value_name = "SUITE", default_value = "ed25519", value_parser = suite)]
    suite: Suite,

    /// A principal whose certificates admit writers, such as the key service; repeat for more
    #[arg(long, value_name = "PRINCIPAL")]
    certifier: Vec<Principal>,

    /// A witness's verifier key, as `bield witness` prints it; repeat for more
    #[arg(long, value_name = "VERIFIERKEY")]
    witness: Vec<String>,

    /// How many witnesses must have seen a record before it counts as durable
    #[arg(long, value_name = "W", default_value_t = 0, requires = "witness")]
    witnesses: u8,
}

impl Create {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let options = CreateOptions {
            label: self.label,
            suite: self.suite,
            replicas: self.replica,
            quorum: self.quorum,
            certifiers: self.certifier,
            witnesses: self.witness,
            witness_quorum: self.witnesses,
        };
        let spinner = progress::spinner("storing the first records");
        let made = Log::create(home, &options);
        spinner.finish_and_clear();
        let log = made?;
        let name = log.metadata().name().to_string();
        let mut text = name.clone();
        let (quorum, count) = (log.quorum(), log.replicas().len());
        let suite = log.metadata().suite().name();
        let _ = write!(
            text,
            "\n  suite     {suite}\n  writer    {}",
            log.home().writer_key()?.id()
        );
        for replica in log.replicas() {
            let _ = write!(
                text,
                "\n  replica   {} {}",
                replica.url(),
                replica.principal()
            );
        }
        let _ = write!(
            text,
            "\n  durable   when {quorum} of {count} replicas have synced"
        );
        let _ = write!(text, "\n  keys      {}", log.home().path().display());
        output.show(
            &json!({
                "capsule": name,
                "label": log.metadata().label(),
                "suite": log.metadata().suite().number(),
                "owner": log.metadata().owner_id().to_string(),
                "writer": log.home().writer_key()?.id().to_string(),
                "quorum": quorum,
                "replicas": log.replicas().iter().map(|replica| json!({
                    "url": replica.url(),
                    "principal": replica.principal().to_string(),
                })).collect::<Vec<_>>(),
                "home": log.home().path().display().to_string(),
            }),
            text,
        );
        Ok(())
    }
}

fn suite(text: &str) -> Result<Suite, String> {
    match text {
        "1" | "ed25519" => Ok(Suite::Ed25519),
        "2" | "p256" => Ok(Suite::P256),
        "3" | "ml-dsa-44" => Ok(Suite::MlDsa44),
        _ => Err("suites are ed25519 (1), p256 (2) and ml-dsa-44 (3)".to_owned()),
    }
}

const EXAMPLES: &str = r#"Examples:
  bield capsule create notes --replica http://127.0.0.1:8801
  bield capsule create audit --suite p256 --quorum 2 --replica http://a:8801 --replica http://b:8801 \
    --replica http://c:8801"#;
