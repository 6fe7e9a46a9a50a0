//! `bield group`.

use bield_envelope::{Principal, Signed};
use bield_grant::{Group as Statement, GroupName};
use bield_sdk::Home;
use clap::{ArgGroup, Args, Subcommand};
use serde_json::json;

use super::{confirmed, counted, key_service, principal};
use crate::failure::Failure;
use crate::output::Output;

/// Name many users at once
///
/// A group is yours: its name means something only in your grants. Who is in it counts when a request
/// comes, by its newest revision, so a grant to a group follows the group. Runtimes learn of a new
/// revision when they renew their lease.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Group {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Make a group, or a new revision of it
    Put(Put),
    /// Forget a group: grants to it admit nobody from then on
    Delete(Delete),
    /// Show your groups with their members
    #[command(after_long_help = "Examples:\n  bield group list")]
    List,
}

/// Make a group, or a new revision of it
///
/// With --member the group has exactly these members. With --add and --remove the group that the key
/// service has is changed. At most 4096 members.
#[derive(Args)]
#[command(
    after_long_help = "Examples:\n  bield group put lab --member ed25519:... --member me\n  \
    bield group put lab --add ed25519:... --remove ed25519:..."
)]
#[command(group = ArgGroup::new("members").required(true).multiple(true).args(["member", "add", "remove"]))]
struct Put {
    /// What to call it
    name: GroupName,

    /// A member: a principal, or `me`; repeat for more
    #[arg(long, value_name = "PRINCIPAL", conflicts_with_all = ["add", "remove"])]
    member: Vec<String>,

    /// Another member; repeat for more
    #[arg(long, value_name = "PRINCIPAL")]
    add: Vec<String>,

    /// No member any more; repeat for more
    #[arg(long, value_name = "PRINCIPAL")]
    remove: Vec<String>,
}

/// Forget a group: grants to it admit nobody from then on
#[derive(Args)]
#[command(after_long_help = "Examples:\n  bield group delete lab --yes")]
struct Delete {
    /// The group
    name: GroupName,

    /// It is meant
    #[arg(long)]
    yes: bool,
}

impl Group {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        match self.what {
            What::Put(put) => put.run(home, output),
            What::Delete(delete) => delete.run(home, output),
            What::List => super::list::groups_of(home, output),
        }
    }
}

impl Put {
    fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let owner = home.identity()?;
        let trust = home.trust()?;
        let named = |texts: &[String]| -> Result<Vec<Principal>, Failure> {
            texts.iter().map(|text| principal(home, text)).collect()
        };
        let (members, add, remove) = (
            named(&self.member)?,
            named(&self.add)?,
            named(&self.remove)?,
        );
        let mut service = key_service(home, &trust)?;
        service.register(&owner)?;
        let groups = service.groups(&owner)?;
        let before = groups
            .into_iter()
            .find(|row| row.name == self.name.as_str());
        let revision = before
            .as_ref()
            .map_or(1, |row| row.revision.saturating_add(1));
        let members = if self.member.is_empty() {
            let mut changed = before.map(|row| row.members).unwrap_or_default();
            if let Some(stranger) = remove.iter().find(|member| !changed.contains(member)) {
                return Err(Failure::refused(format_args!(
                    "{stranger} is no member of {}; `bield group list` shows them",
                    self.name
                )));
            }
            changed.retain(|member| !remove.contains(member));
            changed.extend(add);
            changed
        } else {
            members
        };
        let group = Statement::new(self.name, revision, members).map_err(Failure::local)?;
        let group = Signed::sign(&owner, group);
        let size = service.put_group(&owner, &group)?;
        service.close()?;
        let members: Vec<_> = group.members().iter().map(ToString::to_string).collect();
        output.show(
            &json!({
                "name": group.name().as_str(),
                "revision": group.revision(),
                "members": members,
                "size": size,
            }),
            format_args!(
                "group {} (revision {}, {})",
                group.name(),
                group.revision(),
                counted(members.len(), "member")
            ),
        );
        Ok(())
    }
}

impl Delete {
    fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let owner = home.identity()?;
        let trust = home.trust()?;
        confirmed(self.yes, &format!("forget group {}?", self.name))?;
        let mut service = key_service(home, &trust)?;
        let size = service.delete_group(&owner, &self.name)?;
        service.close()?;
        let name = self.name.as_str();
        output.show(
            &json!({ "deleted": name, "size": size }),
            format_args!("group {name} deleted: grants to it admit nobody"),
        );
        Ok(())
    }
}

const EXAMPLES: &str = r#"Examples:
  bield group put lab --member ed25519:... --member ed25519:...
  bield group put lab --add ed25519:...
  bield group list
  bield group delete lab --yes"#;
