//! `bield register` and `bield unregister`.

use bield_sdk::Home;
use clap::Args;
use serde_json::json;

use super::{confirmed, key_service};
use crate::failure::Failure;
use crate::output::Output;

/// Make yourself known to the key service
///
/// `bield grant` does this by itself. Who only calls needs it to see grants of others (bield list to-me),
/// and holders of recovery shares need it before they can fetch theirs.
#[derive(Args)]
#[command(after_long_help = "Examples:\n  bield register")]
pub(crate) struct Register {}

/// Make the key service forget you
///
/// Only without packages and groups: delete them first. Grants of others that name you stay as they are.
#[derive(Args)]
#[command(after_long_help = "Examples:\n  bield unregister --yes")]
pub(crate) struct Unregister {
    /// It is meant
    #[arg(long)]
    yes: bool,
}

impl Register {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let identity = home.identity()?;
        let trust = home.trust()?;
        let mut service = key_service(home, &trust)?;
        let size = service.register(&identity)?;
        service.close()?;
        let principal = identity.principal().to_string();
        output.show(
            &json!({ "registered": principal, "size": size }),
            format_args!("registered {principal}"),
        );
        Ok(())
    }
}

impl Unregister {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let identity = home.identity()?;
        let trust = home.trust()?;
        let principal = identity.principal().to_string();
        confirmed(self.yes, &format!("unregister {principal}?"))?;
        let mut service = key_service(home, &trust)?;
        let size = service.unregister(&identity)?;
        service.close()?;
        output.show(
            &json!({ "unregistered": principal, "size": size }),
            format_args!("unregistered {principal}"),
        );
        Ok(())
    }
}
