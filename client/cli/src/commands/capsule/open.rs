//! `bield capsule open` and `bield capsule writer`.

use bield_capsule::{CapsuleName, WriterKey};
use bield_sdk::capsule::{CapsuleHome, CapsuleHomeError, Log};
use bield_sdk::{Home, Randomness};
use clap::Args;
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;
use crate::progress;

/// Get to know a capsule that somebody else made
///
/// Fetches its metadata and configuration from these replicas, verifies them against the full name, and
/// remembers where it is. That is enough to verify everything, and for `bield capsule heads`. To write,
/// the owner must admit this home's key (bield capsule writer); to read, its keys must be here.
#[derive(Args)]
#[command(after_long_help = OPEN_EXAMPLES)]
pub(crate) struct Open {
    /// The capsule's full name: 64 digits, from somebody you believe
    name: CapsuleName,

    /// A replica's URL; repeat for more
    #[arg(long, value_name = "URL", required = true)]
    replica: Vec<String>,

    /// Also ask replicas of this machine or its network that the capsule's owner named, and not you
    #[arg(long)]
    allow_private: bool,
}

/// Print this home's public key for a capsule, for its owner to admit
///
/// Makes the key when there is none. The owner runs `bield capsule admit NAME KEY`. With --new another key
/// is made: the way on when this home was set back to an earlier state or shares its key, and after a
/// revocation.
#[derive(Args)]
#[command(after_long_help = WRITER_EXAMPLES)]
pub(crate) struct Writer {
    /// Label, name, or first digits of the capsule
    capsule: String,

    /// Put the key that is there away and make a new one, which begins a new chain
    #[arg(long)]
    new: bool,
}

impl Open {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let spinner = progress::spinner("fetching the configuration");
        let log = Log::adopt(home, &self.name, &self.replica, self.allow_private);
        spinner.finish_and_clear();
        let log = log?;
        let label = log.metadata().label();
        let config = log.config().head().map_or(0, |head| head.seq);
        output.show(
            &json!({
                "capsule": self.name.to_string(),
                "label": label,
                "suite": log.metadata().suite().number(),
                "config": config,
                "replicas": log.config().replicas().map(|(principal, url)| json!({
                    "url": url,
                    "principal": principal.to_string(),
                })).collect::<Vec<_>>(),
            }),
            format_args!(
                "{}\n  label     {}\n  config    record {config}, verified\n  replicas  {}",
                self.name,
                label.unwrap_or("-").escape_debug(),
                log.config().replicas().len(),
            ),
        );
        for silent in log.silent() {
            output.note(silent);
        }
        Ok(())
    }
}

impl Writer {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let found = CapsuleHome::find(home, &self.capsule)?;
        if self.new && found.is_writer() {
            found.retire_writer_key()?;
        }
        let key = match found.writer_key() {
            Ok(key) => key,
            Err(CapsuleHomeError::NotAWriter { .. }) => {
                let key = WriterKey::generate(found.metadata()?.suite(), &mut Randomness);
                found.keep_writer_key(&key)?;
                key
            }
            Err(error) => return Err(error.into()),
        };
        let (public, id) = (key.public(), key.id());
        let digits: String = public
            .as_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        output.show(
            &json!({
                "capsule": found.name().to_string(),
                "public_key": digits,
                "writer": id.to_string(),
            }),
            &digits,
        );
        if !output.is_json() {
            output.note(format_args!("writer {id}"));
        }
        Ok(())
    }
}

const OPEN_EXAMPLES: &str = r#"Examples:
  bield capsule open 3fa1... --replica http://127.0.0.1:8801"#;

const WRITER_EXAMPLES: &str = r#"Examples:
  bield capsule writer notes
  bield --home ../owner capsule admit notes "$(bield capsule writer notes)""#;
