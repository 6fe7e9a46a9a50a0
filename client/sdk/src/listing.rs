//! What a principal has at the key service, all pages of it.
//!
//! Always true: a listed grant's signature was verified, by whoever it names as its signer; a page that
//! does not go on where the one before ended is refused, so a list has an end.

use bield_envelope::{Digest, Principal, SigningKey, Verified};
use bield_grant::Grant;
use bield_protocol::service::{
    GrantId, GroupRow, Listing, ListingPage, Operation, PackageRow, PrincipalRow, Reply,
};

use crate::{KeyService, ServiceError};

/// A grant as the service has it.
#[derive(Debug, Clone)]
pub struct ListedGrant {
    /// Who made it, or who succeeded who made it.
    pub owner: Principal,
    /// The statement, its signature verified.
    pub grant: Verified<Grant>,
    /// Requests that are left, those reserved by running leases not counted; `None` when not metered.
    pub left: Option<u64>,
}

impl ListedGrant {
    /// What revokes it.
    #[must_use]
    pub fn id(&self) -> GrantId {
        GrantId(self.grant.id)
    }
}

impl KeyService<'_> {
    /// The packages of `owner`.
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn packages(&mut self, owner: &SigningKey) -> Result<Vec<PackageRow>, ServiceError> {
        let mut all: Vec<PackageRow> = Vec::new();
        loop {
            let after = all.last().map(|row| row.package);
            let ListingPage::Packages(rows, more) =
                self.list(owner, Listing::Packages { after })?
            else {
                return Err(ServiceError::OtherAnswer);
            };
            let last = append(&mut all, rows, |row| Some(row.package))?;
            if last || !more {
                return Ok(all);
            }
        }
    }

    /// The grants that `owner` made; of one package, or to one user, when named.
    ///
    /// # Errors
    /// The session broke, the service refuses, or a grant it shows does not verify.
    pub fn grants(
        &mut self,
        owner: &SigningKey,
        package: Option<Digest>,
        user: Option<Principal>,
    ) -> Result<Vec<ListedGrant>, ServiceError> {
        let mut all: Vec<ListedGrant> = Vec::new();
        loop {
            let listing = Listing::Grants {
                package,
                user,
                after: all.last().map(ListedGrant::id),
            };
            if self.grants_page(owner, listing, &mut all, |row| row.id())? {
                return Ok(all);
            }
        }
    }

    /// Grants of others that name `user`, itself or by a group.
    ///
    /// # Errors
    /// The session broke, the service refuses, or a grant it shows does not verify.
    pub fn grants_to_me(&mut self, user: &SigningKey) -> Result<Vec<ListedGrant>, ServiceError> {
        let mut all: Vec<ListedGrant> = Vec::new();
        loop {
            let after = all.last().map(|row| (row.owner, row.id()));
            let place = |row: &ListedGrant| (Some(row.owner), row.id());
            if self.grants_page(user, Listing::ToMe { after }, &mut all, place)? {
                return Ok(all);
            }
        }
    }

    /// The groups of `owner`.
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn groups(&mut self, owner: &SigningKey) -> Result<Vec<GroupRow>, ServiceError> {
        let mut all: Vec<GroupRow> = Vec::new();
        loop {
            let after = all.last().map(|row| row.name.clone());
            let ListingPage::Groups(rows, more) = self.list(owner, Listing::Groups { after })?
            else {
                return Err(ServiceError::OtherAnswer);
            };
            let last = append(&mut all, rows, |row| Some(row.name.clone()))?;
            if last || !more {
                return Ok(all);
            }
        }
    }

    /// What `principal` is here: whom it succeeded, and what it may do.
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn me(&mut self, principal: &SigningKey) -> Result<PrincipalRow, ServiceError> {
        match self.list(principal, Listing::Me)? {
            ListingPage::Me(row) if row.principal == principal.principal() => Ok(row),
            _ => Err(ServiceError::OtherAnswer),
        }
    }

    /// Adds a page of grants; `true` when it was the last.
    fn grants_page<P: Ord>(
        &mut self,
        by: &SigningKey,
        listing: Listing,
        all: &mut Vec<ListedGrant>,
        place: impl Fn(&ListedGrant) -> P,
    ) -> Result<bool, ServiceError> {
        let ListingPage::Grants(rows, more) = self.list(by, listing)? else {
            return Err(ServiceError::OtherAnswer);
        };
        let mut verified = Vec::with_capacity(rows.len());
        for row in rows {
            let grant = row.grant.verify_claimed();
            verified.push(ListedGrant {
                owner: row.owner,
                grant: grant.map_err(|_| ServiceError::OtherAnswer)?,
                left: row.left,
            });
        }
        let last = append(all, verified, |row| Some(place(row)))?;
        Ok(last || !more)
    }

    fn list(&mut self, by: &SigningKey, listing: Listing) -> Result<ListingPage, ServiceError> {
        match self.question(by, Operation::List(listing))? {
            Reply::Listing(page) => Ok(page),
            _ => Err(ServiceError::OtherAnswer),
        }
    }
}

/// Adds rows that come after those that are there, in order; `true` when there were none.
fn append<R, P: Ord>(
    all: &mut Vec<R>,
    rows: Vec<R>,
    place: impl Fn(&R) -> Option<P>,
) -> Result<bool, ServiceError> {
    let none = rows.is_empty();
    for row in rows {
        // `None` stands before every place: the first row always fits.
        if place(&row) <= all.last().and_then(&place) {
            return Err(ServiceError::OtherAnswer);
        }
        all.push(row);
        if all.len() > LISTED_MAX {
            return Err(ServiceError::OtherAnswer);
        }
    }
    Ok(none)
}

/// The most rows that are listed: the largest service that is tested has 10⁶ grants.
const LISTED_MAX: usize = 2_000_000;
