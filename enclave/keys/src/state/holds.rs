//! Functions' states: who holds each, and the newest heads that are anchored of it.
//!
//! ```text
//! Hold ──▶ nobody holds it ──▶ a larger token ──▶ anchored heads
//!          the same writer ──▶ the same token, for longer
//!          another, who has not ended ──▶ state-held
//! Anchor, Release ──▶ the newest token? ──▶ each head not before the one that is kept ──▶ kept
//! ```
//!
//! Always true: what is anchored of a writer never goes back, and leaves only when the holder, whose own head is
//! anchored, covers it; a state's token only grows, and each is given to one writer; only code that the
//! owner grants a package of the state's name touches it. Nothing here ends by itself: a hold that is over is
//! still its writer's until another takes it, and anchored heads stay until the owner unregisters.
//!
//! Left to others: what the heads mean, and whether a covered writer is (`enclave/state`; code the owner granted).
//!
//! On paper: the admission of a lease and a search, an entry of 250 bytes; 200 bytes a state and 72 a head.

use core::time::Duration;
use std::collections::BTreeMap;

use bield_capsule::{CapsuleName, Head, WriterId};
use bield_envelope::{Digest, Time};
use bield_evidence::Appraised;
use bield_grant::{LeaseTerms, admit_lease};
use bield_package::PackageName;
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::{
    Anchors, HeldState, Reply, STATE_HEADS_MAX, STATE_HOLD_SECS, StateAct, StateRequest,
};
use bield_receipt::StateHeads;

use super::State;
use super::ask::{Answer, Checked, Inconsistent};
use super::entry::Entry;
use super::limits::{STATES_EACH_MAX, STATES_MAX};
use super::packages::Package;
use super::refuse::{self, Whose};

/// A function's state.
pub(super) struct KeptState {
    /// Packages of this name, of its owner, are whose state it is.
    pub(super) name: PackageName,
    pub(super) writer: WriterId,
    pub(super) token: u64,
    pub(super) until: Time,
    pub(super) heads: StateHeads,
}

/// All of them, by the owner's number.
#[derive(Default)]
pub(super) struct Holds {
    pub(super) by_name: BTreeMap<(u32, CapsuleName), KeptState>,
}

/// Why heads cannot be anchored beside those that are.
enum Unfit {
    /// Of this writer: where it is anchored, and what was given.
    Behind(WriterId, u64, u64),
    /// Of this writer, here.
    Forked(WriterId, u64),
    TooMany,
}

impl Holds {
    /// How many states a person has.
    pub(super) fn count(&self, owner: u32) -> usize {
        self.by_name.range(all_of(owner)).count()
    }

    /// Forgets what a person who left had.
    pub(super) fn forget(&mut self, owner: u32) {
        let of: Vec<_> = self
            .by_name
            .range(all_of(owner))
            .map(|(id, _)| *id)
            .collect();
        for id in of {
            self.by_name.remove(&id);
        }
    }
}

fn all_of(owner: u32) -> core::ops::RangeInclusive<(u32, CapsuleName)> {
    (owner, CapsuleName::from_bytes([0; 32]))..=(owner, CapsuleName::from_bytes([0xff; 32]))
}

impl KeptState {
    /// The heads that are anchored once these are.
    fn anchoring(&self, heads: &[Head], covered: &[WriterId]) -> Result<StateHeads, Unfit> {
        let kept = self.heads.heads().iter().map(|head| (head.writer, *head));
        let mut anchored: BTreeMap<WriterId, Head> = kept.collect();
        for given in heads {
            match anchored.insert(given.writer, *given) {
                Some(kept) if given.seq < kept.seq => {
                    return Err(Unfit::Behind(given.writer, kept.seq, given.seq));
                }
                Some(kept) if given.seq == kept.seq && given.hash != kept.hash => {
                    return Err(Unfit::Forked(given.writer, given.seq));
                }
                _ => {}
            }
        }
        for writer in covered {
            anchored.remove(writer);
        }
        StateHeads::new(anchored.into_values().collect())
            .filter(|heads| heads.heads().len() <= STATE_HEADS_MAX)
            .ok_or(Unfit::TooMany)
    }
}

