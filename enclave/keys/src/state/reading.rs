//! Answers that change nothing: key configurations, lists, audits, counts.
//!
//! They show what was applied, durable or not: the program says them when what they show is durable.

use core::ops::Bound;
use core::time::Duration;
use std::collections::BTreeSet;

use bield_envelope::{Digest, Principal, Time};
use bield_grant::{CodeIdentity, CodeSelector, UserSelector, audience, code_is_granted};
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::{
    GrantId, GrantRow, GroupRow, KeyConfiguration, Listing, ListingPage, PackageReference,
    PackageRow, ROWS_MAX,
};

use super::audit::AuditPlan;
use super::grants::{Handle, Stage};
use super::index::Class;
use super::limits::KEY_CONFIGURATION_SECS;
use super::packages::Package;
use super::people::Person;
use super::{State, kept, refuse};

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Registered principals.
    pub principals: u64,
    /// Registered packages.
    pub packages: u64,
    /// Grants, ended and revoked ones included while they are remembered.
    pub grants: u64,
}

impl State {
    /// How much there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            principals: self.people.by_key.len() as u64,
            packages: self.packages.len() as u64,
            grants: self.grants.len() as u64,
        }
    }

    /// The key to seal requests to: for the newest code that the user's choice allows, the owner
    /// grants, and (for a choice of a signer) that leased the package lately.
    ///
    /// # Errors
    /// An unknown package, or no such code; the sentence says which was missing.
    pub fn key_configuration(
        &self,
        reference: &PackageReference,
        choice: &CodeSelector,
        now: Time,
    ) -> Result<KeyConfiguration, Refusal> {
        let digest = self.resolve(reference)?;
        let package = self.package(&digest)?;
        let mut codes: Vec<(CodeIdentity, u64)> = package.codes.values().cloned().collect();
        if let CodeSelector::Measurement(measurement) = choice
            && !package.codes.contains_key(measurement)
        {
            codes.push((CodeIdentity::measured(measurement.clone()), 0));
        }
        codes.retain(|(code, _)| choice.admits(code));
        if codes.is_empty() {
            let message = format!(
                "no code of {choice} has leased package {digest} lately; a runtime with such code must \
                 run first, or name a measurement"
            );
            return Err(Refusal::new(
                "code-not-running",
                message,
                Retry::AfterChange,
            ));
        }
        codes.sort_by_key(|(code, lease)| (code.svn, *lease));
        let newest = codes.into_iter().rev().map(|(code, _)| code);
        let mut granted = newest.filter(|code| self.is_granted(digest, package, code, now));
        let code = granted.next().ok_or_else(|| {
            let message = format!(
                "package {digest} is not granted to any code of {choice} now; its owner must grant it"
            );
            Refusal::new("code-not-granted", message, Retry::AfterChange)
        })?;
        let generation = package.generation;
        let key = self.audience_key(digest, package, &code.measurement, generation);
        Ok(KeyConfiguration {
            audience: audience(digest, &code.measurement),
            package: digest,
            key: key.public().clone(),
            not_after: now.plus(Duration::from_secs(KEY_CONFIGURATION_SECS)),
            // Who asks by name compares this: the owner as named, by the present key or a succeeded one.
            owner: match reference {
                PackageReference::Named(owner, ..) => *owner,
                _ => package.owner,
            },
            name: package.name.to_string(),
            version: package.version.to_string(),
            inputs: package.inputs.clone(),
            outputs: package.outputs.clone(),
            service: self.service(),
            generation,
            code,
        })
    }

    /// Whether a runtime with this code would be given the package's keys now.
    fn is_granted(
        &self,
        digest: Digest,
        package: &Package,
        code: &CodeIdentity,
        now: Time,
    ) -> bool {
        let Ok(targets) = self.targets(&digest) else {
            return false;
        };
        let facts = package.facts(digest);
        let class = self.grants.index.measured(&code.measurement);
        let decides = |handle: Handle| {
            let kept = self.grants.get(handle)?;
            let says = kept.says();
            let may = says.code.admits(code) && says.package.names(&facts);
            if !may || now < says.not_before || says.not_after <= now {
                return None;
            }
            let grant = self.verifying.verified(&kept.signed)?;
            let (successions, revoked) =
                (&self.people.successions, bield_grant::Revocations::new());
            code_is_granted(facts, code, [&*grant], successions, &revoked, now).ok()
        };
        targets.iter().any(|target| {
            let classes = [class, Class::SIGNERS].into_iter();
            let mut live = classes.flat_map(|class| self.grants.find(*target, class, Stage::Live));
            live.any(|handle| decides(handle).is_some())
        })
    }

    /// What a principal has here, or what others granted it.
    ///
    /// # Errors
    /// Not registered, replaced by another key, or a question of another version.
    pub fn list(
        &self,
        by: Principal,
        listing: &Listing,
        now: Time,
    ) -> Result<ListingPage, Refusal> {
        let person = self.ordering(by)?;
        match listing {
            Listing::Packages { after } => Ok(self.list_packages(person, *after, now)),
            Listing::Grants {
                package,
                user,
                after,
            } => self.list_grants(by, person, *package, *user, *after),
            Listing::Groups { after } => Ok(list_groups(person, after.as_deref())),
            Listing::ToMe { after } => Ok(self.list_to(by, *after)),
            Listing::Me => Ok(ListingPage::Me(self.principal_row(by))),
            _ => Err(refuse::unsupported("a listing")),
        }
    }

    /// What to read of the log for a principal's audit from entry `from` on.
    ///
    /// # Errors
    /// Not registered, or replaced by another key.
    pub fn audit(&self, by: Principal, from: u64) -> Result<AuditPlan, Refusal> {
        Ok(self.ordering(by)?.audit.plan(from))
    }

    /// The packages of a principal, to tell it which leases were refused.
    pub fn packages_of(&self, by: Principal) -> impl Iterator<Item = Digest> {
        let person = self.people.by_key.get(&by);
        person
            .into_iter()
            .flat_map(|person| person.packages.iter().copied())
    }

    /// Whether this package is registered.
    #[must_use]
    pub fn has_package(&self, package: &Digest) -> bool {
        self.packages.contains_key(package)
    }

    /// Who owns a package now.
    #[must_use]
    pub fn owner_of(&self, package: &Digest) -> Option<Principal> {
        let package = self.packages.get(package)?;
        Some(self.people.current(package.owner))
    }

    /// The package of a lease that runs, or may still return something.
    #[must_use]
    pub fn leased_package(&self, lease: u64) -> Option<Digest> {
        self.leases.by_id.get(&lease).map(|lease| lease.package)
    }

    /// Whether somebody is registered here under this key, which no other replaced.
    #[must_use]
    pub fn is_registered(&self, by: Principal) -> bool {
        self.ordering(by).is_ok()
    }

    fn list_packages(&self, person: &Person, after: Option<Digest>, now: Time) -> ListingPage {
        let rest = person
            .packages
            .iter()
            .filter(|digest| after.is_none_or(|after| **digest > after));
        let rows = rest.filter_map(|digest| {
            let package = self.packages.get(digest)?;
            let facts = package.facts(*digest);
            let exact = self.grants.total(self.grants.index.package(digest));
            let named = self
                .grants
                .total(self.grants.index.named(person.number, &package.name));
            let ranges = named.into_iter().flat_map(|named| &named.ranges);
            let covering = ranges.filter(|(range, _)| range.names(&facts));
            let named: u64 = covering.map(|(_, count)| u64::from(*count)).sum();
            let exact = exact.map_or(0, |exact| u64::from(exact.grants));
            Some(PackageRow {
                package: *digest,
                name: package.name.to_string(),
                version: package.version.to_string(),
                at: package.at,
                generation: package.generation,
                grants: exact + named,
                leases: self.leases.running(package.serial, now) as u64,
                codes: package.codes.keys().cloned().collect(),
            })
        });
        let (rows, more) = page(rows, ROWS_MAX);
        ListingPage::Packages(rows, more)
    }

    fn list_grants(
        &self,
        by: Principal,
        person: &Person,
        package: Option<Digest>,
        user: Option<Principal>,
        after: Option<GrantId>,
    ) -> Result<ListingPage, Refusal> {
        let facts = match &package {
            Some(digest) => Some(self.own_package(by, digest)?.facts(*digest)),
            None => None,
        };
        let first = after.map_or(Bound::Unbounded, |after| {
            Bound::Excluded((after, Handle::MAX))
        });
        let own = person.grants.range((first, Bound::Unbounded)).copied();
        let found: Box<dyn Iterator<Item = (GrantId, Handle)>> = match (&facts, user) {
            (None, None) => Box::new(own),
            (None, Some(user)) => {
                Box::new(self.sorted(person, self.grants.naming(self.grants.index.user(&user))))
            }
            (Some(facts), _) => {
                let targets = self.targets(&facts.digest)?;
                let totals = targets
                    .iter()
                    .filter_map(|target| self.grants.total(*target));
                let covering: usize = totals.map(|total| total.grants as usize).sum();
                // Sorting many anew for each page would cost more than passing the others by.
                if covering > person.grants.len() / PASSED_BY {
                    Box::new(own)
                } else {
                    let targets = targets.into_iter();
                    let all = targets.flat_map(|target| self.grants.targeted(target));
                    Box::new(self.sorted(person, all))
                }
            }
        };
        let fits = |(id, handle): &(GrantId, Handle)| {
            if after.is_some_and(|after| *id <= after) {
                return false;
            }
            if user.is_none() && facts.is_none() {
                return true;
            }
            let says = self.grants.get(*handle).map(|kept| kept.says());
            says.is_some_and(|says| {
                user.is_none_or(|user| says.user == UserSelector::Principal(user))
                    && facts.is_none_or(|facts| says.package.names(&facts))
            })
        };
        Ok(self.grant_page(found.filter(fits)))
    }

    /// A person's grants among these, by id.
    fn sorted(
        &self,
        person: &Person,
        handles: impl Iterator<Item = Handle>,
    ) -> impl Iterator<Item = (GrantId, Handle)> {
        let named = |handle| {
            let kept = self
                .grants
                .get(handle)
                .filter(|kept| kept.owner == person.number)?;
            Some((kept.id(), handle))
        };
        let mut found: Vec<_> = handles.filter_map(named).collect();
        found.sort_unstable();
        found.into_iter()
    }

    fn grant_page(&self, found: impl Iterator<Item = (GrantId, Handle)>) -> ListingPage {
        let rows = found.filter_map(|(id, handle)| Some((id, self.grant_row(handle)?)));
        let (rows, more) = whole(rows);
        ListingPage::Grants(rows, more)
    }

    fn grant_row(&self, handle: Handle) -> Option<GrantRow> {
        let kept = self
            .grants
            .get(handle)
            .filter(|kept| kept.stage != Stage::Revoked)?;
        let metered = kept.says().requests.is_some();
        Some(GrantRow {
            owner: *self.people.key_of(kept.owner)?,
            grant: bield_envelope::Signed::decode(&kept.signed).ok()?,
            left: metered
                .then(|| self.grants.left(&kept::digest(&kept.signed)))
                .flatten(),
        })
    }

    /// Grants that name a principal: itself, those it succeeded, or a group that one of them belongs to.
    fn list_to(&self, by: Principal, after: Option<(Principal, GrantId)>) -> ListingPage {
        let line = self.people.line(by);
        let users = line.iter().map(|user| self.grants.index.user(user));
        let names: BTreeSet<u64> = users
            .flat_map(|user| core::iter::once(user).chain(self.groups_with(user)))
            .collect();
        let mut found: Vec<((Principal, GrantId), Handle)> = names
            .into_iter()
            .flat_map(|name| self.grants.naming(name))
            .filter_map(|handle| {
                let kept = self.grants.get(handle)?;
                let owner = *self.people.key_of(kept.owner)?;
                Some(((owner, kept.id()), handle))
            })
            .filter(|(place, _)| after.is_none_or(|after| *place > after))
            .collect();
        found.sort_unstable();
        let rows = found.into_iter();
        let rows = rows.filter_map(|(place, handle)| Some((place, self.grant_row(handle)?)));
        let (rows, more) = whole(rows);
        ListingPage::Grants(rows, more)
    }
}

