//! `bield delete`.

use bield_sdk::Home;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{confirmed, key_service, own_package};
use crate::failure::Failure;
use crate::output::Output;

/// Make the key service forget something of yours
#[derive(Args)]
#[command(after_long_help = "Examples:\n  bield delete package magika@3.2 --yes")]
pub(crate) struct Delete {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Forget a package with its key, and the grants for exactly this package
    Package(Package),
}

/// Forget a package with its key, and the grants for exactly this package
///
/// No runtime can open it again once its lease has ended. The sealed file stays where it is, and so does
/// the key in this home: with it the package can be registered again.
#[derive(Args)]
#[command(
    after_long_help = "Examples:\n  bield delete package magika@3.2 --yes\n  \
    bield delete package 9f3a..."
)]
struct Package {
    /// The package: its file, digest, name@version, or name (the newest)
    package: String,

    /// It is meant
    #[arg(long)]
    yes: bool,
}

impl Delete {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        match self.what {
            What::Package(package) => package.run(home, output),
        }
    }
}

impl Package {
    fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let owner = home.identity()?;
        let trust = home.trust()?;
        let mut service = key_service(home, &trust)?;
        let package = own_package(&mut service, &owner, &self.package)?;
        confirmed(
            self.yes,
            &format!("forget package {package} with its key and its grants?"),
        )?;
        let size = service.delete_package(&owner, package)?;
        let lease_secs = service.inspect()?.lease_secs;
        service.close()?;
        output.show(
            &json!({ "deleted": package.to_string(), "size": size, "lease_secs": lease_secs }),
            format_args!(
                "deleted {package}\n  the last lease of it ends in {lease_secs} s at the latest"
            ),
        );
        Ok(())
    }
}
