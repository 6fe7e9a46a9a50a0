//! What a program says of the process it runs in, under its evidence: what it gave up, and what its kernel refused.
//!
//! ```text
//! enclave/platform ──▶ HardeningStatement ──▶ claims buffer, H (spec/03) ──▶ Claims ──▶ check "hardening"
//!                                                                              └──▶ worker certificate (spec/08)
//! ```
//!
//! Always true: the statement is the measured program's own word, so a host that changes a status text changes nothing
//! here; numbers that this version does not know are kept, shown as unknown, and meet no demand; a program that states
//! nothing has nothing in force.
//!
//! It is no hardware protection. In a TDX or SNP guest the kernel that took the request is measured with the guest. Under
//! SGX and in a software TEE it is the host's kernel, which can say yes and do nothing: there the statement tells what
//! an honest host's machine allows.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use minicbor::encode::Write;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use serde::{Deserialize, Serialize};

use crate::measurement::TeeKind;
use crate::policy::Profile;

/// One thing a process can give up. The number is that of spec/02 §8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
#[non_exhaustive]
pub enum Protection {
    /// A crash writes no memory to disk (`RLIMIT_CORE` = 0).
    NoCoreFile = 0,
    /// From then on, other processes of the user can neither trace this one nor read its memory
    /// (`PR_SET_DUMPABLE` = 0), and none was tracing it at that moment.
    NotDumpable = 1,
    /// Programs started from here gain nothing from set-user-ID (`PR_SET_NO_NEW_PRIVS`).
    NoNewPrivileges = 2,
    /// Descriptors that came with the process, beyond its standard three, are closed.
    NoInheritedFiles = 3,
    /// No memory of the process reaches swap (`mlockall`).
    LockedMemory = 4,
    /// No model reaches swap: regions are locked, whatever their size.
    LockedRegions = 5,
    /// The kernel ends the process at the first system call that is not on its list (seccomp).
    ListedSystemCalls = 6,
}

impl Protection {
    /// Every one that this version knows, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::NoCoreFile,
        Self::NotDumpable,
        Self::NoNewPrivileges,
        Self::NoInheritedFiles,
        Self::LockedMemory,
        Self::LockedRegions,
        Self::ListedSystemCalls,
    ];

    /// What a key service of ours can state: it locks all its memory.
    pub const KEY_SERVICE: [Self; 6] = [
        Self::NoCoreFile,
        Self::NotDumpable,
        Self::NoNewPrivileges,
        Self::NoInheritedFiles,
        Self::LockedMemory,
        Self::ListedSystemCalls,
    ];

    /// What a runtime of ours can state: it locks what holds models, which may be larger than what a machine lets one lock.
    pub const RUNTIME: [Self; 6] = [
        Self::NoCoreFile,
        Self::NotDumpable,
        Self::NoNewPrivileges,
        Self::NoInheritedFiles,
        Self::LockedRegions,
        Self::ListedSystemCalls,
    ];

    /// Its number in a statement.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Its name in a policy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoCoreFile => "no-core-file",
            Self::NotDumpable => "not-dumpable",
            Self::NoNewPrivileges => "no-new-privileges",
            Self::NoInheritedFiles => "no-inherited-files",
            Self::LockedMemory => "locked-memory",
            Self::LockedRegions => "locked-regions",
            Self::ListedSystemCalls => "listed-system-calls",
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.number() == number)
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCoreFile => "no core file",
            Self::NotDumpable => "not dumpable",
            Self::NoNewPrivileges => "no new privileges",
            Self::NoInheritedFiles => "no inherited files",
            Self::LockedMemory => "memory locked",
            Self::LockedRegions => "models locked in memory",
            Self::ListedSystemCalls => "listed system calls only",
        })
    }
}

/// What a program asked its kernel for, and what became of it: numbers of protections to numbers of states.
///
/// [`Default`] states nothing: nothing is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HardeningStatement(BTreeMap<u8, u8>);

impl HardeningStatement {
    /// Bytes of the longest statement that decodes: a head, and numbers and states of two bytes each.
    pub const BYTES_MAX: usize = 1 + 4 * ENTRIES_MAX as usize;

