//! Records that passed the verifier: the only ones that open.

use crate::{Config, Entries, Head, KeyRing, OpenError, Received, body};

/// A record that a [`crate::Verifier`] found right. There is no other way to make one.
#[derive(Debug)]
pub struct Verified {
    pub(super) record: Received,
    pub(super) signature_checked: bool,
    pub(super) folded: Option<Box<Folded>>,
}

/// What a config record makes of the configuration that it was judged against.
#[derive(Debug)]
pub(super) struct Folded {
    pub(super) before: Option<Head>,
    pub(super) after: Config,
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

            /// The record, where it may be stored, passed on, exported or acknowledged: its own signature
            /// was checked. Whoever got it with a ruined signature in a run has nothing to show to others.
            #[must_use]
            pub fn storable(&self) -> Option<&Received> {
                self.signature_checked.then_some(&self.record)
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
