//! One principal succeeds another: a user or owner changes the signing key.
//!
//! ```text
//!   old key signs ─┐
//!                  ├─ Succession { from: old, to: new, at } ─▶ Succeeded ─ verify ─▶ VerifiedSuccession
//!   new key signs ─┘
//! ```
//!
//! Always true of a [`VerifiedSuccession`]: both said the same, and they are two. The old one's
//! signature gives its place away; the new one's keeps anyone from being made heir to another's
//! grants, and duties, unasked.

use bield_envelope::{Principal, Signed, Statement, StatementError, Time, Verified};
use minicbor::{Decode, Encode};

/// Longest encoded statement in bytes: 81 are in use.
pub const SUCCESSION_BYTES_MAX: usize = 128;

/// "From then on, `to` stands where `from` stood" (`spec/04 §5`).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Succession {
    /// Who steps back.
    #[n(0)]
    pub from: Principal,
    /// Who takes the place.
    #[n(1)]
    pub to: Principal,
    /// First moment at which it holds.
    #[n(2)]
    pub at: Time,
}

impl Statement for Succession {
    const DOMAIN: &'static str = "bield succession v1";
    const BYTES_MAX: usize = SUCCESSION_BYTES_MAX;
}

/// One succession, signed by both; nobody has checked it yet.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Succeeded {
    /// Signed by the one who steps back.
    #[n(0)]
    pub by_old: Signed<Succession>,
    /// Signed by the one who takes the place.
    #[n(1)]
    pub by_new: Signed<Succession>,
}

impl Succeeded {
    /// Checks both signatures, and that both say the same of two different principals.
    ///
    /// # Errors
    /// [`SuccessionError`] says what does not fit. Trying again is useless.
    pub fn verify(self) -> Result<VerifiedSuccession, SuccessionError> {
        let by_old = self.by_old.verify_claimed()?;
        let by_new = self.by_new.verify_claimed()?;
        VerifiedSuccession::new(by_old, by_new)
    }
}

/// A succession that both sides signed. There is no other way to make one.
#[derive(Clone, Debug)]
pub struct VerifiedSuccession {
    by_old: Verified<Succession>,
    by_new: Verified<Succession>,
}

impl VerifiedSuccession {
    /// Puts the two signed halves together.
    ///
    /// # Errors
    /// As [`Succeeded::verify`].
    pub fn new(
        by_old: Verified<Succession>,
        by_new: Verified<Succession>,
    ) -> Result<Self, SuccessionError> {
        if *by_old != *by_new {
            return Err(SuccessionError::Differ);
        }
        if by_old.from == by_old.to {
            return Err(SuccessionError::Oneself);
        }
        if by_old.signer() != by_old.from || by_new.signer() != by_old.to {
            return Err(SuccessionError::OtherSigner);
        }
        Ok(Self { by_old, by_new })
    }

    /// Who stepped back.
    #[must_use]
    pub fn from(&self) -> Principal {
        self.by_old.from
    }

    /// Who took the place.
    #[must_use]
    pub fn to(&self) -> Principal {
        self.by_old.to
    }

    /// First moment at which it holds.
    #[must_use]
    pub fn at(&self) -> Time {
        self.by_old.at
    }

    /// The signed form, to keep and to pass on.
    #[must_use]
    pub fn to_succeeded(&self) -> Succeeded {
        Succeeded {
            by_old: self.by_old.as_signed().clone(),
            by_new: self.by_new.as_signed().clone(),
        }
    }
}

/// Why a succession was not believed; both principals sign it anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SuccessionError {
    /// A half does not verify.
    #[error("half of the succession does not verify: {0}")]
    Unsigned(#[from] StatementError),
    /// The halves say different things.
    #[error("the two halves of the succession differ; both principals must sign the same")]
    Differ,
    /// Somebody else signed.
    #[error("a succession is signed once by the old and once by the new principal")]
    OtherSigner,
    /// Nobody succeeds himself.
    #[error("a principal cannot succeed itself; name the new one")]
    Oneself,
}

#[cfg(test)]
mod tests {
    use bield_envelope::{SigningKey, wire};

    use super::*;
    use crate::cast::{NOON, user, user_key};

    fn said(from: u8, to: u8, by: &SigningKey) -> Signed<Succession> {
        let succession = Succession {
            from: user(from),
            to: user(to),
            at: NOON,
        };
        Signed::sign(by, succession).into_signed()
    }

    #[test]
    fn a_succession_needs_both_signatures_over_the_same() {
        let verify = |by_old, by_new| Succeeded { by_old, by_new }.verify();
        let (old, new, other) = (user_key(1), user_key(2), user_key(3));

        let good = verify(said(1, 2, &old), said(1, 2, &new)).unwrap();
        assert_eq!(
            (good.from(), good.to(), good.at()),
            (user(1), user(2), NOON)
        );
        let kept = wire::encode(&good.to_succeeded());
        let again: Succeeded = wire::decode(&kept, 4 * SUCCESSION_BYTES_MAX + 512).unwrap();
        assert!(again.verify().is_ok());

        let wrong = [
            (
                said(1, 2, &old),
                said(1, 2, &old),
                SuccessionError::OtherSigner,
            ),
            (
                said(1, 2, &new),
                said(1, 2, &new),
                SuccessionError::OtherSigner,
            ),
            (
                said(1, 2, &new),
                said(1, 2, &old),
                SuccessionError::OtherSigner,
            ),
            (
                said(1, 2, &other),
                said(1, 2, &new),
                SuccessionError::OtherSigner,
            ),
            (said(1, 2, &old), said(1, 3, &new), SuccessionError::Differ),
            (said(1, 1, &old), said(1, 1, &old), SuccessionError::Oneself),
        ];
        for (by_old, by_new, error) in wrong {
            assert_eq!(verify(by_old, by_new).err(), Some(error));
        }
    }

    #[test]
    fn an_altered_half_does_not_verify() {
        let mut bytes = said(1, 2, &user_key(1)).as_bytes().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        let altered = Succeeded {
            by_old: Signed::decode(&bytes).unwrap(),
            by_new: said(1, 2, &user_key(2)),
        };
        assert!(matches!(
            altered.verify(),
            Err(SuccessionError::Unsigned(_))
        ));
    }
}
