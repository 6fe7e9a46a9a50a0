//! What callers kept of the log is compared with the log.
//!
//! ```text
//! kept checkpoint ──signed by this service?──no──▶ refused, and nothing else happens
//!        │ yes
//!        ├─ in our tree ─────────────▶ newest checkpoint + consistency proof
//!        ├─ of an earlier epoch ─────▶ the same, and who recovered the log where
//!        ├─ of a later epoch ────────▶ the service stops: people recovered it elsewhere
//!        ├─ larger than our tree ────▶ the service stops: `rolled-back`, so many records are missing;
//!        │                             in a group: if a majority confirms this leader; if not, this
//!        │                             instance starts again and joins the others
//!        └─ another tree ────────────▶ the service stops: `forked`
//! ```
//!
//! Always true: only this service's own signature can stop it; once stopped, it refuses everybody, also
//! after that caller has gone; a proof leads to a checkpoint that counts, never to one on its way.
//!
//! On paper: one signature check, and 2 × log₂ n hashes for the proof; 2 ms to tell that a checkpoint is of no
//! epoch of this service.

use std::sync::Arc;

use bield_envelope::Secret;
use bield_ledger::PastLog;
use bield_platform::Randomness;
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::{CHECKPOINT_BYTES_MAX, Freshness, Recovered, Reply};
use bield_tlog::{Hash, Origin, SignedCheckpoint, TreeHead};
use minicbor::bytes::ByteArray;
use rand_core::Rng as _;

use crate::sequencer::{Caller, Running, Trouble};
use crate::state::{Ask, Started};
use crate::witnesses::{NotCosigned, Proofs, Witnesses};

/// Answers `Request::Freshness`.
///
/// # Errors
/// Not a checkpoint of this service; or it is one, and this service was set back: it stops.
pub(crate) fn answer(running: &Running, kept: Option<&str>) -> Result<Reply, Refusal> {
    let published = running.published();
    let counted = published.checkpoint().size();
    let (consistency, recovered) = match kept {
        None => (Vec::new(), Vec::new()),
        Some(note) => {
            running.metrics.checkpoints.add(1);
            continued(running, note, counted)?
        }
    };
    Ok(Reply::Freshness(Freshness {
        checkpoint: published.to_string(),
        consistency: consistency.into_iter().map(plain).collect(),
        log: running.ledger().verifier().to_string(),
        recovered,
    }))
}

/// What connects a kept checkpoint with the log's first `counted` records.
fn continued(
    running: &Running,
    note: &str,
    counted: u64,
) -> Result<(Vec<Hash>, Vec<Recovered>), Refusal> {
    if note.len() > CHECKPOINT_BYTES_MAX {
        let message = format!("a checkpoint has at most {CHECKPOINT_BYTES_MAX} bytes");
        return Err(Refusal::new("malformed", message, Retry::Never));
    }
    let kept = SignedCheckpoint::parse(note.as_bytes()).map_err(|error| foreign(&error))?;
    let recoveries = running.state().recoveries().to_vec();
    let origin = kept.claimed().origin().clone();
    // Taken out, so that nobody waits for the log while a signature is checked.
    let (key, is_past) = {
        let ledger = running.ledger();
        let past = ledger.past().iter().find(|past| *past.origin() == origin);
        let key = past.map_or(ledger.verifier(), PastLog::verifier).clone();
        (key, past.is_some())
    };
    let signed = kept.clone().verify(&origin, &[key]);
    let head = match signed {
        Ok(kept) if is_past || *running.ledger().origin() == origin => kept.checkpoint().head(),
        Ok(_) => return Err(foreign(&"another log")),
        Err(error) => {
            went_on_elsewhere(running, &kept)?;
            return Err(foreign(&error));
        }
    };
    if is_past {
        return recovered_since(running, recoveries, &origin, head);
    }
    let trouble = {
        let ledger = running.ledger();
        if ledger.contains(head) {
            // A checkpoint that was shown to a witness only may be ahead of what counts.
            let to = counted.max(head.size);
            let proof = ledger
                .consistency_to(head.size, to)
                .map_err(|error| foreign(&error))?;
            if to == counted {
                return Ok((proof, Vec::new()));
            }
            return Err(crate::sequencer::not_durable(
                &"that record is still on its way",
            ));
        }
        set_back(head, ledger.head())
    };
    let trouble = match running.shares_log() {
        true => confirmed(running, head, trouble)?,
        false => trouble,
    };
    let refusal = trouble.refusal();
    running.stop(trouble);
    Err(refusal)
}

