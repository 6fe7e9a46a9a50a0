//! From a message to a typed question.

use std::sync::Arc;

use bield_envelope::{Principal, Secret, Signed, wire};
use bield_evidence::Appraised;
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::{
    Command, Operation, PackageOffer, Request, SHARE_BYTES_MAX, Share, key_commitment,
};

use super::read::Read;
use crate::state::refuse::{invalid, malformed, unsupported};
use crate::state::{Ask, Order, PackagePut};

/// The most bytes of a package's tensor specs, encoded: a hundred tensors of a hundred bytes, thrice.
pub const SPECS_BYTES_MAX: usize = 32 << 10;

/// What one session is: who the peer is, which commands came already.
pub struct Conversation {
    /// The runtime's appraised evidence; `None` for anybody else.
    pub runtime: Option<Arc<Appraised>>,
    /// Names this session in commands.
    pub binding: [u8; 32],
    /// Commands so far.
    pub sequence: u64,
}

/// What to do about a message.
#[expect(clippy::large_enum_variant, reason = "one at a time, on its way")]
pub enum Turn {
    /// May change the state: through the sequencer. `by` is who pays for it, when somebody signed.
    Ask(Option<Principal>, Ask),
    /// Changes nothing.
    Read(Option<Principal>, Read),
    /// A page of the signer's audit, from this entry on.
    Audit(Principal, u64),
    /// How the service is.
    Inspect,
    /// The newest checkpoint, and how it continues this one.
    Freshness(Option<String>),
    /// A holder gives its share.
    GiveShare {
        /// The holder.
        by: Principal,
        /// Its share; the command committed to it.
        share: Share,
        /// Only to see whether the shares combine.
        rehearse: bool,
    },
}

/// Reads a message. Every signature in what comes back was checked, and every command was the next of its
/// session.
///
/// # Errors
/// Malformed, not signed by who must sign, of another session or place, or not this peer's to ask.
pub fn turn(with: &mut Conversation, request: Request) -> Result<Turn, Refusal> {
    match request {
        Request::Command(command) => {
            let (by, operation) = next_command(with, command)?;
            ordered(by, operation)
        }
        Request::PutPackage(command, key) => match next_command(with, command)? {
            (by, Operation::PutPackage(offer)) => {
                let put = Order::PutPackage(Box::new(offered(by, offer, key)?));
                Ok(order(by, put))
            }
            _ => Err(malformed("a key beside a command that takes none")),
        },
        Request::GiveShare(command, share) => match next_command(with, command)? {
            (
                by,
                Operation::GiveShare {
                    share: committed,
                    rehearse,
                },
            ) => {
                if share.bytes.len() > SHARE_BYTES_MAX || share.commitment() != committed {
                    let message = "the share beside the command is not the one it commits to";
                    return Err(Refusal::new("other-share", message, Retry::Never));
                }
                Ok(Turn::GiveShare {
                    by,
                    share,
                    rehearse,
                })
            }
            _ => Err(malformed("a share beside a command that takes none")),
        },
        Request::KeyConfiguration(package, code) => {
            Ok(Turn::Read(None, Read::KeyConfiguration(package, code)))
        }
        Request::Lease(request) => {
            let appraised = runtime(with)?;
            Ok(Turn::Ask(None, Ask::Lease { appraised, request }))
        }
        Request::Return(returned) => {
            let appraised = runtime(with)?;
            let ask = Ask::Return {
                appraised,
                returned,
            };
            Ok(Turn::Ask(None, ask))
        }
        Request::State(request) => {
            let appraised = runtime(with)?;
            Ok(Turn::Ask(None, Ask::State { appraised, request }))
        }
        Request::Certify(worker) => {
            let appraised = runtime(with)?;
            Ok(Turn::Read(None, Read::Certify { appraised, worker }))
        }
        Request::CertifyWriter(capsule, writer) => {
            let appraised = runtime(with)?;
            let read = Read::CertifyWriter {
                appraised,
                capsule,
                writer,
            };
            Ok(Turn::Read(None, read))
        }
        Request::Inspect => Ok(Turn::Inspect),
        Request::Freshness(kept) => Ok(Turn::Freshness(kept)),
        _ => Err(unsupported("a question")),
    }
}

