//! One module a command: its arguments, its help, what it does.

pub(crate) mod audit;
pub(crate) mod bench;
mod build;
pub(crate) mod call;
pub(crate) mod capsule;
pub(crate) mod code;
pub(crate) mod delete;
pub(crate) mod deploy;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod evidence;
mod folder;
pub(crate) mod grant;
pub(crate) mod group;
pub(crate) mod id;
pub(crate) mod init;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod measure;
pub(crate) mod new;
pub(crate) mod pack;
pub(crate) mod proxy;
pub(crate) mod push;
pub(crate) mod receipt;
pub(crate) mod recover;
pub(crate) mod register;
pub(crate) mod revoke;
pub(crate) mod rotate;
mod selectors;
pub(crate) mod state;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod verify;
pub(crate) mod why;

use std::path::Path;

use bield_envelope::{Digest, Principal, SigningKey};
use bield_package::PackageHead;
use bield_protocol::service::GrantId;
use bield_sdk::{Fresh, Home, KeyService, Randomness, Reference, Trust, now};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::progress;

/// Connects to the key service, which proves its code and its state first; the home remembers both.
fn key_service<'a>(home: &'a Home, trust: &'a Trust) -> Result<KeyService<'a>, Failure> {
    let spinner = progress::spinner("verifying the key service");
    let service = KeyService::connect(home, trust, now(), &mut Randomness);
    spinner.finish_and_clear();
    Ok(service?)
}

/// A principal as typed; `me` is the identity of this home.
fn principal(home: &Home, text: &str) -> Result<Principal, Failure> {
    if text == "me" {
        return Ok(home.identity()?.principal());
    }
    text.parse()
        .map_err(|error| Failure::local(format_args!("{text:?}: {error}; or `me`")))
}

/// One of the owner's packages at the service, as typed: its file, its digest, its name (the newest of that
/// name), or name@version.
fn own_package(
    service: &mut KeyService<'_>,
    owner: &SigningKey,
    text: &str,
) -> Result<Digest, Failure> {
    let path = Path::new(text);
    if path.is_file() {
        let mut file = std::fs::File::open(path).map_err(|error| pack::at(path, error))?;
        return Ok(PackageHead::read(&mut file)?.digest());
    }
    let reference = text.parse::<Reference>().map_err(|error| {
        Failure::local(format_args!(
            "{text:?} is no file that can be read, and: {error}"
        ))
    })?;
    let (name, version) = match &reference {
        Reference::Digest(digest) => return Ok(*digest),
        Reference::Named(name, version) => (name.as_str(), version.as_ref()),
    };
    let rows = service.packages(owner)?;
    let named = rows.iter().filter(|row| {
        row.name == name && version.is_none_or(|version| row.version == version.as_str())
    });
    let newest = named.max_by_key(|row| row.at).map(|row| row.package);
    newest.ok_or_else(|| {
        Failure::refused(format_args!(
            "the key service has no package {text} of yours; `bield list packages` shows them"
        ))
    })
}

/// What is known of the service's log, for programs.
fn log_json(fresh: &Fresh) -> Value {
    json!({
        "origin": fresh.head.origin().as_str(),
        "verifier": fresh.head.log().to_string(),
        "size": fresh.head.size(),
        "root": fresh.head.root().to_string(),
        "seen": fresh.seen,
        "recovered_from": fresh.recovered_from.as_ref().map(|origin| origin.as_str()),
        "witnesses": fresh.witnesses,
    })
}

/// A grant's name as people copy it.
fn grant_id(id: &GrantId) -> String {
    hex(&id.0)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// So many of something, in words.
fn counted(number: impl TryInto<u64>, one: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {one}{plural}")
}

/// Words that came from elsewhere, safe to print: the service is trusted with secrets, not with terminals.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(500)
        .collect()
}

/// Whether a person at the terminal says yes; without a terminal nobody does.
fn confirmed(yes: bool, question: &str) -> Result<(), Failure> {
    use std::io::{BufRead as _, IsTerminal as _, Write as _};

    if yes {
        return Ok(());
    }
    let nothing = || {
        Failure::local(format_args!(
            "{question} Nothing was changed: repeat with --yes if it is meant"
        ))
    };
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(nothing());
    }
    let mut error = std::io::stderr();
    let _ = write!(error, "{question} [y/N] ");
    let _ = error.flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    let meant = read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes");
    meant.then_some(()).ok_or_else(nothing)
}
