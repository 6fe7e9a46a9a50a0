//! `bield deploy`.

mod granting;
pub(super) mod steps;

use std::path::PathBuf;
use std::time::Duration;

use bield_evidence::Measurement;
use bield_grant::{CodeSelector, GroupName, UserSelector};
use bield_sdk::{Home, now};
use clap::Args;

use super::folder::Folder;
use super::{call, selectors};
use crate::failure::Failure;
use crate::output::Output;
use steps::{Called, Steps};

/// Pack, upload and grant a function, in one go
///
/// Does what is still to be done of: bield pack, bield push, bield grant. Each step is shown; what is done already is
/// not done again, so the command can be repeated, also after it broke off.
///
/// You are always granted what you deploy (who may not call a function does not read its log either), and everybody who is
/// named with --user or --group. A grant is for the code that trust.toml trusts, or --code, and for every version of the
/// function (NAME@*), so that whoever was granted one calls the next: the newest is what a name means. A version that is no
/// semantic version, or a pre-release (1.0.0-rc1), is granted by itself.
///
/// A version is deployed once: other contents need another `version` in bield.toml. The state is the same for all
/// versions; a version in which a bucket is missing cannot reach what is in it, the next one can.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Deploy {
    /// The function: its directory, or its bield.toml
    #[arg(default_value = ".", value_name = "DIR")]
    function: PathBuf,

    /// Run its build command first
    #[arg(long)]
    build: bool,

    /// Who may call it beside you: a principal; repeat for more
    #[arg(long, value_name = "PRINCIPAL")]
    user: Vec<String>,

    /// Which group of yours may call it; repeat for more
    #[arg(long, value_name = "NAME")]
    group: Vec<GroupName>,

    /// The only code that may hold it in the clear; repeat for more [default: the `code` and `signers` of trust.toml]
    #[arg(long, value_name = "MEASUREMENT")]
    code: Vec<Measurement>,

    /// How long grants hold that are made now: a number and s, m, h, d or w; one that holds for less than half of it is
    /// made anew
    #[arg(
        long = "for",
        value_name = "TIME",
        default_value = "30d",
        value_parser = selectors::duration
    )]
    lasts: Duration,
}

impl Deploy {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        // Everything that can be wrong here is said before anything is built or anybody asked.
        let (file, directory) = super::folder::described(&self.function)?;
        let identity = home.identity()?;
        let trust = home.trust()?;
        let me = UserSelector::Principal(identity.principal());
        let mut users = vec![me];
        for user in selectors::users(home, &self.user, &self.group)? {
            if !users.contains(&user) {
                users.push(user);
            }
        }
        let codes = match self.code.is_empty() {
            true => call::trusted(&trust),
            false => self
                .code
                .into_iter()
                .map(CodeSelector::Measurement)
                .collect(),
        };
        if codes.is_empty() {
            return Err(Failure::local(
                "the `code` list of trust.toml is empty: say with --code which code may run the function",
            ));
        }
        if self.build {
            super::build::here(&file, &directory, output)?;
        }
        let folder = Folder::read(home, &identity.principal(), &self.function)?;
        if let Some(command) = folder.file.build.as_ref().filter(|_| self.build) {
            output.step("built", command);
        }
        let steps = Steps {
            home,
            trust: &trust,
            identity: &identity,
            output,
        };
        let until = now().plus(self.lasts);
        let deployed = steps.deploy(&folder, Called::AsWritten, &users, &codes, until)?;
        let (name, version) = (folder.file.name.as_str(), &deployed.version);
        output.show(
            &deployed.to_json(),
            format_args!(
                "{name}@{version} is there\n  call it        bield call {name} --owner me --path /\n  read its log   bield \
                 logs {name}"
            ),
        );
        if deployed.simulated && !output.is_json() {
            output.note("the key service runs in a SOFTWARE TEE: no hardware protects the key");
        }
        Ok(())
    }
}

const EXAMPLES: &str = r#"Examples:
  bield deploy
  bield deploy cart --build
  bield deploy --user ed25519:... --group family --for 12h"#;
