//! `bield list` and `bield grants`: what the key service has for this identity.

use bield_envelope::SigningKey;
use bield_protocol::service::{GroupRow, PackageRow, PrincipalRow};
use bield_sdk::{Home, KeyService, ListedGrant, now};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::grant::{line, show};
use super::revoke::covers;
use super::{counted, key_service, own_package, plain, principal};
use crate::failure::Failure;
use crate::output::Output;

/// Show what the key service has for you
///
/// Everything is asked as you: nobody else's packages, grants and groups are shown, except grants that
/// others gave you.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct List {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Your packages, who leased them lately, how many grants cover them
    #[command(after_long_help = "Examples:\n  bield list packages")]
    Packages,
    /// Grants that you gave
    Grants(Grants),
    /// Your groups with their members
    #[command(after_long_help = "Examples:\n  bield list groups")]
    Groups,
    /// Grants that others gave you, by name or by a group
    #[command(after_long_help = "Examples:\n  bield list to-me")]
    ToMe,
    /// What you are here: registered, administrator, holder of a share, successor of whom
    #[command(after_long_help = "Examples:\n  bield list me")]
    Me,
}

/// Show the grants that you gave
///
/// With their ids, which `bield revoke` takes, and what is left of those that are metered.
#[derive(Args)]
#[command(after_long_help = GRANTS_EXAMPLES)]
pub(crate) struct Grants {
    /// Only those that cover this package: its file, digest, name or name@version
    #[arg(long, value_name = "PACKAGE")]
    package: Option<String>,

    /// Only those that name this user: a principal, or `me`
    #[arg(long, value_name = "PRINCIPAL")]
    user: Option<String>,
}

impl List {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        if let What::Grants(grants) = self.what {
            return grants.run(home, output);
        }
        let identity = home.identity()?;
        let trust = home.trust()?;
        let mut service = key_service(home, &trust)?;
        let (value, text) = match self.what {
            What::Packages => packages(&service.packages(&identity)?),
            What::Groups => groups(&service.groups(&identity)?),
            What::ToMe => {
                let grants = service.grants_to_me(&identity)?;
                (
                    json!({ "grants": rows(&grants) }),
                    grants_text(&grants, true),
                )
            }
            What::Me | What::Grants(_) => me(&service.me(&identity)?),
        };
        output.show(&value, text);
        Ok(())
    }
}

impl Grants {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let owner = home.identity()?;
        let trust = home.trust()?;
        let user = self.user.as_deref().map(|user| principal(home, user));
        let user = user.transpose()?;
        let mut service = key_service(home, &trust)?;
        let grants = self.listed(&mut service, &owner, user)?;
        let text = grants_text(&grants, false);
        output.show(&json!({ "grants": rows(&grants) }), text);
        Ok(())
    }

    fn listed(
        &self,
        service: &mut KeyService<'_>,
        owner: &SigningKey,
        user: Option<bield_envelope::Principal>,
    ) -> Result<Vec<ListedGrant>, Failure> {
        let grants = service.grants(owner, None, user)?;
        let Some(text) = &self.package else {
            return Ok(grants);
        };
        let package = own_package(service, owner, text)?;
        let rows = service.packages(owner)?;
        let covering = grants
            .into_iter()
            .filter(|listed| covers(listed, package, &rows));
        Ok(covering.collect())
    }
}

/// `bield group list`.
pub(super) fn groups_of(home: &Home, output: Output) -> Result<(), Failure> {
    List { what: What::Groups }.run(home, output)
}

fn rows(grants: &[ListedGrant]) -> Vec<Value> {
    let row = |listed: &ListedGrant| {
        let mut value = show(&listed.grant);
        value["owner"] = listed.owner.to_string().into();
        value["left"] = json!(listed.left);
        value["ended"] = (listed.grant.not_after <= now()).into();
        value
    };
    grants.iter().map(row).collect()
}

