//! What a connection through the door is for: its first byte.
//!
//! The host always connects and the enclave program only accepts, so the program needs no way to
//! reach out. What the program itself asks for (a pipe to the key service, a package, storage) the
//! host *offers* by connecting in advance; the program takes an offer when it needs one.

/// The purpose of one visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Visit {
    /// Host sends the measured configuration and half-closes; program answers one status line of
    /// UTF-8, `ok` or a sentence. The first visit after start, once.
    Configure,
    /// Host sends a sealed request and half-closes; program answers [`call::Reply`](crate::call).
    Call,
    /// Bytes of an attested session that someone opened to this program.
    Session,
    /// Offer: a pipe to the key service. The host dials when the program's first byte arrives.
    KeyService,
    /// Offer: a package. Program writes its 32-byte digest; host answers a u64 (big-endian) length,
    /// 0 when unknown, and the bytes.
    Package,
    /// Program writes one [`status::Status`](crate::status::Status) and closes.
    Status,
    /// Offer: one durable blob, see [`storage`].
    Storage,
    /// Host keeps this open as long as it lives; the program exits when it closes.
    Watch,
}

impl Visit {
    /// The visit a first byte announces.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Configure,
            1 => Self::Call,
            2 => Self::Session,
            3 => Self::KeyService,
            4 => Self::Package,
            5 => Self::Status,
            6 => Self::Storage,
            7 => Self::Watch,
            _ => return None,
        })
    }

    /// The byte that announces this visit.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Configure => 0,
            Self::Call => 1,
            Self::Session => 2,
            Self::KeyService => 3,
            Self::Package => 4,
            Self::Status => 5,
            Self::Storage => 6,
            Self::Watch => 7,
        }
    }
}

/// The storage visit: program writes one operation, host answers once, both close.
pub mod storage {
    /// Program's first byte: give me the blob. Answer: u64 (big-endian) length, [`NONE`] when there
    /// is none, and the bytes.
    pub const LOAD: u8 = 0;
    /// Program's first byte, then u64 (big-endian) length and the bytes: replace the blob. Answer:
    /// [`STORED`] once it is durable, [`FAILED`] otherwise.
    pub const STORE: u8 = 1;
    /// Length that stands for "there is no blob".
    pub const NONE: u64 = u64::MAX;
    /// The blob is durable.
    pub const STORED: u8 = 0;
    /// The blob could not be made durable; the previous one still stands.
    pub const FAILED: u8 = 1;
    /// The most bytes of the blob.
    pub const BYTES_MAX: u64 = 256 << 20;
}

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