impl State {
    pub(super) fn check_state(
        &self,
        appraised: &Appraised,
        request: &StateRequest,
        now: Time,
    ) -> Result<Checked, Refusal> {
        let package = self.granted_to(appraised, request.package, now)?;
        let owner = self.ordering(self.people.current(package.owner))?.number;
        let kept = self.holds.by_name.get(&(owner, request.capsule));
        if let Some(kept) = kept.filter(|kept| kept.name != package.name) {
            // A name without a package is nobody's: its owner called the function anew.
            let given_up = self.named(owner, &kept.name).next().is_none();
            if !given_up || request.act != StateAct::Hold {
                return Err(of_another_name(request, &kept.name, &package.name));
            }
        }
        match &request.act {
            StateAct::Hold => self.check_hold(appraised, request, (owner, package), kept, now),
            StateAct::Anchor(anchors) => check_anchors(request, anchors, kept, now, false),
            StateAct::Release(anchors) => check_anchors(request, anchors, kept, now, true),
            _ => Err(refuse::unsupported("an act on a state")),
        }
    }

    /// The package, if its owner grants it to this code now: as for a lease, without keys.
    fn granted_to(
        &self,
        appraised: &Appraised,
        digest: Digest,
        now: Time,
    ) -> Result<&Package, Refusal> {
        let package = self.package(&digest)?;
        let class = self.grants.index.measured(appraised.measurement());
        let candidates = self.candidates(&self.targets(&digest)?, class);
        let terms = LeaseTerms {
            id: self.leases.next,
            now,
            time: HOLD,
        };
        admit_lease(
            appraised,
            package.facts(digest),
            candidates.iter(),
            &self.people.successions,
            candidates.revoked(),
            terms,
        )
        .map_err(|refused| Refusal::from(&refused))?;
        Ok(package)
    }

    fn check_hold(
        &self,
        appraised: &Appraised,
        request: &StateRequest,
        (owner, package): (u32, &Package),
        kept: Option<&KeptState>,
        now: Time,
    ) -> Result<Checked, Refusal> {
        let until = now.plus(HOLD);
        let (token, heads) = match kept {
            Some(kept) if kept.writer == request.writer && kept.name == package.name => {
                let entry = anchored(request, kept.token, until);
                return Ok(held(entry, kept.token, until, &kept.heads));
            }
            Some(kept) if kept.writer != request.writer && now < kept.until => {
                return Err(held_by_another(request, kept, now));
            }
            Some(kept) => (kept.token.checked_add(1), kept.heads.clone()),
            None => {
                let have = self.holds.count(owner);
                let whose = "functions' states of a principal; they stay until it unregisters, and";
                refuse::room(have, STATES_EACH_MAX, whose, Whose::Signer)?;
                let have = self.holds.by_name.len();
                refuse::room(have, STATES_MAX, "functions' states", Whose::Operator)?;
                (Some(1), StateHeads::default())
            }
        };
        let token = token.ok_or_else(|| refuse::malformed("no further hold of this state"))?;
        let entry = Entry::StateTaken {
            package: request.package,
            capsule: request.capsule,
            code: appraised.measurement().clone(),
            simulated: appraised.simulated(),
            writer: request.writer,
            token,
            until,
            heads: heads.digest(),
        };
        Ok(held(entry, token, until, &heads))
    }

    pub(super) fn apply_state_taken(
        &mut self,
        digest: &Digest,
        capsule: CapsuleName,
        writer: WriterId,
        token: u64,
        until: Time,
    ) -> Result<(), Inconsistent> {
        let package = self
            .packages
            .get(digest)
            .ok_or(Inconsistent("no such package"))?;
        let owner = self.people.current(package.owner);
        let owner = self.people.person(&owner)?.number;
        let name = package.name.clone();
        let kept = self.holds.by_name.entry((owner, capsule));
        let kept = kept.or_insert_with(|| KeptState {
            name: name.clone(),
            writer,
            token: 0,
            until,
            heads: StateHeads::default(),
        });
        if kept.token.checked_add(1) != Some(token) {
            return Err(Inconsistent("a hold left out"));
        }
        (kept.name, kept.writer, kept.token, kept.until) = (name, writer, token, until);
        Ok(())
    }

    pub(super) fn apply_state_anchored(
        &mut self,
        digest: &Digest,
        capsule: CapsuleName,
        (token, until): (u64, Time),
        heads: &[Head],
        covered: &[WriterId],
    ) -> Result<(), Inconsistent> {
        let package = self
            .packages
            .get(digest)
            .ok_or(Inconsistent("no such package"))?;
        let owner = self.people.current(package.owner);
        let owner = self.people.person(&owner)?.number;
        let kept = self.holds.by_name.get_mut(&(owner, capsule));
        let kept = kept
            .filter(|kept| kept.token == token)
            .ok_or(Inconsistent("heads of another hold"))?;
        let heads = kept.anchoring(heads, covered);
        kept.heads = heads.map_err(|_| Inconsistent("heads that do not fit"))?;
        kept.until = until;
        Ok(())
    }
}

