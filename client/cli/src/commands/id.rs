//! `bield id`.

use bield_sdk::Home;
use clap::Args;
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;

/// Print this identity's principal
///
/// The principal is the public half of the signing key: give it to model owners, who grant by it.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Id {}

impl Id {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let principal = home.identity()?.principal().to_string();
        output.show(&json!({ "principal": principal }), &principal);
        Ok(())
    }
}

const EXAMPLES: &str = r#"Examples:
  bield id
  bield grant model.bield --user "$(bield --home ../friend id)" --code sgx:..."#;
