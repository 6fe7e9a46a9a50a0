//! The proof that admission happened, and the search for the grant that allows it.
//!
//! One function walks the grants for both admissions, so that the key service and the runtime
//! cannot come to disagree about what a grant means.

use core::ops::Deref;

use bield_envelope::{Digest, Principal, Time, Verified};
use bield_evidence::Measurement;

use crate::{Grant, Listing, Refused, Revocations};

/// Proof that `T` passed admission; only [`admit`](crate::admit) and
/// [`admit_lease`](crate::admit_lease) make one.
///
/// A function that serves or hands out keys takes this as an argument, so that skipping the
/// check does not compile.
#[derive(Debug)]
pub struct Admitted<T>(T);

impl<T> Admitted<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(value)
    }

    /// Gives up the proof and returns the value.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Admitted<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What a grant must allow, and when.
pub(crate) struct Wanted<'a> {
    pub(crate) package: Digest,
    pub(crate) owner: Principal,
    pub(crate) code: &'a Measurement,
    /// `None`: any user will do (a lease serves all granted users).
    pub(crate) user: Option<Principal>,
    pub(crate) now: Time,
}

/// How far one grant gets, in the order in which it is read; the last step allows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    OtherOwner,
    OtherPackage,
    OtherCode,
    OtherUser,
    Revoked,
    Expired,
    NotYet,
    Allows,
}

impl Wanted<'_> {
    fn reach(&self, grant: &Verified<Grant>, revoked: &Revocations) -> Reach {
        if grant.signer() != self.owner {
            Reach::OtherOwner
        } else if grant.package != self.package {
            Reach::OtherPackage
        } else if grant.code != *self.code {
            Reach::OtherCode
        } else if self.user.is_some_and(|user| user != grant.user) {
            Reach::OtherUser
        } else if revoked.contains(grant) {
            Reach::Revoked
        } else if self.now >= grant.not_after {
            Reach::Expired
        } else if self.now < grant.not_before {
            Reach::NotYet
        } else {
            Reach::Allows
        }
    }

    /// Whether this grant allows what is wanted, now.
    pub(crate) fn allowed_by(&self, grant: &Verified<Grant>, revoked: &Revocations) -> bool {
        self.reach(grant, revoked) == Reach::Allows
    }

    /// Finds the grant that decides: the strictest isolation, then the latest end, then the
    /// smallest digest (`spec/04 §4`). Without one, says how near the nearest grant came.
    pub(crate) fn find<'g>(
        &self,
        grants: &'g [Verified<Grant>],
        revoked: &Revocations,
    ) -> Result<&'g Verified<Grant>, Refused> {
        grants
            .iter()
            .filter(|grant| self.allowed_by(grant, revoked))
            .max_by(|a, b| {
                // Strictest wins: an old, looser grant must not undo a newer, stricter one.
                a.isolation
                    .cmp(&b.isolation)
                    .then(a.not_after.cmp(&b.not_after))
                    .then_with(|| b.digest().cmp(&a.digest()))
            })
            .ok_or_else(|| self.refusal(grants, revoked))
    }

    /// Explains why none of `grants` allows what is wanted. Grants by other signers are not the
    /// owner's word and are never listed.
    fn refusal(&self, grants: &[Verified<Grant>], revoked: &Revocations) -> Refused {
        let nearest = grants
            .iter()
            .map(|grant| (self.reach(grant, revoked), grant))
            .max_by_key(|(reach, _)| *reach);
        match nearest {
            Some((Reach::Revoked, grant)) => Refused::Revoked {
                grant: grant.digest(),
            },
            Some((Reach::Expired, _)) => Refused::Expired {
                // The one that held longest is the one to renew.
                until: self
                    .reaching(grants, revoked, Reach::Expired)
                    .map(|grant| grant.not_after)
                    .max()
                    .unwrap_or(self.now),
                now: self.now,
            },
            Some((Reach::NotYet, _)) => Refused::NotYetValid {
                from: self
                    .reaching(grants, revoked, Reach::NotYet)
                    .map(|grant| grant.not_before)
                    .min()
                    .unwrap_or(self.now),
                now: self.now,
            },
            Some((Reach::OtherUser, _)) => Refused::UserNotGranted {
                user: self.user.unwrap_or(self.owner),
                package: self.package,
                code: self.code.clone(),
                granted: self
                    .reaching(grants, revoked, Reach::OtherUser)
                    .map(|grant| grant.user)
                    .collect(),
            },
            _ => Refused::CodeNotGranted {
                code: self.code.clone(),
                package: self.package,
                granted: self
                    .reaching(grants, revoked, Reach::OtherCode)
                    .map(|grant| grant.code.clone())
                    .collect::<Listing<_>>(),
            },
        }
    }

    fn reaching<'g>(
        &'g self,
        grants: &'g [Verified<Grant>],
        revoked: &'g Revocations,
        wanted: Reach,
    ) -> impl Iterator<Item = &'g Verified<Grant>> {
        grants
            .iter()
            .filter(move |grant| self.reach(grant, revoked) == wanted)
    }
}