    /// States what took hold and what the kernel refused. Of a protection in both, that it was refused.
    #[must_use]
    pub fn new(
        in_force: impl IntoIterator<Item = Protection>,
        refused: impl IntoIterator<Item = Protection>,
    ) -> Self {
        let yes = in_force
            .into_iter()
            .map(|item| (item.number(), STATE_IN_FORCE));
        let no = refused
            .into_iter()
            .map(|item| (item.number(), STATE_REFUSED));
        Self(yes.chain(no).collect())
    }

    /// Whether this protection is in force.
    #[must_use]
    pub fn has(&self, protection: Protection) -> bool {
        self.0.get(&protection.number()) == Some(&STATE_IN_FORCE)
    }

    /// The bytes of the statement, as they stand inside claims, certificates and H.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        bield_envelope::wire::encode(self)
    }
}

/// `in force: …; NOT in force: …`; what this version does not know is called unknown.
impl fmt::Display for HardeningStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing in force");
        }
        let mut groups: [(&str, Vec<String>); 3] = [
            ("in force", Vec::new()),
            ("NOT in force", Vec::new()),
            ("unknown", Vec::new()),
        ];
        for (number, state) in &self.0 {
            let (group, name) = match (Protection::from_number(*number), *state) {
                (Some(known), STATE_IN_FORCE) => (0, known.to_string()),
                (Some(known), STATE_REFUSED) => (1, known.to_string()),
                (Some(known), state) => (2, format!("state {state} of: {known}")),
                (None, state) => (2, format!("protection {number} in state {state}")),
            };
            groups[group].1.push(name);
        }
        let shown = groups.iter().filter(|(_, names)| !names.is_empty());
        for (index, (title, names)) in shown.enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{title}: {}", names.join(", "))?;
        }
        Ok(())
    }
}

impl<C> Encode<C> for HardeningStatement {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.map(self.0.len() as u64)?;
        for (number, state) in &self.0 {
            e.u8(*number)?.u8(*state)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for HardeningStatement {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let refused = decode::Error::message;
        let entries = d.map()?.ok_or(refused("a map of indefinite length"))?;
        if entries > ENTRIES_MAX {
            return Err(refused("more protections than there can be"));
        }
        let mut stated = BTreeMap::new();
        for _ in 0..entries {
            let (number, state) = (d.u8()?, d.u8()?);
            // One encoding for each statement: strictly ascending, hence none twice.
            if stated
                .last_key_value()
                .is_some_and(|(last, _)| *last >= number)
            {
                return Err(refused("protections out of order"));
            }
            stated.insert(number, state);
        }
        Ok(Self(stated))
    }
}

/// Which protections have to be in force.
///
/// By itself, `strict` and `cloud` ask TDX and SNP guests for [`Self::GUEST`], because there the kernel is measured with
/// the program and every program of ours can get them. They ask SGX for nothing, where the kernel is the host's and its
/// yes is worth nothing; and nobody for locked memory, which a deployment's limits decide and a measured guest without swap
/// does not need. `dev` asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HardeningDemand {
    guests: BTreeSet<Protection>,
    enclaves: BTreeSet<Protection>,
}

impl HardeningDemand {
    /// What a guest whose kernel is measured is asked for.
    pub const GUEST: [Protection; 5] = [
        Protection::NoCoreFile,
        Protection::NotDumpable,
        Protection::NoNewPrivileges,
        Protection::NoInheritedFiles,
        Protection::ListedSystemCalls,
    ];

    /// What a profile asks for.
    #[must_use]
    pub fn of(profile: Profile) -> Self {
        let guests = match profile {
            Profile::Strict | Profile::Cloud => BTreeSet::from(Self::GUEST),
            Profile::Dev => BTreeSet::new(),
        };
        Self {
            guests,
            enclaves: BTreeSet::new(),
        }
    }

    /// Exactly these, of every kind of TEE.
    #[must_use]
    pub fn exactly(protections: impl IntoIterator<Item = Protection>) -> Self {
        let guests: BTreeSet<_> = protections.into_iter().collect();
        Self {
            enclaves: guests.clone(),
            guests,
        }
    }

    /// What is asked of this kind of TEE.
    #[must_use]
    pub const fn of_kind(&self, kind: TeeKind) -> &BTreeSet<Protection> {
        match kind {
            TeeKind::Sgx => &self.enclaves,
            TeeKind::Tdx | TeeKind::Snp => &self.guests,
        }
    }

