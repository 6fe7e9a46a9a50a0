//! Owner-signed grants, and admission as a value.
//!
//! ```text
//!   owner ── signs ──▶ Grant { packages, users, code, isolation, from … until, how many requests }
//!         ── signs ──▶ Group { name, revision, members }       Successions: who stands for whom
//!                        │
//!          ┌─────────────┴───────────────────────────────┐
//!   key service                                       runtime
//!   Appraised evidence ─┐                             Opened<Request> ──────┐
//!   PackageFacts ───────┼─ admit_lease ─▶ Admitted    Lease, keys, meter ───┼─ admit ─▶ Admitted
//!   grants, lines, now ─┘   or Refused    <Lease>     grants, groups, lines ┘  or Refused <GrantedRequest>
//! ```
//!
//! In: values that earlier crates have already proven (a verified signature, appraised evidence,
//! an opened request) and the time. Out: [`Admitted`], which nothing but the two functions here
//! can make, or [`Refused`], which says why, whose move it is and whether to try again.
//!
//! Always true: no key is leased and no request is served without a grant that the package's
//! owner, or its line of succession, signed and whose selectors admit this package, this code and
//! (for a request) this user, that has begun, has not ended and was not revoked. Of a metered grant
//! no more is served than was set aside. A request is admitted at most once by one [`ReplayGuard`].
//! A clock that is set back reopens nothing. Another grant never loosens a user's isolation. Unknown
//! selectors do not decode.
//!
//! Not here: who owns a package and how much is left of a quota (the key service keeps both), which
//! of a million grants are worth comparing (it indexes them by what [`PackageSelector`] names),
//! verification of evidence (`bield-evidence`), opening of requests (`bield-envelope`), the transport
//! of leases (`bield-protocol`). Written for second implementations in `spec/04-grant.md`.
//!
//! Cost per request: no signature check, no copy of the body, one BLAKE3 of under 200 bytes (the
//! audience), one parse of the package's version, one pass over the lease's grants (seven
//! comparisons each at most, and a search among the group's members), at most 32 steps along lines
//! of succession, and three searches in trees of at most [`REPLAY_ENTRIES_MAX`] entries.

mod admission;
#[cfg(test)]
mod cast;
mod code;
mod grant;
mod group;
mod groups;
mod lease;
mod meter;
mod package;
mod refused;
mod replay;
mod request;
mod revocations;
mod succession;
mod successions;
mod user;
mod version;

pub use admission::Admitted;
pub use code::{
    CodeIdentity, CodeSelector, CodeSigner, InvalidCodeSelector, InvalidSigner, SignerId,
};
pub use grant::{GRANT_BYTES_MAX, Grant, Isolation, UnknownIsolation, audience};
pub use group::{
    GROUP_BYTES_MAX, GROUP_MEMBERS_MAX, Group, GroupName, GroupTooLarge, InvalidGroupName,
};
pub use groups::Groups;
pub use lease::{ENDED_TOLD, LEASE_TIME_MAX, Lease, LeaseTerms, admit_lease, code_is_granted};
pub use meter::{ALLOTMENT_MAX, Allotment, Meter};
pub use package::{InvalidPackageSelector, PackageFacts, PackageSelector};
pub use refused::{LISTED_MAX, Listing, Outside, Refused, Retry};
pub use replay::{REPLAY_ENTRIES_MAX, ReplayGuard};
pub use request::{
    CLOCK_SKEW_MAX, GrantedRequest, GrantedUse, Leased, REQUEST_AGE_MAX, admit, admit_use,
};
pub use revocations::Revocations;
pub use succession::{
    SUCCESSION_BYTES_MAX, Succeeded, Succession, SuccessionError, VerifiedSuccession,
};
pub use successions::{SUCCESSIONS_MAX, SuccessionRefused, Successions};
pub use user::{InvalidUserSelector, UserSelector};
pub use version::{InvalidRange, VERSION_RANGE_BYTES_MAX, VersionRange};
