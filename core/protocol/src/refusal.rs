//! "No", in a form that a program can act on and a person can read.

use core::fmt;

use minicbor::{Decode, Encode};

/// Whether the same message may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum Retry {
    /// Not with this message.
    #[n(0)]
    Never,
    /// As it is, after about this many milliseconds.
    #[n(1)]
    After(#[n(0)] u64),
    /// After somebody changed something; the message says who and what.
    #[n(2)]
    AfterChange,
    /// Now, but made anew: sealed again with the current key configuration, clock and a new id.
    #[n(3)]
    Anew,
}

/// A typed refusal. Travels sealed or inside an attested session, so it may say why in full.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Refusal {
    /// Stable short name, for programs: `not-granted`, `other-code`, …
    #[n(0)]
    pub code: String,
    /// One sentence: what happened, whose move it is.
    #[n(1)]
    pub message: String,
    /// Whether to try again.
    #[n(2)]
    pub retry: Retry,
}

impl Refusal {
    /// Makes a refusal; text beyond [`REFUSAL_TEXT_BYTES_MAX`] is cut at a character boundary.
    #[must_use]
    pub fn new(code: &str, message: impl fmt::Display, retry: Retry) -> Self {
        let mut message = message.to_string();
        if message.len() > REFUSAL_TEXT_BYTES_MAX {
            let end = (0..=REFUSAL_TEXT_BYTES_MAX)
                .rev()
                .find(|at| message.is_char_boundary(*at));
            message.truncate(end.unwrap_or(0));
        }
        Self {
            code: code.to_owned(),
            message,
            retry,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused ({}): {}", self.code, self.message)
    }
}

impl core::error::Error for Refusal {}

/// The form of an admission's refusal that the refused one may read: whom else the owner granted is
/// the owner's business.
impl From<&bield_grant::Refused> for Refusal {
    fn from(refused: &bield_grant::Refused) -> Self {
        use bield_grant::Refused::UserNotGranted;
        if let UserNotGranted {
            user,
            package,
            code,
            ..
        } = refused
        {
            let message = format!(
                "user {user} has no grant for package {package} in code {code}; \
                 the package's owner can grant this user"
            );
            return Self::new(refused.code(), message, Retry::AfterChange);
        }
        let retry = match refused.retry() {
            bield_grant::Retry::No => Retry::AfterChange,
            bield_grant::Retry::After(wait) => {
                Retry::After(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
            }
            bield_grant::Retry::Anew => Retry::Anew,
        };
        Self::new(refused.code(), refused, retry)
    }
}

/// The most bytes of a refusal's sentence: long lists of grants are cut.
pub const REFUSAL_TEXT_BYTES_MAX: usize = 4096;
