//! The short form of a refusal: what the refused end is told before the connection closes.
//!
//! A code, and for a failed appraisal the names of the failed checks. Never what was found, never a
//! secret: the long form stays with the end that refused.

use core::fmt;

use minicbor::{Decode, Encode};

/// Why the other end was refused, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
#[non_exhaustive]
pub enum RefusalCode {
    /// A message that does not decode, does not fit, or comes out of turn.
    #[n(0)]
    Protocol,
    /// The role is not served here.
    #[n(1)]
    Role,
    /// The certificate is missing, malformed, expired or of another key.
    #[n(2)]
    Certificate,
    /// Belongs to another key service.
    #[n(3)]
    Service,
    /// The proof is not about this session.
    #[n(4)]
    Binding,
    /// The evidence is too old, or a fresh quote was asked for and not given.
    #[n(5)]
    Freshness,
    /// The evidence is not genuine.
    #[n(6)]
    Evidence,
    /// The evidence is genuine but the policy does not accept it.
    #[n(7)]
    Policy,
    /// This end could not make the evidence that was asked for.
    #[n(8)]
    Unable,
}

impl RefusalCode {
    /// A few words for people.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Protocol => "malformed or unexpected message",
            Self::Role => "role not served here",
            Self::Certificate => "certificate not acceptable",
            Self::Service => "belongs to another key service",
            Self::Binding => "proof is not about this session",
            Self::Freshness => "evidence not fresh enough",
            Self::Evidence => "evidence not genuine",
            Self::Policy => "evidence not accepted by the policy",
            Self::Unable => "the other end could not produce evidence",
        }
    }
}

/// What travels: a code and a few names.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RefusalNotice {
    /// Why.
    #[n(0)]
    pub code: RefusalCode,
    /// Names of failed checks, comma separated; may be empty.
    #[n(1)]
    pub detail: String,
}

impl RefusalNotice {
    /// Cuts `detail` to [`REFUSAL_DETAIL_BYTES_MAX`] printable ASCII characters.
    #[must_use]
    pub fn new(code: RefusalCode, detail: &str) -> Self {
        let printable = detail.chars().filter(|c| c.is_ascii_graphic() || *c == ' ');
        Self {
            code,
            detail: printable.take(REFUSAL_DETAIL_BYTES_MAX).collect(),
        }
    }
}

/// The refusal as received: text of a peer that may not have proved anything, made safe to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRefused(RefusalNotice);

impl PeerRefused {
    pub(crate) fn new(notice: &RefusalNotice) -> Self {
        Self(RefusalNotice::new(notice.code, &notice.detail))
    }

    /// Why.
    #[must_use]
    pub const fn code(&self) -> RefusalCode {
        self.0.code
    }

    /// Names of failed checks; may be empty.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }
}

impl fmt::Display for PeerRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.code.describe())?;
        if self.0.detail.is_empty() {
            Ok(())
        } else {
            write!(f, " ({})", self.0.detail)
        }
    }
}

/// Bytes of a refusal's detail: room for about twenty check names.
pub const REFUSAL_DETAIL_BYTES_MAX: usize = 400;
