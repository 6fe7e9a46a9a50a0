//! A service whose machine is gone comes back by the shares of its holders.
//!
//! ```text
//! MakeShares ──▶ recovery-<g>   root under R               ┐ on the host, beside the log
//!               shares-<g>      commitment of each share   ┘
//!
//! new machine, same files, no root:  GiveShare ×m ──▶ each is one of shares-<g>? ──▶ R ──▶ root
//!      ──▶ log verified and replayed ──▶ are these the newest shares, given by their holders? ──▶ epoch + 1
//! ```
//!
//! Goes in: shares, each in a command that its giver signed, in an attested session. Comes out: the root, and
//! who gave shares. Always true: what is not a share of this log is refused when it comes, and takes no room
//! from one that is; the log is served only after all of it verified under the root, and only if its own state
//! says that these shares are the newest and whose they are; shares are forgotten when they were used.
//!
//! What the host can do: swap or remove `shares-<g>` (then true shares are refused, and nothing else), keep the
//! files of an older generation and put the log back to where those counted (then old holders can open it, as
//! they could then; clients, runtimes and witnesses see that records are gone). The commitments say nothing:
//! a share has 256 random bits.
//!
//! A rehearsal is the same on the running service: shares are compared with those it keeps, combined, tried on
//! the box that is on the disk now, and forgotten.

mod shares;

use std::collections::BTreeMap;

use bield_envelope::{Digest, Principal, Secret};
use bield_ledger::{Files, LoadError, Sealed};
use bield_platform::Randomness;
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::{HOLDERS_MAX, Reply, Share, ShareProgress};

use crate::sequencer::Running;
use crate::state::{Ask, Order, State};
pub use shares::{Sharing, combine};

/// Makes the shares that an order asks for: only now is their generation known.
pub(crate) fn fill(ask: &mut Ask, state: &State, root: &Secret) {
    if let Ask::Order {
        order:
            Order::MakeShares {
                holders,
                threshold,
                shares,
            },
        ..
    } = ask
    {
        let sharing = Sharing {
            generation: state.next_shares(),
            threshold: *threshold,
            holders: holders.clone(),
        };
        // None: the state refuses the order and says why.
        *shares = sharing.shares(root, &mut Randomness).unwrap_or_default();
    }
}

/// Writes the box and the commitments of shares that are about to count.
///
/// # Errors
/// The host does not store, in words.
pub(crate) fn write_box(running: &Running, shares: &[Share]) -> Result<(), String> {
    let Some(generation) = shares.first().map(|share| share.generation) else {
        return Ok(());
    };
    {
        let mut ledger = running.ledger();
        let key = recovery_key(ledger.root(), generation);
        let written = ledger.write_recovery(generation, &key, &mut Randomness);
        written.map_err(|error| error.to_string())?;
    }
    let list = Commitments::of(shares).encode();
    let mut files = running.files.clone();
    let written = files.replace(&shares_name(generation), &list);
    written.map_err(|error| error.to_string())
}

/// Sees to it that the newest shares open something on this disk: a start, or a record of another member,
/// may have found the files missing.
///
/// # Errors
/// The host does not store, in words.
pub(crate) fn mend_box(running: &Running) -> Result<(), String> {
    let shares = running.state().all_shares().to_vec();
    let Some(generation) = shares.first().map(|share| share.generation) else {
        return Ok(());
    };
    let whole = {
        let mut ledger = running.ledger();
        let key = recovery_key(ledger.root(), generation);
        let checked = ledger.check_recovery(generation, &key);
        checked.map_err(|error| error.to_string())?
    };
    let listed = Commitments::read(&mut running.files.clone(), generation);
    if whole && listed.is_ok_and(|list| list == Some(Commitments::of(&shares))) {
        return Ok(());
    }
    write_box(running, &shares)
}

/// Removes the files of the generation before, which opens nothing that counts.
pub(crate) fn forget_before(running: &Running, generation: u32) {
    let Some(before) = generation.checked_sub(1).filter(|before| *before > 0) else {
        return;
    };
    // Files that stay are of no use to anybody but the log's own past.
    drop(running.ledger().remove_recovery(before));
    drop(running.files.clone().remove(&shares_name(before)));
}

/// Shares given to a service that runs, to see whether they would do.
#[derive(Default)]
pub(crate) struct Rehearsal {
    given: BTreeMap<u8, (Principal, Share)>,
}

