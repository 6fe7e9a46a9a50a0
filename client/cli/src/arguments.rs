//! What can be typed.

use std::path::PathBuf;

use bield_sdk::Home;
use clap::{Parser, Subcommand};

use crate::commands::{
    audit::Audit, bench::Bench, call::Call, capsule::Capsule, code::AdmitCode, code::WithdrawCode,
    delete::Delete, deploy::Deploy, dev::Dev, doctor::Doctor, evidence::Evidence, grant::Grant,
    group::Group, id::Id, init::Init, list::Grants, list::List, logs::Logs, measure::Measure,
    new::New, pack::Pack, proxy::ProxyCommand, push::Push, receipt::Receipt, recover::Recover,
    register::Register, register::Unregister, revoke::Revoke, rotate::Rotate, state::State,
    status::Status, store::Store, store::Witness, verify::Verify, why::Why,
};

/// Sealed inference: models and requests that the host never sees.
///
/// A model owner packs a model, grants it to users and to measured code, and uploads the sealed file.
/// A user calls it: the request leaves sealed to exactly that code, and the answer comes back with a
/// receipt that says which code ran which model under which grant.
#[derive(Parser)]
#[command(name = "bield", version, after_long_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Print the result as one JSON value on standard output, failures included
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Directory of keys, trust and receipts [default: $BIELD_HOME, else ./.bield]
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Init(Init),
    Id(Id),
    New(New),
    Pack(Pack),
    Deploy(Deploy),
    Push(Push),
    Grant(Grant),
    Grants(Grants),
    Revoke(Revoke),
    Group(Group),
    List(List),
    Delete(Delete),
    Rotate(Rotate),
    Audit(Audit),
    Register(Register),
    Unregister(Unregister),
    Call(Call),
    Logs(Logs),
    Bench(Bench),
    Proxy(ProxyCommand),
    Verify(Verify),
    Receipt(Receipt),
    Status(Status),
    Why(Why),
    Doctor(Doctor),
    Recover(Recover),
    AdmitCode(AdmitCode),
    WithdrawCode(WithdrawCode),
    Measure(Measure),
    Evidence(Evidence),
    Capsule(Capsule),
    State(State),
    Store(Store),
    Witness(Witness),
    Dev(Dev),
}

impl Arguments {
    pub(crate) fn home(&self) -> Home {
        self.home
            .clone()
            .map_or_else(Home::from_environment, Home::at)
    }
}

const AFTER_HELP: &str = "\
The first ten minutes, on one machine without special hardware:

  bield dev                                    # terminal 1: everything, software TEE
  bield init --trust .bield-dev/trust.toml     # terminal 2: an identity, and whom to trust
  bield verify                                 # every check of the key service
  bield pack model.onnx --name magika --version 1 -o magika.bield
  bield push magika.bield
  bield grant magika.bield --user me --code sgx:...   # `bield dev` prints the code
  bield call magika --owner ed25519:... --input inputs.json

A function of your own, with state, in two terminals:

  bield new guestbook && cd guestbook && npm install
  bield dev --function .                       # terminal 1: built and deployed at every change, its log shown
  bield call guestbook --path /visit           # terminal 2, there

Exit codes:
  0  done
  1  refused, or something did not verify: trying again does not help
  2  wrong usage, or something on this machine: files, permissions, ports
  3  nobody answered, or everybody is busy: try again";
