//! `bield revoke`.

use bield_envelope::{Digest, Principal};
use bield_grant::{PackageFacts, PackageSelector, UserSelector};
use bield_protocol::service::{GrantId, PackageRow};
use bield_sdk::{Home, ListedGrant};
use clap::{ArgGroup, Args};
use serde_json::json;

use super::grant::{line, show};
use super::{confirmed, counted, grant_id, key_service, own_package, principal, selectors};
use crate::failure::Failure;
use crate::output::Output;

/// End grants
///
/// By id (bield grants shows them), or all grants that cover a package, that name a user, or both. Those
/// found are listed first and end only after a yes: on the terminal, or with --yes.
///
/// Runtimes learn of it when they renew their lease, and no lease outlives its bound (bield status shows
/// it). A user who is granted through a group keeps that grant: take the user out of the group, or revoke
/// the group's grant. What is revoked stays in the audit.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
#[command(group = ArgGroup::new("which").required(true).multiple(true).args(["ids", "package", "user"]))]
pub(crate) struct Revoke {
    /// Ids of grants
    #[arg(value_name = "GRANT", value_parser = selectors::id, conflicts_with_all = ["package", "user"])]
    ids: Vec<GrantId>,

    /// All grants that cover this package: its file, digest, name or name@version
    #[arg(long, value_name = "PACKAGE")]
    package: Option<String>,

    /// All grants that name this user: a principal, or `me`
    #[arg(long, value_name = "PRINCIPAL")]
    user: Option<String>,

    /// It is meant
    #[arg(long)]
    yes: bool,
}

impl Revoke {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let owner = home.identity()?;
        let trust = home.trust()?;
        let user = self.user.as_deref().map(|user| principal(home, user));
        let user = user.transpose()?;
        let mut service = key_service(home, &trust)?;
        let (ids, found) = if self.ids.is_empty() {
            let package = match &self.package {
                Some(text) => Some(own_package(&mut service, &owner, text)?),
                None => None,
            };
            let rows = service.packages(&owner)?;
            let grants = service.grants(&owner, None, None)?;
            let found: Vec<_> = grants
                .into_iter()
                .filter(|listed| matches(listed, package, user, &rows))
                .collect();
            if found.is_empty() {
                return Err(Failure::refused(
                    "no grant of yours matches; `bield grants` shows them",
                ));
            }
            if !output.is_json() {
                let lines: Vec<_> = found.iter().map(|listed| line(&listed.grant)).collect();
                let grants = counted(found.len(), "grant");
                output.note(format_args!("{grants}:\n{}", lines.join("\n")));
            }
            let shown: Vec<_> = found.iter().map(|listed| show(&listed.grant)).collect();
            confirmed(self.yes, "revoke them?")
                .map_err(|failure| failure.with(json!({ "grants": shown })))?;
            (found.iter().map(ListedGrant::id).collect(), found)
        } else {
            (self.ids, Vec::new())
        };
        let size = service.revoke(&owner, &ids)?;
        let lease_secs = service.inspect()?.lease_secs;
        service.close()?;
        let names: Vec<_> = ids.iter().map(grant_id).collect();
        output.show(
            &json!({
                "revoked": names,
                "grants": found.iter().map(|listed| show(&listed.grant)).collect::<Vec<_>>(),
                "size": size,
                "lease_secs": lease_secs,
            }),
            format_args!(
                "revoked {} in record {}\n  {}\n  runtimes obey when they renew their lease, at the latest in \
                 {lease_secs} s",
                counted(ids.len(), "grant"),
                size.saturating_sub(1),
                names.join("\n  ")
            ),
        );
        Ok(())
    }
}

/// Whether a grant covers the package and names the user, as far as these are given.
fn matches(
    listed: &ListedGrant,
    package: Option<Digest>,
    user: Option<Principal>,
    rows: &[PackageRow],
) -> bool {
    let covers = package.is_none_or(|package| covers(listed, package, rows));
    let names = user.is_none_or(|user| listed.grant.user == UserSelector::Principal(user));
    covers && names
}

/// Whether a grant covers this package: by digest, or by a name and a range that hold for it.
pub(super) fn covers(listed: &ListedGrant, package: Digest, rows: &[PackageRow]) -> bool {
    if let PackageSelector::Digest(digest) = listed.grant.package {
        return digest == package;
    }
    let row = rows.iter().find(|row| row.package == package);
    row.is_some_and(|row| {
        let (Ok(name), Ok(version)) = (row.name.parse(), row.version.parse()) else {
            return false;
        };
        listed.grant.package.names(&PackageFacts {
            digest: package,
            owner: listed.grant.signer(),
            name: &name,
            version: &version,
        })
    })
}

const EXAMPLES: &str = r#"Examples:
  bield revoke 3f0c...                          # an id of `bield grants`
  bield revoke --package magika@3.3 --user ed25519:...
  bield revoke --user ed25519:... --yes"#;