fn grants_text(grants: &[ListedGrant], owners: bool) -> String {
    if grants.is_empty() {
        return "no grants".to_owned();
    }
    let lines: Vec<_> = grants
        .iter()
        .map(|listed| {
            let mut text = line(&listed.grant);
            if let Some(left) = listed.left {
                text += &format!(" ({left} left)");
            }
            if listed.grant.not_after <= now() {
                text += " ENDED";
            }
            text += &format!("\n    of {}", listed.grant.package);
            if owners {
                text += &format!(" by {}", listed.owner);
            }
            text
        })
        .collect();
    format!("{}\n{}", counted(grants.len(), "grant"), lines.join("\n"))
}

fn packages(rows: &[PackageRow]) -> (Value, String) {
    let value = json!({
        "packages": rows
            .iter()
            .map(|row| {
                json!({
                    "package": row.package.to_string(),
                    "name": row.name,
                    "version": row.version,
                    "at": row.at.to_string(),
                    "generation": row.generation,
                    "grants": row.grants,
                    "leases": row.leases,
                    "codes": row.codes,
                })
            })
            .collect::<Vec<_>>(),
    });
    let lines: Vec<_> = rows
        .iter()
        .map(|row| {
            let codes: Vec<_> = row.codes.iter().map(ToString::to_string).collect();
            let codes = if codes.is_empty() {
                "nobody yet".to_owned()
            } else {
                codes.join(", ")
            };
            format!(
                "{}  {}@{}\n  registered {}, {}, {}, key generation {}\n  leased to {codes}",
                row.package,
                plain(&row.name),
                plain(&row.version),
                row.at,
                counted(row.grants, "grant"),
                counted(row.leases, "lease"),
                row.generation,
            )
        })
        .collect();
    let text = if lines.is_empty() {
        "no packages".to_owned()
    } else {
        lines.join("\n")
    };
    (value, text)
}

fn groups(rows: &[GroupRow]) -> (Value, String) {
    let members =
        |row: &GroupRow| -> Vec<String> { row.members.iter().map(ToString::to_string).collect() };
    let value = json!({
        "groups": rows
            .iter()
            .map(|row| json!({ "name": row.name, "revision": row.revision, "members": members(row) }))
            .collect::<Vec<_>>(),
    });
    let lines: Vec<_> = rows
        .iter()
        .map(|row| {
            let members: Vec<_> = members(row)
                .iter()
                .map(|member| format!("\n  {member}"))
                .collect();
            format!(
                "{} (revision {}, {}){}",
                plain(&row.name),
                row.revision,
                counted(row.members.len(), "member"),
                members.concat()
            )
        })
        .collect();
    let text = if lines.is_empty() {
        "no groups".to_owned()
    } else {
        lines.join("\n")
    };
    (value, text)
}

fn me(row: &PrincipalRow) -> (Value, String) {
    let succeeds: Vec<_> = row.succeeds.iter().map(ToString::to_string).collect();
    let value = json!({
        "principal": row.principal.to_string(),
        "registered": row.registered,
        "administrator": row.administrator,
        "holder": row.holder,
        "succeeds": succeeds,
    });
    let word = |is, word| if is { word } else { "no" };
    let before = if succeeds.is_empty() {
        "nobody".to_owned()
    } else {
        succeeds.join(", ")
    };
    let text = format!(
        "{}\n  registered     {}\n  administrator  {}\n  holds a share  {}\n  succeeds       {before}",
        row.principal,
        word(row.registered, "yes"),
        word(row.administrator, "yes"),
        word(row.holder, "one is here for it: bield recover take"),
    );
    (value, text)
}

const EXAMPLES: &str = r#"Examples:
  bield list packages
  bield list grants --package magika
  bield --json list to-me"#;

const GRANTS_EXAMPLES: &str = r#"Examples:
  bield grants
  bield list grants --user ed25519:...
  bield --json grants --package magika@3.3"#;
