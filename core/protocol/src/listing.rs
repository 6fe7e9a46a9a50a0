//! What a principal has at the key service, in pages.

use bield_envelope::{Digest, Principal, Signed, Time, wire};
use bield_evidence::Measurement;
use bield_grant::Grant;
use minicbor::{Decode, Encode};

use crate::service::GrantId;

/// What to list, and after which row (the last one of the page before).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum Listing {
    /// The signer's packages.
    #[n(0)]
    Packages {
        /// Rows after this one.
        #[n(0)]
        after: Option<Digest>,
    },
    /// Grants the signer made; of one package, or to one user, when named.
    #[n(1)]
    Grants {
        /// Only those that cover this package.
        #[n(0)]
        package: Option<Digest>,
        /// Only those that name this user.
        #[n(1)]
        user: Option<Principal>,
        /// Rows after this one.
        #[n(2)]
        after: Option<GrantId>,
    },
    /// The signer's groups.
    #[n(2)]
    Groups {
        /// Rows after this one.
        #[n(0)]
        after: Option<String>,
    },
    /// Grants of others that name the signer, itself or by a group.
    #[n(3)]
    ToMe {
        /// Rows after this one: owner and id.
        #[n(0)]
        after: Option<(Principal, GrantId)>,
    },
    /// The signer itself: what it succeeded and what it may do here.
    #[n(4)]
    Me,
}

/// A page; `more` when there are further rows.
#[derive(Debug, Clone, Encode, Decode)]
#[non_exhaustive]
pub enum ListingPage {
    /// Packages by digest.
    #[n(0)]
    Packages(
        #[cbor(n(0), decode_with = "wire::at_most::<ROWS_MAX, _, _>")] Vec<PackageRow>,
        #[n(1)] bool,
    ),
    /// Grants by id, or by owner and id.
    #[n(1)]
    Grants(
        #[cbor(n(0), decode_with = "wire::at_most::<ROWS_MAX, _, _>")] Vec<GrantRow>,
        #[n(1)] bool,
    ),
    /// Groups by name.
    #[n(2)]
    Groups(
        #[cbor(n(0), decode_with = "wire::at_most::<ROWS_MAX, _, _>")] Vec<GroupRow>,
        #[n(1)] bool,
    ),
    /// The signer.
    #[n(3)]
    Me(#[n(0)] PrincipalRow),
}

/// A package.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PackageRow {
    /// Its digest.
    #[n(0)]
    pub package: Digest,
    /// Its name.
    #[n(1)]
    pub name: String,
    /// Its version.
    #[n(2)]
    pub version: String,
    /// Registered when.
    #[n(3)]
    pub at: Time,
    /// Generation of its audience keys.
    #[n(4)]
    pub generation: u32,
    /// Grants that cover it, ended ones included.
    #[n(5)]
    pub grants: u64,
    /// Leases that run now.
    #[n(6)]
    pub leases: u64,
    /// Code that leased it lately.
    #[cbor(n(7), decode_with = "wire::at_most::<64, _, _>")]
    pub codes: Vec<Measurement>,
}

/// A grant.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct GrantRow {
    /// Who made it.
    #[n(0)]
    pub owner: Principal,
    /// The statement.
    #[n(1)]
    pub grant: Signed<Grant>,
    /// Requests that are left, those reserved by running leases not counted; `None` when it is not metered.
    #[n(2)]
    pub left: Option<u64>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GroupRow {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Its revision.
    #[n(1)]
    pub revision: u64,
    /// Its members.
    #[cbor(n(2), decode_with = "wire::at_most::<4096, _, _>")]
    pub members: Vec<Principal>,
}

/// A principal.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PrincipalRow {
    /// The signer.
    #[n(0)]
    pub principal: Principal,
    /// Whom it succeeds, oldest first.
    #[cbor(n(1), decode_with = "wire::at_most::<16, _, _>")]
    pub succeeds: Vec<Principal>,
    /// Whether it is registered.
    #[n(2)]
    pub registered: bool,
    /// Whether it is an administrator of this service.
    #[n(3)]
    pub administrator: bool,
    /// Whether a recovery share is here for it.
    #[n(4)]
    pub holder: bool,
}

/// The most rows of a page; of groups, as many as fit 1 MiB.
pub const ROWS_MAX: usize = 500;
