//! `bield rotate identity`.

use bield_envelope::SigningKey;
use bield_sdk::{Home, KeyService, Randomness, ServiceError, now};
use clap::Args;
use serde_json::json;

use crate::commands::{confirmed, key_service};
use crate::failure::Failure;
use crate::output::Output;

/// Replace your identity key by a new one, which succeeds it
///
/// Makes a new key and has both sign that the new one stands where the old one stood. From then on your
/// packages, grants and groups are the new key's, grants that name the old one name you all the same, and
/// the old key can order nothing any more. It is kept aside, because receipts and packages name it.
///
/// Interrupted at any point, the same command goes on where it stopped. Tell others your new principal:
/// names in trust files (`owner`) and in the service's list of administrators are not changed by this.
#[derive(Args)]
#[command(after_long_help = "Examples:\n  bield rotate identity --yes")]
pub(super) struct Identity {
    /// It is meant
    #[arg(long)]
    yes: bool,
}

impl Identity {
    pub(super) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let old = home.identity()?;
        let trust = home.trust()?;
        let begun = home.begun_identity()?.is_some();
        if !begun {
            let question = format!("replace {} by a new key?", old.principal());
            confirmed(self.yes, &question)?;
        }
        let mut service = key_service(home, &trust)?;
        let new = home.next_identity(&mut Randomness)?;
        if !(begun && has_succeeded(&mut service, &old, &new)?) {
            service.register(&old)?;
            service.succeed(&old, &new, now())?;
        }
        service.close()?;
        let aside = home.succeed_identity()?;
        let (old, new) = (old.principal().to_string(), new.principal().to_string());
        let aside = aside.display().to_string();
        output.show(
            &json!({ "before": old, "principal": new, "kept": aside }),
            format_args!("{new}\n  succeeds  {old}\n  kept      {aside}"),
        );
        Ok(())
    }
}

/// Whether the service has carried the succession out before this home was told.
fn has_succeeded(
    service: &mut KeyService<'_>,
    old: &SigningKey,
    new: &SigningKey,
) -> Result<bool, Failure> {
    match service.me(new) {
        Ok(row) => Ok(row.succeeds.contains(&old.principal())),
        // Nobody it knows: then nothing was carried out.
        Err(ServiceError::Refused(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
