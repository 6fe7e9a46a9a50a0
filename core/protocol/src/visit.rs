//! What a connection through the door is for: its first byte.
//!
//! ```text
//! host ──connect, visit byte──▶ program
//!        Configure, Calls, Session, Status, Watch: served at once
//!        KeyService, Package, Storage, Member, Witness: kept until the program needs one
//! ```
//!
//! The host always connects and the enclave program only accepts, so the program needs no way to
//! reach out. What the program itself asks for (a pipe to the key service, a package, storage) the
//! host *offers* by connecting in advance; the program takes an offer when it needs one.
//!
//! Always true: a byte that names no visit is refused; an offer says nothing before the program does.
//! Left to others: what flows through a visit ([`storage`] for one kind; sealed or attested bytes for
//! the rest), and whom the host dials.

pub mod storage;

/// The purpose of one visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Visit {
    /// Host sends the measured configuration and half-closes; program answers one status line of
    /// UTF-8, `ok` or a sentence. The first visit after start, once.
    Configure,
    /// Host passes the memory of two rings as a file with this byte, once, and keeps the visit open for as long as
    /// there are calls: sealed requests go through one ring, [`call::Reply`](crate::call)s come through the other
    /// (`enclave/door/ring`).
    Calls,
    /// Bytes of an attested session that someone opened to this program.
    Session,
    /// Offer: a pipe to a key service. The program's first byte is the *number* of the address to dial
    /// among those the host was given, counted from 0 and taken modulo their count; it is not passed
    /// on. The bytes after it are carried both ways.
    KeyService,
    /// Offer: a package. Program writes its 32-byte digest; host answers a u64 (big-endian) length,
    /// 0 when unknown, and the bytes.
    Package,
    /// Program writes one [`status::Status`](crate::status::Status) and closes.
    Status,
    /// Offer: durable files, see [`storage`]. Stays open for as many operations as the program has.
    Storage,
    /// Host keeps this open as long as the program shall run. When it closes, the program finishes
    /// what it has begun (visits that are open stay so, if the host lives) and exits.
    Watch,
    /// Offer: a pipe to another member of this key service. The program's first byte is the member's
    /// slot, counted from 0; it is not passed on. The host closes the visit when it was given no
    /// address for that slot, or cannot reach it.
    Member,
    /// Offer: a pipe to a witness. The program's first byte is the witness's number in the order the
    /// host was given them, counted from 0; it is not passed on. The bytes after it are carried as
    /// they are: the program speaks HTTP/1.1 itself. The host closes the visit when there is no such
    /// witness, or it cannot be reached.
    Witness,
}

impl Visit {
    /// The visit a first byte announces.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Configure,
            1 => Self::Calls,
            2 => Self::Session,
            3 => Self::KeyService,
            4 => Self::Package,
            5 => Self::Status,
            6 => Self::Storage,
            7 => Self::Watch,
            8 => Self::Member,
            9 => Self::Witness,
            _ => return None,
        })
    }

    /// The byte that announces this visit.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Configure => 0,
            Self::Calls => 1,
            Self::Session => 2,
            Self::KeyService => 3,
            Self::Package => 4,
            Self::Status => 5,
            Self::Storage => 6,
            Self::Watch => 7,
            Self::Member => 8,
            Self::Witness => 9,
        }
    }
}

/// Most calls between a host and a program that are not answered yet; the host starts no more. A program lets in
/// far fewer and answers the others `busy` at once.
pub const CALLS_IN_FLIGHT_MAX: usize = 4096;
/// The most bytes of a measured configuration.
pub const CONFIGURATION_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_names_at_most_one_visit() {
        for byte in 0..=u8::MAX {
            if let Some(visit) = Visit::from_byte(byte) {
                assert_eq!(visit.byte(), byte);
            }
        }
    }
}