/// In a group another member may rightly have more than this one, which nobody has told it yet: only a leader
/// whose next record counts with a majority knows that nobody has.
///
/// # Errors
/// The record does not count for now, or it is the one that the caller saw.
fn confirmed(running: &Running, head: TreeHead, trouble: Trouble) -> Result<Trouble, Refusal> {
    let mut nonce = [0; 32];
    Randomness.fill_bytes(&mut nonce);
    let member = u8::try_from(running.metrics.member.get()).unwrap_or_default();
    match running.submit(Caller::Program, Ask::Started(Started { nonce, member })) {
        Reply::Done(_) if running.ledger().contains(head) => {
            Err(crate::sequencer::not_durable(&"that record was on its way"))
        }
        Reply::Done(_) => Ok(trouble),
        Reply::Refused(refusal) if refusal.code == "not-durable" => Err(refusal),
        _ => Ok(Trouble::passing(
            &"another instance has more records than this one, which starts again to join it",
        )),
    }
}

/// What connects a checkpoint of an earlier epoch with this log.
fn recovered_since(
    running: &Running,
    recoveries: Vec<Recovered>,
    origin: &Origin,
    head: TreeHead,
) -> Result<(Vec<Hash>, Vec<Recovered>), Refusal> {
    let since = recoveries
        .into_iter()
        .skip_while(|one| one.origin != origin.as_str());
    let since: Vec<Recovered> = since.collect();
    let ledger = running.ledger();
    let past = ledger.past().iter().find(|past| past.origin() == origin);
    let past = past.ok_or_else(|| foreign(&"no such epoch"))?;
    // The record that ends it, which nobody was shown, is not among those that were found.
    let found = since
        .first()
        .map_or(past.head().size, |recovered| recovered.size);
    if head.size > found || !past.contains(head) {
        // People recovered less than the caller saw, or another branch: it can tell from their entry, which
        // no proof leads to.
        return Ok((Vec::new(), since));
    }
    let proof = past.consistency_to(head.size, found);
    Ok((proof.map_err(|error| foreign(&error))?, since))
}

/// Whether this service signed a checkpoint in an epoch that this log has not come to: people recovered it, and
/// this copy is what they left behind.
///
/// # Errors
/// It did, and is over.
fn went_on_elsewhere(running: &Running, kept: &SignedCheckpoint) -> Result<(), Refusal> {
    let (root, epoch) = {
        let ledger = running.ledger();
        (Secret::from_bytes(*ledger.root().expose()), ledger.epoch())
    };
    let later = epoch.saturating_add(1)..=epoch.saturating_add(EPOCHS_AHEAD);
    let Some(later) = bield_ledger::signed_in(&root, later, kept) else {
        return Ok(());
    };
    let trouble = Trouble::rolled_back(format!(
        "this key service was recovered elsewhere and goes on there in epoch {later}; this copy is of epoch \
         {epoch}, from before, and serves nobody; its operator must shut it down"
    ));
    let refusal = trouble.refusal();
    running.stop(trouble);
    Err(refusal)
}

/// What a checkpoint of ours that is not in our tree proves.
fn set_back(kept: TreeHead, own: TreeHead) -> Trouble {
    if kept.size > own.size {
        return Trouble::rolled_back(format!(
            "this key service was set back: it has {} records and signed a checkpoint of {}, so {} records are \
             missing; its operator must put the newest files back, or recover with shares",
            own.size,
            kept.size,
            kept.size - own.size
        ));
    }
    Trouble::forked(format!(
        "this key service is a fork: it has {} records and signed a checkpoint of {} that is of another \
             history; its operator must find the other copy and keep one of them",
        own.size, kept.size
    ))
}

fn foreign(error: &dyn core::fmt::Display) -> Refusal {
    let message = format!(
        "the checkpoint kept is not one of this service ({error}); another service answers here, or the \
             checkpoint was altered"
    );
    Refusal::new("foreign-checkpoint", message, Retry::AfterChange)
}

fn plain(hash: Hash) -> ByteArray<32> {
    (*hash.as_bytes()).into()
}

/// Epochs ahead of this log whose signatures are known: each was begun by people.
const EPOCHS_AHEAD: u32 = 16;

/// What a start needs before anybody is served: witnesses that saw nothing newer than this log.
///
/// # Errors
/// See [`NotCosigned`].
pub(crate) fn at_start(running: &Arc<Running>, witnesses: &Witnesses) -> Result<(), NotCosigned> {
    if witnesses.needed() == 0 {
        return Ok(());
    }
    let mut nonce = [0; 32];
    Randomness.fill_bytes(&mut nonce);
    let checkpoint = running.ledger().checkpoint(Some(nonce));
    let proofs: Arc<dyn Proofs> = Arc::clone(running) as _;
    witnesses.cosign(checkpoint, &proofs).map(drop)
}
