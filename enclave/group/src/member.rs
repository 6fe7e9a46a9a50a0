//! Members: one process each, for as long as it lives.

use core::fmt;

/// A member's place, from 0; what is restarted in a place is another member in the same place.
pub type Slot = u8;

/// Most members of a group.
pub const MEMBERS_MAX: usize = 5;

/// One process in one place: 61 drawn bits and the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(u64);

/// A number that names no member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0:#x} names no member of a group: its place is not one of 0 to 4, or nothing was drawn")]
pub struct MemberIdError(pub u64);

impl MemberId {
    /// Names the process in `slot` that has drawn `drawn` at its start; 61 bits of it are used.
    ///
    /// # Errors
    /// The slot is beyond [`MEMBERS_MAX`], or the drawn bits are all zero: draw again.
    pub const fn new(slot: Slot, drawn: u64) -> Result<Self, MemberIdError> {
        Self::from_u64((drawn & !SLOT_BITS) | slot as u64)
    }

    /// Reads what [`as_u64`](Self::as_u64) wrote.
    ///
    /// # Errors
    /// The number names no member.
    pub const fn from_u64(number: u64) -> Result<Self, MemberIdError> {
        if (number & SLOT_BITS) as usize >= MEMBERS_MAX || number & !SLOT_BITS == 0 {
            return Err(MemberIdError(number));
        }
        Ok(Self(number))
    }

    /// The number on the wire; never 0.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Its place.
    #[must_use]
    pub const fn slot(self) -> Slot {
        (self.0 & SLOT_BITS) as Slot
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:x}", self.slot(), self.0 >> 3)
    }
}

/// Who belongs to a group, at one place of its log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configuration {
    /// They decide.
    pub voters: Vec<MemberId>,
    /// While one member takes another's place: the voters before, a majority of whom is needed too.
    pub outgoing: Vec<MemberId>,
    /// They are told, and do not decide yet.
    pub learners: Vec<MemberId>,
}

impl Configuration {
    /// Whether `member` decides.
    #[must_use]
    pub fn votes(&self, member: MemberId) -> bool {
        self.voters.contains(&member) || self.outgoing.contains(&member)
    }

    /// Whether `member` has any part.
    #[must_use]
    pub fn contains(&self, member: MemberId) -> bool {
        self.votes(member) || self.learners.contains(&member)
    }
}

const SLOT_BITS: u64 = 0b111;
const _: () = assert!(MEMBERS_MAX <= SLOT_BITS as usize + 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_its_place_and_what_it_drew() {
        let member = MemberId::new(2, 0xabcd_ef01_2345_6789).unwrap();
        assert_eq!(member.slot(), 2);
        assert_eq!(MemberId::from_u64(member.as_u64()), Ok(member));
        let next = MemberId::new(2, 0x1234_0000_0000_0000).unwrap();
        assert_ne!(member, next);
    }

    #[test]
    fn numbers_without_place_or_draw_are_refused() {
        assert!(MemberId::new(5, 8).is_err());
        assert!(MemberId::new(0, 7).is_err());
        assert!(MemberId::from_u64(0).is_err());
        assert!(MemberId::from_u64(u64::MAX).is_err());
    }
}