fn check_anchors(
    request: &StateRequest,
    anchors: &Anchors,
    kept: Option<&KeptState>,
    now: Time,
    lets_go: bool,
) -> Result<Checked, Refusal> {
    let kept = kept
        .filter(|kept| kept.writer == request.writer && kept.token == anchors.token)
        .ok_or_else(|| taken(request))?;
    let mut named: Vec<WriterId> = anchors.heads.iter().map(|head| head.writer).collect();
    named.extend(&anchors.covered);
    named.sort_unstable();
    if named.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(refuse::malformed("a writer of a state named twice"));
    }
    let heads = kept.anchoring(&anchors.heads, &anchors.covered);
    let heads = heads.map_err(|unfit| unfit_anchors(request, &unfit))?;
    if !anchors.covered.is_empty() && heads.head_of(&request.writer).is_none() {
        let message = "writers are covered by a head of the holder's own, and none is anchored";
        return Err(refuse::malformed(message));
    }
    let until = if lets_go { now } else { now.plus(HOLD) };
    let changed = anchors.heads.iter();
    let changed = changed.filter(|head| kept.heads.head_of(&head.writer) != Some(head));
    let gone = anchors.covered.iter();
    let gone = gone.filter(|writer| kept.heads.head_of(writer).is_some());
    let entry = Entry::StateAnchored {
        package: request.package,
        capsule: request.capsule,
        token: kept.token,
        until,
        heads: changed.copied().collect(),
        covered: gone.copied().collect(),
        released: lets_go.then(|| heads.digest()),
    };
    Ok(held(entry, kept.token, until, &heads))
}

fn anchored(request: &StateRequest, token: u64, until: Time) -> Entry {
    Entry::StateAnchored {
        package: request.package,
        capsule: request.capsule,
        token,
        until,
        heads: Vec::new(),
        covered: Vec::new(),
        released: None,
    }
}

fn held(entry: Entry, token: u64, until: Time, heads: &StateHeads) -> Checked {
    let state = HeldState {
        token,
        until,
        heads: heads.heads().to_vec(),
    };
    Checked {
        entries: vec![entry],
        answer: Answer::Reply(Box::new(Reply::State(state))),
    }
}

fn held_by_another(request: &StateRequest, kept: &KeptState, now: Time) -> Refusal {
    let message = format!(
        "writer {} holds the state {} until {}; hold it when that has ended or it let go",
        kept.writer.short(),
        request.capsule.short(),
        kept.until
    );
    let wait = u64::try_from(kept.until.since(now).as_millis()).unwrap_or(u64::MAX);
    Refusal::new("state-held", message, Retry::After(wait))
}

fn taken(request: &StateRequest) -> Refusal {
    let message = format!(
        "writer {} does not hold the state {} under this token; what it wrote since counts for nothing here until it \
         holds the state anew",
        request.writer.short(),
        request.capsule.short()
    );
    Refusal::new("state-taken", message, Retry::Anew)
}

fn unfit_anchors(request: &StateRequest, unfit: &Unfit) -> Refusal {
    let capsule = request.capsule.short();
    let (code, message) = match unfit {
        Unfit::Behind(writer, kept, given) => (
            "state-behind",
            format!(
                "record {kept} of writer {} is anchored of the state {capsule}, {} records after the head that was \
                 given: the files were set back",
                writer.short(),
                kept - given
            ),
        ),
        Unfit::Forked(writer, seq) => (
            "state-forked",
            format!(
                "another record {seq} of writer {} is anchored of the state {capsule}: there are two histories",
                writer.short()
            ),
        ),
        Unfit::TooMany => {
            let what = "heads of more writers of one state are not kept; its holder must name those it covers: at most";
            return refuse::full(what, STATE_HEADS_MAX);
        }
    };
    Refusal::new(code, message, Retry::Never)
}

fn of_another_name(request: &StateRequest, kept: &PackageName, asked: &PackageName) -> Refusal {
    let message = format!(
        "the state {} is that of its owner's packages called {kept}, not of {asked}; give this function a state of its \
         own, or delete those packages first",
        request.capsule.short()
    );
    Refusal::new("state-of-another", message, Retry::AfterChange)
}

/// [`STATE_HOLD_SECS`].
const HOLD: Duration = Duration::from_secs(STATE_HOLD_SECS);
