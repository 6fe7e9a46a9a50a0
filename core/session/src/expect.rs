//! Whom this side is ready to talk to, stated before the first byte.

use std::time::Duration;

use bield_envelope::Principal;
use bield_evidence::{Policy, Roots};

use crate::{Proof, Role};

/// One kind of peer that is welcome; whatever is not listed is refused.
pub enum Expect {
    /// An anonymous [`Role::Client`]: proves nothing here. For acceptors only.
    Client,
    /// A peer that proves its code.
    Attested(Box<ExpectAttested>),
}

impl Expect {
    /// A peer in `role`, its evidence validated by `roots` and accepted by `policy`.
    #[must_use]
    pub fn attested(
        role: Role,
        roots: Roots,
        policy: Policy,
        service: Option<Principal>,
        freshness: Freshness,
    ) -> Self {
        Self::Attested(Box::new(ExpectAttested {
            role,
            roots,
            policy,
            service,
            freshness,
        }))
    }

    /// The role this welcomes.
    #[must_use]
    pub const fn role(&self) -> Role {
        match self {
            Self::Client => Role::Client,
            Self::Attested(attested) => attested.role,
        }
    }

    /// The proof to ask for.
    pub(crate) const fn want(&self) -> Option<Proof> {
        match self {
            Self::Client => None,
            Self::Attested(attested) => Some(attested.freshness.proof()),
        }
    }
}

/// What an attested peer has to show.
pub struct ExpectAttested {
    /// The part it must play.
    pub role: Role,
    /// The roots that may have signed its evidence.
    pub roots: Roots,
    /// Which genuine evidence is good enough.
    pub policy: Policy,
    /// The key service it must be or belong to; `None` accepts any and reports which.
    pub service: Option<Principal>,
    /// How fresh its proof must be.
    pub freshness: Freshness,
}

/// How fresh a proof must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// A quote made for this very session.
    Fresh,
    /// Evidence of the peer's key at most `age_max` old (by the clock of the peer's host, which made
    /// the claim, and ours); a fresh quote is accepted too.
    Cached {
        /// Greatest age of the evidence.
        age_max: Duration,
    },
}

impl Freshness {
    const fn proof(self) -> Proof {
        match self {
            Self::Fresh => Proof::Fresh,
            Self::Cached { .. } => Proof::Cached,
        }
    }
}

/// How far into the future, by our clock, a peer's times may lie: clocks differ.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);
