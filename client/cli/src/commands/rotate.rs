//! `bield rotate`: other keys in the place of those that may have leaked, or are old.

mod identity;
mod package;

use bield_sdk::Home;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{confirmed, key_service, own_package};
use crate::failure::Failure;
use crate::output::Output;

/// Replace a key by a new one
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Rotate {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Audience(Audience),
    Package(package::Package),
    Identity(identity::Identity),
    Service(Service),
}

/// Replace the key that requests for a package are sealed to
///
/// Users get the new key with their next call. Requests that are under way, sealed to the key before, are
/// still opened until that key's end, unless --at-once refuses them from now on: then their callers seal
/// them anew. The package and its grants stay as they are.
#[derive(Args)]
#[command(after_long_help = "Examples:\n  bield rotate audience magika\n  \
    bield rotate audience magika@3.3 --at-once")]
struct Audience {
    /// The package: its file, digest, name@version, or name (the newest)
    package: String,

    /// Refuse requests sealed to the key before from now on
    #[arg(long)]
    at_once: bool,
}

/// Replace the key that signs workers' certificates (administrators)
///
/// Receipts made until now stay valid under the old key. The service gets another principal: who has
/// pinned the old one as `principal` in trust.toml names the new one there. Homes that have seen the log
/// take the new one by themselves, because it goes on with the same log.
#[derive(Args)]
#[command(after_long_help = "Examples:\n  bield rotate service --yes")]
struct Service {
    /// It is meant
    #[arg(long)]
    yes: bool,
}

impl Rotate {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        match self.what {
            What::Audience(audience) => audience.run(home, output),
            What::Package(package) => package.run(home, output),
            What::Identity(identity) => identity.run(home, output),
            What::Service(service) => service.run(home, output),
        }
    }
}

impl Audience {
    fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let owner = home.identity()?;
        let trust = home.trust()?;
        let mut service = key_service(home, &trust)?;
        let package = own_package(&mut service, &owner, &self.package)?;
        let size = service.rotate_audience(&owner, package, self.at_once)?;
        service.close()?;
        let before = if self.at_once {
            "requests sealed to the key before are refused"
        } else {
            "requests sealed to the key before are opened until its end"
        };
        output.show(
            &json!({ "package": package.to_string(), "at_once": self.at_once, "size": size }),
            format_args!("new audience key for {package}\n  {before}"),
        );
        Ok(())
    }
}

impl Service {
    fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let administrator = home.identity()?;
        let trust = home.trust()?;
        confirmed(self.yes, "give the key service another identity key?")?;
        let mut service = key_service(home, &trust)?;
        let before = service.principal();
        let size = service.rotate_identity(&administrator)?;
        let after = service.inspect()?.service;
        service.close()?;
        output.show(
            &json!({ "before": before.to_string(), "after": after.to_string(), "size": size }),
            format_args!("the key service is {after} from now on\n  before  {before}"),
        );
        Ok(())
    }
}

const EXAMPLES: &str = r#"Examples:
  bield rotate audience magika
  bield rotate package magika.bield --version 3.4 -o magika-3.4.bield
  bield rotate identity --yes
  bield rotate service --yes                    # administrators"#;
