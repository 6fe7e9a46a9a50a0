//! `bield capsule …`: one module a group of commands that belong together.

mod append;
mod create;
mod heads;
mod list;
mod open;
mod owner;
mod prove;
mod read;
mod transfer;
mod verify;

use std::fmt::Write as _;

use bield_capsule::{EntryPlace, VerifierPolicy, WriterId};
use bield_sdk::capsule::{CapsuleHome, Completeness, Log, Skipped};
use bield_sdk::{Home, HomeError};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::Output;
use crate::progress;

/// Append-only logs that their hosts cannot read, change or invent
///
/// A capsule is a log of encrypted entries. Every record is signed by its writer and names the one before
/// it by hash; replicas (bield store) verify and keep records, and sign that they do. Whoever has the
/// capsule's name can verify everything else from it: no replica has to be believed.
///
/// Keys, and what was seen of each capsule, are in the home directory under capsules/. A capsule is named
/// by its label, its 64 digits, or the first few of them.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Capsule {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Create(create::Create),
    List(list::List),
    Open(open::Open),
    Append(append::Append),
    Read(read::Read),
    Tail(read::Tail),
    Heads(heads::Heads),
    Prove(prove::Prove),
    Verify(verify::Verify),
    Fsck(verify::Fsck),
    Export(transfer::Export),
    Import(transfer::Import),
    Writer(open::Writer),
    Admit(owner::Admit),
    Revoke(owner::Revoke),
    Rotate(owner::Rotate),
    Erase(owner::Erase),
}

impl Capsule {
    pub(crate) fn run(self, home: &Home, output: Output) -> Result<(), Failure> {
        match self.command {
            Command::Create(command) => command.run(home, output),
            Command::List(command) => command.run(home, output),
            Command::Open(command) => command.run(home, output),
            Command::Append(command) => command.run(home, output),
            Command::Read(command) => command.run(home, output),
            Command::Tail(command) => command.run(home, output),
            Command::Heads(command) => command.run(home, output),
            Command::Prove(command) => command.run(home, output),
            Command::Verify(command) => command.run(home, output),
            Command::Fsck(command) => command.run(home, output),
            Command::Export(command) => command.run(home, output),
            Command::Import(command) => command.run(home, output),
            Command::Writer(command) => command.run(home, output),
            Command::Admit(command) => command.run(home, output),
            Command::Revoke(command) => command.run(home, output),
            Command::Rotate(command) => command.run(home, output),
            Command::Erase(command) => command.run(home, output),
        }
    }
}

/// Finds a capsule of this home and asks its replicas.
fn open(home: &Home, asked: &str) -> Result<Log, Failure> {
    let found = CapsuleHome::find(home, asked)?;
    let spinner = progress::spinner("asking the replicas");
    let log = Log::open_with(found, policy(home)?);
    spinner.finish_and_clear();
    Ok(log?)
}

/// What trust.toml says of software TEEs, when there is one.
fn policy(home: &Home) -> Result<VerifierPolicy, Failure> {
    let allow_simulated = match home.trust() {
        Ok(trust) => trust.allows_simulated(),
        Err(HomeError::NoTrust { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    Ok(VerifierPolicy {
        allow_simulated,
        ..VerifierPolicy::default()
    })
}

/// A writer as typed: its 64 digits, the first few of them, `me`, or `owner`.
fn writer(log: &Log, text: &str) -> Result<WriterId, Failure> {
    match text {
        "me" => return Ok(log.home().writer_key()?.id()),
        "owner" => return Ok(log.metadata().owner_id()),
        _ => {}
    }
    if let Ok(writer) = text.parse() {
        return Ok(writer);
    }
    let heads = log.newest_heads();
    let mut found = heads
        .iter()
        .map(|head| head.writer)
        .filter(|writer| text.len() >= 4 && writer.to_string().starts_with(&text.to_lowercase()));
    match (found.next(), found.next()) {
        (Some(writer), None) => Ok(writer),
        (Some(_), Some(_)) => Err(Failure::local(format_args!(
            "{text:?} may be any of several writers: give more digits"
        ))),
        _ => Err(Failure::local(format_args!(
            "no writer {text:?}: give its digits as `bield capsule heads` shows them, `me` or `owner`"
        ))),
    }
}

/// `WRITER/SEQ` or `WRITER/SEQ/INDEX`.
fn place(log: &Log, text: &str) -> Result<(WriterId, u64, Option<u32>), Failure> {
    let mut parts = text.split('/');
    let who = writer(log, parts.next().unwrap_or_default())?;
    let seq = parts.next().and_then(|seq| seq.parse().ok());
    let index = parts.next().map(str::parse);
    match (seq, index, parts.next()) {
        (Some(seq), None, None) => Ok((who, seq, None)),
        (Some(seq), Some(Ok(index)), None) => Ok((who, seq, Some(index))),
        _ => Err(Failure::local(format_args!(
            "{text:?} is no place: write WRITER/SEQ, or WRITER/SEQ/INDEX for an entry"
        ))),
    }
}

fn place_text(place: &EntryPlace) -> String {
    format!("{}/{}/{}", place.writer.short(), place.seq, place.index)
}

/// An entry's payload for JSON: as text where it is text.
fn payload_json(payload: &[u8]) -> (&'static str, Value) {
    match std::str::from_utf8(payload) {
        Ok(text) => ("text", text.into()),
        Err(_) => ("base64", base64(payload).into()),
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;

    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn completeness_json(found: &Completeness, skipped: &[Skipped]) -> Value {
    json!({
        "fresh": found.fresh.is_ok(),
        "answered": found.answered,
        "why_not": found.fresh.as_ref().err().map(ToString::to_string),
        "replicas": found.fresh.as_ref().map(|fresh| {
            fresh.replicas.iter().map(ToString::to_string).collect::<Vec<_>>()
        }).unwrap_or_default(),
        "except": found.fresh.as_ref().map(|fresh| {
            fresh.except.iter().map(ToString::to_string).collect::<Vec<_>>()
        }).unwrap_or_default(),
        "silent": found.silent,
        "skipped": skipped.iter().map(|skipped| json!({
            "writer": skipped.writer.to_string(),
            "seq": skipped.seq,
            "why": skipped.why,
        })).collect::<Vec<_>>(),
    })
}

fn completeness_text(found: &Completeness, skipped: &[Skipped]) -> String {
    let mut text = match &found.fresh {
        Ok(fresh) => format!(
            "complete: nothing that a quorum acknowledged is missing, by the word of {} replicas",
            fresh.replicas.len()
        ),
        Err(error) => format!("NOT KNOWN TO BE COMPLETE: {error}"),
    };
    for writer in found.fresh.iter().flat_map(|fresh| &fresh.except) {
        let _ = write!(
            text,
            "\n  but nothing is known about {}: its chain is forked or refused",
            writer.short()
        );
    }
    for silent in &found.silent {
        let _ = write!(text, "\n  {silent}");
    }
    for skipped in skipped {
        let (writer, seq) = (skipped.writer.short(), skipped.seq);
        let _ = write!(text, "\n  not read from {writer}/{seq} on: {}", skipped.why);
    }
    text
}

const EXAMPLES: &str = r#"Examples:
  bield capsule create notes --replica http://127.0.0.1:8801 --replica http://127.0.0.1:8802
  echo hello | bield capsule append notes
  bield capsule read notes
  bield capsule verify ./store-1"#;
