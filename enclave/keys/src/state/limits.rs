//! How much the state holds, for whom: every table has its limit and its reason here.

/// The most principals: 50 MB of memory at 500 bytes each with an audit.
pub const PRINCIPALS_MAX: usize = 100_000;
/// The most successions: they are kept for ever, and each is verified again at every start, 100 µs.
pub const SUCCESSIONS_KEPT_MAX: usize = 20_000;
/// The most packages; each may bring 32 KiB of tensor specs.
pub const PACKAGES_MAX: usize = 10_000;
/// The most packages of one principal.
pub const PACKAGES_EACH_MAX: usize = 2_000;
/// The most grants of all packages together, those included that ended or were revoked and are still
/// remembered: under 600 bytes each.
pub const GRANTS_MAX: usize = 2_000_000;
/// The most grants of one principal, remembered ones included: ten such fill half the table.
pub const GRANTS_EACH_MAX: usize = 200_000;
/// The most statements under one id of one signer: a renewal a month for five years.
pub const RENEWALS_MAX: usize = 64;
/// The most measurements that live grants for one package, or for one name, may name: what a grant for all
/// code of a signer is compared with.
pub const KINDS_MAX: usize = 64;
/// The most ranges of versions that grants for one name may have: a listing compares each with each version.
pub const RANGES_MAX: usize = 1024;
/// The most groups of one principal.
pub const GROUPS_EACH_MAX: usize = 1_000;
/// The most groups in all.
pub const GROUPS_MAX: usize = 20_000;
/// The most members of all groups together: 34 bytes each.
pub const MEMBERS_MAX: usize = 1_000_000;
/// The most members of all groups of one principal.
pub const MEMBERS_EACH_MAX: usize = 200_000;
/// The most leases that run at a time: 800 new ones a second of the longest.
pub const LEASES_MAX: usize = 500_000;
/// The most leases of one owner's packages: every server of a large fleet, and as many that just ended.
pub const LEASES_EACH_MAX: usize = 20_000;
/// The most parts of quotas of one owner that leases hold: 8 MB of memory at 40 bytes each. One lease may go
/// beyond it by what it brings itself.
pub const ALLOTMENTS_EACH_MAX: usize = 200_000;
/// The most kinds of code remembered as having leased a package lately.
pub const CODES_EACH_MAX: usize = 64;
/// The most other codes of the key service that may join.
pub const ADMITTED_MAX: usize = 64;
/// The most codes of the key service that are remembered as admitted or withdrawn: one a month for a long time.
pub const KNOWN_CODES_MAX: usize = 1024;
/// The most replacements of the identity key that are told: one a year for a long time.
pub const IDENTITIES_MAX: usize = 64;
/// The most functions' states of one principal, kept until it unregisters: 3 MB with the heads of two writers each.
pub const STATES_EACH_MAX: usize = 10_000;
/// The most functions' states in all: 30 MB likewise, 500 MB with as many heads as are kept of one.
pub const STATES_MAX: usize = 100_000;
/// How long a published audience key may be sealed to before a client must ask again: one hour. A key
/// that was rotated opens requests for as long.
pub const KEY_CONFIGURATION_SECS: u64 = 3600;
/// How long after its end a lease may still return what it did not use, in seconds.
pub const RETURN_SECS: u64 = 3600;
/// The most ended grants and leases that one entry clears away: more than one entry can bring.
pub(super) const CLEARED_AT_ONCE: usize = 64;