/// The signer and the operation of the session's next command. A refused command uses its number up when it was
/// the next (`spec/09 §1`).
fn next_command(
    with: &mut Conversation,
    command: Signed<Command>,
) -> Result<(Principal, Operation), Refusal> {
    let command = command
        .verify_claimed()
        .map_err(|error| invalid("command", &error))?;
    if command.session != with.binding {
        let message = "the command was signed for another session; sign it for this one";
        return Err(Refusal::new("other-session", message, Retry::Never));
    }
    if command.sequence != with.sequence {
        let message = format!(
            "this is command {} of its session, and {} is the next; commands count once, in order",
            command.sequence, with.sequence
        );
        return Err(Refusal::new("out-of-order", message, Retry::Never));
    }
    with.sequence += 1;
    Ok((command.signer(), command.operation.clone()))
}

fn ordered(by: Principal, operation: Operation) -> Result<Turn, Refusal> {
    let ordered = match operation {
        Operation::Register => Order::Register,
        Operation::Grant(grant) => Order::Grant(
            grant
                .verify(&by)
                .map_err(|error| invalid("grant", &error))?,
        ),
        Operation::Revoke(ids) => Order::Revoke(ids),
        Operation::PutGroup(group) => Order::PutGroup(
            group
                .verify(&by)
                .map_err(|error| invalid("group", &error))?,
        ),
        Operation::DeleteGroup(name) => Order::DeleteGroup(
            name.parse()
                .map_err(|error| invalid("group's name", &error))?,
        ),
        Operation::DeletePackage(package) => Order::DeletePackage(package),
        Operation::RotateAudience { package, at_once } => {
            Order::RotateAudience { package, at_once }
        }
        Operation::Succeed(succeeded) => Order::Succeed(
            succeeded
                .verify()
                .map_err(|error| invalid("succession", &error))?,
        ),
        Operation::Unregister => Order::Unregister,
        Operation::RotateIdentity => Order::RotateIdentity,
        Operation::AdmitCode(code) => Order::AdmitCode(code),
        Operation::WithdrawCode(code) => Order::WithdrawCode(code),
        Operation::MakeShares { holders, threshold } => Order::MakeShares {
            holders,
            threshold,
            shares: Vec::new(),
        },
        Operation::List(listing) => return Ok(Turn::Read(Some(by), Read::List(by, listing))),
        Operation::TakeShare => return Ok(Turn::Read(Some(by), Read::Share(by))),
        Operation::Audit { from } => return Ok(Turn::Audit(by, from)),
        Operation::PutPackage(_) => return Err(malformed("a package without its key")),
        Operation::GiveShare { .. } => {
            return Err(malformed("a share's command without the share"));
        }
        _ => return Err(unsupported("an order")),
    };
    Ok(order(by, ordered))
}

fn order(by: Principal, order: Order) -> Turn {
    Turn::Ask(Some(by), Ask::Order { by, order })
}

fn offered(by: Principal, offer: PackageOffer, key: Secret) -> Result<PackagePut, Refusal> {
    let header = offer
        .header
        .verify(&by)
        .map_err(|error| invalid("package header", &error))?;
    if key_commitment(&key) != offer.key {
        let message = "the key beside the command is not the one it commits to";
        return Err(Refusal::new("other-key", message, Retry::Never));
    }
    let specs = wire::encode(&offer.inputs).len() + wire::encode(&offer.outputs).len();
    if specs > SPECS_BYTES_MAX {
        let message = format!("{specs} bytes of tensor specs; {SPECS_BYTES_MAX} are allowed");
        return Err(Refusal::new("too-many-tensors", message, Retry::Never));
    }
    Ok(PackagePut {
        header,
        inputs: offer.inputs,
        outputs: offer.outputs,
        key,
    })
}

fn runtime(with: &Conversation) -> Result<Arc<Appraised>, Refusal> {
    with.runtime.clone().ok_or_else(|| {
        let message = "only a runtime that proved its code in this session may ask for this";
        Refusal::new("not-a-runtime", message, Retry::Never)
    })
}
