//! Records that passed the verifier: the only ones that open.

use crate::{Entries, KeyRing, OpenError, Received, body};

/// A record that a [`crate::Verifier`] found right. There is no other way to make one.
#[derive(Debug)]
pub struct Verified {
    pub(super) record: Received,
    pub(super) signature_checked: bool,
}

/// A verified record that a [`crate::Verifier`] took into account. There is no other way to make one.
#[derive(Debug)]
pub struct Applied {
    pub(super) record: Received,
    pub(super) signature_checked: bool,
}

macro_rules! verified_record {
    ($name:ident) => {
        impl $name {
            /// The record.
            #[must_use]
            pub const fn record(&self) -> &Received {
                &self.record
            }

            /// Gives up the proof of verification.
            #[must_use]
            pub fn into_record(self) -> Received {
                self.record
            }

            /// Whether the record's own signature was checked; else a later one covers it by hash.
            #[must_use]
            pub const fn signature_checked(&self) -> bool {
                self.signature_checked
            }

            /// Opens the body of a data record.
            ///
            /// # Errors
            /// The key ring has no key for it, or the writer sealed it wrongly.
            pub fn open(&self, keys: &KeyRing) -> Result<Entries, OpenError> {
                body::open_with(&self.record, keys)
            }
        }
    };
}

verified_record!(Verified);
verified_record!(Applied);