fn list_groups(person: &Person, after: Option<&str>) -> ListingPage {
    let rest = person
        .groups
        .iter()
        .filter(|(name, _)| after.is_none_or(|after| name.as_str() > after));
    let mut bytes = 0;
    let mut rows: Vec<GroupRow> = Vec::new();
    for (_, kept) in rest {
        let Some(row) = kept.row() else { continue };
        bytes += kept.signed.as_bytes().len();
        if rows.len() == ROWS_MAX || (bytes > GROUP_PAGE_BYTES_MAX && !rows.is_empty()) {
            return ListingPage::Groups(rows, true);
        }
        rows.push(row);
    }
    ListingPage::Groups(rows, false)
}

fn page<T>(mut rows: impl Iterator<Item = T>, max: usize) -> (Vec<T>, bool) {
    let page: Vec<T> = rows.by_ref().take(max).collect();
    (page, rows.next().is_some())
}

/// A page that ends between two places, never within one.
fn whole<P: Copy + PartialEq, T>(rows: impl Iterator<Item = (P, T)>) -> (Vec<T>, bool) {
    let (mut rows, more) = page(rows, ROWS_MAX + 1);
    if rows.len() <= ROWS_MAX {
        return (rows.into_iter().map(|(_, row)| row).collect(), more);
    }
    let beyond = rows.last().map(|(place, _)| *place);
    while rows.last().map(|(place, _)| *place) == beyond {
        rows.pop();
    }
    (rows.into_iter().map(|(_, row)| row).collect(), true)
}

/// How many grants are passed by for one that is wanted, before sorting the wanted ones is cheaper.
const PASSED_BY: usize = 8;
/// The most bytes of groups in a page, unless one alone is longer.
const GROUP_PAGE_BYTES_MAX: usize = 1 << 20;

const _: () = assert!(super::limits::RENEWALS_MAX < ROWS_MAX);
