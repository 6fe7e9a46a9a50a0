//! `bield admit-code` and `bield withdraw-code`, for administrators.

use bield_evidence::Measurement;
use bield_sdk::Home;
use clap::Args;
use serde_json::json;

use super::key_service;
use crate::failure::Failure;
use crate::output::Output;

/// Let another build of the key service join, for an upgrade (administrators)
///
/// A member accepts another one when its evidence meets the measured policy and its code is its own, is
/// named by its measured configuration, or was admitted so. What joins receives the whole state: recompute
/// the measurement yourself (bield measure) from a build and a configuration that you trust. Users name the
/// new measurement in their trust files beside the old one before the upgrade begins.
#[derive(Args)]
#[command(after_long_help = "Examples:\n  bield admit-code sgx:...")]
pub(crate) struct AdmitCode {
    /// The measurement of the new build with its configuration
    code: Measurement,
}

/// Take back that another build of the key service may join (administrators)
///
/// From then on members of other code leave it, even where their configuration names it, until it is
/// admitted again.
#[derive(Args)]
#[command(after_long_help = "Examples:\n  bield withdraw-code sgx:...")]
pub(crate) struct WithdrawCode {
    /// The measurement
    code: Measurement,
}

impl AdmitCode {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let administrator = home.identity()?;
        let trust = home.trust()?;
        let mut service = key_service(home, &trust)?;
        let size = service.admit_code(&administrator, &self.code)?;
        service.close()?;
        output.show(
            &json!({ "admitted": self.code, "size": size }),
            format_args!(
                "admitted {}\n  members of this code may join and receive the state",
                self.code
            ),
        );
        Ok(())
    }
}

impl WithdrawCode {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        let administrator = home.identity()?;
        let trust = home.trust()?;
        let mut service = key_service(home, &trust)?;
        let size = service.withdraw_code(&administrator, &self.code)?;
        service.close()?;
        output.show(
            &json!({ "withdrawn": self.code, "size": size }),
            format_args!("withdrawn {}: it cannot join any more", self.code),
        );
        Ok(())
    }
}