impl Rehearsal {
    /// Takes a share.
    ///
    /// # Errors
    /// It is not the signer's, or not of the newest generation, or the box does not open.
    pub(crate) fn give(
        &mut self,
        running: &Running,
        by: Principal,
        share: Share,
    ) -> Result<Reply, Refusal> {
        let kept = running.state().share(by)?;
        if kept.commitment() != share.commitment() {
            return Err(other_share(share.generation, kept.generation));
        }
        let (generation, threshold) = (kept.generation, kept.threshold);
        self.given
            .retain(|_, (_, share)| share.generation == generation);
        self.given.insert(share.number, (by, share));
        let given = self.given.values().map(|(by, _)| *by).collect();
        let mut progress = ShareProgress {
            given,
            needed: threshold,
            opened: false,
            size: None,
            origin: None,
        };
        if self.given.len() < usize::from(threshold) {
            return Ok(Reply::ShareProgress(progress));
        }
        let given = std::mem::take(&mut self.given);
        let shares: Vec<&Share> = given.values().map(|(_, share)| share).collect();
        let mut ledger = running.ledger();
        let opened = match combine(&shares) {
            Some(key) => ledger.check_recovery(generation, &key),
            None => Ok(false),
        };
        if !opened.map_err(|error| crate::sequencer::not_durable(&error))? {
            let message = format!(
                "the shares are right and the recovery file of generation {generation} does not open: it \
                 was altered or removed; restart the service, which writes it again"
            );
            return Err(Refusal::new("recovery-box", message, Retry::AfterChange));
        }
        progress.opened = true;
        progress.size = Some(ledger.size());
        progress.origin = Some(ledger.origin().to_string());
        Ok(Reply::ShareProgress(progress))
    }
}

/// A log that waits for its root.
pub(crate) struct Recovering {
    /// `None` while it is being opened.
    sealed: Option<Sealed>,
    lists: BTreeMap<u32, Commitments>,
    given: BTreeMap<(u32, u8), (Principal, Share)>,
}

/// What a given share led to.
pub(crate) enum Given {
    /// More are needed.
    Progress(ShareProgress),
    /// The box is open.
    Opened(Box<OpenedBox>),
}

/// What came out of the box, to be proved by the log.
pub(crate) struct OpenedBox {
    pub(crate) sealed: Sealed,
    pub(crate) root: Secret,
    pub(crate) given: Vec<(Principal, Share)>,
    pub(crate) progress: ShareProgress,
}

impl Recovering {
    /// Reads which shares could open this log.
    ///
    /// # Errors
    /// The host's storage, or there is nothing to recover with; in a sentence.
    pub(crate) fn begin(sealed: Sealed, files: &mut impl Files) -> Result<Self, String> {
        let newest = sealed.recovery_generations().iter().rev();
        let mut lists = BTreeMap::new();
        for generation in newest.take(GENERATIONS_MAX) {
            let list = Commitments::read(files, *generation);
            if let Some(list) = list.map_err(|error| error.to_string())? {
                lists.insert(*generation, list);
            }
        }
        if lists.is_empty() {
            return Err(format!(
                "{}, and there are no recovery files beside the log: put the root file and its machine \
                 back, or the recovery files",
                why_sealed(&sealed)
            ));
        }
        Ok(Self {
            sealed: Some(sealed),
            lists,
            given: BTreeMap::new(),
        })
    }

    /// Generation, holders and threshold of the newest shares that could do.
    pub(crate) fn newest(&self) -> Option<(u8, u8)> {
        let (_, list) = self.lists.last_key_value()?;
        let holders = u8::try_from(list.shares.len()).ok()?;
        Some((holders, list.threshold))
    }

    /// Takes a share; the box is opened when there are enough.
    ///
    /// # Errors
    /// Not a share of this log, or the box does not open.
    pub(crate) fn give(&mut self, by: Principal, share: Share) -> Result<Given, Refusal> {
        let (generation, threshold) = (share.generation, share.threshold);
        let known = self
            .lists
            .get(&generation)
            .is_some_and(|list| list.has(&share));
        if !known {
            let newest = self.lists.keys().next_back().copied().unwrap_or_default();
            return Err(other_share(generation, newest));
        }
        self.given.insert((generation, share.number), (by, share));
        let of_it = |((of, _), _): &(&(u32, u8), &(Principal, Share))| *of == generation;
        let given: Vec<_> = self
            .given
            .iter()
            .filter(of_it)
            .map(|(_, given)| given.clone())
            .collect();
        let progress = ShareProgress {
            given: given.iter().map(|(by, _)| *by).collect(),
            needed: threshold,
            opened: false,
            size: None,
            origin: None,
        };
        if given.len() < usize::from(threshold) {
            return Ok(Given::Progress(progress));
        }
        self.given.retain(|(of, _), _| *of != generation);
        let shares: Vec<&Share> = given.iter().map(|(_, share)| share).collect();
        let mut sealed = self.sealed.take().ok_or_else(opening)?;
        let opened = combine(&shares).map(|key| sealed.open_recovery(generation, &key));
        let root = match opened {
            Some(Ok(root)) => root,
            failed => {
                self.sealed = Some(sealed);
                let box_error = LoadError::RecoveryBox { generation };
                let error = failed.and_then(Result::err).unwrap_or(box_error);
                return Err(Refusal::new("recovery-box", error, Retry::AfterChange));
            }
        };
        Ok(Given::Opened(Box::new(OpenedBox {
            sealed,
            root,
            given,
            progress,
        })))
    }

