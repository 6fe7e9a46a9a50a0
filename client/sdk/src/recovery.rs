//! Recovery by people: shares of a key that opens what the host keeps for the worst day.
//!
//! ```text
//! administrator: make ─▶ service ◀─ take: each holder, into its home
//! the worst day: an empty instance over the same files waits ◀─ give: threshold holders ─▶ it serves again
//! ```
//!
//! A service that waits for shares has no state, hence nothing to compare: [`RecoverySession`] can look at
//! it and give it a share, nothing else. Always true: a share leaves the home only inside an attested
//! session with code that the trust file names, and only when that says that it waits; the holder's
//! signature binds it to that session.

use bield_envelope::{Principal, SigningKey, Time};
use bield_protocol::service::{Inspection, Operation, Reply, Request, Share, ShareProgress};
use rand_core::CryptoRng;

use crate::service::{in_turn, inspect, nameless};
use crate::wire::{Demands, Wire};
use crate::{KeyService, ServiceError, Trust};

/// An attested session with an instance that may be waiting for shares.
pub struct RecoverySession {
    wire: Wire,
}

impl RecoverySession {
    /// Connects to the instance at `address`, or to the first of the trust file's members that answers.
    /// Which service it is cannot be asked for: until it is recovered it does not know itself.
    ///
    /// # Errors
    /// Nobody there, or code that does not pass.
    pub fn connect(
        trust: &Trust,
        address: Option<&str>,
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<Self, ServiceError> {
        let address = address.map(|address| vec![address.to_owned()]);
        let addresses = address.as_deref().unwrap_or(trust.key_services());
        let wire = in_turn(addresses, |address| {
            let demands = Demands {
                policy: trust.policy().clone(),
                roots: trust.roots().clone(),
                service: None,
            };
            let mut wire = Wire::open(address, demands, now, entropy)?;
            if wire.peer().appraised.is_none() {
                return Err(nameless(&mut wire));
            }
            Ok(wire)
        })?;
        Ok(Self { wire })
    }

    /// `host:port` of the instance.
    #[must_use]
    pub fn address(&self) -> &str {
        self.wire.address()
    }

    /// Whether it runs in a software TEE, which protects nothing.
    #[must_use]
    pub fn simulated(&self) -> bool {
        let appraised = self.wire.peer().appraised.as_ref();
        appraised.is_none_or(bield_evidence::Appraised::simulated)
    }

    /// How it is.
    ///
    /// # Errors
    /// The session broke, or it refuses.
    pub fn inspect(&mut self) -> Result<Inspection, ServiceError> {
        inspect(&mut self.wire)
    }

    /// Gives `holder`'s share, for recovery.
    ///
    /// # Errors
    /// [`ServiceError::NotRecovering`] before anything was sent; the session broke; or it refuses.
    pub fn give_share(
        &mut self,
        holder: &SigningKey,
        share: Share,
    ) -> Result<ShareProgress, ServiceError> {
        let state = self.inspect()?.state;
        if state != RECOVERING {
            let address = self.address().to_owned();
            return Err(ServiceError::NotRecovering { address, state });
        }
        give(&mut self.wire, holder, share, false)
    }
}

impl KeyService<'_> {
    /// The share of `holder`, of the newest generation. Keep it with
    /// [`Home::keep_share`](crate::Home::keep_share).
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn take_share(&mut self, holder: &SigningKey) -> Result<Share, ServiceError> {
        match self.question(holder, Operation::TakeShare)? {
            Reply::Share(share) => Ok(share),
            _ => Err(ServiceError::OtherAnswer),
        }
    }

    /// Gives `holder`'s share to the running service, which checks that those given open the recovery box
    /// and forgets them.
    ///
    /// # Errors
    /// The session broke, or the service refuses.
    pub fn rehearse_share(
        &mut self,
        holder: &SigningKey,
        share: Share,
    ) -> Result<ShareProgress, ServiceError> {
        give(&mut self.wire, holder, share, true)
    }
}

fn give(
    wire: &mut Wire,
    holder: &SigningKey,
    share: Share,
    rehearse: bool,
) -> Result<ShareProgress, ServiceError> {
    let operation = Operation::GiveShare {
        share: share.commitment(),
        rehearse,
    };
    let command = wire.command(holder, operation);
    match wire.exchange(&Request::GiveShare(command, share))? {
        Reply::ShareProgress(progress) => Ok(progress),
        _ => Err(ServiceError::OtherAnswer),
    }
}

/// Whether enough shares are there: what [`ShareProgress`] says, in words.
#[must_use]
pub fn missing_shares(progress: &ShareProgress) -> usize {
    let given: std::collections::BTreeSet<Principal> = progress.given.iter().copied().collect();
    usize::from(progress.needed).saturating_sub(given.len())
}

/// The state of an instance that waits for shares.
const RECOVERING: &str = "recovering";
