//! `bield init`.

use std::path::PathBuf;

use bield_sdk::{Home, HomeError, Randomness};
use clap::Args;
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;

/// Make an identity, and say whom to trust
///
/// Makes a signing key in the home directory (identity.key, readable by you alone) and prints its public
/// half, the principal: that is the name grants are given to. An identity that is there is kept.
///
/// With --trust, checks FILE and copies it to trust.toml in the home directory. It says which gateway
/// and key service to use, what the key service's evidence must satisfy, and which runtime code may open
/// your requests. Nothing is sent anywhere before that is known.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Init {
    /// Trust file to check and copy; another one that is there stays unless --replace-trust
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,

    /// Replace another trust file that is there
    #[arg(long, requires = "trust")]
    replace_trust: bool,
}

impl Init {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        // The trust file first: when it is wrong, nothing was made.
        let trust = self.trust.as_ref().map(|path| {
            std::fs::read_to_string(path)
                .map_err(|error| Failure::local(format_args!("{}: {error}", path.display())))
        });
        if let Some(text) = trust.transpose()? {
            if self.replace_trust {
                replace(home, &text, output)?;
            } else {
                home.create_trust(&text)?;
            }
        }
        let trusted = match home.trust() {
            Ok(_) => true,
            Err(HomeError::NoTrust { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        let (identity, made) = match home.create_identity(&mut Randomness) {
            Ok(identity) => (identity, true),
            Err(HomeError::IdentityExists { .. }) => (home.identity()?, false),
            Err(error) => return Err(error.into()),
        };
        let principal = identity.principal().to_string();
        // In full: a relative one says little about whose directory it is.
        let path = std::path::absolute(home.path()).unwrap_or_else(|_| home.path().to_owned());
        let path = path.display().to_string();
        output.show(
            &json!({ "principal": principal, "home": path, "made": made, "trust": trusted }),
            &principal,
        );
        if !output.is_json() {
            output.note(format_args!("home: {path}"));
        }
        if !trusted && !output.is_json() {
            output.note("nothing is trusted yet; next: bield init --trust FILE");
        }
        Ok(())
    }
}

/// Replaces the trust, and says what this home does not go by any more.
fn replace(home: &Home, text: &str, output: Output) -> Result<(), Failure> {
    let (head, services) = (home.head(), home.known_services());
    home.replace_trust(text)?;
    if output.is_json() {
        return Ok(());
    }
    let services = services.unwrap_or_default().len();
    if services > 0 {
        output.note(format_args!(
            "forgotten: {} that had met the trust before; receipts can be checked offline after the next visit",
            super::counted(services, "key service")
        ));
    }
    if let (Ok(Some(head)), Ok(None)) = (head, home.head()) {
        output.note(format_args!(
            "forgotten: that {}, whose log of {} is kept, is the key service to go on with, because this trust \
             names another; the next one met is believed (a log met before is compared all the same)",
            head.service(),
            super::counted(head.size(), "record")
        ));
    }
    Ok(())
}

const EXAMPLES: &str = r#"Examples:
  bield init --trust .bield-dev/trust.toml
  bield --home ~/.bield-work init --trust deployment.toml"#;