    /// Puts the sealed log back after it could not be recovered.
    pub(crate) fn restore(&mut self, sealed: Sealed) {
        self.sealed = Some(sealed);
    }
}

/// Whether the state that the log gave names these shares, and these givers as their holders.
///
/// # Errors
/// Newer shares count, or somebody gave a share of another.
pub(crate) fn prove(state: &State, given: &[(Principal, Share)]) -> Result<(), Refusal> {
    let newest = state.shares().map_or(0, |(generation, ..)| generation);
    for (by, share) in given {
        if share.generation != newest {
            return Err(other_share(share.generation, newest));
        }
        let held = state.share(*by)?;
        if held.commitment() != share.commitment() {
            let message = format!("{by} gave a share of another holder; each gives its own");
            return Err(Refusal::new("other-share", message, Retry::AfterChange));
        }
    }
    Ok(())
}

/// Why the log's root is not here, as a sentence begins.
pub(crate) fn why_sealed(sealed: &Sealed) -> &'static str {
    match sealed.why {
        bield_ledger::Unavailable::Missing => "there is a log and its root file is missing",
        _ => "the root file was sealed by other code or on another machine, or was altered",
    }
}

fn other_share(given: u32, newest: u32) -> Refusal {
    let message = if given == newest {
        "this is not one of the shares that were made, or not the signer's; give the file that \
         this holder fetched"
            .to_owned()
    } else {
        format!(
            "this share is of generation {given}; the newest are of generation {newest}, and earlier ones \
             open nothing"
        )
    };
    Refusal::new("other-share", message, Retry::AfterChange)
}

fn opening() -> Refusal {
    let message = "enough shares are here and the log is being opened; ask again";
    Refusal::new("recovering", message, Retry::After(2000))
}

fn recovery_key(root: &Secret, generation: u32) -> Secret {
    Sharing {
        generation,
        threshold: 0,
        holders: Vec::new(),
    }
    .key(root)
}

/// Commitments of all shares of a generation: `"blds" ‖ 1 ‖ threshold ‖ count ‖ 32 bytes each`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Commitments {
    threshold: u8,
    shares: Vec<Digest>,
}

impl Commitments {
    fn of(shares: &[Share]) -> Self {
        Self {
            threshold: shares.first().map_or(0, |share| share.threshold),
            shares: shares.iter().map(Share::commitment).collect(),
        }
    }

    fn has(&self, share: &Share) -> bool {
        let at = usize::from(share.number).checked_sub(1);
        let listed = at.and_then(|at| self.shares.get(at));
        share.threshold == self.threshold && listed == Some(&share.commitment())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(self.threshold);
        // At most HOLDERS_MAX.
        bytes.push(u8::try_from(self.shares.len()).unwrap_or(u8::MAX));
        for share in &self.shares {
            bytes.extend_from_slice(share.as_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[threshold, count], rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk()?;
        let (shares, left) = rest.as_chunks::<32>();
        let whole = left.is_empty() && shares.len() == usize::from(count);
        let sensible = shares.len() <= HOLDERS_MAX && threshold >= 1 && threshold <= count;
        (whole && sensible).then(|| Self {
            threshold,
            shares: shares.iter().copied().map(Digest::from_bytes).collect(),
        })
    }

    /// `None` when there is no such list, or it is damaged.
    fn read(
        files: &mut impl Files,
        generation: u32,
    ) -> Result<Option<Self>, bield_ledger::FilesError> {
        let bytes = files.read(&shares_name(generation), 0, LIST_BYTES_MAX)?;
        Ok(Self::decode(&bytes))
    }
}

fn shares_name(generation: u32) -> String {
    format!("shares-{generation:010}")
}

const MAGIC: &[u8] = b"blds\x01";
const LIST_BYTES_MAX: u64 = 1024;
/// Generations whose shares are taken: an order that did not come to count leaves one behind.
const GENERATIONS_MAX: usize = 4;

const _: () = assert!(MAGIC.len() + 2 + HOLDERS_MAX * 32 < LIST_BYTES_MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_commitments_is_read_as_it_was_written_and_not_otherwise() {
        let list = Commitments {
            threshold: 2,
            shares: (0..3)
                .map(|number| Digest::from_bytes([number; 32]))
                .collect(),
        };
        let bytes = list.encode();
        assert_eq!(Commitments::decode(&bytes), Some(list));
        for length in 0..bytes.len() {
            assert!(Commitments::decode(&bytes[..length]).is_none());
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Commitments::decode(&longer).is_none());
        let mut many = bytes;
        many[5] = 4; // more needed than there are
        assert!(Commitments::decode(&many).is_none());
    }
}
