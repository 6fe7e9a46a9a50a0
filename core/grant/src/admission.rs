//! The proof that admission happened, and the search for the grant that allows it.
//!
//! One function walks the grants for both admissions, so that the key service and the runtime
//! cannot come to disagree about what a grant means.

use core::cmp::Reverse;
use core::ops::Deref;

use bield_envelope::{Principal, Time, Verified};

use crate::package::Sought;
use crate::{
    CodeIdentity, Grant, Groups, Listing, Meter, PackageFacts, Refused, Revocations, Successions,
    UserSelector,
};

/// Proof that `T` passed admission; only [`admit`](crate::admit), [`admit_use`](crate::admit_use) and
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
    package: Sought<'a>,
    /// Everyone whose word is the owner's.
    owners: Vec<Principal>,
    code: &'a CodeIdentity,
    /// `None`: any user will do (a lease serves all granted users).
    user: Option<Sender<'a>>,
    now: Time,
}

/// Who sent a request.
struct Sender<'a> {
    principal: Principal,
    /// Everyone the sender stands for, the sender included.
    names: Vec<Principal>,
    groups: &'a Groups,
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

impl<'a> Wanted<'a> {
    /// A package, for any user.
    pub(crate) fn new(
        package: PackageFacts<'a>,
        code: &'a CodeIdentity,
        successions: &Successions,
        now: Time,
    ) -> Self {
        Self {
            owners: successions.line_of(package.owner, now),
            package: Sought::new(package),
            code,
            user: None,
            now,
        }
    }

    /// The same for one sender.
    pub(crate) fn by(
        mut self,
        sender: Principal,
        groups: &'a Groups,
        successions: &Successions,
    ) -> Self {
        self.user = Some(Sender {
            principal: sender,
            names: successions.stands_for(sender, self.now),
            groups,
        });
        self
    }

    /// Whether the owner's grant is for this package and code, whoever the user and whatever the
    /// time.
    pub(crate) fn covered_by(&self, grant: &Verified<Grant>) -> bool {
        self.owners.contains(&grant.signer())
            && self.package.is_named_by(&grant.package)
            && grant.code.admits(self.code)
    }

    fn reach(&self, grant: &Verified<Grant>, revoked: &Revocations) -> Reach {
        if !self.owners.contains(&grant.signer()) {
            Reach::OtherOwner
        } else if !self.package.is_named_by(&grant.package) {
            Reach::OtherPackage
        } else if !grant.code.admits(self.code) {
            Reach::OtherCode
        } else if !self
            .user
            .as_ref()
            .is_none_or(|user| self.is(user, &grant.user))
        {
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

    fn is(&self, user: &Sender<'_>, selected: &UserSelector) -> bool {
        match selected {
            UserSelector::Principal(principal) => user.names.contains(principal),
            UserSelector::Group(name) => user.groups.admits(name, &self.owners, &user.names),
        }
    }

    /// Whether this grant allows what is wanted, now.
    pub(crate) fn allowed_by(&self, grant: &Verified<Grant>, revoked: &Revocations) -> bool {
        self.reach(grant, revoked) == Reach::Allows
    }

    /// Finds the grant that decides: the strictest isolation, then the latest end, then the
    /// smallest digest (`spec/04 §6`). Without one, says how near the nearest grant came.
    pub(crate) fn find<'g>(
        &self,
        grants: impl Iterator<Item = &'g Verified<Grant>> + Clone,
        revoked: &Revocations,
    ) -> Result<&'g Verified<Grant>, Refused> {
        grants
            .clone()
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

    /// Finds the grant that decides and takes one request of its quota. When that one is used up,
    /// the next of the same isolation serves: a looser one never, or a quota would loosen it.
    pub(crate) fn take<'g>(
        &self,
        grants: &'g [Verified<Grant>],
        meter: &Meter,
    ) -> Result<&'g Verified<Grant>, Refused> {
        let revoked = Revocations::new();
        let decides = self.find(grants.iter(), &revoked)?;
        let has_room =
            |grant: &Verified<Grant>| grant.requests.is_none() || meter.take(&grant.digest());
        if has_room(decides) {
            return Ok(decides);
        }
        let mut others: Vec<_> = grants
            .iter()
            .filter(|grant| {
                grant.isolation == decides.isolation && self.allowed_by(grant, &revoked)
            })
            .collect();
        others.sort_by_cached_key(|grant| (Reverse(grant.not_after), grant.digest()));
        others
            .into_iter()
            .find(|grant| has_room(grant))
            .ok_or_else(|| Refused::QuotaUsed {
                grant: decides.digest(),
            })
    }

    /// Explains why none of `grants` allows what is wanted. Grants by other signers are not the
    /// owner's word and are never listed.
    fn refusal<'g>(
        &self,
        grants: impl Iterator<Item = &'g Verified<Grant>> + Clone,
        revoked: &Revocations,
    ) -> Refused {
        let reaching = |wanted| {
            grants
                .clone()
                .filter(move |grant| self.reach(grant, revoked) == wanted)
        };
        let nearest = grants.clone().map(|grant| self.reach(grant, revoked)).max();
        match (nearest, &self.user) {
            (Some(Reach::Revoked), _) => Refused::Revoked {
                // Whatever the order: the same one is named.
                grant: reaching(Reach::Revoked)
                    .map(Verified::digest)
                    .min()
                    .unwrap_or(self.package.facts.digest),
            },
            (Some(Reach::Expired), _) => Refused::Expired {
                // The one that held longest is the one to renew.
                until: reaching(Reach::Expired)
                    .map(|grant| grant.not_after)
                    .max()
                    .unwrap_or(self.now),
                now: self.now,
            },
            (Some(Reach::NotYet), _) => Refused::NotYetValid {
                from: reaching(Reach::NotYet)
                    .map(|grant| grant.not_before)
                    .min()
                    .unwrap_or(self.now),
                now: self.now,
            },
            (Some(Reach::OtherUser), Some(user)) => Refused::UserNotGranted {
                user: user.principal,
                package: self.package.facts.digest,
                code: self.code.measurement.clone(),
                granted: reaching(Reach::OtherUser)
                    .map(|grant| grant.user.clone())
                    .collect(),
            },
            _ => Refused::CodeNotGranted {
                code: Box::new(self.code.clone()),
                package: self.package.facts.digest,
                granted: reaching(Reach::OtherCode)
                    .map(|grant| grant.code.clone())
                    .collect::<Listing<_>>(),
            },
        }
    }
}