    /// Those of what is asked of this kind that are not stated to be in force.
    #[must_use]
    pub fn unmet(&self, kind: TeeKind, stated: Option<&HardeningStatement>) -> Vec<Protection> {
        let asked = self.of_kind(kind).iter().copied();
        asked
            .filter(|protection| !stated.is_some_and(|stated| stated.has(*protection)))
            .collect()
    }
}

/// The kernel refused it.
const STATE_REFUSED: u8 = 0;
/// It is in force.
const STATE_IN_FORCE: u8 = 1;
/// Twice what there is, and few enough bytes for a certificate.
const ENTRIES_MAX: u64 = 16;
const _: () = assert!(Protection::ALL.len() as u64 <= ENTRIES_MAX);
// The head of a longer map has two bytes.
const _: () = assert!(ENTRIES_MAX <= 23);

#[cfg(test)]
mod tests {
    use bield_envelope::wire;

    use super::*;

    fn decode(bytes: &[u8]) -> Option<HardeningStatement> {
        wire::decode(bytes, 64).ok()
    }

    fn some() -> HardeningStatement {
        HardeningStatement::new(
            [Protection::NoCoreFile, Protection::ListedSystemCalls],
            [Protection::LockedMemory],
        )
    }

    #[test]
    fn a_statement_is_read_as_written_and_says_so() {
        let bytes = some().encode();
        assert_eq!(hex::encode(&bytes), "a3000104000601");
        assert_eq!(decode(&bytes), Some(some()));
        assert_eq!(
            some().to_string(),
            "in force: no core file, listed system calls only; NOT in force: memory locked"
        );
        assert_eq!(
            HardeningStatement::default().to_string(),
            "nothing in force"
        );
    }

    #[test]
    fn a_statement_has_one_encoding() {
        for bytes in [
            "a2060100 01",  // out of order
            "a200010001",   // one twice
            "a21800010601", // a number in two bytes
            "bf0001ff",     // of indefinite length
            "a100",         // cut short
            "a10001 00",    // something after it
            "81 0001",      // no map
            "a1001901 00",  // a state of two bytes
        ] {
            let bytes = hex::decode(bytes.replace(' ', "")).unwrap();
            assert_eq!(decode(&bytes), None, "{bytes:?}");
        }
        let many: Vec<u8> = [0xb1]
            .into_iter()
            .chain((0..17).flat_map(|number| [number, 1]))
            .collect();
        assert_eq!(decode(&many), None);
    }

    #[test]
    fn a_protection_is_called_the_same_in_a_policy_and_in_what_is_said_of_it() {
        for protection in Protection::ALL {
            let written = serde_json::to_value(protection).unwrap();
            assert_eq!(written, protection.name());
        }
    }

    #[test]
    fn what_is_not_known_is_shown_and_meets_no_demand() {
        let bytes = hex::decode("a3000206011505").unwrap();
        let stated = decode(&bytes).unwrap();
        assert_eq!(stated.encode(), bytes);
        assert_eq!(
            stated.to_string(),
            "in force: listed system calls only; unknown: state 2 of: no core file, protection 21 in state 5"
        );
        assert!(stated.has(Protection::ListedSystemCalls));
        assert!(!stated.has(Protection::NoCoreFile));
        let demand =
            HardeningDemand::exactly([Protection::NoCoreFile, Protection::ListedSystemCalls]);
        let unmet = demand.unmet(TeeKind::Sgx, Some(&stated));
        assert_eq!(unmet, [Protection::NoCoreFile]);
    }

    #[test]
    fn a_flipped_byte_never_adds_a_protection_unnoticed() {
        let bytes = some().encode();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                // Either no statement, or another one: what covers these bytes then covers others.
                assert_ne!(decode(&flipped), Some(some()), "{at}.{bit}");
            }
        }
    }

    #[test]
    fn guests_are_asked_for_what_every_program_can_get_and_enclaves_for_nothing() {
        for profile in [Profile::Strict, Profile::Cloud] {
            let demand = HardeningDemand::of(profile);
            let complete = HardeningStatement::new(HardeningDemand::GUEST, []);
            for kind in [TeeKind::Tdx, TeeKind::Snp] {
                assert_eq!(demand.unmet(kind, None), HardeningDemand::GUEST);
                assert!(demand.unmet(kind, Some(&complete)).is_empty());
            }
            assert!(demand.unmet(TeeKind::Sgx, None).is_empty());
        }
        let dev = HardeningDemand::of(Profile::Dev);
        assert!(dev.unmet(TeeKind::Tdx, None).is_empty());
    }
}
