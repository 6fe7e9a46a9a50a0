//! One module a command: its arguments, its help, what it does.

pub(crate) mod call;
pub(crate) mod capsule;
pub(crate) mod dev;
pub(crate) mod grant;
pub(crate) mod id;
pub(crate) mod init;
pub(crate) mod measure;
pub(crate) mod pack;
pub(crate) mod push;
pub(crate) mod receipt;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod verify;

use bield_envelope::Principal;
use bield_sdk::{Home, KeyService, Randomness, Trust, now};

use crate::failure::Failure;
use crate::progress;

/// Connects to the key service, which proves itself first, and remembers it for offline checks.
fn key_service<'a>(home: &Home, trust: &'a Trust) -> Result<KeyService<'a>, Failure> {
    let spinner = progress::spinner("verifying the key service");
    let service = KeyService::connect(trust, now(), &mut Randomness);
    spinner.finish_and_clear();
    let service = service?;
    home.remember_service(&service.known())?;
    Ok(service)
}

/// A principal as typed; `me` is the identity of this home.
fn principal(home: &Home, text: &str) -> Result<Principal, Failure> {
    if text == "me" {
        return Ok(home.identity()?.principal());
    }
    text.parse()
        .map_err(|error| Failure::local(format_args!("{text:?}: {error}; or `me`")))
}
